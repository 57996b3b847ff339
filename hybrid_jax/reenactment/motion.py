"""Stage 2: the driver's motion, extracted by the encoder (eq. 2), and operations on it.

Rows are deformation latents s_f (d,) float32, the offsets of all deformation layers side by side.
Functions on rows are generators, since a long clip's rows need not fit into memory.
"""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.media import MediaError, align, video
from hybrid_jax.media.prefetch import prefetch
from hybrid_jax.progress import Progress
from hybrid_jax.reenactment import in_plane, motion_file
from hybrid_jax.reenactment.inputs import Input
from hybrid_jax.reenactment.model import Model
from hybrid_jax.reenactment.motion_file import Motion
from hybrid_jax.reenactment.options import Options

KEPT = 'motion.safetensors'  # in the folder of a run
# Crops that are decoded before the encoder needs them: a batch of the default size. Decoding and
# cropping run in a thread, since PyAV and OpenCV release the interpreter lock.
READ_AHEAD = 8


@dataclasses.dataclass(frozen=True, eq=False)
class DrivingMotion:
  """The result of stage 2.

  Attributes:
    motion: the rows, on disk.
    frames: (n,) number of the driving frame of each row.
    missing: (t,) bool: driving frames without a face; empty for a motion file.
  """

  motion: Motion
  frames: np.ndarray
  missing: np.ndarray


def prepare(model: Model, options: Options, driving: Input | None, folder: pathlib.Path) -> None:
  """Lets the programs compile while the inputs are opened and the driver's face is followed.

  `driving` is None where it is still a file; the others are as of `read_motion`.
  """
  frames, kept = None, motion_file.is_motion(options.driving) or (folder / KEPT).is_file()
  if driving is not None:
    frames = len(driving.track)
  elif not kept:
    with contextlib.suppress(MediaError):  # opening it says what is wrong
      frames = video.probe(options.driving).frames
  # Of a clip that is shorter than a batch, see `extract`.
  batch = min(options.batch_size, frames or options.batch_size)
  model.prepare(batch, encode=not kept, draw=not options.edit)


def read_motion(
  model: Model,
  options: Options,
  driving: Input | None,
  folder: pathlib.Path,
  hashes: Mapping[str, str],
  progress: Progress,
) -> DrivingMotion:
  """Returns the motion of the driving clip, or of the motion file that takes its place.

  Args:
    folder: keeps the motion for a run that is resumed.
    hashes: SHA-256 of each input file by its path.

  Raises:
    InputError: the motion file belongs to another model, or a face is missing and that is refused.
  """
  if driving is None:
    motion = motion_file.read(options.driving)
    # The latent space of s_f is that of one encoder; with another, the result would be a face that
    # moves in some other way, without an error.
    if (motion.model, motion.widths) != (model.digest(), model.widths):
      raise InputError(f'{options.driving}: motion of another model; extract it with this one')
    return DrivingMotion(motion, np.arange(len(motion)), np.zeros(0, bool))
  store, missing = folder / KEPT, driving.missing
  # Written at once when it is complete: a store that exists holds every row.
  if not store.is_file():
    digest = hashes[options.driving]
    extract(model, driving, digest, options.on_missing, store, options.batch_size, progress)
  skips = options.on_missing == 'skip'
  frames = np.flatnonzero(~missing) if skips else np.arange(len(missing))
  return DrivingMotion(motion_file.read(store), frames, missing)


def extract(
  model: Model,
  driving: Input,
  digest: str,
  on_missing: str,
  store: pathlib.Path,
  batch_size: int,
  progress: Progress,
) -> None:
  """Writes the motion of a tracked clip, whose SHA-256 is `digest`, to the file `store`.

  Raises:
    InputError: a face is missing and `on_missing` is 'fail'.
  """
  track, missing = driving.track, driving.missing
  if on_missing == 'fail' and missing.any():
    # Before the encoder runs: tracking has already found which frames have a face.
    k = int(missing.argmax())
    raise InputError(
      f'{driving.path}: no face in frame {k} ({float(track.time(k)):.2f} s) and '
      f'{missing.sum() - 1} more; --on-missing=hold, interpolate or skip goes on'
    )
  found = np.flatnonzero(~missing)
  # Only frames with a face are encoded; `fill` makes the others' rows from these.
  heads = prefetch(driving.crops(found.tolist(), model.size), READ_AHEAD)
  # A clip that is shorter than a batch is not padded to it.
  batch = min(batch_size, len(found))
  rows = model.deformations(progress(heads, 'reading motion', len(found)), batch)
  kept = found if on_missing == 'skip' else np.arange(len(track))
  motion_file.write(
    store,
    fill(rows, missing, on_missing, track.seconds),
    track.ticks[kept],
    time_base=track.time_base,
    widths=model.widths,
    # With frames skipped, a shot may begin at a later row, or have none.
    starts=sorted({int(np.searchsorted(kept, cut)) for cut in track.cuts} - {len(kept)}),
    model=model.digest(),
    driving=digest,
    squares=_squares(driving, kept, on_missing),
  )


