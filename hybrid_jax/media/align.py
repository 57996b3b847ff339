"""Alignment: oriented squares around heads, cutting them out, and smoothing them over time.

A square is four numbers (cx, cy, ax, ay): its centre, and the vector from there to the middle of
its right side. Coordinates are pixels from the top left corner of the picture, so that the centres
of pixels lie at halves; arrays of squares are (..., 4).
"""

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from hybrid_jax.media import faces

_REACH = 3  # standard deviations after which the smoothing kernel is cut off


def five_points(points: np.ndarray) -> np.ndarray:
  """Reduces (..., k, 2) landmarks to the (..., 5, 2) of `faces.Face`: eyes, nose, mouth corners.

  Args:
    points: k is 5 (returned unchanged), 68 (iBUG 300-W) or 478 (MediaPipe).

  Raises:
    ValueError: another k.
  """
  count = points.shape[-2]
  if count == 5:
    return points
  if count == 68:
    # Right eye, left eye, nose tip, corners of the mouth, in the order of 300-W.
    groups = (slice(36, 42), slice(42, 48), [30], [48], [54])
  elif count == 478:
    # The six points of each eye that 300-W has: the mean of all contour points lies elsewhere.
    groups = ([33, 160, 158, 133, 153, 144], [362, 385, 387, 263, 373, 380], [1], [61], [291])
  else:
    raise ValueError(f'{count} landmarks a face; supported are 5, 68 and 478')
  return np.stack([points[..., group, :].mean(-2) for group in groups], -2)


def ffhq(points: np.ndarray) -> np.ndarray:
  """Returns the squares of FFHQ's alignment (Karras et al. 2019) for (..., 5, 2) -> (..., 4).

  The side is 4 times the eye distance or 3.6 times the distance from eyes to mouth, whichever is
  larger. The square turns with the head; its centre is a tenth of the latter below the eyes.
  """
  # FFHQ does not use the nose.
  right_eye, left_eye, _, right_mouth, left_mouth = np.moveaxis(points, -2, 0)
  eyes, mouth = (right_eye + left_eye) / 2, (right_mouth + left_mouth) / 2
  across, down = left_eye - right_eye, mouth - eyes
  # Direction of the right side: along the eyes, and `down` turned by 90 degrees.
  x = across + np.stack((down[..., 1], -down[..., 0]), -1)
  # Half of the side: the vector of a square reaches from its centre to its right side.
  half = np.maximum(2.0 * _length(across), 1.8 * _length(down))
  # The floor avoids 0 / 0 for landmarks that coincide.
  x = x / np.maximum(_length(x), 1e-9) * half
  return np.concatenate((eyes + 0.1 * down, x), -1)


def _length(v: np.ndarray) -> np.ndarray:
  return np.linalg.norm(v, axis=-1, keepdims=True)


def upright(box: faces.Box) -> np.ndarray:
  """Converts a square box (x, y, side, side) to a square (4,)."""
  x, y, side, _ = box
  return np.array([x + side / 2, y + side / 2, side / 2, 0.0])


def side_of(square: np.ndarray) -> float:
  """Returns the side of a square, px."""
  return 2 * math.hypot(square[2], square[3])


def corners(square: np.ndarray) -> np.ndarray:
  """Returns (4, 2): top left, bottom left, bottom right, top right, the order of FFHQ's quads."""
  c, x = square[:2], square[2:]
  # The y axis points down, so that this turns clockwise by 90 degrees.
  y = np.array([-x[1], x[0]])
  return np.stack((c - x - y, c - x + y, c + x + y, c + x - y))


def to_picture(square: np.ndarray, size: int) -> np.ndarray:
  """Returns the (2, 3) matrix from pixels of a crop of `size` px to pixels of the picture.

  In OpenCV's coordinates, where the centre of a pixel is a whole number.
  """
  c, x = square[:2], square[2:]
  y = np.array([-x[1], x[0]])
  # Half a pixel between the two conventions, on both sides of the map.
  shift = c - 0.5 + (1 / size - 1) * (x + y)
  return np.column_stack((2 / size * x, 2 / size * y, shift))


def cut(rgb: np.ndarray, square: np.ndarray, size: int) -> np.ndarray:
  """Cuts a square out of (h, w, 3) uint8 -> (size, size, 3) uint8.

  Outside of the picture its edge is repeated.
  """
  # Bicubic sampling aliases when it reduces: sample at the picture's own resolution, then average.
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
  """Yields the rows of `values` (t, d) smoothed over time without delay.

  Local linear regression: a line is fitted around each time with Gaussian weights. Uniform motion
  is not changed, at the ends of a shot either, and the frame rate may vary.

  Args:
    values: may be a memory map, as one row is computed at a time.
    times: (t,) seconds, increasing.
    seconds: standard deviation of the weights; 0 does not smooth.
    starts: first rows of the shots, which are smoothed separately.
  """
  bounds = [*starts, len(times)]
  # One shot after the other; `strict` is off because of the shifted second list.
  for first, end in zip(bounds, bounds[1:], strict=False):
    for k in range(first, end):
      # Division by zero below otherwise; and unsmoothed rows are returned bit for bit.
      if not seconds:
        yield values[k]
        continue
      reach = np.array([-1, 1]) * _REACH * seconds + times[k]
      low, high = first + np.searchsorted(times[first:end], reach)
      d = (times[low:high] - times[k]) / seconds
      w = np.exp(-0.5 * d * d)
      s0, s1, s2 = w.sum(), (w * d).sum(), (w * d * d).sum()
      # Determinant of the normal equations of the weighted fit, 0 with a single row.
      spread = s0 * s2 - s1 * s1
      # The value of the fitted line at d = 0; a single row has no line, only a mean.
      w = w * (s2 - s1 * d) / spread if spread > 1e-9 else w / s0
      yield w @ values[low:high]
