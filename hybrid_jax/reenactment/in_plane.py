"""In-plane motion of the driving head: what aligning each frame removes, and compositing puts back.

A crop that is aligned in every frame always shows the head upright, in the middle and of one size:
roll, shift and size of the driver are in its squares alone. In this module a square (cx, cy, ax,
ay) of `media.align` is a pair of complex numbers, c its centre and x the vector to its right side.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from hybrid_jax.media import align
from hybrid_jax.reenactment.motion_file import Motion

# Shifts in half sides of the square: up to FREE they are the driver's, larger ones approach MOST. A
# driver who walks across the picture would otherwise leave the frame of the result. Ours.
FREE, MOST = 0.3, 0.6
_STILL = 1e-3  # px; squares that differ by less are one fixed square, up to rounding


@dataclasses.dataclass(frozen=True, eq=False)
class InPlane:
  """In-plane motion of n rows: the square (c, x) goes to (c + x shift, x turn).

  Attributes:
    turn: (n,) complex: its angle is the roll, its length the change of size.
    shift: (n,) complex, in half sides of the square.
    absolute: whether the roll is the driver's own, and not its change since a reference.
  """

  turn: np.ndarray
  shift: np.ndarray
  absolute: bool

  def base(self, square: np.ndarray) -> np.ndarray:
    """Returns the square of the source's head from which the motion starts."""
    if not self.absolute:
      return square
    c, x = _complex(square)
    return _square(c, abs(x) * _quarter(x))

  def moved(self, square: np.ndarray, row: int) -> np.ndarray:
    """Returns where a square (4,) goes in a row."""
    c, x = _complex(square)
    return _square(c + x * self.shift[row], x * self.turn[row])

  def still(self, square: np.ndarray, row: int) -> np.ndarray:
    """Returns the square (4,) that goes to the given one: the inverse of `moved`."""
    c, x = _complex(square)
    x = x / self.turn[row]
    return _square(c - x * self.shift[row], x)

  def faded(self, weight: float) -> 'InPlane':
    """Returns the motion times `weight` in [0, 1]; 0 removes it."""
    return InPlane(self.turn**weight, weight * self.shift, self.absolute)

  def describe(self) -> str:
    """One line on the range of the motion."""
    roll, size = np.degrees(np.angle(self.turn)), np.abs(self.turn)
    return (
      f"the driver's roll of {roll.min():.0f} to {roll.max():.0f} degrees, shift of up to "
      f'{np.abs(self.shift).max() / 2:.2f} sides and size of {size.min():.2f} to {size.max():.2f} '
      'put back'
    )


def measure(motion: Motion, reference: int | None, gain: float, seconds: float) -> InPlane | None:
  """Returns the in-plane motion of the rows; None if the driver was cropped by a fixed square.

  Shift and size change since the reference row, in other shots since their first row: a cut moves
  the camera. With a reference so does the roll; without one it is absolute, as the two other angles
  of the head are in s_f, up to the quarter turn of a clip that lies on its side.

  Args:
    reference: row that relative motion starts from; None for absolute motion.
    gain: of the motion, as in `motion.relative`.
    seconds: smoothing over time in addition to that of the crop, see `align.smoothed`.
  """
  if motion.squares is None:
    return None
  smoothed = align.smoothed(motion.squares, motion.seconds, seconds, motion.starts)
  c, x = _complex(np.stack(list(smoothed)))  # n
  first = _first_rows(motion.starts, len(motion))
  squares = _square(c, x)
  if reference is None:
    return since(squares, squares[first], None, gain)
  first = np.where(first == first[reference], reference, first)
  return since(squares, squares[first], squares[reference], gain)


def since(squares: np.ndarray, first: np.ndarray, level: np.ndarray | None, gain: float) -> InPlane:
  """Returns the in-plane motion of squares (n, 4).

  Args:
    first: (n, 4) or (4,), the squares whose place and size count as no change.
    level: (4,), the square whose roll counts as none; None for the driver's own roll.
    gain: of the motion.
  """
  (c, x), (c0, x0) = _complex(squares), _complex(first)
  if level is None:
    direction = _quarter(x0)
  else:
    direction = _complex(level)[1] / abs(_complex(level)[1])
  start = abs(x0) * direction
  return InPlane((x / start) ** gain, _limited(gain * (c - c0) / start), level is None)


def _limited(shift: np.ndarray) -> np.ndarray:
  """Returns complex shifts with lengths below MOST, and those up to FREE unchanged."""
  length = np.maximum(np.abs(shift), 1e-9)
  beyond = np.maximum(length - FREE, 0) / (MOST - FREE)
  return shift * (np.minimum(length, FREE) + (MOST - FREE) * np.tanh(beyond)) / length


def held(squares: np.ndarray, missing: np.ndarray, starts: Sequence[int]) -> np.ndarray:
  """Returns squares (t, 4) that stay, in frames without a face, at the last one of the shot."""
  # Before the first face of a shot they are constant already, see `tracking.squares`.
  at = np.where(missing, _first_rows(starts, len(missing)), np.arange(len(missing)))
  return squares[np.maximum.accumulate(at)]


def is_fixed(squares: np.ndarray) -> bool:
  """Whether squares (t, 4) of a clip are one fixed square, with nothing to put back."""
  # The only frame of a clip says nothing on whether the square would have moved.
  return len(squares) > 1 and np.ptp(squares, 0).max() < _STILL


def _first_rows(starts: Sequence[int], count: int) -> np.ndarray:
  """Returns the number of the first row of each row's shot, (count,)."""
  starts = np.asarray(starts)
  return starts[np.searchsorted(starts, np.arange(count), 'right') - 1]


def _complex(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  return squares[..., 0] + 1j * squares[..., 1], squares[..., 2] + 1j * squares[..., 3]


def _square(c: np.ndarray, x: np.ndarray) -> np.ndarray:
  return np.stack([c.real, c.imag, x.real, x.imag], -1)


def _quarter(x: np.ndarray) -> np.ndarray:
  """Returns the quarter turn nearest to the direction of x, exactly 1, i, -1 or -i."""
  return np.array([1, 1j, -1, -1j])[np.round(np.angle(x) / (np.pi / 2)).astype(int) % 4]
