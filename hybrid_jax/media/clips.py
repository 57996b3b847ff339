"""A video to a few evenly spaced square head crops, decoded once and in constant memory.

Crops follow First Order Motion Model's preparation: one square for the whole clip, around all
places of the face; the clip ends where the face is lost or jumps.
"""

import dataclasses
import os
from collections.abc import Iterator

import cv2
import numpy as np

from hybrid_jax.media import MediaError, faces, video

LOOK_EVERY = 5  # frames between two searches for the face
LONG_SIDE = 1280  # px; larger frames are reduced while they are kept
REGIONS = ('mouth', 'eyes', 'brows', 'face')  # channels of masks


@dataclasses.dataclass(frozen=True, eq=False)
class HeadClip:
  """t frames of one shot.

  frames: (t, size, size, 3) uint8.
  times: (t,) seconds from the start of the file.
  landmarks: (t, 5, 2) as `faces.Face` has them, in [0, 1] of the crop; None without a detector.
  masks: (t, size, size, 4) uint8, `REGIONS`, drawn from the landmarks; None without a detector.
  """

  frames: np.ndarray
  times: np.ndarray
  landmarks: np.ndarray | None
  masks: np.ndarray | None


class Thinning:
  """Keeps at most 2 n evenly spaced items of a stream of unknown length."""

  def __init__(self, count: int):
    self.count, self.stride, self.seen, self.kept = count, 1, 0, []

  def wants(self) -> bool:
    """Whether the next item would be kept: spares preparing it."""
    return self.seen % self.stride == 0

  def add(self, item) -> None:
    """`item` may be None where it is not wanted."""
    if self.wants():
      self.kept.append(item)
      if len(self.kept) >= 2 * self.count:
        self.kept, self.stride = self.kept[::2], 2 * self.stride
    self.seen += 1

  def chosen(self) -> list:
    """`count` of them, or all if there are fewer."""
    picks = np.linspace(0, len(self.kept) - 1, min(self.count, len(self.kept))).round().astype(int)
    return [self.kept[k] for k in picks]


def read_span(path: str | os.PathLike, span: tuple[float, float] | None) -> Iterator[video.Frame]:
  """Frames from span[0] to span[1], seconds; decoding stops there."""
  for frame in video.read_frames(path):
    time = float(frame.time)
    if span is not None and time >= span[1]:
      return
    if span is None or time >= span[0]:
      yield frame


def _reduced(rgb: np.ndarray) -> tuple[np.ndarray, float]:
  scale = LONG_SIDE / max(rgb.shape[:2])
  if scale >= 1:
    return rgb, 1.0
  size = round(rgb.shape[1] * scale), round(rgb.shape[0] * scale)
  return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), scale


