"""Clips in the forms in which methods leave them: a video, a folder of pictures, an array.

A clip has a name, that of its file without suffix or of its folder.
"""

import csv
import hashlib
import itertools
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from hybrid_jax.media import MediaError, reason, stills, video
from hybrid_jax.media.video import Frame

VIDEOS = ('.mp4', '.m4v', '.mov', '.mkv', '.webm', '.avi', '.mpg', '.ts', '.gif')
PICTURES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff')
TIMES = 'timestamps.csv'  # columns `file` and `exact` (or `seconds`), as re-enactment writes it


def find(folder: str | os.PathLike, *, stills_too: bool = False) -> dict[str, pathlib.Path]:
  """Clips by name, in order of their names: videos, .npy arrays and subfolders of pictures.

  `stills_too` takes single pictures as well, as portraits are.

  Raises:
    MediaError: no such folder, no clip in it, or two of one name.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise MediaError(f'{folder}: no such folder of videos')
  suffixes = (*VIDEOS, '.npy', *(PICTURES if stills_too else ()))
  found: dict[str, pathlib.Path] = {}
  for path in sorted(folder.iterdir()):
    if path.name.startswith('.'):
      continue
    if path.is_dir():
      fits = bool(_pictures(path))
    else:
      fits = path.suffix.lower() in suffixes
    name = name_of(path)
    if fits and name in found:
      raise MediaError(f'{folder}: {found[name].name} and {path.name} have one name; remove one')
    if fits:
      found[name] = path
  if not found:
    raise MediaError(f'{folder}: holds no videos, folders of pictures or .npy arrays')
  return found


def name_of(path: pathlib.Path) -> str:
  """Of a clip: that of its folder, dots and all, or of its file without suffix."""
  return path.name if path.is_dir() else path.stem


def read(path: pathlib.Path) -> Iterator[Frame]:
  """The frames of a clip, (h, w, 3) uint8.

  An array is (t, h, w, 3), uint8 or real numbers in [0, 1]. Of its frames that are not finite `rgb`
  is None. Of arrays, and of folders without `timestamps.csv`, `time` is None: they know none. Of
  such folders the pictures are taken in the order of the numbers in their names (2 before 10), and
  where all names are alike but for a number at their end, it is the frame's `number`.

  Raises:
    MediaError: the clip cannot be read, or breaks off; a single picture counts as one frame.
  """
  if path.is_dir():
    yield from _folder(path)
  elif path.suffix.lower() == '.npy':
    yield from _array(path)
  elif path.suffix.lower() in PICTURES:
    yield Frame(stills.read_image(path), None)
  else:
    yield from video.read_frames(path)


def digest(path: pathlib.Path) -> str:
  """SHA-256 of a file; of a folder, that of the names and digests of all files in it."""
  if path.is_dir():
    files = ((p.relative_to(path).as_posix(), p) for p in sorted(path.rglob('*')) if p.is_file())
    listed = ''.join(f'{name} {digest(p)}\n' for name, p in files)
    return hashlib.sha256(listed.encode()).hexdigest()
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _pictures(folder: pathlib.Path) -> list[pathlib.Path]:
  """In natural order: runs of digits count as numbers."""
  runs = lambda name: [(text, int(x or 0)) for text, x in re.findall(r'(\D*)(\d*)', name)]  # noqa: E731
  found = (p for p in folder.iterdir() if p.suffix.lower() in PICTURES)
  return sorted(found, key=lambda p: (runs(p.name), p.name))


def _numbers(pictures: Sequence[pathlib.Path]) -> list[int | None]:
  """What their names end in, if that alone tells them apart; otherwise None of each."""
  ends = [re.fullmatch(r'(.*?)(\d+)', path.stem) for path in pictures]
  if all(ends) and len({end[1] for end in ends}) == 1:
    numbers = [int(end[2]) for end in ends]
    if len(set(numbers)) == len(numbers):
      return numbers
  return [None] * len(pictures)


def _folder(folder: pathlib.Path) -> Iterator[Frame]:
  if not (folder / TIMES).is_file():
    pictures = _pictures(folder)
    for path, number in zip(pictures, _numbers(pictures), strict=True):
      yield Frame(stills.read_image(path), None, number)
    return
  try:
    with open(folder / TIMES, newline='') as file:
      rows = [
        (row['file'], Fraction(row.get('exact') or row['seconds'])) for row in csv.DictReader(file)
      ]
  except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
    raise MediaError(f'{folder / TIMES}: no times can be read ({reason(error)})') from error
  for (_, before), (name, after) in itertools.pairwise(rows):
    if after <= before:
      raise MediaError(
        f'{folder / TIMES}: {name} is shown at {float(after):g} s and the frame before it at '
        f'{float(before):g} s; times must increase'
      )
  for name, time in rows:
    yield Frame(stills.read_image(folder / pathlib.PurePath(name).name), time)


def _array(path: pathlib.Path) -> Iterator[Frame]:
  try:
    frames = np.load(path, mmap_mode='r', allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    raise MediaError(f'{path}: no array can be read ({reason(error)}); write it anew') from error
  if not isinstance(frames, np.ndarray):
    raise MediaError(f'{path}: an archive of arrays (.npz); write its frames as one .npy')
  real = frames.dtype.kind == 'f'
  if (
    frames.ndim != 4
    or frames.shape[-1] != 3
    or not (frames.size and (real or frames.dtype == np.uint8))
  ):
    raise MediaError(
      f'{path}: {frames.dtype} {frames.shape}; frames are (t, h, w, 3), uint8 or reals in [0, 1]'
    )
  for frame in frames:
    x = np.asarray(frame)
    if real and not np.isfinite(x).all():
      yield Frame(None, None)
      continue
    if real and (x.min() < 0 or x.max() > 1):
      raise MediaError(f'{path}: values from {x.min():.3g} to {x.max():.3g}; reals are in [0, 1]')
    yield Frame(np.round(x * 255).astype(np.uint8) if real else x, None)
