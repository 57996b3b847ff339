"""Measures one pair of clips while its frames pass: a few numbers per frame, and their means."""

import array
import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import correlation, detectors, frechet, motions
from hybrid_jax.evaluation.networks import MOUTH, TRUSTED, Networks, motion_features
from hybrid_jax.evaluation.pairing import SHOWN, Match, Pair
from hybrid_jax.evaluation.squares import mouth, one_shape, resized
from hybrid_jax.media import sequences

SIDES = ('reference', 'generated')


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How frames are sampled and compared.

  Attributes:
    size: side in px of the squares to which frames are resized.
    frames: number of frames of each clip that are used, from its first.
    clip_length: frames per clip of FVD; clips follow each other without overlap.
    answers: whether the reference is the ground truth; otherwise it is another person's driving
      clip, and pixels are not compared.
  """

  size: int = 256
  frames: int = 500
  clip_length: int = 16
  answers: bool = True


@dataclasses.dataclass(eq=False)
class Measured:
  """The measurements of one clip.

  Attributes:
    values: means by metric. times: (t,) of the compared frames, seconds from the first.
    timeline: values per frame (t,) by metric. notes: lines about what was left out.
    channels: by metric and channel, the correlations whose means are in `values`.
  """

  pair: Pair
  frames: int
  values: dict[str, float]
  times: np.ndarray
  timeline: dict[str, np.ndarray]
  notes: list[str]
  channels: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)


class Clip:
  """Accumulates the measurements of one pair.

  Args:
    openface: .csv files of the reference and of the generated clips, by name; None for none.

  Attributes:
    sets: by metric, moments of the features of the reference and of the generated clip.

  Raises:
    InputError: the source has no readable frame.
  """

  def __init__(
    self,
    pair: Pair,
    networks: Networks,
    protocol: Protocol,
    detector: detectors.Mediapipe | detectors.Yunet | None,
    openface: Sequence[Mapping] | None,
  ):
    self.pair, self.networks, self.protocol = pair, networks, protocol
    self.detector, self.openface = detector, openface
    # Arrays of machine numbers: a list of Python floats takes 4 to 8 times the memory.
    self.times = array.array('d')
    self.timeline: dict[str, array.array] = collections.defaultdict(lambda: array.array('f'))
    self.channels = {side: correlation.Channels() for side in SIDES}
    self.motion = array.array('f')  # the judge's readings of the generated frames
    self.sets: dict[str, tuple[frechet.Moments, frechet.Moments]] = {}
    # The unfinished clip of FVD: for both sides (frame, landmarks, motion) of each frame.
    self.waiting: list[tuple] = []
    self.next = 0  # number of the reference frame that continues it
    self.queues: dict[str, list] = collections.defaultdict(list)  # clips for FVD's network
    self.mouthless = 0
    self.source: np.ndarray | None = None
    self.source_embeddings: dict[str, np.ndarray] = {}
    if pair.source is not None:
      frame = next(sequences.read(pair.source), None)
      if frame is None or frame.rgb is None:
        raise InputError(f'{pair.source}: has no usable frame for a source')
      self.source = frame.rgb

  def add(self, matches: Sequence[Match]) -> None:
    """Takes the next frames."""
    nets, size = self.networks, self.protocol.size
    numbers, times, *frames = zip(*matches, strict=True)
    if not self.times:  # of the first frames; a clip has one size
      self._check_shapes(*(side[0] for side in frames))
    self.times.extend(times)
    # R and G are the reference's and the generated frames, squares of one size.
    R, G = (np.stack([resized(x, size) for x in side]) for side in frames)  # n h w c
    if self.protocol.answers:
      for name, values in zip(('l1', 'psnr', 'ssim'), nets.closeness(R, G).T, strict=True):
        self.timeline[name].extend(values.tolist())
      if nets.lpips:
        self.timeline['lpips'].extend(nets.lpips(R, G).tolist())
    # Across identities the reference is another person, so a source comes before it.
    if nets.identity:
      embedding, source = nets.identity(G), self._once('arcface', nets.identity)
      expected = nets.identity(R) if source is None else source
      self._similarity('identity_similarity', expected, embedding)
    if nets.fid:
      self._feed('fid', nets.fid(R), nets.fid(G))
    motion = self._judge(R, G) if nets.judges else [[None] * len(R)] * 2  # of 2 sides: n 16
    # The detector sees the original frames, because a face in a small square may not be found.
    points = [
      [self._look(side, x) for x in shown] for side, shown in zip(SIDES, frames, strict=True)
    ]
    for k, number in enumerate(numbers):
      if number != self.next:  # a frame was left out, but FVD needs consecutive ones
        self.waiting = []
      self.next = number + 1
      self.waiting.append(
        tuple((x[k], p[k], m[k]) for x, p, m in zip((R, G), points, motion, strict=True))
      )
      if len(self.waiting) == self.protocol.clip_length:
        self._finish_clip()

  def _judge(self, R: np.ndarray, G: np.ndarray) -> list[np.ndarray]:
    """Adds what the judges of the rendered world measure; returns their motion (n, 16) per side."""
    judged = [self.networks.judges(x) for x in (R, G)]  # n (d + 16): embedding and motion
    embeddings = [x[:, : -motions.MOTION] for x in judged]
    motion = [x[:, -motions.MOTION :] for x in judged]
    both = zip(embeddings, motion, strict=True)
    # Channels that the judge reads badly would add noise to both sides and hide the distance.
    self._feed('fid_judge', *(np.hstack((e, m[:, TRUSTED])) for e, m in both))
    source = self._once('judge', self.networks.judges)
    expected = embeddings[0] if source is None else source[:, : -motions.MOTION]
    self._similarity('identity_similarity_judge', expected, embeddings[1])
    self.motion.extend(motion[1].ravel().tolist())
    return motion

  def _check_shapes(self, reference: np.ndarray, generated: np.ndarray) -> None:
    """Raises InputError if resizing to squares would distort the two sides differently."""
    nets, compared = self.networks, []
    identity = nets.identity or nets.judges
    # Correlations and mouths are taken from the original frames and compare no squares.
    if self.protocol.answers or nets.fid or nets.fvd or nets.judges:
      compared.append(('reference', reference))
    elif identity and self.source is None:
      compared.append(('reference', reference))
    if identity and self.source is not None:
      compared.append(('source', self.source))
    for role, other in compared:
      if not one_shape(generated, other):
        (h, w), (other_h, other_w) = generated.shape[:2], other.shape[:2]
        raise InputError(
          f'{self.pair.generated}: {w}x{h} has another aspect ratio than its {role}, '
          f'{other_w}x{other_h}; crop both alike'
        )

  def _once(self, name: str, network: Callable) -> np.ndarray | None:
    """Returns the network's output for the source, (1, d), computed once; None without a source."""
    if self.source is not None and name not in self.source_embeddings:
      self.source_embeddings[name] = network(resized(self.source, self.protocol.size)[None])
    return self.source_embeddings.get(name)

  def _similarity(self, name: str, expected: np.ndarray, generated: np.ndarray) -> None:
    """Adds cosines; embeddings have length 1."""
    self.timeline[name].extend((expected * generated).sum(-1).tolist())

  def _feed(self, name: str, reference: np.ndarray, generated: np.ndarray) -> None:
    both = self.sets.setdefault(name, (frechet.Moments(), frechet.Moments()))
    try:
      for moments, features in zip(both, (reference, generated), strict=True):
        moments.add(features)
    except ValueError as error:  # features that are not finite: weights that do not fit
      raise InputError(f'{self.pair.generated}: {name}: {error}; check the weights') from None

  def _look(self, side: str, rgb: np.ndarray) -> np.ndarray | None:
    """Returns landmarks (5, 2) in [0, 1], or None; records the detector's channels."""
    if self.detector is None:
      return None
    channels, points = detectors.look(self.detector, rgb)
    self.channels[side].add(channels)
    return points

  def _finish_clip(self) -> None:
    """Adds the features of the waiting frames, which are one clip of FVD."""
    nets, sides = self.networks, list(zip(*self.waiting, strict=True))
    self.waiting = []
    if nets.fvd:
      clips = [np.stack([frame for frame, _, _ in side]) for side in sides]  # t h w c
      self._queue('fvd', clips)
      if self.detector is not None:
        mouths = [
          mouth(clip, [points for _, points, _ in side])
          for clip, side in zip(clips, sides, strict=True)
        ]
        # Both sides or none, so that the two sets consist of the same moments.
        if any(x is None for x in mouths):
          self.mouthless += 1
        else:
          self._queue('mouth_fvd', mouths)
    if nets.judges:
      motion = [np.stack([m for _, _, m in side]) for side in sides]  # t 16
      self._feed('fvd_judge', *(motion_features(m[:, TRUSTED]) for m in motion))
      self._feed('mouth_fvd_judge', *(motion_features(m[:, MOUTH]) for m in motion))

  def _queue(self, name: str, both: Sequence[np.ndarray]) -> None:
    """Queues clips (t, s, s, 3) of both sides until there is one for every device."""
    self.queues[name].append(both)
    if len(self.queues[name]) == jax.device_count():
      self._run_queue(name)

  def _run_queue(self, name: str) -> None:
    sides = zip(*self.queues.pop(name), strict=True)
    self._feed(name, *(self.networks.fvd(np.stack(side)) for side in sides))  # n t h w c -> n d

  def finish(self, notes: Sequence[str], timeless: bool) -> Measured:
    """Returns the measurements after the last frame was added; see `Aligned` for the arguments."""
    for name in tuple(self.queues):  # the last ones do not fill every device
      self._run_queue(name)
    timeline = {name: np.array(x, np.float32) for name, x in self.timeline.items()}
    values = {name: mean_of(name, x) for name, x in timeline.items()}
    notes = [*notes]
    # A network with wrong weights may give NaN. Infinite PSNR is a measurement: equal frames.
    for name, value in tuple(values.items()):
      if not (np.isfinite(value) or (name == 'psnr' and value == np.inf)):
        del values[name]
        notes.append(f'left out of {name}, which is not finite; check the weights')
    if 'identity_similarity' in values:
      values['identity_loss'] = 1 - values['identity_similarity']
    equal = int(np.isposinf(timeline.get('psnr', np.zeros(0))).sum())
    if 0 < equal < len(self.times):
      notes.append(f'psnr leaves out {equal} of {len(self.times)} frames, equal to their reference')
    # FVD of the mouth is over fewer clips than FVD then, and the two are not of the same moments.
    if self.mouthless:
      notes.append(f'{self.mouthless} clips without a mouth, left out of mouth_fvd')
    notes = [f'{self.pair.generated}: {note}' for note in notes]
    channels = self._correlations(notes, timeless)
    values |= {name: float(np.mean(list(r.values()))) for name, r in channels.items()}
    times = np.array(self.times)
    return Measured(self.pair, len(times), values, times, timeline, notes, channels)

  def _correlations(self, notes: list[str], timeless: bool) -> dict[str, dict[str, float]]:
    """Returns correlations by metric and channel; adds to `notes` what could not be measured."""
    sources = {}
    for group in self.detector.groups if self.detector else ():
      both = tuple(self.channels[side].group(group) for side in SIDES)
      sources[f'{group}_correlation_mediapipe'] = both
    for side in SIDES if sources else ():
      missing, frames = self.channels[side].unread, self.channels[side].count
      if missing > motions.LOST * frames:
        notes.append(f'{self.pair.generated}: no face in {missing} of {frames} {side} frames')
    # A clip without usable files of motion still has all its other metrics.
    try:
      if self.openface:
        found = motions.of_openface(self.pair, self.openface, self.protocol.frames, notes)
        sources |= {f'{group}_correlation': both for group, both in found.items()}
    except InputError as error:
      notes.append(f'{self.pair.name}: no action units: {error}')
    try:
      if self.networks.judges:
        read = np.array(self.motion, np.float32).reshape(-1, motions.MOTION)  # t 16
        found = motions.of_truth(self.pair, np.array(self.times), read, notes, timeless)
        sources |= {f'{group}_correlation_truth': both for group, both in found.items()}
    except InputError as error:
      notes.append(f'{self.pair.name}: no true motion: {error}')
    for name, both in sources.items():
      if lost := correlation.frozen(*both):
        notes.append(
          f'{self.pair.generated}: {name} leaves out {len(lost)} of {len(both[0])} channels, which '
          f'move in the reference alone: {", ".join(lost[:SHOWN])}'
          + (f' and {len(lost) - SHOWN} more' if len(lost) > SHOWN else '')
        )
    found = {name: correlation.correlations(*both) for name, both in sources.items()}
    return {name: r for name, r in found.items() if r}


def mean_of(name: str, values: np.ndarray) -> float:
  """Returns the mean over frames; of PSNR over frames that differ from their reference.

  PSNR is infinite for equal frames, of which one would make the mean infinite.
  """
  values = values.astype(np.float64)
  if name == 'psnr' and not np.isposinf(values).all():
    values = values[~np.isposinf(values)]
  return float(values.mean())
