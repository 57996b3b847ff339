"""Resizes frames to squares of one size, and cuts the mouths out of them."""

import cv2
import numpy as np

from hybrid_jax.media import faces

MOUTH_SIDE = 1.5  # of the square around the mouth, in distances between the eyes


def resized(rgb: np.ndarray, size: int) -> np.ndarray:
  """Resizes (h, w, 3) uint8 to (size, size, 3).

  Averages areas if both sides shrink, which does not alias; otherwise interpolates bicubically.
  """
  if rgb.shape[:2] == (size, size):
    return rgb
  smaller = size < min(rgb.shape[:2])
  return cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def one_shape(first: np.ndarray, second: np.ndarray) -> bool:
  """Returns whether two pictures have the same aspect ratio up to rounding to whole pixels."""
  # Logarithms, so that the order of the two does not matter. 2 % is one pixel of 50.
  (h, w), (other_h, other_w) = first.shape[:2], second.shape[:2]
  return bool(abs(np.log(w / h) - np.log(other_w / other_h)) <= 0.02)


def mouth(clip: np.ndarray, points: list[np.ndarray | None]) -> np.ndarray | None:
  """Cuts one square around the mouth out of each frame of a clip (t, s, s, 3), resized to s / 2.

  The square is fixed for the clip, so that the motion of the mouth stays visible: centred on the
  mean of the mouth's corners, `MOUTH_SIDE` times the largest distance between the eyes wide.

  Args:
    points: landmarks (5, 2) in [0, 1] of each frame, or None.

  Returns:
    (t, s // 2, s // 2, 3) uint8; None if no frame has landmarks.
  """
  known = [p for p in points if p is not None]
  if not known:
    return None
  size = clip.shape[1]
  places = np.stack(known) * size  # t 5 2; points 0 and 1 are the eyes, 3 and 4 the mouth
  x, y = places[:, 3:].mean((0, 1))
  # The largest distance: a turned head has a smaller one and not a smaller mouth.
  side = MOUTH_SIDE * np.linalg.norm(places[:, 1] - places[:, 0], axis=-1).max()
  square = round(x - side / 2), round(y - side / 2), max(1, round(side)), max(1, round(side))
  return np.stack([faces.crop_square(frame, square, max(size // 2, 1)) for frame in clip])
