"""Folders of converted weights: `manifest.json`, and an Orbax tree in `weights/`.

The manifest says what the arrays are: kind, sizes of each part, the file they come from with its
SHA-256, key counts, terms, and the version that wrote it.
"""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping

import orbax.checkpoint as ocp

from hybrid_jax.errors import InputError
from hybrid_jax.media import reason

MANIFEST, WEIGHTS = 'manifest.json', 'weights'
FORMAT = 1


def is_converted(path: str | os.PathLike) -> bool:
  return (pathlib.Path(path) / MANIFEST).is_file()


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Gives a temporary folder beside `path` that takes its name when the block ends cleanly.

  Raises:
    InputError: something is there already, or the folder cannot be made.
  """
  path = pathlib.Path(path).absolute()
  if os.path.lexists(path):
    raise InputError(f'{path}: exists already; give another --output, or remove it')
  part = path.with_name(f'.{path.name}.{os.getpid()}.part')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    part.mkdir()
    yield part
    part.rename(path)
  except OSError as error:
    raise InputError(f'{path}: cannot be written ({reason(error)})') from error
  finally:
    shutil.rmtree(part, ignore_errors=True)


def write(folder: pathlib.Path, tree: Mapping, manifest: Mapping) -> None:
  """Writes both into an empty folder."""
  with _checkpointer() as checkpointer:
    checkpointer.save(folder / WEIGHTS, tree)
  (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')


def read_manifest(path: str | os.PathLike) -> dict:
  """The manifest of a converted folder.

  Raises:
    InputError: it is missing or damaged, or of a later version.
  """
  try:
    manifest = json.loads((pathlib.Path(path) / MANIFEST).read_text())
    if manifest['format'] != FORMAT or not {'kind', 'parts', 'source'} <= set(manifest):
      raise ValueError(f'format {manifest["format"]!r}, not {FORMAT}')
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(
      f'{path}: no converted weights, or damaged ({reason(error)}); convert the file again'
    ) from error
  return manifest


def read(path: str | os.PathLike, *needed: str) -> tuple[dict, dict]:
  """(manifest, tree by part) of a converted folder.

  Raises:
    InputError: it is damaged, or lacks one of the `needed` parts.
  """
  manifest = read_manifest(path)
  lacking = [part for part in needed if part not in manifest['parts']]
  if lacking:
    raise InputError(
      f'{path}: converted {manifest["kind"]} weights, which hold {", ".join(manifest["parts"])} '
      f'and no {lacking[0]}'
    )
  try:
    with _checkpointer() as checkpointer:
      tree = checkpointer.restore(pathlib.Path(path).absolute() / WEIGHTS)
  except (OSError, ValueError, KeyError) as error:  # Orbax has no errors of its own for these
    raise InputError(f'{path}: damaged ({reason(error)}); convert the file again') from error
  if 'generator' in tree:
    tree['generator']['noise_const'] = tuple(tree['generator']['noise_const'])
  return manifest, tree


def _checkpointer() -> ocp.Checkpointer:
  # Weights hardly compress, and a file for each array is written in a third of the time.
  return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_compression=False))
