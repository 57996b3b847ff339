"""Measures generated clips against their references, one frame in memory at a time.

Of each clip a mean is kept, of each frame a few numbers, of the sets the moments of their features.
A clip that cannot be read to its end leaves nothing behind.
"""

import array
import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import cv2
import jax
import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import correlation, frechet, openface
from hybrid_jax.evaluation.blendshapes import Landmarker
from hybrid_jax.evaluation.networks import MOUTH, Networks, file_facts, motion_features, trusted
from hybrid_jax.evaluation.pairing import Aligned, Pair, nearest
from hybrid_jax.heads import parameters
from hybrid_jax.inference import ahead, batched
from hybrid_jax.media import align, faces, landmarkers, sequences

AHEAD = 8  # frames decoded ahead
DETECTION_SIDE = 256  # px; smaller frames are enlarged for the face detector
MOUTH_SIDE = 1.5  # of the square around the mouth, in distances between the eyes
SIDES = ('reference', 'generated')
MOTION = len(parameters.MOTION)
GROUPS = ('expression', 'gaze', 'pose')


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How frames are taken and compared.

  size: px to which frames are resized, squares. frames: the first so many of each clip are used.
  clip_length: frames of a clip of FVD; clips follow each other without overlap.
  answers: the reference shows what should have come out; otherwise it is another person's driving
    clip, and pixels are not compared.
  """

  size: int = 256
  frames: int = 500
  clip_length: int = 16
  answers: bool = True


@dataclasses.dataclass(eq=False)
class Measured:
  """One clip: means by metric, and per frame `times` (t,) and `timeline` {metric: (t,)}."""

  pair: Pair
  frames: int
  values: dict[str, float]
  times: np.ndarray
  timeline: dict[str, np.ndarray]
  notes: list[str]


class Mediapipe:
  """FaceLandmarker, for motion and mouths; `read(rgb)` -> (channels, points (5, 2))."""

  groups = {'blendshape': 'blendshapes', 'gaze': 'gaze', 'pose': 'pose'}

  def __init__(self, path: str):
    self._landmarker = Landmarker(path)

  def read(self, rgb: np.ndarray) -> tuple[dict[str, float], np.ndarray] | None:
    reading = self._landmarker.read(rgb)
    if reading is None:
      return None
    channels = {
      f'{group} {name}': value
      for group, field in self.groups.items()
      for name, value in getattr(reading, field).items()
    }
    return channels, align.five_points(reading.points)

  def close(self) -> None:
    self._landmarker.close()


class Yunet:
  """YuNet as a source of mouths alone."""

  groups: Mapping[str, str] = {}

  def __init__(self, path: str):
    self._detector = landmarkers.open_landmarker(path)

  def read(self, rgb: np.ndarray) -> tuple[dict[str, float], np.ndarray] | None:
    found = self._detector.detect(rgb)
    return ({}, found[0].landmarks) if found else None

  def close(self) -> None:
    pass


def open_detector(path: str) -> Mediapipe | Yunet | None:
  """MediaPipe for a .task file, YuNet for an .onnx file, None for ''. Raises InputError."""
  if not path:
    return None
  return Mediapipe(path) if path.endswith('.task') else Yunet(path)


class Evaluation:
  """Measures pairs of clips one after another; `sets` are the moments of all that succeeded.

  Args:
    detector: a .task or .onnx file, see `open_detector`; '' for none.
    openface_folders: .csv files of the reference and of the generated clips, by their names.
  """

  def __init__(
    self,
    networks: Networks,
    protocol: Protocol,
    detector: str = '',
    openface_folders: Sequence[str] | None = None,
  ):
    self.networks, self.protocol = networks, protocol
    self.detector = open_detector(detector)
    self.detector_file = file_facts(detector) if detector else None
    self.openface = openface_folders and tuple(map(openface.find, openface_folders))
    self.sets: dict[str, tuple[frechet.Moments, frechet.Moments]] = {}

  def close(self) -> None:
    """MediaPipe must not be left to the end of the interpreter."""
    if self.detector is not None:
      self.detector.close()

  def measure(self, pair: Pair, progress: Callable[[int], None] = lambda n: None) -> Measured:
    """Raises InputError where the pair cannot be measured; nothing of it is kept then."""
    one = _Clip(self, pair)
    aligned = Aligned(
      *(ahead(sequences.read(path), AHEAD) for path in (pair.reference, pair.generated)),
      self.protocol.frames,
    )
    for chunk in batched(aligned, self.networks.rows):
      one.add(*zip(*chunk, strict=True))
      progress(len(chunk))
    if not aligned.compared:
      what = '; '.join(aligned.notes) or 'no frames at the same times'
      raise InputError(f'{pair.generated}: cannot be compared with {pair.reference} ({what})')
    measured = one.finish(aligned.notes)
    for name, both in one.sets.items():
      known = self.sets.setdefault(name, (frechet.Moments(), frechet.Moments()))
      for total, part in zip(known, both, strict=True):
        total.merge(part)
    return measured


class _Clip:
  """What is known of one pair so far."""

  def __init__(self, evaluation: Evaluation, pair: Pair):
    self.networks, self.protocol = evaluation.networks, evaluation.protocol
    self.detector, self.openface, self.pair = evaluation.detector, evaluation.openface, pair
    self.times = array.array('d')
    self.timeline: dict[str, array.array] = collections.defaultdict(lambda: array.array('f'))
    self.channels = {side: correlation.Channels() for side in SIDES}
    self.motion = array.array('f')  # of the generated frames, by the judge
    self.sets: dict[str, tuple[frechet.Moments, frechet.Moments]] = {}
    self.waiting: list[tuple] = []  # frames, points and motion of the unfinished clip
    self.queues: dict[str, list] = collections.defaultdict(list)  # clips for FVD's network
    self.mouthless = 0
    self.source, self.of_source = None, {}
    if pair.source is not None:
      frame = next(sequences.read(pair.source), None)
      if frame is None or frame.rgb is None:
        raise InputError(f'{pair.source}: has no frame that can be a source')
      self.source = resized(frame.rgb, self.protocol.size)[None]

  def add(self, times: tuple, references: tuple, generated: tuple) -> None:
    nets, size = self.networks, self.protocol.size
    if not self.times:
      _check_shapes(self.pair, references[0], generated[0])
    self.times.extend(times)
    R, G = (np.stack([resized(x, size) for x in frames]) for frames in (references, generated))
    if self.protocol.answers:
      for name, values in zip(('l1', 'psnr', 'ssim'), nets.closeness(R, G).T, strict=True):
        self.timeline[name].extend(values.tolist())
      if nets.lpips:
        self.timeline['lpips'].extend(nets.lpips(R, G).tolist())
    if nets.identity:
      made, own = nets.identity(G), self._once('arcface', nets.identity)
      self._similarity('identity_similarity', nets.identity(R) if own is None else own, made)
    if nets.fid:
      self._feed('fid', nets.fid(R), nets.fid(G))
    motions = [[None] * len(R)] * 2
    if nets.judges:
      said, own = [nets.judges(x) for x in (R, G)], self._once('judge', nets.judges)
      motions = [x[:, -MOTION:] for x in said]
      self._feed('fid_judge', *said)
      embedded = (said[0] if own is None else own)[:, :-MOTION]
      self._similarity('identity_similarity_judge', embedded, said[1][:, :-MOTION])
      self.motion.extend(motions[1].ravel().tolist())
    points = [
      [self._look(side, x) for x in frames]
      for side, frames in zip(SIDES, (references, generated), strict=True)
    ]
    for k in range(len(R)):
      self.waiting.append(
        tuple((x[k], p[k], m[k]) for x, p, m in zip((R, G), points, motions, strict=True))
      )
      if len(self.waiting) == self.protocol.clip_length:
        self._finish_clip()

  def _once(self, name: str, network: Callable) -> np.ndarray | None:
    """What a network says of the source (1, d); None where there is no source."""
    if self.source is not None and name not in self.of_source:
      self.of_source[name] = network(self.source)
    return self.of_source.get(name)

  def _similarity(self, name: str, wanted: np.ndarray, made: np.ndarray) -> None:
    self.timeline[name].extend((wanted * made).sum(-1).tolist())

  def _feed(self, name: str, reference: np.ndarray, generated: np.ndarray) -> None:
    both = self.sets.setdefault(name, (frechet.Moments(), frechet.Moments()))
    try:
      for moments, features in zip(both, (reference, generated), strict=True):
        moments.add(features)
    except ValueError as error:
      raise InputError(f'{self.pair.generated}: {name}: {error}; check the weights') from None

  def _look(self, side: str, rgb: np.ndarray) -> np.ndarray | None:
    """Landmarks (5, 2) in [0, 1]; the detector's channels are kept."""
    if self.detector is None:
      return None
    scale = max(1.0, DETECTION_SIDE / min(rgb.shape[:2]))
    if scale > 1:
      rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    found = self.detector.read(rgb)
    self.channels[side].add(found[0] if found else {})
    return None if found is None else found[1] / rgb.shape[1::-1]

  def _finish_clip(self) -> None:
    """Features of the frames that wait, as one clip of FVD."""
    nets, sides = self.networks, list(zip(*self.waiting, strict=True))
    self.waiting = []
    if nets.fvd:
      clips = [np.stack([frame for frame, _, _ in side]) for side in sides]
      self._queue('fvd', clips)
      if self.detector is not None:
        mouths = [
          mouth(clip, [points for _, points, _ in side])
          for clip, side in zip(clips, sides, strict=True)
        ]
        if any(x is None for x in mouths):
          self.mouthless += 1
        else:
          self._queue('mouth_fvd', mouths)
    if nets.judges:
      motion = [np.stack([m for _, _, m in side]) for side in sides]
      self._feed('fvd_judge', *map(motion_features, motion))
      self._feed('mouth_fvd_judge', *(motion_features(m[:, MOUTH]) for m in motion))

  def _queue(self, name: str, both: Sequence[np.ndarray]) -> None:
    """Clips (t, s, s, 3) of both sides wait until every device has one."""
    self.queues[name].append(both)
    if len(self.queues[name]) == jax.device_count():
      self._run_queue(name)

  def _run_queue(self, name: str) -> None:
    sides = zip(*self.queues.pop(name), strict=True)
    self._feed(name, *(self.networks.fvd(np.stack(side)) for side in sides))

  def finish(self, notes: list[str]) -> Measured:
    """The whole clip, once its last frame was added."""
    for name in tuple(self.queues):
      self._run_queue(name)
    timeline = {name: np.array(x, np.float32) for name, x in self.timeline.items()}
    values = {name: mean_of(name, x) for name, x in timeline.items()}
    if 'identity_similarity' in values:
      values['identity_loss'] = 1 - values['identity_similarity']
    notes = [f'{self.pair.generated}: {note}' for note in notes]
    values |= self._correlations(notes)
    if self.mouthless:
      notes.append(
        f'{self.pair.generated}: {self.mouthless} clips without a mouth, left out of mouth_fvd'
      )
    times = np.array(self.times)
    return Measured(self.pair, len(times), values, times, timeline, notes)

  def _correlations(self, notes: list[str]) -> dict[str, float]:
    """The mean over channels of each source of motion that is there; tells what is not."""
    found = {}
    if self.openface:
      try:
        for group, both in self._openface().items():
          found[f'{group}_correlation'] = correlation.correlations(*both)
      except InputError as error:
        notes.append(f'{self.pair.name}: no action units: {error}')
    for group in self.detector.groups if self.detector else ():
      both = (self.channels[side].group(group) for side in SIDES)
      found[f'{group}_correlation_mediapipe'] = correlation.correlations(*both)
    truth = self.pair.reference.with_suffix('.npz')
    if self.networks.judges and truth.is_file():
      for group, both in self._truth(truth).items():
        found[f'{group}_correlation_truth'] = correlation.correlations(*both)
    return {name: float(np.mean(list(r.values()))) for name, r in found.items() if r}

  def _openface(self) -> dict[str, tuple[Mapping, Mapping]]:
    """Of the frames of the reference that are used, by group; raises InputError."""
    sides = list(zip(SIDES, (self.pair.reference.stem, self.pair.name), self.openface, strict=True))
    for side, name, files in sides:
      if name not in files:
        raise InputError(f'no {name}.csv of the {side} clip')
    reference, generated = (openface.read(files[name]) for _, name, files in sides)
    known = reference.first(self.protocol.frames)
    index = nearest(known.times, generated.times)
    moved = {n: np.where(index < 0, np.nan, x[index]) for n, x in generated.channels.items()}
    aligned = openface.Readings(known.times, moved)
    return {group: (known.group(group), aligned.group(group)) for group in openface.GROUPS}

  def _truth(self, path) -> dict[str, tuple[Mapping, Mapping]]:
    """True motion of the rendered reference, and the judge's reading of the generated frames."""
    with np.load(path) as file:
      times, motion = file['times'], file['motion']
    read = np.array(self.motion, np.float32).reshape(-1, MOTION)
    index = nearest(np.array(self.times), times)
    known = np.where(index[:, None] < 0, np.nan, motion[index])
    names = list(parameters.MOTION)
    return {
      group: tuple({n: x[:, names.index(n)] for n in trusted(group)} for x in (known, read))
      for group in GROUPS
    }


