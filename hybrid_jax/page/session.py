"""What the server keeps of a visitor, until the page is closed."""

import contextlib
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Hashable, Iterator

from hybrid_jax.page.stages import LOOK, Stages, Stopped
from hybrid_jax.reenactment.inputs import Input

# s for which the end of a server waits for a job, which may be compiling for minutes.
PATIENCE = 10


class Session:
  """A visitor: a folder, the inputs that were opened last, and the flags that stop the work.

  Attributes:
    folder: for the results and tuned generators.
    cancelled: set while a job is to be stopped; `closed` when the page was closed.
  """

  def __init__(self, folder: pathlib.Path):
    self.folder, self.cancelled, self.closed = folder, threading.Event(), threading.Event()
    self._opened: dict[str, tuple[Hashable, Input]] = {}
    self._opening = threading.Lock()
    self._working, self._idle = 0, threading.Condition()

  @contextlib.contextmanager
  def working(self) -> Iterator[None]:
    """Keeps the folder inside of the block. Raises Stopped if the page was closed."""
    with self._idle:
      if self.closed.is_set():
        raise Stopped
      self._working += 1
    try:
      yield
    finally:
      with self._idle:
        self._working -= 1
        self._idle.notify_all()

  def opened(self, role: str, key: Hashable, make: Callable[[], Input], stages: Stages) -> Input:
    """Returns the input of a role, made anew only where `key` has changed.

    One is opened at a time: a job that was started early waits here for the preview.
    """
    while not self._opening.acquire(timeout=LOOK):
      stages.check()
    try:
      if role not in self._opened or self._opened[role][0] != key:
        self._opened.pop(role, None)
        self._opened[role] = key, make()
      return self._opened[role][1]
    finally:
      self._opening.release()

  def result_folder(self) -> pathlib.Path:
    """Returns an empty folder; the result before is removed."""
    folder = self.folder / 'result'
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder

  def close(self, patience: float | None = None) -> None:
    """Stops the work, and removes the folder when it has ended, or after `patience` s."""
    self.closed.set()
    with self._idle:
      self._idle.wait_for(lambda: not self._working, patience)
      self._opened.clear()
      shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
  """The visitors of a server, by the key that the browser sends.

  Args:
    root: folder of all their folders.

  Attributes:
    ended: set when the server ends.
  """

  def __init__(self, root: pathlib.Path):
    self._root, self._sessions, self._lock = root, {}, threading.Lock()
    self.ended = threading.Event()

  def __getitem__(self, key: str) -> Session:
    """Returns the session of a key, which is new if there is none."""
    with self._lock:
      if key not in self._sessions:
        # A random name: the key comes from the browser, and must not become part of a path.
        folder = tempfile.mkdtemp(dir=self._root, prefix='visitor_')
        self._sessions[key] = Session(pathlib.Path(folder))
      return self._sessions[key]

  def close(self, key: str) -> None:
    """Ends the session of a key, if there is one."""
    if session := self._sessions.get(key):
      # Found under its key until then: a late call of the page makes no new folder, and the end of
      # the server waits for the work.
      session.close()
      self._sessions.pop(key, None)

  def close_all(self) -> None:
    """Ends all sessions, with the server."""
    self.ended.set()
    sessions = list(self._sessions.values())
    for session in sessions:
      session.closed.set()
    for session in sessions:
      session.close(PATIENCE)
