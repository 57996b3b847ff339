"""The face follower: which of the faces in each frame of a clip is the person followed.

Training crops (`clips`) and re-enactment (`tracking`) use the same class. They differ in three
parameters: which face is chosen first, whether a face lost for long is chosen anew, and whether
looks are compared.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from hybrid_jax.media.faces import Box, Face, overlap
from hybrid_jax.media.identity import Looks
from hybrid_jax.media.landmarkers import Landmarker

# Choice(rgb (h, w, 3), faces found in it, at least one, the largest first) -> the face to follow,
# or None where the person wanted is not among them.
Choice = Callable[[np.ndarray, Sequence[Face]], Face | None]

# Least intersection over union with the last place of the face. 0.2 allows a shift by two thirds of
# the box between two searches, while the faces of two people side by side hardly overlap.
_SAME_FACE = 0.2
# A face whose looks are known may also move `_REACH` sides of its box plus `_SPEED` a second, and
# anywhere between frames that are `_SLOW` seconds apart.
_REACH, _SPEED, _SLOW = 0.67, 1.5, 0.2
_GAP = 0.5  # seconds without the face that give time for another person to take its place


def largest(rgb: np.ndarray, found: Sequence[Face]) -> Face:
  """Chooses the largest face; detectors return it first."""
  del rgb
  return found[0]


class FaceFollower:
  """Follows one face through a clip by overlap with the place where it was seen last.

  Without `looks` the follower compares boxes alone: a face that jumps further than `_SAME_FACE`
  allows counts as lost, and another person who appears in its place counts as found.

  Args:
    landmarker: finds the faces of a frame.
    choose: picks the face to follow when none is followed.
    forget_after: seconds without the face after which `choose` picks anew; None never does. With
      `looks` it picks among the faces of the same person only.
    looks: compares a face that has moved far, was lost, or changed its colours with the person.

  Attributes:
    face: where the face was seen last; None while none is followed.
    misses: searches without the face since it was seen last; 0 while none is followed.
    other: whether the last frame shows faces, and all of them are other people.
  """

  def __init__(
    self,
    landmarker: Landmarker,
    choose: Choice = largest,
    forget_after: float | None = None,
    looks: Looks | None = None,
  ):
    self._landmarker, self._choose, self._forget_after = landmarker, choose, forget_after
    self._looks, self._seen, self._before = looks, None, None
    self.forget()

  def forget(self) -> None:
    """Stops following: the next frame with a face chooses anew, as after a cut."""
    self.face, self.misses, self.other = None, 0, False
    if self._looks:
      self._looks.forget()

  def __call__(self, rgb: np.ndarray, time: Fraction | None = None) -> Face | None:
    """Searches a frame (h, w, 3) uint8; returns the face followed, or None where it is not found.

    Args:
      time: of the frame, seconds; needed with `forget_after`.
    """
    # Checked before this frame is matched: after the time the same face is one candidate of many.
    if self._forget_after is not None and self.face and time - self._seen > self._forget_after:
      self.face, self.misses = None, 0
    if self.face:
      found = self._landmarker.detect(rgb, self.face)
      face = self._same_face(rgb, found, time)
    else:
      found = self._landmarker.detect(rgb)
      known = [one for one in found if not self._looks or self._looks.include(rgb, one, moved=True)]
      face = self._choose(rgb, known) if known else None
    self.other, self._before = bool(found) and face is None, time
    if face:
      self.face, self._seen, self.misses = face, time, 0
      if self._looks:
        self._looks.add(rgb, face)
    # Not counted before the first sighting: a clip may begin without the face.
    elif self.face:
      self.misses += 1
    return face

  def _same_face(self, rgb: np.ndarray, found: list[Face], time: Fraction | None) -> Face | None:
    """Returns the face that overlaps the last place most, or the person elsewhere; or None."""
    best = max(found, key=lambda face: overlap(face.box, self.face.box), default=None)
    if best and overlap(best.box, self.face.box) >= _SAME_FACE:
      gap = time is not None and time - self._seen > _GAP
      if not self._looks or self._looks.include(rgb, best, moved=gap):
        return best
    if not self._looks or time is None:
      return None
    reach = _REACH + _SPEED * float(time - self._seen)
    if time - self._before >= _SLOW:
      reach = np.inf
    near = [
      face
      for face in found
      if _moved(face.box, self.face.box) <= reach and self._looks.include(rgb, face, moved=True)
    ]
    return max(near, key=lambda face: self._looks.likeness(rgb, face), default=None)


def _moved(a: Box, b: Box) -> float:
  """Returns the distance of the centres of two boxes in sides of the larger one."""
  x, y = a[0] + a[2] / 2 - b[0] - b[2] / 2, a[1] + a[3] / 2 - b[1] - b[3] / 2
  return float(np.hypot(x, y)) / max(*a[2:], *b[2:])
