"""Detectors of faces as the evaluation uses them: mouths of any, motion of MediaPipe."""

from collections.abc import Mapping

import cv2
import numpy as np

from hybrid_jax.evaluation.blendshapes import Landmarker
from hybrid_jax.media import align, landmarkers

SIDE = 256  # px; smaller frames are enlarged for the detector


class Mediapipe:
  """FaceLandmarker, for motion and mouths; `read(rgb)` -> (channels, points (5, 2))."""

  groups = {'blendshape': 'blendshapes', 'gaze': 'gaze', 'pose': 'pose'}

  def __init__(self, path: str):
    self._landmarker = Landmarker(path)

  def read(self, rgb: np.ndarray) -> tuple[dict[str, float], np.ndarray] | None:
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
    self._landmarker.close()


class Yunet:
  """YuNet as a source of mouths alone."""

  groups: Mapping[str, str] = {}

  def __init__(self, path: str):
    self._detector = landmarkers.open_landmarker(path)

  def read(self, rgb: np.ndarray) -> tuple[dict[str, float], np.ndarray] | None:
    found = self._detector.detect(rgb)
    return ({}, found[0].landmarks) if found else None

  def close(self) -> None:
    pass


def open_detector(path: str) -> Mediapipe | Yunet | None:
  """MediaPipe for a .task file, YuNet for an .onnx file, None for ''. Raises InputError."""
  if not path:
    return None
  return Mediapipe(path) if path.endswith('.task') else Yunet(path)


def look(
  detector: Mediapipe | Yunet, rgb: np.ndarray
) -> tuple[dict[str, float], np.ndarray | None]:
  """(channels, landmarks (5, 2) in [0, 1]) of a frame (h, w, 3); ({}, None) without a face."""
  scale = max(1.0, SIDE / min(rgb.shape[:2]))
  if scale > 1:
    rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
  found = detector.read(rgb)
  return ({}, None) if found is None else (found[0], found[1] / rgb.shape[1::-1])
