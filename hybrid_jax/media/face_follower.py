"""The face follower: which of the faces in each frame of a clip is the person followed.

Training crops (`clips`) and re-enactment (`tracking`) use the same class. They differ in two
parameters: which face is chosen first, and whether a face lost for long is chosen anew.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from hybrid_jax.media.faces import Box, Face, overlap
from hybrid_jax.media.landmarkers import Landmarker

# Choice(rgb (h, w, 3), faces found in it, at least one, the largest first) -> the face to follow.
Choice = Callable[[np.ndarray, Sequence[Face]], Face]

# Least intersection over union with the last place of the face. 0.2 allows a shift by two thirds of
# the box between two searches, while the faces of two people side by side hardly overlap.
_SAME_FACE = 0.2


def largest(rgb: np.ndarray, found: Sequence[Face]) -> Face:
  """Chooses the largest face; detectors return it first."""
  del rgb
  return found[0]


class FaceFollower:
  """Follows one face through a clip by overlap with the place where it was seen last.

  The follower compares boxes and not appearance: a face that jumps further than `_SAME_FACE` allows
  counts as lost, and another person who appears in its place counts as found.

  Args:
    landmarker: finds the faces of a frame.
    choose: picks the face to follow when none is followed.
    forget_after: seconds without the face after which `choose` picks anew; None never does.

  Attributes:
    face: where the face was seen last; None while none is followed.
    misses: searches without the face since it was seen last; 0 while none is followed.
  """

  def __init__(
    self,
    landmarker: Landmarker,
    choose: Choice = largest,
    forget_after: float | None = None,
  ):
    self._landmarker, self._choose, self._forget_after = landmarker, choose, forget_after
    self._seen = None
    self.forget()

  def forget(self) -> None:
    """Stops following: the next frame with a face chooses anew, as after a cut."""
    self.face, self.misses = None, 0

  def __call__(self, rgb: np.ndarray, time: Fraction | None = None) -> Face | None:
    """Searches a frame (h, w, 3) uint8; returns the face followed, or None where it is not found.

    Args:
      time: of the frame, seconds; needed with `forget_after`.
    """
    found = self._landmarker.detect(rgb)
    # Checked before this frame is matched: after the time the same face is one candidate of many.
    if self._forget_after is not None and self.face and time - self._seen > self._forget_after:
      self.forget()
    if self.face:
      face = _same_face(found, self.face.box)
    else:
      face = self._choose(rgb, found) if found else None
    if face:
      self.face, self._seen, self.misses = face, time, 0
    # Not counted before the first sighting: a clip may begin without the face.
    elif self.face:
      self.misses += 1
    return face


def _same_face(faces: Sequence[Face], box: Box) -> Face | None:
  """The face that overlaps `box` most; None if no overlap reaches `_SAME_FACE`."""
  best = max(faces, key=lambda face: overlap(face.box, box), default=None)
  return best if best and overlap(best.box, box) >= _SAME_FACE else None
