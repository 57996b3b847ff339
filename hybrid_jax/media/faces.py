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

from hybrid_jax.media import MediaError, reason, turns

# OpenCV 5 warns whenever it loads a network that the CPU has no separate target.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)

Box = tuple[float, float, float, float]
Square = tuple[int, int, int, int]

# Long sides, px, at which a picture is searched. YuNet finds faces of about 10 to 350 px: on larger
# ones it reports parts as faces, with scores up to 0.88, and below it finds none. The scales are
# therefore compared, and the best score decides.
_LONG_SIDES = (1920, 640, 320, 160)
_LARGEST = 350  # px, of a face that is followed
# A picture of more than `_HUGE` px that shows no face is searched at `_FINE` px as well.
_HUGE, _FINE = 4096, 3840

# Least scores of upright and of turned faces, and near the last place of a face that is followed.
# With all scales compared, faces score 0.88 or more, at 40 degrees of roll 0.82; motorcycles and
# drawn leaves up to 0.81, and up to 0.86 in one of the four turns.
_LEAST, _LEAST_TURNED, _LEAST_FOLLOWED = 0.8, 0.85, 0.6
# Turned faces reach 0.91 where they are taken for upright ones: from here on, none is turned.
_UPRIGHT = 0.92
_TURNED = 0.02  # by which the score of a turned face must be higher: most heads are upright
_FINER = 0.05  # loss of score at which a finer scale, whose landmarks are more exact, is preferred


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
  """A face found in a picture.

  box: (x, y, w, h), px.
  landmarks: (5, 2), x and y in px of right eye, left eye, nose tip, right and left mouth corner;
    right is the person's right, on the left side of a picture that is not mirrored.
  score: confidence of the detector, in [0, 1].
  points: (k, 2), all points of a detector that finds more than five.
  """

  box: Box
  landmarks: np.ndarray
  score: float
  points: np.ndarray | None = None

  @property
  def everything(self) -> np.ndarray:
    """The points (k, 2), or the five landmarks where there are no others."""
    return self.landmarks if self.points is None else self.points


@dataclasses.dataclass(frozen=True, eq=False)
class _Candidate:
  """A face found at one scale and turn, in px of the untouched picture."""

  face: Face
  turn: int

  @property
  def rank(self) -> float:
    """Its score, less a handicap of turned faces."""
    return self.face.score - (_TURNED if self.turn else 0)


class FaceDetector:
  """OpenCV's YuNet (Wu et al. 2023), over several scales and, where needed, quarter turns.

  Raises:
    MediaError: no such file, or not a YuNet model.
  """

  def __init__(self, model_path: str | os.PathLike):
    if not os.path.isfile(model_path):
      raise MediaError(f'{model_path}: no such face detector; give the path of a YuNet .onnx file')
    try:
      self._net = cv2.FaceDetectorYN.create(
        os.fspath(model_path), '', (64, 64), score_threshold=_LEAST_FOLLOWED
      )
      # Other ONNX models load without an error and fail only here.
      self._net.detect(np.zeros((64, 64, 3), np.uint8))
    except cv2.error as error:
      raise MediaError(
        f'{model_path}: is not a YuNet face detector ({reason(error)}); give a YuNet .onnx file'
      ) from error

  def detect(self, rgb: np.ndarray, near: Face | None = None) -> list[Face]:
    """Returns the faces of a picture (h, w, 3) uint8, the largest first.

    Heads may lie on their side or upside down: `Face.landmarks` has the eyes where they are.

    Args:
      near: the face followed, where it was seen last. It is searched at the scale and in the turn
        of that time, and all scales are compared only if it is not found there.
    """
    if near is not None:
      turn, long = turns.turn_of(near.landmarks), max(rgb.shape[:2])
      side = round(min(long, _LONG_SIDES[0], _LARGEST * long / max(1.0, *near.box[2:])))
      candidates = self._search(rgb, (side,), turn)
      if not any(overlap(one.face.box, near.box) for one in candidates):
        candidates = self._search(rgb, _LONG_SIDES, turn)
      return _best(candidates, _LEAST_FOLLOWED, _LEAST_FOLLOWED)
    found = self._compared(rgb, _LONG_SIDES)
    if not found and max(rgb.shape[:2]) > _HUGE:
      found = self._compared(rgb, (_FINE,))
    return found

  def _compared(self, rgb: np.ndarray, sides: Sequence[int]) -> list[Face]:
    """Compares the scales of the upright picture and, unless it is certain, of the turned ones."""
    candidates = self._search(rgb, sides, 0)
    found = _best(candidates, _LEAST, _LEAST_TURNED)
    if not found or min(face.score for face in found) < _UPRIGHT:
      for turn in turns.ALL[1:]:
        candidates += self._search(rgb, sides, turn)
      found = _best(candidates, _LEAST, _LEAST_TURNED)
    return found

  def _search(self, rgb: np.ndarray, sides: Sequence[int], turn: int) -> list[_Candidate]:
    """Returns plausible faces at each scale, the finest first."""
    h, w = rgb.shape[:2]
    candidates, picture = [], np.ascontiguousarray(rgb)
    for side in sorted({min(side, max(h, w)) for side in sides}, reverse=True):
      size = max(1, round(w * side / max(h, w))), max(1, round(h * side / max(h, w)))
      # Each scale from the one before: from 48 megapixels, each would take a third of a second.
      picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
      bgr = cv2.cvtColor(turns.turned(picture, turn), cv2.COLOR_RGB2BGR)
      self._net.setInputSize(bgr.shape[1::-1])
      _, rows = self._net.detect(bgr)
      # Per axis: the rounded sides are not exactly proportional.
      scale = np.array([w / size[0], h / size[1]])
      for row in () if rows is None else rows.astype(float):
        face = _face(row)
        if is_plausible(face.landmarks):
          back = turned_back(face, turn, picture.shape[:2])
          box = tuple((np.reshape(back.box, (2, 2)) * scale).ravel().tolist())
          candidates.append(_Candidate(Face(box, back.landmarks * scale, face.score), turn))
    return candidates


