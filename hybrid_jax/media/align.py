"""Oriented squares: where a head lies in a picture, to cut it out and to put it back.

A square is four numbers (cx, cy, ax, ay): its centre, and the vector from there to the middle of
its right side. Lengths are pixels from the top left corner of the picture, so that pixel centres
lie at halves; arrays of squares are (..., 4).
"""

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from hybrid_jax.media import faces

_REACH = 3  # standard deviations of the smoothing kernel that are summed


def five_points(points: np.ndarray) -> np.ndarray:
  """(..., k, 2) landmarks -> (..., 5, 2), those of `faces.Face`: eyes, nose tip, mouth corners.

  k is 5 (as they are), 68 (iBUG 300-W) or 478 (MediaPipe). Raises ValueError for another k.
  """
  count = points.shape[-2]
  if count == 5:
    return points
  if count == 68:
    groups = (slice(36, 42), slice(42, 48), [30], [48], [54])
  elif count == 478:
    # The contour of each eye as 300-W samples it, hence the same means.
    groups = ([33, 160, 158, 133, 153, 144], [362, 385, 387, 263, 373, 380], [1], [61], [291])
  else:
    raise ValueError(f'{count} landmarks a face; known are sets of 5, 68 and 478')
  return np.stack([points[..., group, :].mean(-2) for group in groups], -2)


def ffhq(points: np.ndarray) -> np.ndarray:
  """The squares of FFHQ's alignment (Karras et al. 2019) for landmarks (..., 5, 2) -> (..., 4).

  The side is the larger of 4 eye distances and 3.6 times the way from eyes to mouth; the square
  turns with the head and lies a tenth of that way below the eyes.
  """
  right_eye, left_eye, _, right_mouth, left_mouth = np.moveaxis(points, -2, 0)
  eyes, mouth = (right_eye + left_eye) / 2, (right_mouth + left_mouth) / 2
  across, down = left_eye - right_eye, mouth - eyes
  x = across + np.stack((down[..., 1], -down[..., 0]), -1)  # both say where the right is
  half = np.maximum(2.0 * _length(across), 1.8 * _length(down))
  x = x / np.maximum(_length(x), 1e-9) * half
  return np.concatenate((eyes + 0.1 * down, x), -1)


def _length(v: np.ndarray) -> np.ndarray:
  return np.linalg.norm(v, axis=-1, keepdims=True)


def upright(box: faces.Box) -> np.ndarray:
  """A square box (x, y, side, side) as (4,)."""
  x, y, side, _ = box
  return np.array([x + side / 2, y + side / 2, side / 2, 0.0])


def side_of(square: np.ndarray) -> float:
  """Length of its sides, px."""
  return 2 * math.hypot(square[2], square[3])


def corners(square: np.ndarray) -> np.ndarray:
  """(4, 2): top left, bottom left, bottom right, top right, the order of FFHQ's quads."""
  c, x = square[:2], square[2:]
  y = np.array([-x[1], x[0]])
  return np.stack((c - x - y, c - x + y, c + x + y, c + x - y))


def to_picture(square: np.ndarray, size: int) -> np.ndarray:
  """(2, 3) matrix from the pixels of a crop of `size` px to those of the picture, as OpenCV counts.

  There the centre of a pixel is a whole number.
  """
  c, x = square[:2], square[2:]
  y = np.array([-x[1], x[0]])
  shift = c - 0.5 + (1 / size - 1) * (x + y)
  return np.column_stack((2 / size * x, 2 / size * y, shift))


def cut(rgb: np.ndarray, square: np.ndarray, size: int) -> np.ndarray:
  """Cuts a square out of (h, w, 3), the edge repeated outside of it -> (size, size, 3) uint8.

  Sampled at least as finely as the picture is and averaged down, so it does not alias.
  """
  finer = max(1, math.ceil(side_of(square) / size - 1e-6))
  crop = cv2.warpAffine(
    rgb,
    to_picture(square, size * finer),
    (size * finer, size * finer),
    flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
    borderMode=cv2.BORDER_REPLICATE,
  )
  return cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA) if finer > 1 else crop


def smoothed(
  values: np.ndarray, times: np.ndarray, seconds: float, starts: Sequence[int] = (0,)
) -> Iterator[np.ndarray]:
  """Rows of `values` (t, d) smoothed over time without delay, one by one: `values` may be on disk.

  A line is fitted around each moment, weighted by a Gaussian of standard deviation `seconds`:
  steady motion stays as it is, at the ends too, whatever the frame rate. 0 changes nothing.

  Args:
    times: (t,) seconds, increasing.
    starts: first rows of the shots; nothing is smoothed across them.
  """
  bounds = [*starts, len(times)]
  for first, end in zip(bounds, bounds[1:], strict=False):
    for k in range(first, end):
      if not seconds:
        yield values[k]
        continue
      reach = np.array([-1, 1]) * _REACH * seconds + times[k]
      low, high = first + np.searchsorted(times[first:end], reach)
      d = (times[low:high] - times[k]) / seconds
      w = np.exp(-0.5 * d * d)
      s0, s1, s2 = w.sum(), (w * d).sum(), (w * d * d).sum()
      spread = s0 * s2 - s1 * s1
      w = w * (s2 - s1 * d) / spread if spread > 1e-9 else w / s0
      yield w @ values[low:high]
