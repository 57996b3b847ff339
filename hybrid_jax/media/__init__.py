"""Pictures, clips and faces in and out; knows no network.

Conventions of the wing: a picture is (h, w, 3) uint8 RGB in full range, upright, with square
pixels. Times are exact `fractions.Fraction` seconds on the clock of the file, which need not begin
at 0. Boxes are (x, y, w, h) in pixels, x to the right and y down from the top left corner. What a
user can put right is raised as `MediaError`; files appear under their names only once complete.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterable, Iterator

from hybrid_jax.errors import InputError


class MediaError(InputError):
  """One line that says what is wrong, with which file, and what to do."""


def reason(error: BaseException) -> str:
  """What a library complains about, cut to one line."""
  own = getattr(error, 'strerror', None) or getattr(error, 'err', None)  # of FFmpeg, of OpenCV
  text = own or str(error) or type(error).__name__
  return ' '.join(str(text).split())[:200]


def refuse_overwriting(written: Iterable[str], given: Iterable[str]) -> None:
  """Raises MediaError where a file that will be written is one that is read."""
  known = {pathlib.Path(name).resolve() for name in given if name}
  for name in filter(None, written):
    if pathlib.Path(name).resolve() in known:
      raise MediaError(f'{name}: is an input, and would be overwritten; take another name')


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Gives a temporary path beside `path` that takes its name when the block ends cleanly.

  When the block raises, the temporary file is removed and an existing `path` stays as it was. The
  suffix is kept, since encoders choose the format by it.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    raise MediaError(f'{path}: is a folder; give the name of a file')
  if not path.parent.is_dir():
    raise MediaError(f'{path}: the folder {path.parent} does not exist; make it first')
  part = path.with_name(f'.{path.stem}.{os.getpid()}.part{path.suffix}')
  try:
    yield part
    try:
      os.replace(part, path)
    except OSError as error:
      raise MediaError(f'{path}: cannot be written ({reason(error)})') from error
  finally:
    part.unlink(missing_ok=True)