def _squares(driving: Input, kept: np.ndarray, on_missing: str) -> np.ndarray | None:
  """Returns the square of each row; None if nothing of the head's place is in them."""
  if not driving.aligned:
    return None
  squares = driving.squares
  if on_missing == 'hold':  # place and expression stay together
    squares = in_plane.held(squares, driving.missing, driving.track.cuts)
  return squares[kept]


def adapt(
  model: Model, options: Options, driven: DrivingMotion, head: np.ndarray
) -> tuple[Iterator[np.ndarray], int | None]:
  """Returns the rows to render, smoothed and, if wanted, relative; and the reference row.

  The reference is None for absolute motion. `head` is the source's crop, whose own expression
  relative motion starts from.

  Raises:
    InputError: the motion has no row of the frame `options.reference`.
  """
  motion = driven.motion
  rows = smoothed(motion, options.smooth_motion)
  if options.motion == 'absolute':
    return rows, None
  # The reference is a row of the motion before smoothing, so that --reference=K means the same
  # frame's expression whatever the smoothing.
  k = neutral(motion) if options.reference is None else _row_of(options.reference, driven, options)
  # In a batch of the size that follows: the program is compiled for it anyway.
  own = next(model.deformations([head], min(options.batch_size, len(motion))))
  return relative(rows, np.array(motion.rows[k]), own, options.gain), k


def _row_of(frame: int, driven: DrivingMotion, options: Options) -> int:
  """Returns the row of a driving frame; with frames skipped, rows have other numbers."""
  row = int(np.searchsorted(driven.frames, frame))
  if row < len(driven.frames) and driven.frames[row] == frame:
    return row
  last = max(len(driven.missing), len(driven.frames)) - 1
  if 0 <= frame <= last:
    raise InputError(f'--reference={frame}: no face in this frame of {options.driving}; skipped')
  raise InputError(f'--reference={frame}: {options.driving} has frames 0 to {last}')


def missing_line(missing: np.ndarray, on_missing: str) -> str:
  """Returns one line that lists the frames without a face as ranges; '' if there are none."""
  if not missing.any():
    return ''
  # +1 where a range begins, -1 after its end; padded, since a range may reach either end.
  edges = np.diff(np.concatenate(([0], missing.astype(int), [0])))
  ranges = np.flatnonzero(edges).reshape(-1, 2).tolist()
  names = [str(a) if b == a + 1 else f'{a}-{b - 1}' for a, b in ranges[:8]]
  more = f' and {len(ranges) - 8} more places' if len(ranges) > 8 else ''
  return (
    f'no face in {missing.sum()} of {len(missing)} frames ({", ".join(names)}{more}): {on_missing}'
  )


# --- Operations on rows --------------------------------------------------------------------------


def neutral(motion: Motion) -> int:
  """Returns the number of the row with the smallest |s_f|: G(w_id, 0) is the neutral expression."""
  # Row by row: 10,000 rows of the 1024 px model at once are 200 MB.
  return int(np.argmin([float(np.linalg.norm(row)) for row in motion.rows]))


def smoothed(motion: Motion, seconds: float) -> Iterator[np.ndarray]:
  """Yields the rows smoothed over time without delay, see `align.smoothed`; `seconds` 0 is off."""
  return align.smoothed(motion.rows, motion.seconds, seconds, motion.starts)


def relative(
  rows: Iterable[np.ndarray], reference: np.ndarray, own: np.ndarray, gain: float
) -> Iterator[np.ndarray]:
  """Yields own + gain (row - reference): the driver's change added to the source's expression.

  Args:
    rows: s_f (d,) of each driving frame.
    reference: (d,) of the frame whose expression counts as no change.
    own: (d,) of the source.
    gain: 1 transfers the change as it is, 0 leaves the source still.
  """
  # Not in the paper, whose motion is absolute (eq. 3). For sources whose face has another shape
  # than the driver's: what the encoder leaves of that shape in s_f cancels in the difference.
  for row in rows:
    yield own + gain * (row - reference)


