"""Converts a public weight file to a folder of our arrays and a manifest; see `folders`."""

import os
import pathlib

import jax

from hybrid_jax import __version__, environment
from hybrid_jax.errors import InputError
from hybrid_jax.weights import checks, files, folders, public, public_formats
from hybrid_jax.weights.conversion import Conversion


def convert(path: str, output: str, kind: str = 'auto', verify: bool = False) -> dict:
  """Converts the file at `path` into the new folder `output`; returns its manifest.

  Args:
    kind: a key of `public_formats.KINDS`, or 'auto' to recognise it by the contents.
    verify: adds the results of `checks.run` to the manifest, and samples.png to the folder.

  Raises:
    InputError: the file is missing, damaged, hostile or of another kind, a tensor has no place or
      another shape, or `output` exists. Nothing is left behind then.
  """
  if pathlib.Path(output).exists():  # before a long read; `new_folder` checks again
    raise InputError(f'{output}: exists already; give another --output, or remove it')
  content = files.read(path)
  if kind == 'auto':
    kind = public_formats.recognise(content, path)
  tensors = public_formats.count_tensors(content)
  result = public_formats.convert(content, path, kind)
  del content  # so that file and tree are not both in memory while the tree is written
  manifest = _manifest(path, kind, result, tensors)
  with folders.new_folder(output) as folder:
    # A failed check is reported and does not stop the conversion: bounds are ours, and samples.png
    # lets the user judge.
    if verify:
      manifest['checks'] = checks.run(result, folder)
    folders.write(folder, result.parts, manifest)
  return manifest


def _manifest(path: str | os.PathLike, kind: str, result: Conversion, tensors: int) -> dict:
  """Source, sizes, terms and counts; `tensors` is the number of tensors in the file."""
  leaves = jax.tree.leaves(result.parts)
  used = len(leaves) - result.zeros
  return {
    'format': folders.FORMAT,
    'kind': kind,
    'source': {
      'name': pathlib.Path(path).name,
      'bytes': pathlib.Path(path).stat().st_size,
      'sha256': environment.sha256(path),  # of the file as published, to recognise it again
    },
    'resolution': result.sizes.get('generator', {}).get('resolution'),
    'parts': result.sizes,
    # Every tensor of the file is in 'used' or 'not_needed': none is lost without a count.
    'keys': {
      'in_file': tensors,
      'used': used,
      'not_needed': tensors - used,
      'left_out': list(result.left_out),
      'zeros': result.zeros,  # noise maps that the file does not hold
    },
    'numbers': sum(x.size for x in leaves),
    'licence': public.FILES[kind].terms,
    'tool': f'hybrid_jax {__version__}',
  }


def summary(manifest: dict, output: str) -> str:
  """Lines that report a conversion: what was used of the file, its terms, and each check."""
  keys, checks_run = manifest['keys'], manifest.get('checks', ())
  first = (
    f'{output}: {manifest["kind"]}, {", ".join(manifest["parts"])}: {keys["used"]} of '
    f'{keys["in_file"]} tensors used, {keys["not_needed"]} not needed; {manifest["licence"]}'
  )
  marks = (f'{"ok  " if x["ok"] else "FAIL"} {x["name"]}: {x["found"]}' for x in checks_run)
  return '\n'.join((first, *marks))


def require_checks(manifest: dict, path: str) -> None:
  """Raises InputError if a check of the converted file failed."""
  failed = [check for check in manifest.get('checks', ()) if not check['ok']]
  if failed:
    first = failed[0]
    raise InputError(
      f'{path}: converted, but {len(failed)} checks failed, first {first["name"]} '
      f'({first["found"]}, expected {first["expected"]})'
    )
