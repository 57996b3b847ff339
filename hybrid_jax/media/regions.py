"""Masks of mouth, eyes, brows and face, drawn along the contours that a landmarker finds.

Points are (k, 2), x and y in px; k is 68 (iBUG 300-W) or 478 (MediaPipe).
"""

import cv2
import numpy as np

REGIONS = ('mouth', 'eyes', 'brows', 'face')  # channels of masks

# Outlines of each region; the convex hull of each is filled. The outer lips, the lids, both brows.
_CONTOURS = {
  68: (
    (range(48, 60),),
    (range(36, 42), range(42, 48)),
    (range(17, 22), range(22, 27)),
  ),
  478: (
    ((61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),),
    (
      (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
      (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
    ),
    (
      (70, 63, 105, 66, 107, 55, 65, 52, 53, 46),
      (300, 293, 334, 296, 336, 285, 295, 282, 283, 276),
    ),
  ),
}  # fmt: skip
# Width of the stroke around the contours, in distances of the outer corners of the eyes: 300-W has
# the middle line of a brow alone, and the hull of a closed eye has no area.
_STROKE = {68: (0.02, 0.03, 0.08), 478: (0.02, 0.03, 0.02)}
_CORNERS = {68: (36, 45), 478: (33, 263)}


def contour_masks(points: np.ndarray, size: int) -> list[np.ndarray]:
  """Draws mouth, eyes and brows of (k, 2) points in px -> three (size, size) uint8, 0 or 255.

  Raises:
    ValueError: k is neither 68 nor 478.
  """
  if len(points) not in _CONTOURS:
    raise ValueError(f'{len(points)} landmarks have no contours; 68 and 478 have')
  first, second = points[list(_CORNERS[len(points)])]
  distance, masks = float(np.linalg.norm(first - second)), []
  for outlines, stroke in zip(_CONTOURS[len(points)], _STROKE[len(points)], strict=True):
    mask = np.zeros((size, size), np.uint8)
    for outline in outlines:
      hull = cv2.convexHull(np.round(points[list(outline)]).astype(np.int32))
      cv2.fillConvexPoly(mask, hull, 255)
      cv2.polylines(mask, [hull], True, 255, max(1, round(stroke * distance)))
    masks.append(mask)
  return masks
