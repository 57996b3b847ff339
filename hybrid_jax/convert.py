"""Converts a public weight file to a folder that `config.weights` takes.

  python -m hybrid_jax.convert FILE --output DIR
  python -m hybrid_jax.convert e4e e4e_ffhq_encode.pt --output weights/e4e --verify

Reads PyTorch's formats (also of TorchScript and NVlabs' pickles), safetensors and .npy, without
PyTorch and without running anything a file contains. The kind is told by the contents unless it is
named. Every tensor must have its place: else nothing is written and the tensors are named. DIR gets
manifest.json and an Orbax tree; with --verify also samples.png where there is something to draw.
"""

import argparse
import pathlib
import sys

from hybrid_jax import __version__
from hybrid_jax.errors import InputError


def convert(path: str, output: str, kind: str = 'auto', verify: bool = False) -> dict:
  """Converts the file at `path` into the new folder `output`; returns its manifest.

  Raises:
    InputError: the file is missing, damaged, hostile or of another kind, a tensor has no place or
      another shape, or `output` exists. Nothing is left behind then.
  """
  import jax

  from hybrid_jax.weights import checks, files, folders, public, public_formats

  if pathlib.Path(output).exists():  # told before a long read
    raise InputError(f'{output}: exists already; give another --output, or remove it')
  content = files.read(path)
  if kind == 'auto':
    kind = public_formats.recognise(content, path)
  entry = public_formats.KINDS[kind]
  count = public_formats.arrays(content)
  made = entry.convert(content, f'{entry.what} {path}')
  del content  # so that file and tree are not both held while the tree is written
  leaves = jax.tree.leaves(made.parts)
  used = len(leaves) - made.invented
  manifest = {
    'format': folders.FORMAT,
    'kind': kind,
    'source': {
      'name': pathlib.Path(path).name,
      'bytes': pathlib.Path(path).stat().st_size,
      'sha256': files.sha256(path),
    },
    'resolution': made.sizes.get('generator', {}).get('resolution'),
    'parts': made.sizes,
    'keys': {
      'in_file': count,
      'used': used,
      'not_needed': count - used,
      'left_out': list(made.dropped),
      'zeros': made.invented,  # noise maps that the file does not hold
    },
    'numbers': sum(x.size for x in leaves),
    'licence': public.FILES[kind].terms,
    'tool': f'hybrid_jax {__version__}',
  }
  del leaves
  with folders.new_folder(output) as part:
    if verify:
      manifest['checks'] = checks.run(made, part)
    folders.write(part, made.parts, manifest)
  return manifest


def main(argv: list[str] | None = None) -> None:
  from absl import logging

  from hybrid_jax.weights import public_formats

  logging.set_verbosity(logging.ERROR)  # Orbax has a dozen lines for each folder otherwise
  parser = argparse.ArgumentParser('hybrid_jax.convert', description=__doc__.split('\n')[0])
  parser.add_argument('kind', nargs='?', default='auto', choices=['auto', *public_formats.KINDS])
  parser.add_argument('file', metavar='FILE')
  parser.add_argument('--output', required=True, metavar='DIR', help='must not exist yet')
  parser.add_argument('--verify', action='store_true', help='check invariants; draw samples.png')
  options = parser.parse_args(argv)
  try:
    manifest = convert(options.file, options.output, options.kind, options.verify)
  except InputError as error:
    sys.exit(f'error: {error}')
  keys = manifest['keys']
  print(
    f'{options.output}: {manifest["kind"]}, {", ".join(manifest["parts"])}: {keys["used"]} of '
    f'{keys["in_file"]} tensors used, {keys["not_needed"]} not needed; {manifest["licence"]}'
  )
  failed = [check for check in manifest.get('checks', ()) if not check['ok']]
  for check in manifest.get('checks', ()):
    print(f'{"ok  " if check["ok"] else "FAIL"} {check["name"]}: {check["found"]}')
  if failed:
    sys.exit(
      f'error: {options.file}: converted, but {len(failed)} checks failed, first '
      f'{failed[0]["name"]} ({failed[0]["found"]}, expected {failed[0]["expected"]})'
    )


if __name__ == '__main__':
  main()