class Jitter:
  """The root mean square of the second differences of rows over that of the first differences.

  Steady motion gives 0, a random walk 1.4, noise around a constant 1.7.
  """

  def __init__(self):
    self._before, self._step, self._first, self._second = None, None, 0.0, 0.0

  def __call__(self, rows: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the rows unchanged, and measures them."""
    # Sums while they pass, since no second pass over a long motion is wanted. Squared steps are
    # summed as Python floats (float64): float32 would lose the small ones of 10,000 rows.
    for row in rows:
      if self._before is not None:
        step = row - self._before
        self._first += float(step @ step)
        if self._step is not None:
          turn = step - self._step
          self._second += float(turn @ turn)
        self._step = step
      self._before = np.array(row)  # a copy: a row may be a view that keeps its batch
      yield row

  @property
  def value(self) -> float:
    """The jitter of the rows passed so far; 0 without motion."""
    return (self._second / self._first) ** 0.5 if self._first else 0.0


def jitter_of(rows: Iterable[np.ndarray]) -> float:
  """Returns the jitter of rows, see `Jitter`."""
  jitter = Jitter()
  for _ in jitter(rows):
    pass
  return jitter.value


# --- Frames without a face -----------------------------------------------------------------------


def fill(
  rows: Iterable[np.ndarray], missing: np.ndarray, on_missing: str, seconds: np.ndarray
) -> Iterator[np.ndarray]:
  """Yields one row for each frame, from the rows of the frames with a face.

  'hold' repeats the last row, or at the beginning the first one; 'interpolate' goes linearly in
  time from the last row to the next; 'skip' adds none. Memory does not grow with the gaps.

  Args:
    rows: (d,) of each frame with a face, of which there is at least one.
    missing: (t,) bool: frames without a face.
    on_missing: one of `options.ON_MISSING`.
    seconds: (t,) times of all frames.
  """
  rows, found = iter(rows), np.flatnonzero(~missing)
  if on_missing == 'skip':
    yield from rows
    return
  before, row = None, next(rows)
  for k, at in enumerate(found):
    start = 0 if before is None else found[k - 1] + 1
    for gap in range(start, at):
      if before is None:
        yield row
      elif on_missing == 'hold':
        yield before
      else:
        # In time and not in frames: phones record at variable rates.
        share = (seconds[gap] - seconds[start - 1]) / (seconds[at] - seconds[start - 1])
        # float32 as the rows are: a float64 scalar would promote them.
        yield before + np.float32(share) * (row - before)
    yield row
    before, row = row, next(rows, None)
  # After the last face there is no row to interpolate to: every rule but 'skip' holds.
  for _ in range(found[-1] + 1, len(missing)):
    yield before


# --- The times of the result ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """Which row each picture of the result shows, and when.

  Attributes:
    rows: (n,) numbers of rows of the motion, which do not decrease.
    ticks: (n,) int64 presentation times, in units of `time_base` seconds.
  """

  rows: np.ndarray
  ticks: np.ndarray
  time_base: Fraction

  def __len__(self) -> int:
    return len(self.rows)

  def time(self, k: int) -> Fraction:
    """The exact presentation time of picture k, seconds."""
    return int(self.ticks[k]) * self.time_base


def plan(motion: Motion, fps: Fraction | None, origin: Fraction = Fraction(0)) -> Plan:
  """Returns the plan of every row at its own time; with `fps`, of the row at each k / fps seconds.

  A row is shown until the next one begins, the last as long as the one before it. `origin` is the
  time of the motion that is 0 in the plan, in whole ticks.
  """
  motion = dataclasses.replace(motion, ticks=motion.ticks - round(origin / motion.time_base))
  count, start = len(motion), motion.time(0)
  if fps is None:
    return Plan(np.arange(count), motion.ticks, motion.time_base)
  # All in fractions and whole ticks: in floating point, a time that equals the beginning of a row
  # may fall before it.
  interval = 1 / fps
  end = 2 * motion.time(count - 1) - motion.time(count - 2) if count > 1 else start + interval
  tick = _common(start, interval)
  numbers = np.arange(math.ceil((end - start) / interval))
  ticks = int(start / tick) + numbers * int(interval / tick)
  unit = _common(tick, motion.time_base)
  begins, wanted = motion.ticks * int(motion.time_base / unit), ticks * int(tick / unit)
  # 'right' less one: the last row that begins at or before the wanted time.
  return Plan(np.searchsorted(begins, wanted, 'right') - 1, ticks, tick)


def _common(a: Fraction, b: Fraction) -> Fraction:
  """Returns the largest unit of which both are integer multiples."""
  return Fraction(
    math.gcd(a.numerator * b.denominator, b.numerator * a.denominator),
    a.denominator * b.denominator,
  )
