"""The first pass over a clip: its clock, its shots, and where one face is in every frame."""

import array
import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

import cv2
import numpy as np

from hybrid_jax.media import MediaError, align, faces, replacing, video
from hybrid_jax.media.landmarkers import Landmarker

_THUMBNAIL = (24, 18)
_CUT = 28.0  # grey levels between two frames' thumbnails, on average
_CUT_RATIO = 4.0  # and this much more than between the frames before
_NOWHERE = [float('nan')] * 10
_LOST_SECONDS = 1.0  # without the face for so long, it is chosen anew

Choice = Callable[[np.ndarray, Sequence[faces.Face]], faces.Face]


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
  """t frames of a clip.

  ticks: (t,) int64 presentation times in units of `time_base`, seconds.
  points: (t, 5, 2) landmarks in px, boxes: (t, 4); NaN where the face is not found, or not sought.
  cuts: first frames of the shots; the first is 0.
  size: (h, w) of the frames.
  broken: why the clip breaks off after these frames; '' where it is whole.
  """

  ticks: np.ndarray
  time_base: Fraction
  points: np.ndarray
  boxes: np.ndarray
  cuts: tuple[int, ...]
  size: tuple[int, int]
  broken: str

  def __len__(self) -> int:
    return len(self.ticks)

  @property
  def seconds(self) -> np.ndarray:
    """(t,) float64, for smoothing; the exact times are `time`'s."""
    return self.ticks * float(self.time_base)

  def time(self, k: int) -> Fraction:
    return int(self.ticks[k]) * self.time_base

  @property
  def missing(self) -> np.ndarray:
    """(t,) bool: no face."""
    return np.isnan(self.boxes[:, 0])

  def save(self, path: str | os.PathLike) -> None:
    with replacing(path) as part, open(part, 'wb') as file:
      np.savez(
        file,
        ticks=self.ticks,
        time_base=np.array([self.time_base.numerator, self.time_base.denominator]),
        landmarks=self.points,
        boxes=self.boxes,
        cuts=np.array(self.cuts),
        size=np.array(self.size),
        broken=np.array(self.broken),
      )

  @classmethod
  def load(cls, path: str | os.PathLike) -> 'Track':
    with np.load(path) as file:
      return cls(
        file['ticks'],
        Fraction(*file['time_base'].tolist()),
        file['landmarks'],
        file['boxes'],
        tuple(file['cuts'].tolist()),
        tuple(file['size'].tolist()),
        str(file['broken']),
      )


def chooser(rule: str) -> Choice:
  """largest, left, right (in the picture), or a number: 0 is the leftmost.

  Raises:
    MediaError: another word.
  """
  if rule == 'largest':
    return lambda rgb, found: found[0]
  places = {'left': 0, 'right': -1}
  if rule not in places and not rule.isdecimal():
    raise MediaError(f'--face={rule}: give largest, left, right, like=PICTURE or a number from 0')
  place = places[rule] if rule in places else int(rule)

  def choose(rgb, found):
    ordered = sorted(found, key=lambda face: face.box[0] + face.box[2] / 2)
    return ordered[min(place, len(ordered) - 1)]

  return choose


def likeness(wanted: np.ndarray, embed: Callable[[np.ndarray], np.ndarray], size: int) -> Choice:
  """The face whose embedding is nearest to `wanted` (d,): embed(crop (size, size, 3)) -> (d,)."""

  def choose(rgb, found):
    if len(found) == 1:
      return found[0]
    crops = [align.cut(rgb, align.ffhq(face.landmarks), size) for face in found]
    return found[int(np.argmax([embed(crop) @ wanted for crop in crops]))]

  return choose


