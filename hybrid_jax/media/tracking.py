"""First pass over a driving clip: times, shots, landmarks of one face, and squares to crop.

Arrays have one row per frame (axis t). Landmarks and boxes are in px of the frames; NaN marks a
frame without the face.
"""

import array
import dataclasses
import os
from collections.abc import Callable, Iterable
from fractions import Fraction

import cv2
import numpy as np

from hybrid_jax.media import MediaError, align, faces, framing, replacing, video
from hybrid_jax.media.face_follower import Choice, FaceFollower, largest
from hybrid_jax.media.identity import SAME_PERSON, Embed, Looks
from hybrid_jax.media.landmarkers import Landmarker

# A cut: the thumbnails of two frames differ by more than _CUT grey levels on average, and by
# _CUT_RATIO times the usual change in this shot, so that fast motion does not count as cuts.
_THUMBNAIL = (24, 18)  # px; averages away noise and small motion
_CUT = 28.0
_CUT_RATIO = 4.0
# One row of landmarks; the first four also stand for a box.
_MISSING = [float('nan')] * 10
_FORGET_SECONDS = 1.0  # without the face for longer, the face to follow is chosen anew


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
  """Times, shots and landmarks of the t frames of a clip.

  ticks: (t,) int64 presentation times in units of `time_base`.
  time_base: seconds.
  points: (t, 5, 2) landmarks in px; NaN where the face is not found or was not searched for.
  boxes: (t, 4) box of the face in px; NaN likewise.
  cuts: numbers of the first frames of the shots; the first is 0.
  size: (h, w) of the frames, px.
  broken: reason why the clip breaks off after these frames; '' if it is complete.
  others: (t,) bool: frames that show only other people; empty if nothing was followed.
  """

  ticks: np.ndarray
  time_base: Fraction
  points: np.ndarray
  boxes: np.ndarray
  cuts: tuple[int, ...]
  size: tuple[int, int]
  broken: str
  others: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, bool))

  def __len__(self) -> int:
    return len(self.ticks)

  @property
  def seconds(self) -> np.ndarray:
    """(t,) float64 presentation times, for smoothing; `time` gives them exactly."""
    return self.ticks * float(self.time_base)

  def time(self, k: int) -> Fraction:
    """Returns the exact presentation time of frame k, seconds."""
    return int(self.ticks[k]) * self.time_base

  @property
  def missing(self) -> np.ndarray:
    """(t,) bool, True for frames without the face."""
    return np.isnan(self.boxes[:, 0])

  @property
  def others_line(self) -> str:
    """One line with the times in which another person took the face's place for a second; ''."""
    # Shorter ones are frames in which a detector misses the face, and finds a neighbour's.
    edges = np.flatnonzero(np.diff(np.concatenate(([0], self.others.astype(int), [0]))))
    spans = []
    for first, end in edges.reshape(-1, 2).tolist():
      start, stop = (float(self.time(k)) for k in (first, min(end, len(self) - 1)))
      if stop - start >= _FORGET_SECONDS:
        spans.append(f'from {start:.2f} s' + f' to {stop:.2f} s' * (end < len(self)))
    return f'another face {", ".join(spans)}: not followed' if spans else ''

  def save(self, path: str | os.PathLike) -> None:
    """Writes an `.npz` file, which `landmarkers.read_landmarks` reads as well."""
    with replacing(path) as part, open(part, 'wb') as file:
      np.savez(
        file,
        ticks=self.ticks,
        # Numerator and denominator, since npz files hold no fractions.
        time_base=np.array([self.time_base.numerator, self.time_base.denominator]),
        landmarks=self.points,
        boxes=self.boxes,
        cuts=np.array(self.cuts),
        size=np.array(self.size),
        broken=np.array(self.broken),
        others=self.others,
      )

  @classmethod
  def load(cls, path: str | os.PathLike) -> 'Track':
    """Reads a file that `save` wrote."""
    with np.load(path) as file:
      return cls(
        file['ticks'],
        Fraction(*file['time_base'].tolist()),
        file['landmarks'],
        file['boxes'],
        tuple(file['cuts'].tolist()),
        tuple(file['size'].tolist()),
        str(file['broken']),
        # A job that an earlier version began has none.
        file['others'] if 'others' in file else np.zeros(0, bool),
      )


