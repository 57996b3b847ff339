"""A live re-enactment from a camera, stream or file to an output, until one of them ends."""

import contextlib
import csv
import dataclasses
import itertools
import os
import signal
import threading
import time as clock
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from hybrid_jax import environment
from hybrid_jax.errors import InputError
from hybrid_jax.media import MediaError, refuse_target
from hybrid_jax.media.broadcast import Source, open_source
from hybrid_jax.provenance import record as provenance
from hybrid_jax.reenactment.live import outputs
from hybrid_jax.reenactment.live.capture import Capture, Captured
from hybrid_jax.reenactment.live.latency import Latency
from hybrid_jax.reenactment.live.options import Live
from hybrid_jax.reenactment.live.session import Session, open_session
from hybrid_jax.reenactment.model import Model
from hybrid_jax.reenactment.options import Options

Say = Callable[[str], None]  # takes one line about the run
# Without a frame for `_STALL` seconds, held pictures are shown at `_TICK` seconds.
_STALL, _TICK = 0.25, 0.04
STATUS = 5.0  # s between two lines of figures
LEAVE, CALIBRATE = 'q', 'c'  # keys


@dataclasses.dataclass
class Figures:
  """Counts and latencies: of the whole run, and since the last line of figures."""

  total: Latency = dataclasses.field(default_factory=Latency)
  recent: Latency = dataclasses.field(default_factory=Latency)
  frames: int = 0
  held: int = 0
  began: float = dataclasses.field(default_factory=clock.monotonic)
  _counted: int = 0
  _since: float = dataclasses.field(default_factory=clock.monotonic)

  def add(self, seconds: float) -> None:
    """Counts a frame that was shown `seconds` after it arrived."""
    if not self.frames:
      # The rate counts from the first frame: before it, a source may be waited for.
      self.began = self._since = clock.monotonic() - seconds
    self.frames += 1
    self.total.add(seconds)
    self.recent.add(seconds)

  def row(self, capture: Capture, missing: int) -> dict[str, Any]:
    """Returns the figures since the last row, and begins the next; counts are of the whole run."""
    now = clock.monotonic()
    rate = (self.frames - self._counted) / max(now - self._since, 1e-9)
    latency, self.recent = self.recent, Latency()
    self._counted, self._since = self.frames, now
    return {
      'seconds': round(now - self.began, 2), 'frames_per_second': round(rate, 2),
      **latency.figures(), 'frames': self.frames, 'dropped': capture.dropped, 'held': self.held,
      'missing': missing, 'reopened': capture.reopened,
    }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Report:
  """What a finished run says of itself.

  Attributes:
    figures: counts, rate and latency in milliseconds.
    stages: share of each stage in the time of a frame.
    notes: about the output.
    broken: why the driver ended too early; '' at its own end, or if the user ended the run.
  """

  output: str
  figures: dict[str, Any]
  stages: dict[str, float]
  notes: tuple[str, ...]
  broken: str

  def lines(self) -> Iterator[str]:
    """Yields the lines to show."""
    f = self.figures
    yield (
      f'{self.output}: {f["frames"]} frames, {f["frames_per_second"]:.1f} a second; latency '
      f'{f["latency_median_ms"]:.0f} ms (95 %: {f["latency_95_ms"]:.0f}, worst: '
      f'{f["latency_worst_ms"]:.0f})'
    )
    yield (
      f'{f["dropped"]} frames dropped, {f["held"]} pictures held, {f["missing"]} frames without a '
      f'face, driver opened again {f["reopened"]} times'
    )
    yield 'time     ' + ', '.join(
      f'{name} {100 * part:.0f} %' for name, part in self.stages.items()
    )
    yield from (f'note     {note}' for note in self.notes if note)


def reenact(
  model: Model,
  options: Options,
  live: Live,
  *,
  say: Say = lambda line: None,
  keys: Callable[[], str] = str,
  stop: threading.Event | None = None,
) -> Report:
  """Re-enacts until the driver ends, the viewer leaves, or `stop` is set.

  Args:
    say: takes each line about the run.
    keys: returns what was pressed since the last call, beside the keys of a window.

  Raises:
    InputError: an input or an option that cannot be used, or a driver without any frame.
    FloatingPointError: a result is not finite. What was made before is finished.
  """
  source, realtime, options = check(options, live)
  session = open_session(model, options, live)
  say(f'driving  {source.shown}: {"the newest frame wins" if realtime else "every frame"}')
  stop = stop or threading.Event()
  with contextlib.ExitStack() as stack:
    capture = stack.enter_context(Capture(source, realtime, live.wait))
    log = stack.enter_context(_open_log(live.log))
    loop = Loop(session, capture, say, keys, log)
    record = _record(model, options, live, source)
    # Opened before the first frame: a wrong output is refused at once.
    loop.output = outputs.open_output(options, session.shape, capture.time_base, record)
    error = None
    try:
      loop.run(stop)
    except Exception as caught:  # raised again below, whatever it is
      error = caught
    if error is None and not loop.figures.frames:
      error = InputError(capture.reason or f'{source.shown}: no frame before it was stopped')
    figures = loop.finished()
    # Finished also after an error: an hour that was recorded is not lost with its last frame.
    try:
      notes = loop.output.finish(figures)
    except MediaError:
      if error is None:
        raise
    if error is not None:
      raise error
  return Report(options.output, figures, session.stages.shares(), tuple(notes), capture.reason)


