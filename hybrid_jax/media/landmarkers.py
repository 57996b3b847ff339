"""Sources of face landmarks: YuNet, MediaPipe's FaceLandmarker, or a file of another program.

A landmarker has `detect(rgb) -> list[Face]`, the largest face first. All sources are reduced to the
same five points (`align.five_points`), so that the crops do not depend on the source.
"""

import csv
import json
import os
import pathlib
from typing import Protocol

import numpy as np

from hybrid_jax.media import MediaError, reason, turns
from hybrid_jax.media.align import five_points
from hybrid_jax.media.faces import Face, FaceDetector, covered, turned_back
from hybrid_jax.media.mediapipe_task import FaceLandmarker, points_px

# MediaPipe returns one face by default; the choice among several is left to the caller.
_MAX_FACES = 10


class Landmarker(Protocol):
  """A detector that finds faces and their five landmarks."""

  def detect(self, rgb: np.ndarray, near: Face | None = None) -> list[Face]:
    """Returns the faces of a picture (h, w, 3) uint8, the largest first.

    Args:
      near: the face followed, where it was seen last; then only its turn is searched.
    """


def open_landmarker(path: str | os.PathLike) -> Landmarker:
  """Opens MediaPipe's FaceLandmarker for a `.task` file, YuNet for any other (`.onnx`).

  Raises:
    MediaError: no such file, another kind of model, or MediaPipe is not installed.
  """
  if pathlib.Path(path).suffix == '.task':
    return MediaPipe(path)
  return FaceDetector(path)


class MediaPipe:
  """FaceLandmarker of MediaPipe, reduced to five landmarks a face. Raises as `FaceLandmarker`."""

  def __init__(self, model_path: str | os.PathLike):
    self._net = FaceLandmarker(model_path, num_faces=_MAX_FACES)

  def detect(self, rgb: np.ndarray, near: Face | None = None) -> list[Face]:
    """Returns the faces of a picture (h, w, 3) uint8, the largest first.

    Heads upside down are missed, or found as upright ones; on their side they are found. All four
    turns are therefore searched, and at each place most of them decide which way is up.

    Args:
      near: the face followed, where it was seen last; then only its turn is searched.
    """
    if near is not None:
      return _by_size(self._search(rgb, turns.turn_of(near.landmarks)))
    # (face, turn in which it was searched); a face is upright in the turn that `turn_of` gives.
    seen = [(face, turn) for turn in turns.ALL for face in self._search(rgb, turn)]
    kept = []
    for face, turn in sorted(seen, key=lambda one: turns.turn_of(one[0].landmarks) != one[1]):
      if all(covered(face.box, other.box) < 0.5 for other in kept):
        here = [turns.turn_of(o.landmarks) for o, _ in seen if covered(o.box, face.box) >= 0.5]
        up = max(turns.ALL, key=here.count)  # upright where they are equal
        # One turned view alone is more often a false alarm than a face.
        if up == turn == 0 or here.count(up) > 1:
          best = [o for o, t in seen if t == up and covered(o.box, face.box) >= 0.5]
          kept += [o for o in best if turns.turn_of(o.landmarks) == up][:1]
    return _by_size(kept)

  def _search(self, rgb: np.ndarray, turn: int) -> list[Face]:
    found, view = [], turns.turned(rgb, turn)
    for landmarks in self._net(view).face_landmarks:
      points = points_px(landmarks, view)
      (left, top), (right, bottom) = points.min(0), points.max(0)
      box = tuple(float(v) for v in (left, top, right - left, bottom - top))
      # The task returns no score per face; it drops faces below its own threshold of 0.5.
      face = Face(box, five_points(points), 1.0, points)
      found.append(turned_back(face, turn, rgb.shape[:2]))
    return found


def _by_size(found: list[Face]) -> list[Face]:
  return sorted(found, key=lambda face: face.box[2] * face.box[3], reverse=True)


def read_landmarks(
  path: str | os.PathLike, size: tuple[int, int], frames: int | None = None
) -> np.ndarray:
  """Reads the landmarks of one face from a file -> (t, 5, 2) in px, NaN in frames without a face.

  A frame has 5, 68 or 478 points, x then y. Files in which no coordinate exceeds 1 are read as
  fractions of the picture's sides, all others as pixels.
    .npz   array `landmarks`, (t, k, 2) or (k, 2); NaN for no face
    .json  list of frames, each a list of [x, y], or null for no face
    .csv   header, then a line per frame: frame number from 0, x0, y0, x1, y1, ...; a frame without
           a line has no face

  Args:
    size: (h, w) of the picture, px.
    frames: number of frames of the clip; None takes that of the file.

  Raises:
    MediaError: the file cannot be read, or has another number of points or frames.
  """
  path = pathlib.Path(path)
  readers = {'.npz': _read_npz, '.json': _read_json, '.csv': _read_csv}
  if path.suffix not in readers:
    raise MediaError(f'{path}: landmarks are read from .npz, .json or .csv files')
  try:
    points = np.asarray(readers[path.suffix](path, frames), float)
    # A single face is a clip of one frame.
    points = points[None] if points.ndim == 2 else points
    if points.ndim != 3 or points.shape[2] != 2:
      raise ValueError(f'an array of {points.shape}, not (frames, points, 2)')
    points = five_points(points)
  # Whatever numpy, json and csv raise for damaged files.
  except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError) as error:
    raise MediaError(f'{path}: no landmarks can be read ({reason(error)}); see --help') from error
  if frames is not None and len(points) != frames:
    raise MediaError(
      f'{path}: holds {len(points)} frames, the clip {frames}; write it again for this clip'
    )
  # A frame counts only with all of its points: alignment needs eyes and mouth.
  if not np.isfinite(points).all((1, 2)).any():
    raise MediaError(f'{path}: holds no face; write it again')
  # `size` is (h, w), points are (x, y). NaN does not take part in the maximum.
  return points * size[::-1] if np.nanmax(np.abs(points)) <= 1 else points


def _read_npz(path, frames):
  with np.load(path) as file:
    return file['landmarks']


def _read_json(path, frames):
  listed = json.loads(path.read_text())
  # A frame without a face has no points; the others give their number.
  count = max(len(face) for face in listed if face)
  return [face or np.full((count, 2), np.nan) for face in listed]


def _read_csv(path, frames):
  with path.open(newline='') as file:
    rows = list(csv.reader(file))[1:]
  numbers = [int(row[0]) for row in rows]
  values = np.array([row[1:] for row in rows], float)
  # A negative number would write from the end.
  if min(numbers) < 0:
    raise ValueError('frame numbers begin at 0')
  # Frames after the last line count as frames without a face.
  points = np.full((max(frames or 0, max(numbers) + 1), values.shape[1]), np.nan)
  points[numbers] = values
  return points.reshape(len(points), -1, 2)
