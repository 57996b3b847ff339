"""Downloads the public weight files that a config needs, from where their owners publish them.

  python -m hybrid_jax.download --config=configs/pretrain.py
  python -m hybrid_jax.download --config=configs/pretrain.py --accept-terms
  python -m hybrid_jax.download --file=yunet=weights/face_detection_yunet.onnx

Prints the source and terms of each file first. Files whose terms exclude commercial use need
--accept-terms. Files that are there are kept; a download that was stopped goes on where it ended.
Sizes and SHA-256 are compared where the owner states them. Files on Google Drive need gdown:
pip install -e '.[download]'.
"""

import functools
import os
import sys

from absl import app, flags

from hybrid_jax import cli
from hybrid_jax.errors import InputError

_CONFIG, _ = cli.define_config()
flags.adopt_module_key_flags(cli)  # lists them in --help
_FILES = flags.DEFINE_multi_string(
  'file', [], 'KIND=PATH: a file to download, and where to; instead of --config, and repeatable.'
)
_ACCEPT = flags.DEFINE_bool('accept-terms', False, 'The printed terms have been read and accepted.')


def wanted() -> dict[str, str]:
  """{key in `public.DOWNLOADS`: path} of --config and --file."""
  from hybrid_jax.weights import public

  paths = public.paths_of(_CONFIG.value) if _CONFIG.value else {}
  for text in _FILES.value:
    name, _, path = text.partition('=')
    if name not in public.DOWNLOADS or not path:
      raise InputError(f'--file={text}: KIND=PATH, KIND one of {", ".join(public.DOWNLOADS)}')
    paths[name] = path
  return paths


def main(argv: list[str]) -> None:
  """Downloads the files of --config and --file."""
  del argv  # cli.parse_flags has refused positional arguments
  with cli.running('stopped: run the command again to go on', shared_heap=False):
    from hybrid_jax.weights import fetch, public

    paths = wanted()
    if not paths:
      print('nothing to download: give --config, whose weights are files, or --file=KIND=PATH')
      return
    for name, path in paths.items():
      file = public.DOWNLOADS[name]
      print(f'{path}: {file.what}, {file.url}; terms: {file.terms} ({file.origin})')
    if not _ACCEPT.value:
      public.require_acceptance([name for name, path in paths.items() if not os.path.exists(path)])
    failed = 0
    progress = functools.partial(cli.progress, unit='MiB')
    for name, path in paths.items():
      # One file that cannot be had does not keep the others back.
      try:
        new = fetch.fetch(public.DOWNLOADS[name], path, progress)
        print(f'{path}: {"downloaded" if new else "is there"}', flush=True)
      except InputError as error:
        print(f'error: {error}', file=sys.stderr, flush=True)
        failed += 1
  if failed:
    sys.exit(f'error: {failed} of {len(paths)} files were not downloaded')


if __name__ == '__main__':
  parser = functools.partial(cli.parse_flags, _CONFIG)
  cli.command(lambda: app.run(main, flags_parser=parser))
