"""Quarter turns of pictures and landmarks, for heads that lie on their side or upside down.

A turn is the number of quarters, anticlockwise, by which `np.rot90` makes a head upright.
"""

import numpy as np

ALL = (0, 1, 2, 3)


def roll(landmarks: np.ndarray) -> float:
  """Returns the angle of the line from eyes to mouth, degrees; 0 is upright, clockwise > 0."""
  x, y = landmarks[3:].mean(0) - landmarks[:2].mean(0)
  return float(np.degrees(np.arctan2(-x, y)))


def turn_of(landmarks: np.ndarray) -> int:
  """Returns the turn of a head with landmarks (5, 2): 0 for a roll within 45 degrees."""
  return round(roll(landmarks) / 90) % 4


def turned(rgb: np.ndarray, turn: int) -> np.ndarray:
  """Returns the picture (h, w, 3) turned, as OpenCV needs it: without negative strides."""
  return np.ascontiguousarray(np.rot90(rgb, turn))


def back(points: np.ndarray, turn: int, size: tuple[int, int]) -> np.ndarray:
  """Moves points (k, 2) of a turned picture to the untouched one of `size` (h, w)."""
  (h, w), (x, y) = size, points.T
  # The top right corner of the untouched picture is the top left one of its first turn.
  moved = {0: (x, y), 1: (w - y, x), 2: (w - x, h - y), 3: (y, h - x)}
  return np.stack(moved[turn], -1)
