"""Writes and reads folders of converted weights: `manifest.json`, and an Orbax tree in `weights/`.

The manifest describes the arrays: kind, sizes of each part, the public file with its SHA-256, key
counts, terms, and the version of this package.
"""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from hybrid_jax.errors import InputError
from hybrid_jax.media import reason
from hybrid_jax.weights import conversion

MANIFEST, WEIGHTS = 'manifest.json', 'weights'
FORMAT = 1  # raise it when folders of earlier versions can no longer be read


def is_converted(path: str | os.PathLike) -> bool:
  """Whether `path` is a folder of converted weights."""
  return (pathlib.Path(path) / MANIFEST).is_file()


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Gives a temporary folder beside `path` that takes its name when the block ends cleanly.

  Raises:
    InputError: the path exists already, or the folder cannot be written.
  """
  path = pathlib.Path(path).absolute()
  if os.path.lexists(path):
    raise InputError(f'{path}: exists already; give another --output, or remove it')
  # Beside it, and not in a temporary folder: a rename is only atomic within one file system.
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
  """Writes a tree of arrays and its manifest into an empty folder."""
  with _checkpointer() as checkpointer:
    checkpointer.save(folder / WEIGHTS, tree)
  (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')


def read_manifest(path: str | os.PathLike) -> dict:
  """The manifest of a converted folder.

  Raises:
    InputError: the manifest is missing or damaged, or of another format.
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
  conversion.require_parts(str(path), f'converted {manifest["kind"]}', manifest['parts'], needed)
  try:
    with _checkpointer() as checkpointer:
      # Without a target tree: the sizes come from the folder, and `load` compares them.
      tree = checkpointer.restore(pathlib.Path(path).absolute() / WEIGHTS)
  except (OSError, ValueError, KeyError) as error:  # Orbax has no errors of its own for these
    raise InputError(f'{path}: damaged ({reason(error)}); convert the file again') from error
  if 'generator' in tree:  # Orbax restores tuples as lists, which jit takes for another structure
    tree['generator']['noise_const'] = tuple(tree['generator']['noise_const'])
  return manifest, tree


def _checkpointer() -> Any:
  # Imported here: most commands read no such folder, and Orbax is a third of their imports.
  import orbax.checkpoint as ocp

  # Weights hardly compress, and one file for each array is written in a third of the time.
  return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_compression=False))