def chooser(rule: str) -> Choice:
  """Returns the choice of the face to follow for a value of the option `--face`.

  Args:
    rule: 'largest', 'left', 'right' (in the picture), or a number from the left; '0' is the
      leftmost face, and a number beyond the last face the rightmost.

  Raises:
    MediaError: another value.
  """
  if rule == 'largest':
    return largest
  places = {'left': 0, 'right': -1}
  if rule not in places and not rule.isdecimal():
    raise MediaError(f'--face={rule}: give largest, left, right, like=PICTURE or a number from 0')
  place = places[rule] if rule in places else int(rule)

  def choose(rgb, found):
    ordered = sorted(found, key=lambda face: face.box[0] + face.box[2] / 2)
    return ordered[min(place, len(ordered) - 1)]

  return choose


def likeness(wanted: np.ndarray, embed: Embed, size: int) -> Choice:
  """Returns the choice of the face whose embedding has the largest dot product with `wanted`.

  A face below `SAME_PERSON` is another person's, also where it is the only one; then none is
  chosen.

  Args:
    wanted: (d,) embedding of the person to follow, of length 1.
    embed: (size, size, 3) uint8 FFHQ-aligned crop -> (d,) embedding of length 1.
    size: side of the crops, px.
  """

  def choose(rgb, found):
    crops = [align.cut(rgb, align.ffhq(face.landmarks), size) for face in found]
    scores = [float(embed(crop) @ wanted) for crop in crops]
    return found[int(np.argmax(scores))] if max(scores) >= SAME_PERSON else None

  return choose


