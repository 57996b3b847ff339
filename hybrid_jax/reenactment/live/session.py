"""One live re-enactment as a function of frames: `frame = session(frame)`."""

import dataclasses
import os
import time as clock
from fractions import Fraction
from typing import Any

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.media import align, video
from hybrid_jax.reenactment import edits
from hybrid_jax.reenactment.arrangement import Arrangement
from hybrid_jax.reenactment.inputs import Input, open_picture, open_tracker, recrop
from hybrid_jax.reenactment.live.head import Head
from hybrid_jax.reenactment.live.latency import Stages
from hybrid_jax.reenactment.live.motion import LiveMotion
from hybrid_jax.reenactment.live.options import SHARED, Live
from hybrid_jax.reenactment.model import Model
from hybrid_jax.reenactment.options import Options

_MOVES = 'is a clip; live mode takes a picture as its source'


class Session:
  """Re-enacts one source, frame by frame, without looking ahead.

  Args:
    source: the person, a picture.
    options: of the crop, motion, edits and layout.
    live: of the filter, calibration, hold and fade.

  Attributes:
    shape: (h, w) of the pictures returned.
    stages: the time of each stage.
    missing: frames without a face so far.

  Raises:
    InputError: an option that this model or source cannot serve.
  """

  def __init__(self, model: Model, source: Input, options: Options, live: Live):
    if source.moving:
      raise InputError(f'{source.path}: {_MOVES}')
    crop = options.crop_options('driving')
    kind = crop.kind(model)
    self._model, self._source = model, source
    self._edits = edits.resolve(options.edit, options.directions, model)
    tracker = open_tracker(crop, model) if crop.locates else None
    self._head = Head(tracker, kind, live.cutoffs)
    head = source.head(model.size)
    self._W_S = model.identity(head)
    own = self._encoded(head)
    # Only the alignment of each frame removes motion that can be put back.
    self._motion = LiveMotion(own, live.manner(options, kind == 'ffhq'))
    self._arrangement = Arrangement(options.layout, source, model.resolution)
    self.shape, self.stages, self.missing = self._arrangement.shape, Stages(), 0
    self._drawn, self._rgb, self._start = None, None, None
    # Compiles the generator now, so that the first frame does not wait for it.
    self._image(own, 0.0)

  def __call__(self, frame: np.ndarray, time: Fraction | float | None = None) -> np.ndarray:
    """Returns the picture (*shape, 3) uint8 of a driving frame.

    Args:
      frame: (h, w, 3) uint8; its size may change.
      time: seconds, increasing; by default now, as for a camera.

    Raises:
      InputError: not such an array; or not square where nothing locates the face.
      FloatingPointError: the result is not finite.
    """
    _check(frame)
    time = clock.monotonic() if time is None else time
    with self.stages('track'):
      seen = self._head(frame, time)
    if seen.square is None:
      self.missing += 1
      self._motion.miss(float(time))
    else:
      with self.stages('crop'):
        crop = align.cut(frame, seen.square, self._model.size)
      with self.stages('encode'):
        row = self._encoded(crop)
      self._motion.see(row, seen.square, float(time), seen.cut)
    # Kept for pictures without a frame; other layouts do not show it.
    self._rgb = frame if self._arrangement.shows_driver else None
    return self._picture(float(time))

  def hold(self, time: Fraction | float | None = None) -> np.ndarray:
    """Returns the picture of a time at which no frame came: the last motion, later faded."""
    time = float(clock.monotonic() if time is None else time)
    self._motion.miss(time)
    return self._picture(time)

  def calibrate(self) -> None:
    """Makes the driver's last expression and place the reference: call it on a neutral face."""
    self._motion.calibrate()

  def _encoded(self, crop: np.ndarray) -> np.ndarray:
    return next(self._model.deformations([crop], 1))

  def _picture(self, time: float) -> np.ndarray:
    row, place = self._motion.shown()
    # Edits that change over time count from the first frame.
    self._start = time if self._start is None else self._start
    with self.stages('synthesise'):
      image = self._image(row, time - self._start)
    with self.stages('composite'):
      arrangement = self._arrangement
      arrangement.in_plane = place
      background = self._source.picture if arrangement.shows_source else None
      driver = self._driver() if arrangement.shows_driver else None
      return arrangement.picture(image, 0, 0, background, driver)

  def _image(self, row: np.ndarray, seconds: float) -> np.ndarray:
    """The image of a row; one that is held is not drawn again."""
    if self._drawn and not self._edits and np.array_equal(self._drawn[0], row):
      return self._drawn[1]
    image = next(edits.images(self._model, self._W_S, [row], 1, self._edits, np.array([seconds])))
    self._drawn = row, image
    return image

  def _driver(self) -> np.ndarray:
    """The driver's head where it was seen last; the middle of a frame before it was seen."""
    size = self._model.resolution
    if self._rgb is None:
      return np.full((size, size, 3), 255, np.uint8)
    square, (h, w) = self._motion.square, self._rgb.shape[:2]
    if square is None:
      side = min(h, w)
      return align.cut(self._rgb, align.upright(((w - side) / 2, (h - side) / 2, side, side)), size)
    return self._arrangement.driver(self._rgb, square, 0)


def _check(frame: np.ndarray, what: str = 'frame') -> None:
  shaped = isinstance(frame, np.ndarray) and frame.ndim == 3 and frame.shape[2] == 3 and frame.size
  if not shaped or frame.dtype != np.uint8:
    kind = getattr(frame, 'dtype', type(frame).__name__)
    raise InputError(f'{what}: {kind} {getattr(frame, "shape", "")}; give (h, w, 3) of uint8')


def open_session(model: Model, options: Options, live: Live, source: Any = None) -> Session:
  """Returns the session of a source; by default that of the file `options.source`.

  Args:
    source: (h, w, 3) uint8, or a picture that has been cropped already.

  Raises:
    InputError: the source or an option cannot be used.
  """
  # One frame at a time, while the source is opened.
  model.prepare(1, draw=not options.edit)
  if isinstance(source, Input):
    opened = source if source.kind else recrop(source, options.crop or model.crop)
    return Session(model, opened, options, live)
  if source is None and video.is_clip(options.source):
    raise InputError(f'{options.source}: {_MOVES}')
  picture = options.source if source is None else source
  opened = open_picture(picture, options.crop_options('source'), model)
  return Session(model, opened, options, live)


def start(model: Model, source: Any, **options: Any) -> Session:
  """Does what `Model.live` documents.

  Raises:
    InputError: an input or an option that cannot be used.
  """
  names = {field.name for field in dataclasses.fields(Live)}
  names -= {'realtime', 'wait', 'input_format', 'input_options', 'log'}  # of the command alone
  shared = set(SHARED) - {'workdir', 'codec', 'crf', 'audio', 'certificate', 'key'}
  if unknown := sorted(set(options) - names - shared):
    known = ', '.join(sorted(names | shared))
    raise InputError(f'{", ".join(unknown)}: not an option; options are {known}')
  live = Live(**{name: value for name, value in options.items() if name in names})
  given = source if isinstance(source, Input | np.ndarray) else None
  if isinstance(source, np.ndarray):
    _check(source, 'source')
  elif given is None and not os.path.isfile(source):
    raise InputError(f'{source}: no such file')
  name = 'array' if given is not None else source
  chosen = {name: value for name, value in options.items() if name in shared}
  return open_session(model, Options(source=name, driving='', output='', **chosen), live, given)
