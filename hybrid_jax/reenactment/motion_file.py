"""Motion files: the deformation latents `s_f` of a clip, to drive any source later.

A safetensors file of `s_f` (t, d) float32, the offsets of all deformation layers side by side, and
`ticks` (t,) int64, presentation times in units of the `time_base` in its metadata. Rows are read
from disk as they are needed, so that memory does not grow with the length.
"""

import dataclasses
import json
import math
import os
import pathlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import numpy as np
from safetensors import SafetensorError, safe_open

from hybrid_jax.errors import InputError
from hybrid_jax.media import align, reason, replacing

_FORMAT = 'hybrid_jax motion 1'


class Rows:
  """(t, d) float32 in a file, read as they are asked for: rows[k] (d,) and rows[a:b] (b - a, d).

  Not a memory map, whose pages count as memory of the process.
  """

  def __init__(self, path: str | os.PathLike, offset: int, shape: tuple[int, int]):
    self._file, self._offset, self.shape = open(path, 'rb', buffering=0), offset, shape

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, which: int | slice) -> np.ndarray:
    first, end, _ = (which if isinstance(which, slice) else slice(which, which + 1)).indices(
      len(self)
    )
    if first >= end:
      raise IndexError(which)
    width = 4 * self.shape[1]
    read = os.pread(self._file.fileno(), (end - first) * width, self._offset + first * width)
    rows = np.frombuffer(read, '<f4').reshape(end - first, self.shape[1])
    return rows if isinstance(which, slice) else rows[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Motion:
  """An open motion file.

  rows: (t, d) float32 on disk. ticks: (t,) int64. widths: of the layers, their sum is d.
  starts: first rows of the shots.
  model: SHA-256 of the encoder that made it. driving: SHA-256 of the clip.
  """

  rows: Rows
  ticks: np.ndarray
  time_base: Fraction
  widths: tuple[int, ...]
  starts: tuple[int, ...]
  model: str
  driving: str

  def __len__(self) -> int:
    return len(self.ticks)

  def time(self, k: int) -> Fraction:
    return int(self.ticks[k]) * self.time_base

  @property
  def seconds(self) -> np.ndarray:
    return self.ticks * float(self.time_base)


def write(
  path: str | os.PathLike,
  batches: Iterable[np.ndarray],
  ticks: np.ndarray,
  *,
  time_base: Fraction,
  widths: Sequence[int],
  starts: Sequence[int],
  model: str,
  driving: str,
) -> None:
  """Writes batches (n, d) as they come; together they have one row for each of `ticks`.

  Raises:
    InputError: the file cannot be written.
  """
  shape = (len(ticks), sum(widths))
  middle = 4 * shape[0] * shape[1]
  header = {
    '__metadata__': {
      'format': _FORMAT,
      'time_base': str(time_base),
      'widths': json.dumps(list(widths)),
      'starts': json.dumps(list(starts)),
      'model': model,
      'driving': driving,
    },
    's_f': {'dtype': 'F32', 'shape': shape, 'data_offsets': (0, middle)},
    'ticks': {
      'dtype': 'I64',
      'shape': (shape[0],),
      'data_offsets': (middle, middle + 8 * shape[0]),
    },
  }
  text = json.dumps(header).encode()
  text += b' ' * (-len(text) % 8)
  try:
    # The library's own writer wants all rows in memory.
    with replacing(path) as part, open(part, 'wb') as file:
      file.write(struct.pack('<Q', len(text)) + text)
      for batch in batches:
        file.write(np.ascontiguousarray(batch, '<f4'))
      file.write(np.ascontiguousarray(ticks, '<i8'))
  except OSError as error:
    raise InputError(f'{path}: cannot be written ({reason(error)})') from error


def read(path: str | os.PathLike) -> Motion:
  """Opens a motion file.

  Raises:
    InputError: missing, damaged, or of another kind.
  """
  try:
    with safe_open(path, 'numpy') as file:  # checks header and length
      meta = file.metadata() or {}
      if meta.get('format') != _FORMAT:
        raise InputError(f'{path}: is no motion file; make one with hybrid_jax.extract_motion')
      shape, ticks = file.get_slice('s_f').get_shape(), file.get_tensor('ticks')
    with open(path, 'rb') as file:
      offset = 8 + struct.unpack('<Q', file.read(8))[0]
    return Motion(
      Rows(path, offset, tuple(shape)),
      ticks,
      Fraction(meta['time_base']),
      tuple(json.loads(meta['widths'])),
      tuple(json.loads(meta['starts'])),
      meta['model'],
      meta['driving'],
    )
  except InputError:
    raise
  except (SafetensorError, OSError, ValueError, KeyError) as error:
    raise InputError(f'{path}: is no motion file, or damaged ({reason(error)})') from error


def is_motion(path: str | os.PathLike) -> bool:
  return pathlib.Path(path).suffix == '.safetensors'


# --- What is done with motion --------------------------------------------------------------------


def neutral(motion: Motion) -> int:
  """The row nearest to no deformation at all: the smallest s_f, since G(w_id, 0) is neutral."""
  return int(np.argmin([float(np.linalg.norm(row)) for row in motion.rows]))


def smoothed(motion: Motion, seconds: float) -> Iterator[np.ndarray]:
  """Its rows smoothed without delay, see `align.smoothed`."""
  return align.smoothed(motion.rows, motion.seconds, seconds, motion.starts)


def relative(
  rows: Iterable[np.ndarray], reference: np.ndarray, own: np.ndarray, gain: float
) -> Iterator[np.ndarray]:
  """own + gain (row - reference): the source's own expression, changed as the driver's changes."""
  for row in rows:
    yield own + gain * (row - reference)


class Jitter:
  """Root mean square of the second differences of rows over that of the first.

  Steady motion gives 0, a random walk 1.4, noise about a place 1.7.
  """

  def __init__(self):
    self._before, self._step, self._first, self._second = None, None, 0.0, 0.0

  def __call__(self, rows: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Passes rows on."""
    for row in rows:
      if self._before is not None:
        step = row - self._before
        self._first += float(step @ step)
        if self._step is not None:
          turn = step - self._step
          self._second += float(turn @ turn)
        self._step = step
      self._before = np.array(row)
      yield row

  @property
  def value(self) -> float:
    return (self._second / self._first) ** 0.5 if self._first else 0.0


# --- Frames without a face -----------------------------------------------------------------------

ON_MISSING = ('hold', 'interpolate', 'skip', 'fail')


def fill(
  rows: Iterable[np.ndarray], missing: np.ndarray, on_missing: str, seconds: np.ndarray
) -> Iterator[np.ndarray]:
  """One row for each frame, from the rows of those with a face.

  'hold' repeats the last row, or at the beginning the first; 'interpolate' goes in a straight line
  over time from the last to the next; 'skip' adds none. Memory does not grow with the gaps.
  """
  rows, found = iter(rows), np.flatnonzero(~missing)
  if on_missing == 'skip':
    yield from rows
    return
  before, row = None, next(rows)
  for k, at in enumerate(found):
    start = 0 if before is None else found[k - 1] + 1
    for gap in range(start, at):
      if before is None:
        yield row
      elif on_missing == 'hold':
        yield before
      else:
        share = (seconds[gap] - seconds[start - 1]) / (seconds[at] - seconds[start - 1])
        yield before + np.float32(share) * (row - before)
    yield row
    before, row = row, next(rows, None)
  for _ in range(found[-1] + 1, len(missing)):
    yield before


# --- What is shown when --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """The pictures of a result: `rows` (n,) of the motion, which do not decrease, and their times.

  ticks: (n,) int64, in units of `time_base` seconds.
  """

  rows: np.ndarray
  ticks: np.ndarray
  time_base: Fraction

  def __len__(self) -> int:
    return len(self.rows)

  def time(self, k: int) -> Fraction:
    return int(self.ticks[k]) * self.time_base


def plan(motion: Motion, fps: Fraction | None) -> Plan:
  """Every row at its own time; or every 1 / fps seconds, from the first on, the row shown then.

  Each row is shown until the next one; the last as long as the one before it.
  """
  count, start = len(motion), motion.time(0)
  if fps is None:
    return Plan(np.arange(count), motion.ticks, motion.time_base)
  interval = 1 / fps
  end = 2 * motion.time(count - 1) - motion.time(count - 2) if count > 1 else start + interval
  tick = _common(start, interval)
  numbers = np.arange(math.ceil((end - start) / interval))
  ticks = int(start / tick) + numbers * int(interval / tick)
  unit = _common(tick, motion.time_base)
  known, asked = motion.ticks * int(motion.time_base / unit), ticks * int(tick / unit)
  return Plan(np.searchsorted(known, asked, 'right') - 1, ticks, tick)


def _common(a: Fraction, b: Fraction) -> Fraction:
  """The largest unit that both are whole multiples of."""
  return Fraction(
    math.gcd(a.numerator * b.denominator, b.numerator * a.denominator),
    a.denominator * b.denominator,
  )
