"""Framing: the square that is cut around the head in each frame of a shot.

Training data, re-enactment and the paper's tables share these kinds, `data.framing` of a config:

  clip   one upright square for the shot, with FFHQ's side and centre for its median landmarks
  fomm   one upright square around the boxes of the face: First Order Motion Model's
  ffhq   FFHQ's alignment of each frame, which turns with the head, smoothed over time

Squares are (cx, cy, ax, ay) in px, as in `align`. They may extend beyond the picture.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from hybrid_jax.media import align, faces

KINDS = ('clip', 'fomm', 'ffhq')
SMOOTHING = 0.1  # s, standard deviation of the smoothing of 'ffhq' over time
# Defaults of crop-video.py (Siarohin et al. 2019): `increase` 0.1 on each side, `iou_with_initial`.
FOMM_SCALE, FOMM_OVERLAP = 1.2, 0.25
# Box of YuNet in sides of FFHQ's square, where only landmarks are known: its centre below that of
# the square, its width and height. Measured: experiments/results/framing.json.
BOX_DOWN, BOX_SIZE = 0.06, (0.54, 0.74)


def of_data(data: Mapping) -> str:
  """Returns the framing that the section `data` of a config names; '' where no head is cut out.

  Of earlier versions, whose squares were `crop_scale` face boxes, the result is not in `KINDS`.
  """
  if not (data.get('packed') or data.get('videos') and data.get('face_detector')):
    return ''
  return data.get('framing') or f'{data.get("crop_scale")} face boxes'


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
  """The face in the k frames of a shot in which it was found.

  times: (k,) seconds, increasing.
  points: (k, 5, 2) landmarks, px.
  boxes: (k, 4), px.
  """

  times: np.ndarray
  points: np.ndarray
  boxes: np.ndarray

  @classmethod
  def of(cls, sightings: Iterable[tuple[float, faces.Face]]) -> 'Seen':
    """Returns the sightings (seconds, face), at least one, as arrays."""
    times, found = zip(*sightings, strict=True)
    points, boxes = (np.array([getattr(f, name) for f in found]) for name in ('landmarks', 'box'))
    return cls(np.array(times), points, boxes)

  def __getitem__(self, part: slice) -> 'Seen':
    return Seen(self.times[part], self.points[part], self.boxes[part])


def squares(
  kind: str, seen: Seen, times: np.ndarray, size: tuple[int, int], smoothing: float = SMOOTHING
) -> np.ndarray:
  """Returns the square of each frame of a shot, (t, 4).

  Args:
    kind: one of `KINDS`.
    seen: the face, in at least one frame.
    times: (t,) of the frames to cut, seconds, increasing.
    size: (h, w) of the frames, px.
    smoothing: standard deviation of the smoothing of 'ffhq', seconds; 0 turns it off.
  """
  if kind == 'clip':
    return np.tile(_clip(seen.points), (len(times), 1))
  if kind == 'fomm':
    return _fomm(seen, times, size)
  values = np.stack(list(align.smoothed(align.ffhq(seen.points), seen.times, smoothing)))
  # Interpolated where the face is missing; constant before the first and after the last sighting.
  return np.stack([np.interp(times, seen.times, column) for column in values.T], 1)


def stays(box: faces.Box, first: faces.Box) -> bool:
  """Returns whether a face has stayed where it was first seen, by the rule of 'fomm'.

  The comparison is with the first box and not with the one before, so that a drift of the head
  cannot enlarge the square without limit.
  """
  return faces.overlap(tuple(box), tuple(first)) >= FOMM_OVERLAP


def box_of(points: np.ndarray) -> np.ndarray:
  """Returns the box (..., 4) that a detector gives a face with these landmarks (..., 5, 2)."""
  cx, cy, ax, ay = np.moveaxis(align.ffhq(points), -1, 0)
  side = 2 * np.hypot(ax, ay)
  # The y axis of the square is its x axis turned by 90 degrees.
  cx, cy = cx - 2 * BOX_DOWN * ay, cy + 2 * BOX_DOWN * ax
  w, h = BOX_SIZE[0] * side, BOX_SIZE[1] * side
  return np.stack((cx - w / 2, cy - h / 2, w, h), -1)


def _clip(points: np.ndarray) -> np.ndarray:
  cx, cy, *half = align.ffhq(np.median(points, 0))
  # Upright: the roll of the head stays in the picture, as its motion does.
  return np.array([cx, cy, np.hypot(*half), 0.0])


def _fomm(seen: Seen, times: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """A head that leaves its first box starts a new square, as it starts a new clip there."""
  starts = [0]
  for k, box in enumerate(seen.boxes):
    if not stays(box, seen.boxes[starts[-1]]):
      starts.append(k)
  parts = np.split(seen.boxes, starts[1:])
  # crop-video.py cuts a square at the border, so that its crops there are not square; here it is
  # moved inside. Its least length of 150 frames is left to the choice of clips.
  fixed = [align.upright(faces.square_box(faces.union(p), FOMM_SCALE, size)) for p in parts]
  number = np.searchsorted(seen.times[starts[1:]], times, side='right')
  return np.array(fixed)[number]
