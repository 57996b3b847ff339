"""Motion files: the deformation latents `s_f` of a clip (eq. 2), to drive any source later.

A safetensors file of `s_f` (t, d) float32, the offsets of all deformation layers side by side, and
`ticks` (t,) int64, presentation times in units of the `time_base` in its metadata; of a clip that
was aligned in each frame also `squares` (t, 4) float64, see `media.align`. Rows are read from disk
when they are needed, so that memory does not grow with the length of the clip.
"""

import dataclasses
import json
import os
import pathlib
import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np
from safetensors import SafetensorError, safe_open

from hybrid_jax.errors import InputError
from hybrid_jax.media import reason, replacing

# Changes with the meaning of the content, so that an older reader refuses a newer file.
_FORMAT = 'hybrid_jax motion 1'


class Rows:
  """(t, d) float32 in a file, read on access: rows[k] (d,) and rows[a:b] (b - a, d)."""

  # safetensors' own slices are a memory map, whose pages count as memory of the process: reading
  # 10,000 rows of 5,120 numbers raised it by 196 MB, and by nothing with pread.

  def __init__(self, path: str | os.PathLike, offset: int, shape: tuple[int, int]):
    self._file, self._offset, self.shape = open(path, 'rb', buffering=0), offset, shape

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, which: int | slice) -> np.ndarray:
    # `indices` clips to the length as a list does: past the end is an IndexError, which also ends
    # iteration over the rows.
    first, end, _ = (which if isinstance(which, slice) else slice(which, which + 1)).indices(
      len(self)
    )
    if first >= end:
      raise IndexError(which)
    width = 4 * self.shape[1]  # bytes
    # pread has no file position, so threads may read rows at once.
    read = os.pread(self._file.fileno(), (end - first) * width, self._offset + first * width)
    rows = np.frombuffer(read, '<f4').reshape(end - first, self.shape[1])
    return rows if isinstance(which, slice) else rows[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Motion:
  """An open motion file.

  Attributes:
    rows: (t, d) float32 on disk.
    ticks: (t,) int64 presentation times, in units of `time_base` seconds.
    widths: channels of each deformation layer; their sum is d.
    starts: the first row of each shot.
    model: SHA-256 of the encoder.
    driving: SHA-256 of the clip.
    squares: (t, 4) of the crops; None if one fixed square was cropped.
  """

  rows: Rows
  ticks: np.ndarray
  time_base: Fraction
  widths: tuple[int, ...]
  starts: tuple[int, ...]
  model: str
  driving: str
  squares: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.ticks)

  def time(self, k: int) -> Fraction:
    """The exact presentation time of row k, seconds."""
    return int(self.ticks[k]) * self.time_base

  @property
  def seconds(self) -> np.ndarray:
    """(t,) float64 presentation times."""
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
  squares: np.ndarray | None = None,
) -> None:
  """Writes rows while they are computed; memory does not grow with their number.

  Args:
    batches: rows (d,) or batches of them (n, d); together one row for each of `ticks`.
    ticks: (t,) presentation times, in units of `time_base` seconds.
    widths: channels of each deformation layer; their sum is d.
    starts: the first row of each shot.
    model: SHA-256 of the encoder.
    driving: SHA-256 of the clip.
    squares: (t, 4) of the crops; None if one fixed square was cropped.

  Raises:
    InputError: the file cannot be written.
  """
  arrays = {'ticks': np.ascontiguousarray(ticks, '<i8')}
  if squares is not None:
    arrays['squares'] = np.ascontiguousarray(squares, '<f8')
  metadata = {
    'format': _FORMAT,
    'time_base': str(time_base),
    'widths': json.dumps(list(widths)),
    'starts': json.dumps(list(starts)),
    'model': model,
    'driving': driving,
  }
  header = _header(metadata, (len(ticks), sum(widths)), arrays)
  text = json.dumps(header).encode()
  # safetensors wants the data aligned to 8 bytes, with the header padded by spaces.
  text += b' ' * (-len(text) % 8)
  try:
    # safetensors' own writer needs all rows in memory.
    with replacing(path) as part, open(part, 'wb') as file:
      file.write(struct.pack('<Q', len(text)) + text)
      for batch in batches:
        # Little-endian on any machine, as the format requires.
        file.write(np.ascontiguousarray(batch, '<f4'))
      file.writelines(arrays.values())
  except OSError as error:
    raise InputError(f'{path}: cannot be written ({reason(error)})') from error


def _header(
  metadata: dict[str, str], shape: tuple[int, int], arrays: dict[str, np.ndarray]
) -> dict[str, dict]:
  """Returns the header of a file of rows of a `shape`, and of arrays in this order behind them."""
  end = 4 * shape[0] * shape[1]
  header = {
    '__metadata__': metadata,
    's_f': {'dtype': 'F32', 'shape': shape, 'data_offsets': (0, end)},
  }
  for name, array in arrays.items():
    # safetensors' names of types: I64 for int64, F64 for float64.
    kind = f'{array.dtype.kind.upper()}{8 * array.itemsize}'
    offsets = (end, end + array.nbytes)
    header[name] = {'dtype': kind, 'shape': array.shape, 'data_offsets': offsets}
    end = offsets[1]
  return header


def read(path: str | os.PathLike) -> Motion:
  """Opens a motion file.

  Raises:
    InputError: missing, damaged, or of another kind.
  """
  try:
    with safe_open(path, 'numpy') as file:  # checks header and length
      meta = file.metadata() or {}
      if meta.get('format') != _FORMAT:
        raise InputError(f'{path}: not a motion file; make one with hybrid_jax.extract_motion')
      shape, ticks = file.get_slice('s_f').get_shape(), file.get_tensor('ticks')
      # Only clips aligned in each frame have it, and no file of an earlier version.
      squares = file.get_tensor('squares') if 'squares' in file.keys() else None
    # Data begin after the 8 bytes of the header's length, and the header.
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
      squares,
    )
  except InputError:  # is a ValueError, and would be reported as damage below
    raise
  except (SafetensorError, OSError, ValueError, KeyError) as error:
    raise InputError(f'{path}: not a motion file, or damaged ({reason(error)})') from error


def is_motion(path: str | os.PathLike) -> bool:
  """Whether a path is that of a motion file, by its suffix."""
  # By name alone: options are checked before any file is opened.
  return pathlib.Path(path).suffix.lower() == '.safetensors'