class Shots:
  """Says of each frame, in order, whether it begins a new shot."""

  def __init__(self):
    self._before, self._usual = None, None

  def __call__(self, rgb: np.ndarray) -> bool:
    small = cv2.resize(rgb, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
    before, self._before = self._before, small
    if before is None:
      return True
    change = float(np.abs(small - before).mean())
    if change > max(_CUT, _CUT_RATIO * (self._usual or 0)):
      self._usual = None
      return True
    self._usual = change if self._usual is None else 0.8 * self._usual + 0.2 * change
    return False


def track(
  path: str | os.PathLike,
  landmarker: Landmarker | None,
  choose: Choice,
  *,
  progress: Callable[[Iterable], Iterable] = iter,
) -> Track:
  """Goes through a clip once, one frame in memory at a time.

  One face is followed by overlap with where it was last; it is chosen anew at a new shot and after
  a second without it. Without a landmarker only clock and shots are found. A clip that breaks off
  midway ends there.

  Raises:
    MediaError: no frame can be read, or no face is in any.
  """
  time_base = video.probe(path).time_base
  # Not lists of small arrays: between the frames these would leave holes in the heap, 40 kB each.
  ticks, points, boxes = array.array('q'), array.array('d'), array.array('d')
  cuts, broken = [], ''
  shots, size = Shots(), (0, 0)
  last, seen = None, Fraction(0)
  frames = video.read_frames(path)
  try:
    for k, frame in enumerate(progress(frames)):
      size = frame.rgb.shape[:2]
      if shots(frame.rgb):
        cuts.append(k)
        last = None
      found = landmarker.detect(frame.rgb) if landmarker else []
      if last is not None and frame.time - seen > _LOST_SECONDS:
        last = None
      face = None
      if found:
        face = faces.same_face(found, last.box) if last else choose(frame.rgb, found)
      if face is not None:
        last, seen = face, frame.time
      ticks.append(round(frame.time / time_base))
      points.extend(_NOWHERE if face is None else face.landmarks.ravel().tolist())
      boxes.extend(_NOWHERE[:4] if face is None else face.box)
  except MediaError as error:
    if not ticks:
      raise
    broken = str(error)
  if landmarker and np.isnan(np.array(boxes)).all():
    raise MediaError(f'{path}: no face in its {len(ticks)} frames; give another clip')
  return Track(
    np.array(ticks),
    time_base,
    np.array(points).reshape(-1, 5, 2),
    np.array(boxes).reshape(-1, 4),
    tuple(cuts),
    size,
    broken,
  )


def with_landmarks(clip: Track, points: np.ndarray) -> Track:
  """The same clip with landmarks (t, 5, 2) from elsewhere; boxes enclose them."""
  low, high = points.min(1), points.max(1)
  return dataclasses.replace(clip, points=points, boxes=np.concatenate((low, high - low), 1))


def squares(clip: Track, crop: str, scale: float, seconds: float) -> np.ndarray:
  """(t, 4) squares (see `align`) to cut out, one per frame; where the face is missing, in between.

  Args:
    crop: 'ffhq' turns with the head, and is smoothed over `seconds`; 'square' is one box per shot
      around all places of the face, of `scale` face sides (First Order Motion Model's preparation);
      'whole' is the picture, which must be square.

  Raises:
    MediaError: 'whole' and not square.
  """
  t, (h, w) = len(clip), clip.size
  if crop == 'whole':
    if h != w:
      raise MediaError(f'{w}x{h} is not square; crop the head, or give --face-detector')
    return np.tile(align.upright((0, 0, w, w)), (t, 1))
  known = np.flatnonzero(~clip.missing)
  result = np.empty((t, 4))
  for first, end in zip(clip.cuts, (*clip.cuts[1:], t), strict=True):
    here = known[(known >= first) & (known < end)]
    if not len(here):  # a shot without a face: what lies there is not used, see on-missing
      here = known[[np.abs(known - first).argmin()]]
    if crop == 'square':
      box = faces.union(clip.boxes[here])
      result[first:end] = align.upright(faces.square_box(box, scale, clip.size))
      continue
    values, times = align.ffhq(clip.points[here]), clip.seconds
    if here[0] >= first and here[-1] < end:
      values = np.stack(list(align.smoothed(values, times[here], seconds)))
    for column in range(4):
      result[first:end, column] = np.interp(times[first:end], times[here], values[:, column])
  return result
