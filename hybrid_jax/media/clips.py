"""Square head crops of a clip for training: a few evenly spaced frames, decoded in one pass.

The crop is one of `framing.KINDS`. A clip ends where the face is lost. Memory holds at most twice
the number of frames asked for, whatever the length of the file.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import cv2
import numpy as np

from hybrid_jax.media import MediaError, align, faces, framing, turns, video
from hybrid_jax.media.face_follower import Choice, FaceFollower, largest
from hybrid_jax.media.landmarkers import Landmarker
from hybrid_jax.media.regions import REGIONS, contour_masks

SEARCH_EVERY = 5  # frames from one search for the face to the next; 1 where each is aligned
LONG_SIDE = 1280  # px; larger frames are reduced before they are kept
# px; a face that is followed is searched at no larger a side. Against 350 px, squares move by 0.8 %
# of their side, as much as between 350 and 250 px, and searching takes a third of the time.
_SEARCHED = 200

# Searches in a row without the face that end a clip. A detector misses single frames of a blurred
# or turned head; two misses, 10 frames without the face, are taken for the end of the shot.
_MISSES_AT_END = 2
# CelebV-HQ's own cropping script adds 0.02 of the side on each side of the annotated box.
_BOX_SCALE = 1.04


@dataclasses.dataclass(frozen=True, eq=False)
class HeadClip:
  """Square crops of t frames of one shot.

  frames: (t, size, size, 3) uint8.
  times: (t,) seconds from the start of the file.
  landmarks: (t, 5, 2) as in `faces.Face`, in [0, 1] of the crop; None without a detector.
  masks: (t, size, size, 4) uint8, channels `REGIONS`; None without a detector, or if not wanted.
  """

  frames: np.ndarray
  times: np.ndarray
  landmarks: np.ndarray | None
  masks: np.ndarray | None


class Thinning:
  """Keeps at most 2 n evenly spaced items of a stream of unknown length.

  Whenever 2 n items are kept, every second one is dropped and the stride doubles.
  """

  def __init__(self, count: int):
    # `seen` counts all items, and decides which ones are on the grid of the current stride.
    self.count, self.stride, self.seen, self.kept = count, 1, 0, []

  def wants(self) -> bool:
    """Returns whether the next item will be kept; otherwise it need not be prepared."""
    return self.seen % self.stride == 0

  def add(self, item) -> None:
    """Counts the next item and keeps it if wanted; an item that is not wanted may be None."""
    if self.wants():
      self.kept.append(item)
      if len(self.kept) >= 2 * self.count:
        self.kept, self.stride = self.kept[::2], 2 * self.stride
    self.seen += 1

  def drop_last(self, items: int) -> None:
    """Drops what was kept of the last `items` of the stream, rounded up to whole strides."""
    self.kept = self.kept[: max(0, len(self.kept) - -(-items // self.stride))]

  def chosen(self) -> list:
    """Returns `count` evenly spaced items, or all if there are fewer."""
    picks = np.linspace(0, len(self.kept) - 1, min(self.count, len(self.kept))).round().astype(int)
    return [self.kept[k] for k in picks]


def read_span(
  path: str | os.PathLike, span: tuple[float, float] | None, **options
) -> Iterator[video.Frame]:
  """Yields the frames from span[0] up to span[1], seconds, and decodes hardly any other.

  `options` are those of `video.read_frames`.
  """
  start, end = span or (0, float('inf'))
  for frame in video.read_frames(path, start=start, **options):
    # Ends the decoding: an uncut video may be an hour long.
    if float(frame.time) >= end:
      return
    yield frame


def read_clip(
  path: str | os.PathLike,
  *,
  size: int,
  count: int,
  detector: faces.FaceDetector | None,
  kind: str,
  span: tuple[float, float] | None = None,
  box: tuple[float, float, float, float] | None = None,
  search_every: int = 0,
  masks: bool = True,
  threads: int = 0,
) -> HeadClip:
  """Reads up to `count` evenly spaced frames of a clip, cropped to the head.

  Args:
    size: side of the crops, px.
    count: number of frames.
    detector: finds the face; None requires square frames, or `box`.
    kind: of the crop, one of `framing.KINDS`; without a detector the frames are taken whole.
    span: part of the file, (start, end) in seconds.
    box: (top, bottom, left, right) in [0, 1], where the data set says which face it means; without
      a detector it is the crop.
    search_every: frames from one search for the face to the next, between which its place is
      interpolated; 0 takes `SEARCH_EVERY`, and 1 for 'ffhq'.
    masks: whether to draw masks.
    threads: of the decoder; 0 takes one for each core.

  Raises:
    MediaError: the file cannot be read, shows no face or fewer than two frames of one, or is not
      square although neither detector nor box is given.
  """
  name = os.path.basename(path)
  follower = _follower(detector, kind, box) if detector else None

  def read(needed):
    frames = read_span(path, span, threads=threads, needed=needed)
    return frames if detector or box else _checked_square(frames, name)

  every = search_every or _search_every(kind)
  kept, seen, shape = _collect(read, count, follower, kind, every)
  if follower and not seen:
    raise MediaError(f'{name}: no face in it; give another clip')
  chosen = kept.chosen()
  # Frames are drawn in pairs of one clip, see `training.triplets`.
  if len(chosen) < 2:
    raise MediaError(f'{name}: {len(chosen)} frame(s) of a face; a triplet needs two of one person')
  times = np.array([time for *_, time in chosen])
  if seen:
    squares = framing.squares(kind, framing.Seen.of(seen), times, shape)
  else:
    squares = np.tile(align.upright(_given_square(box, shape)), (len(times), 1))
  cut = zip(chosen, squares, strict=True)
  # A square in px of the original frame, out of a frame reduced by `scale`.
  crops = np.stack([align.cut(rgb, square * scale, size) for (rgb, scale, _), square in cut])
  if detector is None:
    return HeadClip(crops, times.astype(np.float32), None, None)
  landmarks, points = find_landmarks(crops, detector, name)
  drawn = np.stack([region_masks(p, size) for p in points]) if masks else None
  return HeadClip(crops, times.astype(np.float32), landmarks, drawn)


def _follower(
  detector: Landmarker, kind: str, box: tuple[float, float, float, float] | None
) -> FaceFollower:
  # 'ffhq' aligns each frame by its own landmarks, which a reduced frame gives less exactly.
  landmarker = detector if kind == 'ffhq' else _Coarse(detector)
  return FaceFollower(landmarker, inside(box) if box else largest)


class _Coarse:
  """A landmarker that searches reduced frames once the face that it follows is known to be large.

  Upright squares depend on the median or the union of many places; the landmarks that are kept are
  found in the crops.
  """

  def __init__(self, landmarker: Landmarker):
    self._landmarker = landmarker

  def detect(self, rgb: np.ndarray, near: faces.Face | None = None) -> list[faces.Face]:
    """See `Landmarker.detect`."""
    scale = _SEARCHED / max(near.box[2:]) if near else 1
    if scale >= 1:
      return self._landmarker.detect(rgb, near)
    h, w = rgb.shape[:2]
    size = max(1, round(w * scale)), max(1, round(h * scale))
    # Per axis: the rounded sides are not exactly proportional.
    x, y = size[0] / w, size[1] / h
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return [_scaled(f, 1 / x, 1 / y) for f in self._landmarker.detect(small, _scaled(near, x, y))]


def _scaled(face: faces.Face, x: float, y: float) -> faces.Face:
  box = tuple((np.array(face.box) * (x, y, x, y)).tolist())
  points = None if face.points is None else face.points * (x, y)
  return faces.Face(box, face.landmarks * (x, y), face.score, points)


def inside(box: tuple[float, float, float, float]) -> Choice:
  """Returns the choice of the face that lies in `box` (top, bottom, left, right) in [0, 1]."""

  def choose(rgb, found):
    given = _pixels(box, rgb.shape[:2])
    best = max(found, key=lambda face: faces.covered(face.box, given))
    return best if faces.covered(best.box, given) >= 0.5 else None

  return choose


def _checked_square(frames: Iterable[video.Frame], name: str) -> Iterator[video.Frame]:
  for frame in frames:
    h, w = (0, 0) if frame.rgb is None else frame.rgb.shape[:2]
    if h != w:
      raise MediaError(f'{name}: {w}x{h} is not square; give a face detector to crop it')
    yield frame


def _search_every(kind: str) -> int:
  # Upright squares need the places of the face alone, alignment the landmarks of each frame.
  return 1 if kind == 'ffhq' else SEARCH_EVERY


def _collect(
  read: Callable[[Callable[[], bool]], Iterable[video.Frame]],
  count: int,
  follower: FaceFollower | None,
  kind: str,
  every: int,
) -> tuple[Thinning, list[tuple[float, faces.Face]], tuple[int, int]]:
  """Keeps evenly spaced frames, from the first to the last in which the face is seen.

  Args:
    read: returns the frames of the clip, given a function that says whether the next is needed.
    count, kind: as of `read_clip`.
    every: frames from one search to the next.

  Returns:
    (rgb, scale, seconds) of the frames kept, `rgb` being reduced by `scale`; (seconds, face) of the
    frames searched, px of the original frames; and the size (h, w) of those.
  """
  kept, seen, shape, number = Thinning(count), [], (0, 0), -1
  searched = lambda k: follower and k % every == 0  # noqa: E731
  # A frame that is searched may be the first with the face, so that it is to be kept, too.
  following = lambda: not follower or follower.face is not None  # noqa: E731
  needed = lambda: bool(searched(number + 1) or (following() and kept.wants()))  # noqa: E731
  for frame in read(needed):
    number += 1
    if frame.rgb is not None:
      shape = frame.rgb.shape[:2]
    if searched(number):
      if face := follower(frame.rgb):
        if _has_left(kind, face, seen):
          # Frames since the last search are already kept, and may show it on its way.
          kept.drop_last(every)
          break
        seen.append((float(frame.time), face))
      elif follower.misses * every >= _MISSES_AT_END * SEARCH_EVERY:
        break
    if not following():
      continue  # the face has not appeared yet
    # Frames that are not wanted are counted without being reduced.
    kept.add((*_reduced(frame.rgb), float(frame.time)) if kept.wants() else None)
  if follower and follower.misses:
    # Frames since the face was seen last are already kept, and may show another shot.
    kept.drop_last(follower.misses * every)
  return kept, seen, shape


def _has_left(kind: str, face: faces.Face, seen: Sequence[tuple[float, faces.Face]]) -> bool:
  """Whether a clip of this kind ends because the face is too far from where it was first seen."""
  return kind == 'fomm' and bool(seen) and not framing.stays(face.box, seen[0][1].box)


def _reduced(rgb: np.ndarray) -> tuple[np.ndarray, float]:
  scale = LONG_SIDE / max(rgb.shape[:2])
  if scale >= 1:
    return rgb, 1.0
  size = round(rgb.shape[1] * scale), round(rgb.shape[0] * scale)
  return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), scale


def _pixels(box: tuple[float, ...], shape: tuple[int, int]) -> faces.Box:
  (h, w), (top, bottom, left, right) = shape, box
  return left * w, top * h, (right - left) * w, (bottom - top) * h


def _given_square(box: tuple[float, ...] | None, shape: tuple[int, int]) -> faces.Square:
  """Returns the square of the data set's box, or the whole frame, which is square."""
  if box is None:
    return 0, 0, shape[1], shape[0]
  return faces.square_box(_pixels(box, shape), _BOX_SCALE, shape)


