"""Reads the driver in a thread of its own: every frame in order, or always the newest one."""

import collections
import dataclasses
import threading
import time as clock
from collections.abc import Iterator
from fractions import Fraction

from hybrid_jax.media import MediaError, video
from hybrid_jax.media.broadcast import TICK, LiveFrame, Source, WrongAddress
from hybrid_jax.media.clock import start_of

# Frames that wait where every frame is taken; one where the newest wins.
WAITING = 4
AGAIN = 0.3  # s between two attempts to open a source that broke off


@dataclasses.dataclass(frozen=True)
class Captured:
  """A frame, the time at which the result shows it (seconds), and when it was decoded."""

  frame: LiveFrame
  time: Fraction
  arrived: float


class Capture:
  """A context manager that reads a source until it ends, or sends nothing for `wait` seconds.

  A camera or a stream that breaks off is opened again.

  Args:
    realtime: whether the newest frame wins. A file is then paced by its own times.
    wait: seconds without a frame after which it ends.

  Attributes:
    dropped: frames that came too early or too late to be taken.
    ended: whether no frame will come.
    reason: why it ended too early; '' at the end of a file or a pipe.
    reopened: how often the source was opened again.
  """

  def __init__(self, source: Source, realtime: bool, wait: float):
    self._source, self._realtime, self._wait = source, realtime, wait
    self._frames: collections.deque[Captured] = collections.deque()
    self._changed, self._stop = threading.Condition(), threading.Event()
    self._last = self._began = self._origin = self._time = None
    self.dropped, self.ended, self.reason, self.reopened = 0, False, '', 0
    self._failure = ''  # of the last attempt to open and read
    # A daemon: a pipe that sends nothing blocks in the system, and must not keep the process.
    self._thread = threading.Thread(target=self._work, name='capture', daemon=True)

  def __enter__(self) -> 'Capture':
    self._last = clock.monotonic()
    self._thread.start()
    return self

  def __exit__(self, *error) -> None:
    self._stop.set()
    with self._changed:
      self._changed.notify_all()
    self._thread.join(1.0)

  @property
  def time_base(self) -> Fraction:
    """The unit of the times, seconds."""
    return video.probe(self._source.name).time_base if self._source.kind == 'file' else TICK

  @property
  def holds(self) -> bool:
    """Whether the clock goes on without frames: that of arrivals does, that of a file does not."""
    return self._realtime and self._source.kind != 'file'

  @property
  def now(self) -> Fraction:
    """The time since the first frame, where the source `holds`."""
    return self._since(clock.monotonic())

  def take(self, timeout: float) -> Captured | None:
    """Returns the next frame; None if none comes in time, or none will come."""
    with self._changed:
      self._changed.wait_for(lambda: self._frames or self.ended, timeout)
      # What blocks in the system cannot be asked: the silence is measured here.
      if not self._frames and not self.ended and clock.monotonic() - self._last > self._wait:
        self.ended = True
        self.reason = self._silence
      if not self._frames:
        return None
      self._changed.notify_all()
      taken = self._frames.popleft()
    # Where every frame is taken, the time in the queue is that of the frames before it.
    return taken if self._realtime else dataclasses.replace(taken, arrived=clock.monotonic())

  @property
  def _silence(self) -> str:
    return self._failure or f'{self._source.shown}: sends nothing for {self._wait:g} s'

  def _since(self, moment: float) -> Fraction:
    return round(Fraction(moment - self._began) / TICK) * TICK

  def _own_time(self, time: Fraction) -> Fraction:
    """The time of a frame by the clock of its source, which starts at 0."""
    if self._origin is None:
      self._origin = start_of(self._source.name) if self._source.kind == 'file' else time
    if self._time is not None and time - self._origin <= self._time:
      # A source that was opened again may begin its clock anew.
      self._origin = time - self._time - Fraction(1, 25)
    self._time = time - self._origin
    return self._time

  def _work(self) -> None:
    while not self._stop.is_set() and not self.ended:
      try:
        for frame in self._paced(self._source.frames(self._wait)):
          self._put(frame)
          if self._stop.is_set():
            return
      except WrongAddress as error:
        self._failure = str(error)
        break
      except MediaError as error:
        self._failure = str(error)
      except Exception as error:  # the run ends with this reason
        self._failure = f'{self._source.shown}: {type(error).__name__}: {error}'
      if not self._source.returns or clock.monotonic() - self._last > self._wait:
        break
      if not self._stop.wait(AGAIN):
        self.reopened += 1
    with self._changed:
      # Only a file and a pipe have an end of their own.
      found = self._silence if self._source.returns else self._failure
      self.ended, self.reason = True, self.reason or found
      self._changed.notify_all()

  def _paced(self, frames: Iterator[LiveFrame]) -> Iterator[LiveFrame]:
    """Yields the frames of a file at their own times if it plays in real time."""
    if self._source.kind != 'file' or not self._realtime:
      yield from frames
      return
    began, first = clock.monotonic(), None
    for frame in frames:
      first = frame.time if first is None else first
      self._stop.wait(max(0.0, began + float(frame.time - first) - clock.monotonic()))
      yield frame

  def _put(self, frame: LiveFrame) -> None:
    arrived = clock.monotonic()
    if self.holds:
      self._began = arrived if self._began is None else self._began
      time = self._since(arrived)
    else:
      time = self._own_time(frame.time)
    with self._changed:
      self._failure = ''
      if self._realtime:
        self.dropped += len(self._frames)
        self._frames.clear()
      else:
        self._changed.wait_for(lambda: len(self._frames) < WAITING or self._stop.is_set())
      # Now: the wait above was for us and not for the source.
      self._last = clock.monotonic()
      self._frames.append(Captured(frame, time, arrived))
      self._changed.notify_all()
