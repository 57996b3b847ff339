"""MediaPipe's FaceLandmarker as an outside judge of expression, gaze and head pose.

Needs the package `mediapipe` and its model file (face_landmarker_v2_with_blendshapes.task).
"""

import dataclasses
import os
import pathlib

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.media import reason

# What MediaPipe says of each motion channel: blendshapes to add, and to subtract. Its left and
# right are the person's own, as ours are.
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

# Of the 478 points: iris centre, and corners of the eye from the image's left to its right.
_EYES = ((468, 33, 133), (473, 362, 263))


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
  """All that is read of one face.

  blendshapes: 51 scores in [0, 1] by MediaPipe's names, without '_neutral'.
  gaze: 'x' (to the image's right) and 'y' (down), how far the irises are from the middle between
    the corners of their eyes, in half widths of the eye, mean of both.
  pose: `POSE`, radians, see `Landmarker.__call__`.
  points: (478, 2) px.
  """

  blendshapes: dict[str, float]
  gaze: dict[str, float]
  pose: dict[str, float]
  points: np.ndarray


class Landmarker:
  """Reads expression and pose from single images.

  Raises:
    InputError: no mediapipe, or no such model.
  """

  def __init__(self, model: str | os.PathLike):
    if not pathlib.Path(model).is_file():
      raise InputError(f'{model}: no such file; give face_landmarker_v2_with_blendshapes.task')
    try:
      import mediapipe
      from mediapipe.tasks.python import BaseOptions, vision
    except ImportError as error:
      raise InputError('this needs MediaPipe: pip install mediapipe') from error
    self._image = lambda rgb: mediapipe.Image(
      image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(rgb)
    )
    options = vision.FaceLandmarkerOptions(
      base_options=BaseOptions(model_asset_path=str(model)),
      output_face_blendshapes=True,
      output_facial_transformation_matrixes=True,
    )
    try:
      self._landmarker = vision.FaceLandmarker.create_from_options(options)
    except (RuntimeError, ValueError) as error:
      raise InputError(
        f'{model}: is no FaceLandmarker model ({reason(error)}); give '
        'face_landmarker_v2_with_blendshapes.task'
      ) from error

  def read(self, rgb: np.ndarray) -> Reading | None:
    """(h, w, 3) uint8 -> everything about the first face; None if there is none."""
    result = self._landmarker.detect(self._image(rgb))
    if not result.face_landmarks:
      return None
    size = rgb.shape[1::-1]
    points = np.array([(p.x, p.y) for p in result.face_landmarks[0]]) * size
    shapes = {shape.category_name: shape.score for shape in result.face_blendshapes[0]}
    shapes.pop('_neutral', None)
    turn = np.asarray(result.facial_transformation_matrixes[0])[:3, :3]
    forward, right = turn[:, 2], turn[:, 0]
    pose = {
      'yaw': float(np.arctan2(forward[0], forward[2])),
      'pitch': float(np.arcsin(np.clip(forward[1], -1, 1))),
      'roll': float(np.arctan2(right[1], right[0])),
    }
    return Reading(shapes, _gaze(points), pose, points)

  def __call__(self, rgb: np.ndarray) -> dict[str, float] | None:
    """(h, w, 3) uint8 -> CHANNELS (in blendshape units) and POSE (radians); None if no face.

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
    self._landmarker.close()


def _gaze(points: np.ndarray) -> dict[str, float]:
  offsets = []
  for iris, left, right in _EYES:
    half = (points[right] - points[left]) / 2
    away = (points[iris] - (points[left] + points[right]) / 2) / (half @ half)
    offsets.append((away @ half, away @ (-half[1], half[0])))
  x, y = np.mean(offsets, 0)
  return {'x': float(x), 'y': float(y)}