def check(options: Options, live: Live) -> tuple[Source, bool, Options]:
  """Returns the driver, whether its newest frame wins, and the options as they apply to it.

  Raises:
    InputError: what cannot be used, before any work.
  """
  if not os.path.isfile(options.source):
    raise InputError(f'{options.source}: no such file')
  source = open_source(options.driving, live.input_format, live.of_format())
  source.check(live.wait)
  # Sound is copied from files: that of a stream would have to be read beside its pictures.
  options = dataclasses.replace(options, audio=options.audio and source.kind == 'file')
  outputs.check(options)
  if live.log:
    refuse_target(live.log)
  located = any(options.crop_options(role).locates for role in ('source', 'driving'))
  if options.crop not in ('', 'whole') and not located:
    raise InputError(f'--crop={options.crop}: needs --face-detector')
  realtime = source.kind != 'file' if live.realtime is None else live.realtime
  return source, realtime, options


class Loop:
  """Takes frames, and shows pictures.

  Attributes:
    output: where pictures go, see `outputs`.
    figures: so far.
  """

  def __init__(
    self,
    session: Session,
    capture: Capture,
    say: Say,
    keys: Callable[[], str],
    log: Callable[[dict[str, Any]], None],
  ):
    self._session, self._capture, self._say, self._keys = session, capture, say, keys
    self._log, self.figures, self.output = log, Figures(), None
    self._shown: Fraction | None = None

  def run(self, stop: threading.Event) -> None:
    """Runs until there is nothing more to show or nobody to show it to."""
    status, timeout = clock.monotonic() + STATUS, _STALL
    while not stop.is_set() and not self.output.closed:
      captured = self._capture.take(timeout)
      if captured:
        self._frame(captured)
      elif self._capture.ended:
        return
      elif self._capture.holds and self.figures.frames:
        self._hold()
      timeout = _STALL if captured else _TICK
      if LEAVE in (pressed := self.output.keys() + self._keys()):
        return
      if CALIBRATE in pressed:
        self._session.calibrate()
        self._say('motion   starts from the present expression')
      if self.figures.frames and clock.monotonic() > status:
        status = clock.monotonic() + STATUS
        self._status()

  def _frame(self, captured: Captured) -> None:
    with self._session.stages('convert'):
      rgb = captured.frame.read()
    picture = self._session(rgb, captured.time)
    self._write(picture, captured.time)
    self.figures.add(clock.monotonic() - captured.arrived)

  def _hold(self) -> None:
    now = self._capture.now
    self._write(self._session.hold(now), now)
    self.figures.held += 1

  def _write(self, picture: Any, time: Fraction) -> None:
    # After a held picture, a frame may carry a time that has passed.
    if self._shown is not None and time <= self._shown:
      time = self._shown + self._capture.time_base
    self._shown = time
    with self._session.stages('output'):
      self.output.write(picture, time)

  def _status(self) -> None:
    row = self.figures.row(self._capture, self._session.missing)
    self._log(row)
    line = (
      f'{row["frames_per_second"]:.1f} frames/s, latency {row["latency_median_ms"]:.0f} ms '
      f'(95 %: {row["latency_95_ms"]:.0f}, worst: {row["latency_worst_ms"]:.0f}), '
      f'{row["dropped"]} dropped'
    )
    self._say(line)
    if isinstance(self.output, outputs.Window):
      self.output.title(line)

  def finished(self) -> dict[str, Any]:
    """Returns the figures of the whole run, and logs the last row."""
    self._log(self.figures.row(self._capture, self._session.missing))
    whole = dataclasses.replace(self.figures, recent=self.figures.total, _counted=0)
    whole._since = whole.began
    return whole.row(self._capture, self._session.missing)


@contextlib.contextmanager
def _open_log(path: str) -> Iterator[Callable[[dict[str, Any]], None]]:
  """Gives what writes a row of figures at once, so that a run that is killed leaves its log."""
  if not path:
    yield lambda row: None
    return
  with open(path, 'w', newline='') as file:
    numbers = itertools.count()

    def write(row: dict[str, Any]) -> None:
      table = csv.DictWriter(file, row)
      if next(numbers) == 0:
        table.writeheader()
      table.writerow(row)
      file.flush()

    yield write


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
  """Gives an event that Ctrl-C or a termination sets; a second one interrupts at once."""
  stop = threading.Event()
  before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

  def ask(number, frame):
    stop.set()
    for each, handler in before.items():
      signal.signal(each, handler)

  for number in before:
    signal.signal(number, ask)
  try:
    yield stop
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def _record(model: Model, options: Options, live: Live, source: Source) -> dict[str, Any]:
  """Returns the record of a run, see `provenance.record`; a camera has no name and no hash."""
  name, digest = source.kind, ''
  if source.kind == 'file':
    name, digest = source.name, environment.sha256(source.name)
  # An option of the input may be a password, and the log is a path of this machine.
  own = dataclasses.asdict(live)
  own = {key: value for key, value in own.items() if key not in ('input_options', 'log')}
  return provenance.record(
    {'source': (options.source, environment.sha256(options.source)), 'driving': (name, digest)},
    model.digests,
    model.config.to_dict(),
    dataclasses.asdict(options) | own,
  )