def resized(rgb: np.ndarray, size: int) -> np.ndarray:
  """(h, w, 3) uint8 -> (size, size, 3): averaged where it shrinks, bicubic where it grows."""
  if rgb.shape[:2] == (size, size):
    return rgb
  smaller = size < min(rgb.shape[:2])
  return cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def mean_of(name: str, values: np.ndarray) -> float:
  """Over frames; PSNR over those that differ, infinite only where none does."""
  values = values.astype(np.float64)
  if name == 'psnr' and np.isfinite(values).any():
    values = values[np.isfinite(values)]
  return float(values.mean())


def mouth(clip: np.ndarray, points: list[np.ndarray | None]) -> np.ndarray | None:
  """A clip (t, s, s, 3) -> the same square around the mouth in each frame, half as large.

  It is `MOUTH_SIDE` times the largest distance of the eyes, about the mean place of the corners of
  the mouth. `points` are landmarks (5, 2) in [0, 1], or None; the result is None without any.
  """
  known = [p for p in points if p is not None]
  if not known:
    return None
  size = clip.shape[1]
  places = np.stack(known) * size
  x, y = places[:, 3:].mean((0, 1))
  side = MOUTH_SIDE * np.linalg.norm(places[:, 1] - places[:, 0], axis=-1).max()
  square = round(x - side / 2), round(y - side / 2), max(1, round(side)), max(1, round(side))
  return np.stack([faces.crop_square(frame, square, max(size // 2, 1)) for frame in clip])


def _check_shapes(pair: Pair, reference: np.ndarray, generated: np.ndarray) -> None:
  (h, w), (other_h, other_w) = reference.shape[:2], generated.shape[:2]
  if abs(np.log(w / h) - np.log(other_w / other_h)) > 0.02:
    raise InputError(
      f'{pair.generated}: {other_w}x{other_h} is of another shape than its reference, {w}x{h}; '
      'crop one as the other'
    )