class Shots:
  """Detects cuts in a sequence of frames."""

  def __init__(self):
    self._before, self._usual = None, None

  def __call__(self, rgb: np.ndarray) -> bool:
    """Compares a frame (h, w, 3) uint8 with the one before; True at the first frame of a shot."""
    small = cv2.resize(rgb, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
    before, self._before = self._before, small
    if before is None:
      return True  # the first frame of the clip
    # Mean over pixels and channels, in grey levels.
    change = float(np.abs(small - before).mean())
    if change > max(_CUT, _CUT_RATIO * (self._usual or 0)):
      self._usual = None
      return True
    # Running mean with a memory of about five frames; it starts anew in each shot.
    self._usual = change if self._usual is None else 0.8 * self._usual + 0.2 * change
    return False


class Tracker:
  """Follows one face frame by frame; a new one is chosen at each cut.

  Within a shot it stays the same person, who is looked for everywhere after a second without the
  face.

  Args:
    landmarker: finds the faces; None finds cuts only.
    choose: picks the face to follow, see `chooser` and `likeness`.
    embed: (identity embedding, side of its crops in px); None compares colours instead.

  Attributes:
    cut: whether the last frame was the first of a shot.
    other: whether the last frame shows only other people.
  """

  def __init__(
    self, landmarker: Landmarker | None, choose: Choice, embed: tuple[Embed, int] | None = None
  ):
    self._follower = None
    if landmarker:
      self._follower = FaceFollower(landmarker, choose, _FORGET_SECONDS, Looks(*embed or ()))
    self.forget()

  def forget(self) -> None:
    """Begins a shot with the next frame, which may have another size."""
    self._shots, self.cut, self.other = Shots(), False, False

  def __call__(self, rgb: np.ndarray, time: Fraction) -> faces.Face | None:
    """Returns the face in a frame (h, w, 3) uint8 of a time in seconds; None where it is not."""
    self.cut = self._shots(rgb)
    if not self._follower:
      return None
    if self.cut:
      self._follower.forget()
    face = self._follower(rgb, time)
    self.other = self._follower.other
    return face


class _Rows:
  """Collects the rows of a `Track` frame by frame.

  Lists of small arrays would leave holes between the frames in the heap, 40 kB for each frame;
  `array.array` grows in one block.
  """

  def __init__(self, time_base: Fraction):
    self._time_base = time_base
    self.ticks, self.points, self.boxes = array.array('q'), array.array('d'), array.array('d')
    self.others = array.array('b')

  def add(self, time: Fraction, face: faces.Face | None, other: bool) -> None:
    self.ticks.append(round(time / self._time_base))
    self.points.extend(_MISSING if face is None else face.landmarks.ravel().tolist())
    self.boxes.extend(_MISSING[:4] if face is None else face.box)
    self.others.append(other)

  def track(self, cuts: list[int], size: tuple[int, int], broken: str) -> Track:
    points, boxes = np.array(self.points).reshape(-1, 5, 2), np.array(self.boxes).reshape(-1, 4)
    ticks, others = np.array(self.ticks), np.array(self.others, bool)
    return Track(ticks, self._time_base, points, boxes, tuple(cuts), size, broken, others)


def track(
  path: str | os.PathLike,
  landmarker: Landmarker | None,
  choose: Choice,
  *,
  embed: tuple[Embed, int] | None = None,
  progress: Callable[[Iterable], Iterable] = iter,
) -> Track:
  """Reads a clip once, with one frame in memory at a time, and follows one face; see `Tracker`.

  Frames of other people are `Track.others`. A file that breaks off midway gives the frames before,
  and the reason in `Track.broken`.

  Args:
    landmarker, choose, embed: see `Tracker`; without a landmarker times and shots are found only.
    progress: wraps the iteration over the frames, e.g. to show a progress bar.

  Raises:
    MediaError: no frame can be read, or no frame shows the face.
  """
  tracker, rows = Tracker(landmarker, choose, embed), _Rows(video.probe(path).time_base)
  cuts, size, broken = [], (0, 0), ''
  try:
    for k, frame in enumerate(progress(video.read_frames(path))):
      size = frame.rgb.shape[:2]
      face = tracker(frame.rgb, frame.time)
      if tracker.cut:
        cuts.append(k)
      rows.add(frame.time, face, tracker.other)
  except MediaError as error:
    # Without any frame there is nothing to return; otherwise the frames before the damage count.
    if not rows.ticks:
      raise
    broken = str(error)
  found = rows.track(cuts, size, broken)
  if landmarker and found.missing.all():
    if found.others.any():
      raise MediaError(
        f'{path}: shows faces in {found.others.sum()} of its {len(found)} frames, none of them the '
        'wanted one; give another clip or --face'
      )
    raise MediaError(f'{path}: no face in its {len(found)} frames; give another clip')
  return found


def with_landmarks(clip: Track, points: np.ndarray) -> Track:
  """Returns the clip with landmarks (t, 5, 2) of another source, and boxes to match."""
  # NaN landmarks give a NaN box, which marks the frame as missing.
  return dataclasses.replace(clip, points=points, boxes=framing.box_of(points))


def squares(clip: Track, crop: str, smoothing: float) -> np.ndarray:
  """Returns the square to crop from each frame, (t, 4) as in `align`.

  In frames without the face the square is interpolated between the neighbouring ones.

  Args:
    crop: one of `framing.KINDS`, for each shot; or 'whole', the whole frame, which must be square.
    smoothing: standard deviation of the smoothing of 'ffhq' over time, seconds; 0 turns it off.

  Raises:
    MediaError: 'whole', and the frames are not square.
  """
  t, (h, w) = len(clip), clip.size
  if crop == 'whole':
    if h != w:
      raise MediaError(f'{w}x{h} is not square; crop the head, or give --face-detector')
    # The same square for all frames, also for those without a face.
    return np.tile(align.upright((0, 0, w, w)), (t, 1))
  present, times = np.flatnonzero(~clip.missing), clip.seconds
  result = np.empty((t, 4))
  for first, end in zip(clip.cuts, (*clip.cuts[1:], t), strict=True):
    here = present[(present >= first) & (present < end)]
    if not len(here):
      # The option --on-missing replaces or drops these frames; the square only has to be finite.
      here = present[[np.abs(present - first).argmin()]]
    seen = framing.Seen(times[here], clip.points[here], clip.boxes[here])
    result[first:end] = framing.squares(crop, seen, times[first:end], clip.size, smoothing)
  return result
