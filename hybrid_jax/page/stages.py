"""Progress of one job in plain words, with the time left, and the place where it can be stopped."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator

# show(fraction, text): fraction of the stage in [0, 1], None if its length is not known.
Show = Callable[[float | None, str], None]
LOOK = 0.3  # s between two looks of a waiting job at whether it was cancelled
# What a stage of the library is called on the page.
_WORDS = {
  'tracking': 'Finding the head',
  'reading motion': 'Reading the motion',
  'tuning': 'Tuning the generator',
  're-enacting': 'Drawing',
}


class Stopped(Exception):
  """The visitor cancelled the job, or left."""


class Stages:
  """A `progress.Progress` that shows each stage and ends at the next item once it is stopped.

  Args:
    show: takes a fraction and a line of text.
    stop: any of these ends the work with `Stopped`, between two frames or a few steps of tuning.
  """

  def __init__(self, show: Show, *stop: threading.Event):
    self._show, self._stop = show, stop

  def check(self) -> None:
    """Raises Stopped if the job was cancelled."""
    if any(event.is_set() for event in self._stop):
      raise Stopped

  def note(self, text: str) -> None:
    """Shows a line without a fraction; raises Stopped if the job was cancelled."""
    self.check()
    self._show(None, text)

  def __call__(
    self, items: Iterable, description: str | Callable[[], str], total: int | None
  ) -> Iterator:
    """Yields the items."""
    name = description() if callable(description) else description
    words = _WORDS.get(name.split(',')[0], name)
    self.check()
    # Compiling comes before the first item, and reports nothing.
    self._show(0.0 if total else None, f'{words} (the first time takes longer)')
    first = None
    iterator = iter(items)
    try:
      for done, item in enumerate(iterator, 1):
        self.check()
        yield item
        # The first item includes the compilation: the speed is that of the items after it.
        first = first or time.monotonic()
        if not total:
          self._show(None, f'{words}: {done}')
          continue
        line = f'{words}: {done} of {total}'
        if done > 1:
          rate = (time.monotonic() - first) / (done - 1)
          line += f', {left(rate * (total - done))} left'
        self._show(min(done / total, 1.0), line)
      self._show(1.0, f'{words}: finishing')
    finally:
      # A thread may be computing ahead: it ends now, and not when Python frees the iterator.
      if close := getattr(iterator, 'close', None):
        close()


def left(seconds: float) -> str:
  """Returns a duration in words, rounded as people would."""
  if seconds < 1:
    return 'under a second'
  if seconds < 90:
    return f'about {round(seconds) if seconds < 10 else 5 * round(seconds / 5)} s'
  if seconds < 5400:
    return f'about {round(seconds / 60)} min'
  return f'about {seconds / 3600:.1f} h'
