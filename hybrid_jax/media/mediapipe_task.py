"""MediaPipe's FaceLandmarker: the one place that opens its `.task` file.

The package `mediapipe` is an optional dependency and imported only here.
"""

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

from hybrid_jax.media import MediaError, reason

_MODEL = 'face_landmarker_v2_with_blendshapes.task'

_redirecting = threading.Lock()


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
  """Drops what is written to the standard error stream, by C++ too.

  MediaPipe logs its start there, and neither its Python API nor GLOG_minloglevel turns that off.
  """
  # One thread at a time: a second one would take the null device for the stream to restore.
  with _redirecting, open(os.devnull, 'w') as nowhere:
    sys.stderr.flush()
    stream = os.dup(2)
    os.dup2(nowhere.fileno(), 2)
    try:
      yield
    finally:
      os.dup2(stream, 2)
      os.close(stream)


class FaceLandmarker:
  """Opens a `.task` file and runs it on single images (running mode IMAGE, no tracking).

  Args:
    model_path: the model file.
    options: fields of MediaPipe's `FaceLandmarkerOptions`, e.g. `num_faces` (default 1) or
      `output_face_blendshapes`.

  Raises:
    MediaError: no such file, MediaPipe is not installed, or the file is not such a model.
  """

  def __init__(self, model_path: str | os.PathLike, **options):
    if not os.path.isfile(model_path):
      raise MediaError(f"{model_path}: no such file; give {_MODEL} of MediaPipe's models")
    try:
      with _without_log():
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision
    except ImportError:
      raise MediaError(
        f'{model_path}: needs MediaPipe; pip install mediapipe, or use a YuNet .onnx file'
      ) from None
    self._mediapipe = mediapipe
    base = BaseOptions(model_asset_path=os.fspath(model_path))
    try:
      with _without_log():
        self._net = vision.FaceLandmarker.create_from_options(
          vision.FaceLandmarkerOptions(base_options=base, **options)
        )
        # Its threads log their start until the first picture is done.
        self(np.zeros((64, 64, 3), np.uint8))
    except (RuntimeError, ValueError) as error:
      raise MediaError(
        f'{model_path}: is not a FaceLandmarker model ({reason(error)}); give {_MODEL}'
      ) from error
    # MediaPipe closes the model in `__del__`, which fails with a traceback once the interpreter
    # has dismantled its modules; a finalizer runs before that.
    self._close = weakref.finalize(self, _close, self._net)

  def __call__(self, rgb: np.ndarray) -> Any:
    """Runs the model on (h, w, 3) uint8; returns MediaPipe's `FaceLandmarkerResult`."""
    # MediaPipe reads the memory in order and ignores the strides of a flipped or cropped view.
    data = np.ascontiguousarray(rgb)
    image = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=data)
    return self._net.detect(image)

  def close(self) -> None:
    """Frees the model; the object cannot be called afterwards."""
    self._close()


def _close(net: Any) -> None:
  try:
    net.close()
  except RuntimeError:
    # At the end of the program its thread is gone already; without a handle `__del__` does nothing.
    net._handle = None


def points_px(landmarks: list, rgb: np.ndarray) -> np.ndarray:
  """One face of `result.face_landmarks` -> (478, 2) points in px of the picture `rgb`."""
  return np.array([(p.x, p.y) for p in landmarks]) * rgb.shape[1::-1]
