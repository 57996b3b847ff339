"""The square of the driver's head, from this frame and earlier ones alone."""

import dataclasses
from fractions import Fraction

import numpy as np

from hybrid_jax.media import MediaError, align, framing
from hybrid_jax.media.faces import Face
from hybrid_jax.media.tracking import Tracker
from hybrid_jax.reenactment.live.one_euro import Cutoffs, OneEuro

# Seconds of a face from which the square of 'clip' and 'fomm' is made; then it stays.
SETTLING = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Sighting:
  """The head in a frame.

  square: (4,) as in `align`; None where no head is found.
  cut: whether a shot has begun since the last head.
  """

  square: np.ndarray | None
  cut: bool


class Head:
  """Gives the square of the head frame by frame.

  Args:
    tracker: follows the face; None takes frames whole, which must be square.
    kind: of the crop, one of `framing.KINDS`.
    cutoffs: of the filter of 'ffhq', in sides of the head a second.
  """

  def __init__(self, tracker: Tracker | None, kind: str, cutoffs: Cutoffs):
    self._tracker, self._kind, self._filter = tracker, kind, OneEuro(cutoffs)
    self._size, self._unit, self._seen, self._cut = None, 1.0, [], False

  def __call__(self, rgb: np.ndarray, time: Fraction) -> Sighting:
    """Returns the head in a frame (h, w, 3) uint8 of a time in seconds.

    Raises:
      MediaError: the frame is not square, and nothing locates the face.
    """
    before, self._size = self._size, rgb.shape[:2]
    resized = before is not None and before != self._size
    if self._tracker is None:
      return Sighting(self._whole(), resized or before is None)
    if resized:
      # Places in frames of another size mean nothing in this one.
      self._tracker.forget()
    face = self._tracker(rgb, time)
    if self._tracker.cut:
      self._filter.forget()
      self._seen, self._cut = [], True
    if face is None:
      return Sighting(None, self._cut)
    cut, self._cut = self._cut, False
    return Sighting(self._square(face, float(time)), cut)

  def _whole(self) -> np.ndarray:
    h, w = self._size
    if h != w:
      raise MediaError(f'driving: {w}x{h} is not square; give --face-detector, or a square crop')
    return align.upright((0, 0, w, w))

  def _square(self, face: Face, time: float) -> np.ndarray:
    if self._kind == 'ffhq':
      square = align.ffhq(face.landmarks)
      if not self._seen:
        # In sides of the head, so that the filter does not depend on the size of the frames.
        self._seen, self._unit = [time], align.side_of(square)
      return self._filter(square / self._unit, time) * self._unit if self._filter.on else square
    if self._seen and not framing.stays(face.box, self._seen[0][1].box):
      self._seen = []
    if not self._seen or time - self._seen[0][0] <= SETTLING:
      self._seen.append((time, face))
      seen = framing.Seen.of(self._seen)
      self._fixed = framing.squares(self._kind, seen, np.array([time]), self._size)[0]
    return self._fixed
