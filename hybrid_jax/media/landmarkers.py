"""Where the landmarks of faces come from: YuNet, MediaPipe, or a file made elsewhere.

A landmarker has `detect(rgb) -> list[Face]`, the largest face first. Of whatever it finds, five
points are kept (`align.five_points`).
"""

import csv
import json
import os
import pathlib
from typing import Protocol

import numpy as np

from hybrid_jax.media import MediaError, reason
from hybrid_jax.media.align import five_points
from hybrid_jax.media.faces import Face, FaceDetector

_MOST_FACES = 10


class Landmarker(Protocol):
  def detect(self, rgb: np.ndarray) -> list[Face]:
    """Faces of a picture (h, w, 3) uint8, the largest first."""


def open_landmarker(path: str | os.PathLike) -> Landmarker:
  """YuNet for an .onnx file, MediaPipe's FaceLandmarker for a .task file.

  Raises:
    MediaError: no such file, not such a model, or MediaPipe is not installed.
  """
  if pathlib.Path(path).suffix == '.task':
    return MediaPipe(path)
  return FaceDetector(path)


class MediaPipe:
  """Google's FaceLandmarker, 478 points a face; needs the package `mediapipe`."""

  def __init__(self, model_path: str | os.PathLike):
    if not os.path.isfile(model_path):
      raise MediaError(f'{model_path}: no such file; give the path of face_landmarker.task')
    try:
      import mediapipe
      from mediapipe.tasks.python import BaseOptions, vision
    except ImportError:
      raise MediaError(
        f'{model_path}: needs MediaPipe; pip install mediapipe, or give a YuNet .onnx file'
      ) from None
    self._picture = lambda rgb: mediapipe.Image(
      image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(rgb)
    )
    options = vision.FaceLandmarkerOptions(
      base_options=BaseOptions(model_asset_path=os.fspath(model_path)), num_faces=_MOST_FACES
    )
    try:
      self._net = vision.FaceLandmarker.create_from_options(options)
    except (RuntimeError, ValueError) as error:
      raise MediaError(
        f'{model_path}: is no FaceLandmarker model ({reason(error)}); give face_landmarker.task'
      ) from error

  def detect(self, rgb: np.ndarray) -> list[Face]:
    h, w = rgb.shape[:2]
    found = []
    for face in self._net.detect(self._picture(rgb)).face_landmarks:
      points = np.array([(p.x * w, p.y * h) for p in face])
      (left, top), (right, bottom) = points.min(0), points.max(0)
      box = tuple(float(v) for v in (left, top, right - left, bottom - top))
      found.append(Face(box, five_points(points), 1.0))
    return sorted(found, key=lambda face: face.box[2] * face.box[3], reverse=True)


def read_landmarks(
  path: str | os.PathLike, size: tuple[int, int], frames: int | None = None
) -> np.ndarray:
  """Landmarks of one face made elsewhere -> (t, 5, 2) in px, NaN where there is no face.

  5, 68 or 478 points a frame, x then y, in pixels of the picture of `size` (h, w), or in [0, 1] of
  its sides where no value is larger than that.
    .npz   an array `landmarks`, (t, k, 2) or (k, 2), NaN for no face
    .json  a list of frames, each a list of [x, y], or null
    .csv   a line per frame: frame number, x0, y0, x1, y1, ...; a header; other frames have no face

  `frames` (t) is what the clip has; None takes what the file has.

  Raises:
    MediaError: not such a file, another number of points or of frames.
  """
  path = pathlib.Path(path)
  readers = {'.npz': _read_npz, '.json': _read_json, '.csv': _read_csv}
  if path.suffix not in readers:
    raise MediaError(f'{path}: landmarks are read from .npz, .json or .csv files')
  try:
    points = np.asarray(readers[path.suffix](path, frames), float)
    points = points[None] if points.ndim == 2 else points
    if points.ndim != 3 or points.shape[2] != 2:
      raise ValueError(f'an array of {points.shape}, not (frames, points, 2)')
    points = five_points(points)
  except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError) as error:
    raise MediaError(f'{path}: no landmarks can be read ({reason(error)}); see --help') from error
  if frames is not None and len(points) != frames:
    raise MediaError(f'{path}: holds {len(points)} frames, the clip {frames}; make it anew')
  if not np.isfinite(points).all((1, 2)).any():
    raise MediaError(f'{path}: holds no face; make it anew')
  return points * size[::-1] if np.nanmax(np.abs(points)) <= 1 else points


def _read_npz(path, frames):
  with np.load(path) as file:
    return file['landmarks']


def _read_json(path, frames):
  listed = json.loads(path.read_text())
  count = max(len(face) for face in listed if face)
  return [face or np.full((count, 2), np.nan) for face in listed]


def _read_csv(path, frames):
  with path.open(newline='') as file:
    rows = list(csv.reader(file))[1:]
  numbers = [int(row[0]) for row in rows]
  values = np.array([row[1:] for row in rows], float)
  if min(numbers) < 0:
    raise ValueError('frame numbers begin at 0')
  points = np.full((max(frames or 0, max(numbers) + 1), values.shape[1]), np.nan)
  points[numbers] = values
  return points.reshape(len(points), -1, 2)
