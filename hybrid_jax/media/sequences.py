"""Reads a clip from any form in which a method writes it: video, folder of pictures, or array.

The name of a clip is that of its file without suffix, or of its folder.
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

from hybrid_jax import environment
from hybrid_jax.media import MediaError, reason, stills, video
from hybrid_jax.media.video import Frame

VIDEOS = (*video.SUFFIXES, '.gif')
PICTURES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff', '.heic', '.heif', '.avif')
# Read in preference to the names of the pictures; its rows need not have a constant rate.
TIMES = 'timestamps.csv'  # columns `file` and `exact` (or `seconds`), as re-enactment writes it


def find(folder: str | os.PathLike, *, stills_too: bool = False) -> dict[str, pathlib.Path]:
  """Returns the clips in a folder by name, sorted: videos, .npy arrays, subfolders of pictures.

  Args:
    stills_too: single pictures, such as portraits, count as clips.

  Raises:
    MediaError: no such folder, no clip in it, or two clips of one name.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise MediaError(f'{folder}: no such folder of videos')
  suffixes = (*VIDEOS, '.npy', *(PICTURES if stills_too else ()))
  found: dict[str, pathlib.Path] = {}
  for path in sorted(folder.iterdir()):
    # Among them the temporary files of `media.replacing`.
    if path.name.startswith('.'):
      continue
    if path.is_dir():
      fits = bool(_pictures(path))
    else:
      fits = path.suffix.lower() in suffixes
    name = name_of(path)
    # a.mp4 and a.npy, for example: the name is what pairs clips, and must be unique.
    if fits and name in found:
      raise MediaError(f'{folder}: {found[name].name} and {path.name} have one name; remove one')
    if fits:
      found[name] = path
  if not found:
    raise MediaError(f'{folder}: holds no videos, folders of pictures or .npy arrays')
  return found


def name_of(path: pathlib.Path) -> str:
  """Returns the name of a clip: that of its folder, with any dots, or of its file, no suffix."""
  return path.name if path.is_dir() else path.stem


def read(path: pathlib.Path) -> Iterator[Frame]:
  """Yields the frames of a clip, (h, w, 3) uint8. A single picture gives one frame.

  An array is (t, h, w, 3), uint8 or real numbers in [0, 1]; frames with values that are not finite
  have the `rgb` None. Arrays, and folders without `timestamps.csv`, have no times: `time` is None.
  The pictures of such folders are read in the order of the numbers in their names (2 before 10). If
  the names differ only in a number at their end, it becomes the frame's `number`, so that a missing
  picture leaves a gap.

  Raises:
    MediaError: the clip cannot be read, or breaks off.
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
  """Returns the SHA-256 of a file, or of the names and digests of all files in a folder."""
  if path.is_dir():
    # Paths with '/', sorted, so that the digest is the same on every system.
    files = ((p.relative_to(path).as_posix(), p) for p in sorted(path.rglob('*')) if p.is_file())
    listed = ''.join(f'{name} {digest(p)}\n' for name, p in files)
    return hashlib.sha256(listed.encode()).hexdigest()
  return environment.sha256(path)


def _pictures(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the pictures in natural order: runs of digits are compared as numbers."""

  def runs(name: str) -> list[tuple[str, int]]:
    return [(text, int(digits or 0)) for text, digits in re.findall(r'(\D*)(\d*)', name)]

  # 1.png and 01.png compare equal by their numbers; the name decides between them.
  found = (p for p in folder.iterdir() if p.suffix.lower() in PICTURES)
  return sorted(found, key=lambda p: (runs(p.name), p.name))


def _numbers(pictures: Sequence[pathlib.Path]) -> list[int | None]:
  """Returns the numbers at the end of the names if the names differ in nothing else, or Nones."""
  ends = [re.fullmatch(r'(.*?)(\d+)', path.stem) for path in pictures]
  # A common stem alone: x1.png and y2.png are not frames 1 and 2 of one clip.
  if all(ends) and len({end[1] for end in ends}) == 1:
    numbers = [int(end[2]) for end in ends]
    if len(set(numbers)) == len(numbers):
      return numbers
  return [None] * len(pictures)


def _folder(folder: pathlib.Path) -> Iterator[Frame]:
  # Without times: in natural order, and numbered if the names allow.
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
  # Checked before the first frame is read, which may be hours before the faulty one.
  for (_, before), (name, after) in itertools.pairwise(rows):
    if after <= before:
      raise MediaError(
        f'{folder / TIMES}: {name} is shown at {float(after):g} s and the frame before it at '
        f'{float(before):g} s; times must increase'
      )
  for name, time in rows:
    # The name alone, so that a table cannot point outside of its folder.
    yield Frame(stills.read_image(folder / pathlib.PurePath(name).name), time)


def _array(path: pathlib.Path) -> Iterator[Frame]:
  frames = _open_array(path)
  real = frames.dtype.kind == 'f'
  for frame in frames:
    # Copies one frame out of the map.
    x = np.asarray(frame)
    if real and not np.isfinite(x).all():
      yield Frame(None, None)
      continue
    if real and (x.min() < 0 or x.max() > 1):
      raise MediaError(f'{path}: values from {x.min():.3g} to {x.max():.3g}; reals are in [0, 1]')
    yield Frame(np.round(x * 255).astype(np.uint8) if real else x, None)


def _open_array(path: pathlib.Path) -> np.ndarray:
  """Opens a .npy file of frames without reading it. Raises MediaError."""
  try:
    # Mapped, as an array can exceed the memory; pickles, which can run code, are refused.
    frames = np.load(path, mmap_mode='r', allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    raise MediaError(f'{path}: no array can be read ({reason(error)}); write it again') from error
  if not isinstance(frames, np.ndarray):
    raise MediaError(f'{path}: an archive of arrays (.npz); write its frames as one .npy')
  shaped = frames.ndim == 4 and frames.shape[-1] == 3 and frames.size > 0
  if not (shaped and (frames.dtype.kind == 'f' or frames.dtype == np.uint8)):
    raise MediaError(
      f'{path}: {frames.dtype} {frames.shape}; frames are (t, h, w, 3), uint8 or reals in [0, 1]'
    )
  return frames
