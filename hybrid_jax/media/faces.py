"""Face detection with OpenCV's YuNet, boxes of faces, and square crops around them.

Boxes are (x, y, w, h) in pixels of the picture in which the face was found. Squares are integer
boxes with w == h and may extend beyond the picture. Left and right of a face are the person's own.
The model file (YuNet, `.onnx`) is not part of the package.
"""

import dataclasses
import os
from collections.abc import Sequence

import cv2
import numpy as np

from hybrid_jax.media import MediaError, reason

# OpenCV 5 warns whenever it loads a network that the CPU has no separate target.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)

Box = tuple[float, float, float, float]
Square = tuple[int, int, int, int]

# Long sides, px, at which a picture is searched until a face is found. YuNet was trained on faces
# of at most a few hundred pixels and misses larger ones, so that large pictures are reduced step
# by step; 1920 comes first, because reducing loses small faces.
_LONG_SIDES = (1920, 640, 480, 320)


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
  """A face found in a picture.

  box: (x, y, w, h), px.
  landmarks: (5, 2), x and y in px of right eye, left eye, nose tip, right and left mouth corner;
    right is the person's right, on the left side of a picture that is not mirrored.
  score: confidence of the detector, in [0, 1].
  """

  box: Box
  landmarks: np.ndarray
  score: float


class FaceDetector:
  """OpenCV's YuNet (Wu et al. 2023).

  Raises:
    MediaError: no such file, or not a YuNet model.
  """

  def __init__(self, model_path: str | os.PathLike, score_threshold: float = 0.6):
    if not os.path.isfile(model_path):
      raise MediaError(f'{model_path}: no such face detector; give the path of a YuNet .onnx file')
    try:
      self._net = cv2.FaceDetectorYN.create(
        os.fspath(model_path), '', (64, 64), score_threshold=score_threshold
      )
      # Other ONNX models load without an error and fail only here.
      self._net.detect(np.zeros((64, 64, 3), np.uint8))
    except cv2.error as error:
      raise MediaError(
        f'{model_path}: is not a YuNet face detector ({reason(error)}); give a YuNet .onnx file'
      ) from error

  def detect(self, rgb: np.ndarray) -> list[Face]:
    """Returns the faces of a picture (h, w, 3) uint8, the largest first.

    The picture is searched at decreasing scales; the first with a face gives the result.
    """
    h, w = rgb.shape[:2]
    bgr = np.ascontiguousarray(rgb[..., ::-1])  # OpenCV's order; it also rejects reversed views
    for side in sorted({min(side, max(h, w)) for side in _LONG_SIDES}, reverse=True):
      size = max(1, round(w * side / max(h, w))), max(1, round(h * side / max(h, w)))
      self._net.setInputSize(size)
      _, rows = self._net.detect(cv2.resize(bgr, size, interpolation=cv2.INTER_AREA))
      if rows is not None:
        # Per axis: the rounded sides are not exactly proportional.
        scale = np.array([w / size[0], h / size[1]])
        faces = [_face(row.astype(float), scale) for row in rows]
        return sorted(faces, key=lambda face: face.box[2] * face.box[3], reverse=True)
    return []


def square_box(box: Box, scale: float, frame_size: tuple[int, int]) -> Square:
  """Returns the square of side `scale` x max(w, h) about the centre of `box`.

  A square that crosses the border of the picture of `frame_size` (h, w) is moved inside; one longer
  than a side of the picture covers that side. scale = 1 + 2 r gives the crop of First Order Motion
  Model (Siarohin et al. 2019) with `increase` r, which however cuts at the border, so that its
  crops there are not square.
  """
  x, y, w, h = box
  side = max(1, round(scale * max(w, h)))

  def start(centre: float, length: int) -> int:
    # Negative where the square is larger than the picture.
    room = length - side
    return int(np.clip(round(centre - side / 2), min(0, room), max(0, room)))

  return start(x + w / 2, frame_size[1]), start(y + h / 2, frame_size[0]), side, side


def crop_square(rgb: np.ndarray, box: Square, size: int) -> np.ndarray:
  """Cuts a square out of (h, w, 3) uint8 and resizes it -> (size, size, 3) uint8.

  Outside of the picture its edge is repeated.
  """
  x, y, w, h = box
  # Indices beyond the picture repeat its edge, without a padded copy of the frame.
  rows = np.clip(np.arange(y, y + h), 0, rgb.shape[0] - 1)
  columns = np.clip(np.arange(x, x + w), 0, rgb.shape[1] - 1)
  # INTER_AREA averages and so does not alias; the other kernels of OpenCV sample.
  smooth = cv2.INTER_AREA if size < w else cv2.INTER_CUBIC
  return cv2.resize(rgb[rows[:, None], columns], (size, size), interpolation=smooth)


def _face(row: np.ndarray, scale: np.ndarray) -> Face:
  """Converts a row of YuNet's output: box (4), landmarks (10), score (1), in px times `scale`."""
  # Position and size of the box, then five landmarks: seven pairs (x, y) with the same scale.
  points = row[:14].reshape(7, 2) * scale
  return Face(tuple(points[:2].ravel().tolist()), points[2:], float(row[14]))


def overlap(a: Box, b: Box) -> float:
  """Returns the intersection over union of two boxes, in [0, 1]."""
  w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
  h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
  shared = max(0.0, w) * max(0.0, h)
  return shared / (a[2] * a[3] + b[2] * b[3] - shared) if shared else 0.0


def union(boxes: Sequence[Box]) -> Box:
  """Returns the smallest box around all of `boxes`."""
  x, y, w, h = np.array(boxes).T
  left, top = x.min(), y.min()
  return float(left), float(top), float((x + w).max() - left), float((y + h).max() - top)