def head_squares(
  frames: Iterable[tuple[np.ndarray, float]],
  detector: faces.FaceDetector,
  kind: str,
  *,
  name: str | os.PathLike = 'the clip',
) -> np.ndarray:
  """Returns the squares (t, 4) around the largest face of the first frame that has any.

  All frames are searched to the end: unlike in `read_clip`, a face that is lost ends nothing. Only
  with 'fomm' there are squares for the frames alone that come before the head leaves its first box.

  Args:
    frames: (h, w, 3) uint8, all of one size, and its time in seconds.
    kind: one of `framing.KINDS`.
    name: of the clip, for the error.

  Raises:
    MediaError: no face in any frame searched.
  """
  follower, seen, times, size = FaceFollower(detector), [], [], (0, 0)
  every = _search_every(kind)
  for number, (rgb, time) in enumerate(frames):
    if number % every == 0:
      size, face = rgb.shape[:2], follower(rgb)
      if face and _has_left(kind, face, seen):
        break
      if face:
        seen.append((time, face))
    times.append(time)
  if not seen:
    searched = -(-len(times) // every)
    raise MediaError(f'{name}: no face in the {searched} frames searched; give another clip')
  return framing.squares(kind, framing.Seen.of(seen), np.array(times), size)


def find_landmarks(
  frames: np.ndarray, detector: faces.FaceDetector, name: str
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the landmarks of the largest face in each crop, and all points that the detector gives.

  They are (t, 5, 2) and (t, k, 2), float32 in [0, 1]. A frame without a face takes those of the
  nearest frame with one.

  Raises:
    MediaError: no face in any frame, or heads that lie on their side or upside down.
  """
  found, near = [], None
  for rgb in frames:
    # Near the face before, a single scale is searched: all scales of 1024 px take 0.3 s.
    found.append(next(iter(detector.detect(rgb, near)), None))
    near = found[-1] or near
  present = np.array([k for k, face in enumerate(found) if face is not None])
  if not len(present):
    raise MediaError(f'{name}: no face in its crops; give another clip')
  nearest = [present[np.abs(present - k).argmin()] for k in range(len(found))]
  points = np.stack([found[k].landmarks for k in nearest])
  # Crops are upright squares: a model trained on turned heads would learn turned faces.
  if np.mean([turns.turn_of(five) != 0 for five in points]) > 0.5:
    raise MediaError(f'{name}: the head lies on its side or upside down; turn the clip')
  everything = np.stack([found[k].everything for k in nearest])
  return tuple((x / frames.shape[1]).astype(np.float32) for x in (points, everything))


def region_masks(points: np.ndarray, size: int) -> np.ndarray:
  """Draws masks of `REGIONS`, 0 or 255, of landmarks (k, 2) in [0, 1] -> (size, size, 4) uint8.

  With 68 or 478 points, features are drawn along their contours. With five, and the face of any,
  each region is an ellipse that turns with the eyes. Five points locate the features to a few per
  cent of the eye distance; the margins of the ellipses cover that.
  """
  right, left, _, mouth_right, mouth_left = align.five_points(points) * size
  across = left - right
  # The floors keep ellipses of landmarks that coincide from having no area.
  distance = max(float(np.linalg.norm(across)), 1.0)
  angle = float(np.degrees(np.arctan2(across[1], across[0])))
  middle, mouth = (right + left) / 2, (mouth_right + mouth_left) / 2
  down = mouth - middle
  height = max(float(np.linalg.norm(down)), 1.0)
  masks = np.zeros((len(REGIONS), size, size), np.uint8)

  def draw(channel, centre, half_width, half_height):
    ellipse = (tuple(map(float, centre)), (2 * half_width, 2 * half_height), angle)
    cv2.ellipse(masks[channel], ellipse, 255, -1)

  # Half axes in units of the eye distance and of the distance from eyes to mouth. The brows lie
  # above the eyes, opposite to `down`; the face reaches from forehead to chin.
  draw(0, mouth, 0.48 * distance, 0.36 * height)
  for eye in (right, left):
    draw(1, eye, 0.28 * distance, 0.20 * distance)
    draw(2, eye - 0.28 * down, 0.34 * distance, 0.16 * distance)
  if len(points) != 5:
    masks[:3] = contour_masks(points * size, size)
  draw(3, middle + 0.45 * down, 0.95 * distance, 1.45 * height)
  return np.moveaxis(masks, 0, -1)