def _best(candidates: Sequence[_Candidate], least: float, least_turned: float) -> list[Face]:
  """Returns the best face at each place, if its score reaches the least; the largest first."""
  kept = []
  for one in sorted(candidates, key=lambda one: one.rank, reverse=True):
    enough = one.face.score >= (least_turned if one.turn else least)
    if enough and all(covered(one.face.box, o.face.box) < 0.5 for o in kept):
      kept.append(one)
  # Turning adds chances of a false alarm: elsewhere than an upright face, only if it is better.
  upright = [one for one in candidates if not one.turn]
  bar = max((one.rank for one in kept if not one.turn), default=0.0)
  kept = [
    one
    for one in kept
    if not one.turn or one.rank > bar or any(overlap(one.face.box, o.face.box) for o in upright)
  ]
  found = [_finest(one, candidates).face for one in kept]
  return sorted(found, key=lambda face: face.box[2] * face.box[3], reverse=True)


def _finest(best: _Candidate, candidates: Sequence[_Candidate]) -> _Candidate:
  """Returns the candidate of the finest scale that agrees with `best` and scores hardly less."""
  return next(
    one
    for one in candidates
    if one.turn == best.turn
    and one.rank >= best.rank - _FINER
    and overlap(one.face.box, best.face.box) > 0.6
  )


def is_plausible(landmarks: np.ndarray) -> bool:
  """Returns whether landmarks (5, 2) can be those of an upright face.

  The mouth is below the eyes, the roll at most 60 degrees, the distance of the eyes and the width
  of the mouth are at most 2 times the distance from eyes to mouth, and the nose is between.
  """
  right_eye, left_eye, nose, right_mouth, left_mouth = landmarks
  eyes, down = (right_eye + left_eye) / 2, (right_mouth + left_mouth - right_eye - left_eye) / 2
  height = float(np.hypot(*down))
  # A face in profile has eyes that coincide, so that the distances have no lower limit.
  return bool(
    height > 0
    and down[1] > 0.5 * height
    and np.hypot(*(left_eye - right_eye)) < 2 * height
    and np.hypot(*(left_mouth - right_mouth)) < 2 * height
    and -0.2 < (nose - eyes) @ down / height**2 < 1.2
  )


def turned_back(face: Face, turn: int, size: tuple[int, int]) -> Face:
  """Returns a face of a turned picture in px of the untouched one, whose size is (h, w)."""
  x, y, w, h = face.box
  corners = turns.back(np.array([(x, y), (x + w, y + h)]), turn, size)
  (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
  box = (left, top, right - left, bottom - top)
  points = None if face.points is None else turns.back(face.points, turn, size)
  return Face(box, turns.back(face.landmarks, turn, size), face.score, points)


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


def _face(row: np.ndarray) -> Face:
  """Converts a row of YuNet's output: box (4), five landmarks (10), score (1)."""
  return Face(tuple(row[:4].tolist()), row[4:14].reshape(5, 2), float(row[14]))


def overlap(a: Box, b: Box) -> float:
  """Returns the intersection over union of two boxes, in [0, 1]."""
  shared = _shared(a, b)
  return shared / (a[2] * a[3] + b[2] * b[3] - shared) if shared else 0.0


def covered(a: Box, b: Box) -> float:
  """Returns the intersection of two boxes over the smaller one, in [0, 1]."""
  return _shared(a, b) / max(min(a[2] * a[3], b[2] * b[3]), 1e-9)


def _shared(a: Box, b: Box) -> float:
  w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
  h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
  return max(0.0, w) * max(0.0, h)


def union(boxes: Sequence[Box]) -> Box:
  """Returns the smallest box around all of `boxes`."""
  x, y, w, h = np.array(boxes).T
  left, top = x.min(), y.min()
  return float(left), float(top), float((x + w).max() - left), float((y + h).max() - top)
