"""MediaPipe's FaceLandmarker as an outside judge of expression, gaze and head pose.

Needs the package `mediapipe` and its model file (face_landmarker_v2_with_blendshapes.task).
"""

import os
import pathlib

import numpy as np

from hybrid_jax.errors import InputError

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
    self._landmarker = vision.FaceLandmarker.create_from_options(options)

  def __call__(self, rgb: np.ndarray) -> dict[str, float] | None:
    """(h, w, 3) uint8 -> CHANNELS (in blendshape units) and POSE (radians); None if no face.

    Positive yaw is to the image's right, positive pitch up, positive roll counter-clockwise.
    """
    result = self._landmarker.detect(self._image(rgb))
    if not result.face_landmarks:
      return None
    shapes = {shape.category_name: shape.score for shape in result.face_blendshapes[0]}
    read = {}
    for name, (plus, minus) in CHANNELS.items():
      read[name] = (sum(map(shapes.get, plus)) - sum(map(shapes.get, minus))) / len(plus)
    turn = np.asarray(result.facial_transformation_matrixes[0])[:3, :3]
    forward, right = turn[:, 2], turn[:, 0]
    read['yaw'] = float(np.arctan2(forward[0], forward[2]))
    read['pitch'] = float(np.arcsin(np.clip(forward[1], -1, 1)))
    read['roll'] = float(np.arctan2(right[1], right[0]))
    return read

  def close(self) -> None:
    self._landmarker.close()
