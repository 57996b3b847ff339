"""Faces in pictures and clips, found by OpenCV's YuNet, and the square crops around them.

Boxes are (x, y, w, h) in pixels of the picture they were found in; squares are integer boxes with
w == h and may leave the picture. Left and right of a face are the person's own. The model file is
the user's: YuNet in ONNX.
"""

import dataclasses
import os
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from hybrid_jax.media import MediaError, reason

# OpenCV 5 warns at each network it loads that a CPU needs no target.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)

Box = tuple[float, float, float, float]
Square = tuple[int, int, int, int]

# The network has seen no faces beyond some hundred pixels: it misses larger ones unless shrunk.
_LONG_SIDES = (1920, 640, 480, 320)
# Below this overlap the next face is another person's.
_SAME_FACE = 0.2


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
  """box; landmarks (5, 2), x and y of right eye, left eye, nose tip, right and left mouth corner.

  Right is the person's right, on the left of the picture unless it is mirrored. score: in [0, 1].
  """

  box: Box
  landmarks: np.ndarray
  score: float


class FaceDetector:
  """YuNet. Raises MediaError where the model file is missing or is no such model."""

  def __init__(self, model_path: str | os.PathLike, score_threshold: float = 0.6):
    if not os.path.isfile(model_path):
      raise MediaError(f'{model_path}: no such face detector; give the path of a YuNet .onnx file')
    try:
      self._net = cv2.FaceDetectorYN.create(
        os.fspath(model_path), '', (64, 64), score_threshold=score_threshold
      )
      self._net.detect(np.zeros((64, 64, 3), np.uint8))
    except cv2.error as error:
      raise MediaError(
        f'{model_path}: is no YuNet face detector ({reason(error)}); give a YuNet .onnx file'
      ) from error

  def detect(self, rgb: np.ndarray) -> list[Face]:
    """Faces of a picture (h, w, 3) uint8, the largest first; of the first scale that shows any."""
    h, w = rgb.shape[:2]
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    for side in sorted({min(side, max(h, w)) for side in _LONG_SIDES}, reverse=True):
      size = max(1, round(w * side / max(h, w))), max(1, round(h * side / max(h, w)))
      self._net.setInputSize(size)
      _, rows = self._net.detect(cv2.resize(bgr, size, interpolation=cv2.INTER_AREA))
      if rows is not None:
        scale = np.array([w / size[0], h / size[1]])
        faces = [_face(row.astype(float), scale) for row in rows]
        return sorted(faces, key=lambda face: face.box[2] * face.box[3], reverse=True)
    return []


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
  """One face followed through a clip.

  square: one fixed crop for the whole clip.
  faces: by frame number, of the frames looked at in which the face was found.
  missing: numbers of the frames looked at in which it was not.
  """

  square: Square
  faces: dict[int, Face]
  missing: tuple[int, ...]


def track_box(
  frames: Iterable[np.ndarray],
  detector: FaceDetector,
  *,
  scale: float = 1.6,
  every: int = 5,
  name: str | os.PathLike = 'the clip',
) -> Track:
  """Looks at every `every`-th frame (h, w, 3) and encloses all places of one face in one square.

  It starts with the largest face of the first frame that shows any and then follows that one, by
  overlap with where it was seen last. `scale` enlarges the union of its boxes, see `square_box`.

  Raises:
    MediaError: no face in any frame looked at; `name` is what the message calls the clip.
  """
  faces, missing, last, size = {}, [], None, (0, 0)
  for number, rgb in enumerate(frames):
    if number % every:
      continue
    size = rgb.shape[:2]
    found = detector.detect(rgb)
    face = same_face(found, last.box) if last else next(iter(found), None)
    if face is None:
      missing.append(number)
    else:
      faces[number] = last = face
  if not faces:
    raise MediaError(f'{name}: no face in the {len(missing)} frames looked at; give another clip')
  around = union([face.box for face in faces.values()])
  return Track(square_box(around, scale, size), faces, tuple(missing))


def square_box(box: Box, scale: float, frame_size: tuple[int, int]) -> Square:
  """The square of side `scale` x max(w, h) about the centre of `box`, as little as can be outside.

  It is moved, not cut, towards the picture of `frame_size` (h, w): where it fits it lies inside,
  and where it is larger it holds the whole length. scale = 1 + 2 r is the cropping of the First
  Order Motion Model (Siarohin et al. 2019) with increase r, except that theirs cuts.
  """
  x, y, w, h = box
  side = max(1, round(scale * max(w, h)))

  def start(centre: float, length: int) -> int:
    room = length - side  # negative where the square is larger than the picture
    return int(np.clip(round(centre - side / 2), min(0, room), max(0, room)))

  return start(x + w / 2, frame_size[1]), start(y + h / 2, frame_size[0]), side, side


def crop_square(rgb: np.ndarray, box: Square, size: int) -> np.ndarray:
  """Cuts a square out of (h, w, 3), repeating the edge outside of it -> (size, size, 3) uint8."""
  x, y, w, h = box
  rows = np.clip(np.arange(y, y + h), 0, rgb.shape[0] - 1)
  columns = np.clip(np.arange(x, x + w), 0, rgb.shape[1] - 1)
  smooth = cv2.INTER_AREA if size < w else cv2.INTER_CUBIC  # Area averages, so it does not alias.
  return cv2.resize(rgb[rows[:, None], columns], (size, size), interpolation=smooth)


def _face(row: np.ndarray, scale: np.ndarray) -> Face:
  """A row of YuNet's output: box (4), landmarks (10), score (1)."""
  points = row[:14].reshape(7, 2) * scale
  return Face(tuple(points[:2].ravel().tolist()), points[2:], float(row[14]))


def same_face(faces: Sequence[Face], box: Box) -> Face | None:
  """The face that overlaps `box` most, or None where none does enough to be the same person's."""
  best = max(faces, key=lambda face: overlap(face.box, box), default=None)
  return best if best and overlap(best.box, box) >= _SAME_FACE else None


def overlap(a: Box, b: Box) -> float:
  """Intersection over union of two boxes."""
  w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
  h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
  shared = max(0.0, w) * max(0.0, h)
  return shared / (a[2] * a[3] + b[2] * b[3] - shared) if shared else 0.0


def union(boxes: Sequence[Box]) -> Box:
  """The smallest box around all."""
  x, y, w, h = np.array(boxes).T
  left, top = x.min(), y.min()
  return float(left), float(top), float((x + w).max() - left), float((y + h).max() - top)
