"""Face detectors of the evaluation: both find the mouth, MediaPipe measures motion as well.

A detector has `read(rgb)`, which returns (channels, landmarks (5, 2) in px) of one face or None,
`groups` (group of channels -> field of `blendshapes.Reading`), and `close()`.
"""

from collections.abc import Mapping

import cv2
import numpy as np

from hybrid_jax.evaluation.blendshapes import Landmarker
from hybrid_jax.media import align, landmarkers

# Short side, px, to which smaller frames are enlarged: MediaPipe misses faces in 64 px frames.
SIDE = 256


class Mediapipe:
  """MediaPipe's FaceLandmarker: blendshapes, gaze and pose by name, and landmarks."""

  # Prefix of a channel's name -> field of the reading.
  groups = {'blendshape': 'blendshapes', 'gaze': 'gaze', 'pose': 'pose'}

  def __init__(self, path: str):
    self._landmarker = Landmarker(path)

  def read(self, rgb: np.ndarray) -> tuple[dict[str, float], np.ndarray] | None:
    """Returns channels, named `group name`, and landmarks (5, 2) in px; None without a face."""
    reading = self._landmarker.read(rgb)
    if reading is None:
      return None
    channels = {
      f'{group} {name}': value
      for group, field in self.groups.items()
      for name, value in getattr(reading, field).items()
    }
    return channels, align.five_points(reading.points)

  def close(self) -> None:
    """Frees the model."""
    self._landmarker.close()


class Yunet:
  """YuNet: landmarks of the largest face, no motion channels."""

  groups: Mapping[str, str] = {}

  def __init__(self, path: str):
    self._detector = landmarkers.open_landmarker(path)

  def read(self, rgb: np.ndarray) -> tuple[dict[str, float], np.ndarray] | None:
    """Returns no channels, and landmarks (5, 2) in px; None without a face."""
    found = self._detector.detect(rgb)
    return ({}, found[0].landmarks) if found else None

  def close(self) -> None:
    """Does nothing: YuNet is freed with the object."""


def open_detector(path: str) -> Mediapipe | Yunet | None:
  """Opens MediaPipe for a `.task` file, YuNet for any other (`.onnx`); None for ''.

  Raises:
    InputError: no such file, or another kind of model.
  """
  if not path:
    return None
  return Mediapipe(path) if path.endswith('.task') else Yunet(path)


def look(
  detector: Mediapipe | Yunet, rgb: np.ndarray
) -> tuple[dict[str, float], np.ndarray | None]:
  """Reads a frame (h, w, 3) uint8, enlarged to `SIDE` if it is smaller.

  Returns:
    (channels, landmarks (5, 2) in [0, 1] of the frame's sides); ({}, None) without a face.
  """
  # Both axes alike, so that landmarks in [0, 1] need no correction.
  scale = max(1.0, SIDE / min(rgb.shape[:2]))
  if scale > 1:
    rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
  found = detector.read(rgb)
  return ({}, None) if found is None else (found[0], found[1] / rgb.shape[1::-1])
