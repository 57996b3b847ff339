"""The motion to show now: absolute, or relative to the first second; held and faded if it is lost.

Rows are s_f (d,) and squares those of the driver's head, as in `reenactment.motion` and `in_plane`.
"""

import dataclasses

import numpy as np

from hybrid_jax.reenactment import in_plane, motion
from hybrid_jax.reenactment.in_plane import InPlane

RETURN = 0.2  # s in which the motion comes back after it was faded


@dataclasses.dataclass(frozen=True)
class Manner:
  """How the driver's motion is shown.

  Attributes:
    relative: whether the driver's change is added to the source's own expression.
    gain: of relative motion.
    calibration: seconds with a face, of which the most neutral frame is the reference.
    hold: seconds for which the last motion stays when the face is lost.
    fade: seconds in which it then becomes neutral.
    in_plane: whether the driver's roll, shift and size are put back.
  """

  relative: bool = False
  gain: float = 1.0
  calibration: float = 1.0
  hold: float = 0.5
  fade: float = 1.0
  in_plane: bool = True


class LiveMotion:
  """Takes a row and a square for each frame with a face, and gives what to show at any time.

  Args:
    own: s_f (d,) of the source, which relative motion starts from.

  Attributes:
    weight: 1 shows the driver's motion, 0 the neutral expression.
    square: of the head, where it was seen last; None before.
  """

  def __init__(self, own: np.ndarray, manner: Manner):
    self._own, self._manner = own, manner
    # G(w_id, 0) is the neutral expression of absolute motion.
    self._neutral = own if manner.relative else np.zeros_like(own)
    self._row = self.square = self._start = None
    self._seen = self._time = None
    self.weight = 1.0
    self._reference = self._best = self._since = None

  def calibrate(self) -> None:
    """Makes the expression and the place of the last frame with a face the reference."""
    if self._row is None:
      return
    self._start = self.square
    if self._manner.relative:
      self._reference = self._row, self.square

  @property
  def calibrated(self) -> bool:
    """Whether the driver's motion is shown; relative motion first waits for its reference."""
    return self._row is not None and (self._reference is not None or not self._manner.relative)

  def see(self, row: np.ndarray, square: np.ndarray, time: float, cut: bool) -> None:
    """Takes the motion of a frame."""
    if cut or self._start is None:
      # A cut moves the camera: place and size count from the first face of each shot.
      self._start, self._best = square, None if cut else self._best
    self._row, self.square = row, square
    if self._manner.relative and self._reference is None:
      self._collect(time)
    if self._seen is not None and self.weight < 1:
      self.weight = min(1.0, self.weight + (time - self._time) / RETURN)
    self._seen = self._time = time

  def miss(self, time: float) -> None:
    """States that a time has come without a face."""
    if self._seen is not None:
      gone = time - self._seen - self._manner.hold
      faded = gone / self._manner.fade if self._manner.fade else float(gone > 0)
      self.weight = min(self.weight, max(0.0, 1.0 - max(0.0, faded)))
    self._time = time

  def _collect(self, time: float) -> None:
    self._since = time if self._since is None else self._since
    if self._best is None or np.linalg.norm(self._row) < np.linalg.norm(self._best[0]):
      self._best = self._row, self.square
    if time - self._since >= self._manner.calibration:
      self._reference, self._start = self._best, self._best[1]

  def shown(self) -> tuple[np.ndarray, InPlane | None]:
    """Returns the row to draw, and where the head goes; None if nothing is put back."""
    level = None if self._reference is None else self._reference[1]
    manner, still = self._manner, np.ones(1, complex)
    place = InPlane(still, 0 * still, not manner.relative) if manner.in_plane else None
    if not self.calibrated:
      return self._neutral, place
    row = self._row
    if manner.relative:
      (row,) = motion.relative([row], self._reference[0], self._own, manner.gain)
    if manner.in_plane:
      gain = manner.gain if manner.relative else 1.0
      place = in_plane.since(self.square[None], self._start, level, gain)
    if self.weight == 1:
      return row, place
    faded = self._neutral + np.float32(self.weight) * (row - self._neutral)
    return faded, place and place.faded(self.weight)
