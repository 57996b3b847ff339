"""Expression, gaze and head pose by MediaPipe's FaceLandmarker, which no training has used.

Needs the package `mediapipe` and its model file (face_landmarker_v2_with_blendshapes.task). Angles
are in radians; left and right are the person's own.
"""

import dataclasses
import os

import numpy as np

from hybrid_jax.media.mediapipe_task import FaceLandmarker, points_px

# Motion channels of the rendered world as sums of MediaPipe's blendshapes: names to add, and to
# subtract. MediaPipe and the rendered world agree on left and right.
CHANNELS = {
  'jaw_open': (('jawOpen',), ()),
  'smile': (('mouthSmileLeft', 'mouthSmileRight'), ('mouthFrownLeft', 'mouthFrownRight')),
  'pucker': (('mouthPucker',), ()),
  'lip_raise': (('mouthUpperUpLeft', 'mouthUpperUpRight'), ()),
  'mouth_shift': (('mouthLeft',), ('mouthRight',)),
  'brow_raise': (('browInnerUp', 'browOuterUpLeft', 'browOuterUpRight'), ()),
  'brow_frown': (('browDownLeft', 'browDownRight'), ()),
  'blink_left': (('eyeBlinkLeft',), ()),
  'blink_right': (('eyeBlinkRight',), ()),
  'squint': (('eyeSquintLeft', 'eyeSquintRight'), ()),
  'gaze_yaw': (('eyeLookOutLeft', 'eyeLookInRight'), ('eyeLookInLeft', 'eyeLookOutRight')),
  'gaze_pitch': (('eyeLookUpLeft', 'eyeLookUpRight'), ('eyeLookDownLeft', 'eyeLookDownRight')),
}
POSE = ('yaw', 'pitch', 'roll')

# Indices into the 478 points: iris centre, and corners of the eye from the image's left to right.
_EYES = ((468, 33, 133), (473, 362, 263))


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
  """Measurements of one face.

  blendshapes: 51 scores in [0, 1] by MediaPipe's names, without '_neutral'.
  gaze: 'x' (to the image's right) and 'y' (down): offset of the iris from the middle between the
    corners of the eye, in half widths of the eye, mean of both eyes.
  pose: angles `POSE`, radians, see `Landmarker.__call__`.
  points: (478, 2), px.
  """

  blendshapes: dict[str, float]
  gaze: dict[str, float]
  pose: dict[str, float]
  points: np.ndarray


class Landmarker:
  """Measures expression and pose in single images. Raises MediaError as `FaceLandmarker`."""

  def __init__(self, model: str | os.PathLike):
    self._landmarker = FaceLandmarker(
      model, output_face_blendshapes=True, output_facial_transformation_matrixes=True
    )

  def read(self, rgb: np.ndarray) -> Reading | None:
    """Measures the first face of (h, w, 3) uint8; None if there is no face."""
    result = self._landmarker(rgb)
    if not result.face_landmarks:
      return None
    points = points_px(result.face_landmarks[0], rgb)
    shapes = {shape.category_name: shape.score for shape in result.face_blendshapes[0]}
    shapes.pop('_neutral', None)
    # Columns of the head's rotation: its x axis points to the image's right, z out of the face.
    turn = np.asarray(result.facial_transformation_matrixes[0])[:3, :3]
    forward, right = turn[:, 2], turn[:, 0]
    pose = {
      # Yaw and pitch of the direction of the face, roll of its x axis: not Euler angles.
      'yaw': float(np.arctan2(forward[0], forward[2])),
      # Rounding can leave the range of arcsin.
      'pitch': float(np.arcsin(np.clip(forward[1], -1, 1))),
      'roll': float(np.arctan2(right[1], right[0])),
    }
    return Reading(shapes, _gaze(points), pose, points)

  def __call__(self, rgb: np.ndarray) -> dict[str, float] | None:
    """Returns CHANNELS (blendshape units) and POSE (radians) of (h, w, 3) uint8; None if no face.

    Positive yaw is to the image's right, positive pitch up, positive roll counter-clockwise.
    """
    reading = self.read(rgb)
    if reading is None:
      return None
    shapes, channels = reading.blendshapes, {}
    for name, (plus, minus) in CHANNELS.items():
      channels[name] = (sum(map(shapes.get, plus)) - sum(map(shapes.get, minus))) / len(plus)
    return channels | reading.pose

  def close(self) -> None:
    """Frees the model."""
    self._landmarker.close()


def _gaze(points: np.ndarray) -> dict[str, float]:
  """Returns `Reading.gaze` of (478, 2) points in px, along the axes of each eye (free of roll)."""
  offsets = []
  for iris, left, right in _EYES:
    half = (points[right] - points[left]) / 2
    # Divided by the squared half width: dot products with `half` are then in half widths.
    away = (points[iris] - (points[left] + points[right]) / 2) / (half @ half)
    offsets.append((away @ half, away @ (-half[1], half[0])))
  x, y = np.mean(offsets, 0)
  return {'x': float(x), 'y': float(y)}