def read_clip(
  path: str | os.PathLike,
  *,
  size: int,
  count: int,
  detector: faces.FaceDetector | None,
  crop_scale: float,
  span: tuple[float, float] | None = None,
  box: tuple[float, float, float, float] | None = None,
) -> HeadClip:
  """Up to `count` evenly spaced frames of a clip.

  Args:
    size: of the crops, px. count: of the frames.
    detector: finds the face; None takes square clips as they are.
    crop_scale: side of the crop over that of the face's box, see `faces.square_box`.
    span: part of the file, (start, end) in seconds.
    box: (top, bottom, left, right) in [0, 1], where the set gives the crop; no face is tracked.

  Raises:
    MediaError: unreadable, no face, not square without a detector or a box, under two frames.
  """
  name = os.path.basename(path)
  kept, face, seen, lost, shape = Thinning(count), None, [], 0, None
  tracked = detector is not None and box is None
  for number, frame in enumerate(read_span(path, span)):
    if shape is None:
      shape = frame.rgb.shape[:2]
      if not tracked and box is None and shape[0] != shape[1]:
        raise MediaError(
          f'{name}: {shape[1]}x{shape[0]} is not square; give a face detector to crop it'
        )
    if tracked and number % LOOK_EVERY == 0:
      found = detector.detect(frame.rgb)
      same = faces.same_face(found, face.box) if face else next(iter(found), None)
      if same is not None:
        face, lost = same, 0
        seen.append(same.box)
      elif face is not None:
        lost += 1
        if lost == 2:  # not a blink of the detector: the shot ends where it was seen last
          break
    if tracked and face is None:
      continue  # the shot has not begun
    kept.add((*_reduced(frame.rgb), float(frame.time)) if kept.wants() else None)
  if tracked and not seen:
    raise MediaError(f'{name}: no face in it; give another clip')
  if lost:
    drop = lost * LOOK_EVERY
    kept.kept = kept.kept[: max(0, len(kept.kept) - -(-drop // kept.stride))]
  chosen = kept.chosen()
  if len(chosen) < 2:
    raise MediaError(f'{name}: {len(chosen)} frame(s) of a face; a triplet needs two of one person')
  square = _square(shape, seen, crop_scale, box)
  frames = np.stack(
    [
      faces.crop_square(rgb, tuple(round(edge * scale) for edge in square), size)
      for rgb, scale, _ in chosen
    ]
  )
  times = np.array([time for *_, time in chosen], np.float32)
  if detector is None:
    return HeadClip(frames, times, None, None)
  landmarks = find_landmarks(frames, detector, name)
  return HeadClip(frames, times, landmarks, np.stack([region_masks(p, size) for p in landmarks]))


def _square(shape, seen, crop_scale, box) -> faces.Square:
  h, w = shape
  if box is not None:
    top, bottom, left, right = box
    whole = (left * w, top * h, (right - left) * w, (bottom - top) * h)
    return faces.square_box(whole, 1.04, shape)  # CelebV-HQ's script adds 0.02 on each side
  if not seen:
    return 0, 0, w, h
  return faces.square_box(faces.union(seen), crop_scale, shape)


def find_landmarks(frames: np.ndarray, detector: faces.FaceDetector, name: str) -> np.ndarray:
  """(t, 5, 2) in [0, 1]; frames in which no face is found take the nearest other frame's.

  Raises:
    MediaError: no face in any frame.
  """
  found = [next(iter(detector.detect(rgb)), None) for rgb in frames]
  known = np.array([k for k, face in enumerate(found) if face is not None])
  if not len(known):
    raise MediaError(f'{name}: no face in its crops; give another clip')
  nearest = [known[np.abs(known - k).argmin()] for k in range(len(found))]
  points = np.stack([found[k].landmarks for k in nearest])
  return (points / frames.shape[1]).astype(np.float32)


def region_masks(landmarks: np.ndarray, size: int) -> np.ndarray:
  """Five points in [0, 1] -> (size, size, 4) uint8 masks of `REGIONS`, ellipses with a margin.

  Five points place the features to a few per cent of the eye distance, which the margins cover.
  """
  right, left, _, mouth_right, mouth_left = landmarks * size
  across = left - right
  distance = max(float(np.linalg.norm(across)), 1.0)
  angle = float(np.degrees(np.arctan2(across[1], across[0])))
  middle, mouth = (right + left) / 2, (mouth_right + mouth_left) / 2
  down = mouth - middle
  height = max(float(np.linalg.norm(down)), 1.0)
  masks = np.zeros((len(REGIONS), size, size), np.uint8)

  def draw(channel, centre, half_width, half_height):
    box = (tuple(map(float, centre)), (2 * half_width, 2 * half_height), angle)
    cv2.ellipse(masks[channel], box, 255, -1)

  draw(0, mouth, 0.48 * distance, 0.36 * height)
  for eye in (right, left):
    draw(1, eye, 0.28 * distance, 0.20 * distance)
    draw(2, eye - 0.28 * down, 0.34 * distance, 0.16 * distance)
  draw(3, middle + 0.45 * down, 0.95 * distance, 1.45 * height)
  return np.moveaxis(masks, 0, -1)
