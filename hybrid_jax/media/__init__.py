"""Reads and writes pictures and clips, finds and follows faces; uses no network of the model.

Conventions of the wing: a picture is (h, w, 3) uint8 RGB in full range, upright, with square
pixels. Times are exact `fractions.Fraction` seconds on the clock of the file, which need not begin
at 0. Boxes are (x, y, w, h) in pixels, x to the right and y down from the top left corner. Errors
that a user can correct are raised as `MediaError`. A file gets its name only once it is complete.
"""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from hybrid_jax.errors import InputError

_NAME_BYTES = 255  # the longest name of a file, on Linux


class MediaError(InputError):
  """An error with a message of one line: the file, what is wrong, and what to do."""


def reason(error: BaseException) -> str:
  """Returns the message of a library's exception as one line of at most 200 characters."""
  # FFmpeg's and OpenCV's `str` add the file name and source line; these attributes do not.
  short = getattr(error, 'strerror', None) or getattr(error, 'err', None)
  text = short or str(error) or type(error).__name__
  return ' '.join(str(text).split())[:200]


def is_remote(path: str | os.PathLike) -> bool:
  """Whether a path is in an object store, such as gs://bucket/folder."""
  return '://' in os.fspath(path)


def exists(path: Any) -> bool:
  """Whether an `epath.Path` exists.

  Raises:
    MediaError: it is in an object store that cannot be reached.
  """
  try:
    return path.exists()
  # The stores' libraries raise errors of their own, which share no class.
  except Exception as error:
    if not is_remote(path):
      raise
    raise MediaError(f'{path}: cannot be reached ({reason(error)})') from error


def refuse_overwriting(written: Iterable[str], given: Iterable[str]) -> None:
  """Raises MediaError if a file to be `written` is one of the files `given` as inputs."""
  inputs = {pathlib.Path(name).resolve() for name in given if name}
  for name in filter(None, written):
    if pathlib.Path(name).resolve() in inputs:
      raise MediaError(f'{name}: is an input, and would be overwritten; take another name')


def refuse_target(path: str | os.PathLike) -> None:
  """Raises MediaError if `replacing` cannot write `path`: to be called before any work."""
  path = pathlib.Path(path)
  folder = path.absolute().parent
  # `os.path`, since pathlib raises for a name that is too long.
  if os.path.isdir(path):
    raise MediaError(f'{path}: is a folder; give the name of a file')
  if not os.path.isdir(folder):
    raise MediaError(f'{path}: the folder {folder} does not exist; make it first')
  if not os.access(folder, os.W_OK):
    raise MediaError(f'{path}: the folder {folder} cannot be written; give another')
  # In bytes, which file systems count; the temporary name is the longer one.
  over = len(os.fsencode(_part(path).name)) - _NAME_BYTES
  if over > 0:
    raise MediaError(f'{path}: its name is too long; shorten it by {over} bytes')


def _part(path: pathlib.Path) -> pathlib.Path:
  """Returns the temporary path of `path`."""
  # In the same folder, since a rename is atomic only within one file system; hidden, so that a
  # reader of the folder does not take it for a result.
  return path.with_name(f'.{path.stem}.{os.getpid()}.part{path.suffix}')


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Yields a temporary path beside `path` and renames it to `path` when the block succeeds.

  If the block raises, the temporary file is removed and an existing `path` is not changed. The
  suffix is kept, because encoders choose the format by it. An object store has no rename, but
  writes objects whole: there the temporary file is on this machine, and is uploaded.

  Raises:
    MediaError: see `refuse_target`; or the file cannot be renamed or uploaded.
  """
  if is_remote(path):
    with _uploading(path) as part:
      yield part
    return
  path = pathlib.Path(path)
  # Checked first, so that an hour of rendering does not end in a file that cannot be renamed.
  refuse_target(path)
  part = _part(path)
  try:
    yield part
    try:
      os.replace(part, path)
    except OSError as error:
      raise MediaError(f'{path}: cannot be written ({reason(error)})') from error
  finally:
    # After a rename it no longer exists.
    part.unlink(missing_ok=True)


@contextlib.contextmanager
def _uploading(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """The form of `replacing` for object stores."""
  from etils import epath  # takes half a second to import

  target = epath.Path(path)
  with tempfile.TemporaryDirectory() as folder:
    part = pathlib.Path(folder) / target.name
    yield part
    try:
      target.write_bytes(part.read_bytes())
    except Exception as error:  # see `exists`
      raise MediaError(f'{target}: cannot be written ({reason(error)})') from error
