"""The order in which visitors' jobs run: one at a time, first come, first served."""

import contextlib
import threading
from collections.abc import Iterator

from hybrid_jax.errors import InputError
from hybrid_jax.page.stages import LOOK, Stages


class Turns:
  """A queue of jobs.

  Args:
    most: number of jobs that may wait.
  """

  def __init__(self, most: int = 20):
    self._most, self._jobs, self._changed = most, [], threading.Condition()

  @contextlib.contextmanager
  def turn(self, stages: Stages) -> Iterator[None]:
    """Waits until all jobs before this one have ended, and keeps the others waiting in the block.

    Raises:
      InputError: too many jobs wait.
      Stopped: this one was cancelled, also while it waited.
    """
    job = object()
    with self._changed:
      if len(self._jobs) > self._most:
        raise InputError(f'{self._most} other jobs are waiting: try again later')
      self._jobs.append(job)
    try:
      with self._changed:
        while before := self._jobs.index(job):
          stages.note(f'Waiting for {before} other job{"s" * (before > 1)}')
          self._changed.wait(LOOK)
      stages.check()
      yield
    finally:
      with self._changed:
        self._jobs.remove(job)
        self._changed.notify_all()
