"""One run to an output at a time: a lock file beside the output, `.NAME.lock`, names its owner.

The system's own lock on the file (flock) ends with the process that holds it, so that a killed run
blocks nothing; it holds between containers of one machine. A machine that shares the folder over a
network may not see it: there the owner's name in the file counts, for as long as it is renewed.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

from hybrid_jax.errors import InputError
from hybrid_jax.media import reason

RENEWED = 10  # seconds between two signs of life of an owner
STALE = 90  # seconds without one after which an owner on another machine counts as dead
_BOOT = pathlib.Path('/proc/sys/kernel/random/boot_id')  # of the machine, the same in containers


def place(output: str | os.PathLike) -> pathlib.Path:
  """Returns the path of the lock file of an output."""
  path = pathlib.Path(output)
  return path.with_name(f'.{path.name}.lock')


@contextlib.contextmanager
def only_run(output: str | os.PathLike) -> Iterator[None]:
  """Holds the lock of an output.

  Raises:
    InputError: another run holds it, with its process and host; or the folder cannot be written.
  """
  path, ended = place(output), threading.Event()
  try:
    file = _take(path, output)
  except OSError as error:
    raise InputError(f'{output}: cannot be written there ({reason(error)})') from error
  with file:
    # A thread, since the longest steps, such as a compilation, report nothing while they run.
    renewing = threading.Thread(target=_renew, args=(path, ended), daemon=True)
    renewing.start()
    try:
      yield
    finally:
      ended.set()
      renewing.join()
      # Removed while it is held: who opened the file meanwhile sees that it is gone, see `_take`.
      path.unlink(missing_ok=True)


def _take(path: pathlib.Path, output: str | os.PathLike) -> BinaryIO:
  """Returns the lock file, held and with our name in it. Raises InputError if another has it."""
  while True:
    file = path.open('a+b')
    try:
      held = _flock(file, output)
      # A run that ended between `open` and `flock` has removed this file: a lock on it would
      # stop no other run.
      if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
        file.close()
        continue
      owner = _read(file)
      # With the system's lock held, an owner on this machine is dead.
      if owner and not (held and owner['boot'] == _boot()):
        _refuse_living(path, owner, output)
      file.truncate(0)
      file.write(json.dumps(_ourselves()).encode())
      file.flush()
      return file
    except BaseException:
      file.close()
      raise


def _flock(file: BinaryIO, output: str | os.PathLike) -> bool:
  """Takes the system's lock; returns False on a file system without such locks."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True
  except BlockingIOError:
    raise InputError(_refusal(output, _read(file))) from None
  except OSError:
    return False


def _refuse_living(path: pathlib.Path, owner: dict[str, Any], output: str | os.PathLike) -> None:
  """Raises InputError if an owner that cannot be looked up has given a sign of life lately."""
  # By the clock of the folder's own machine, since those of two machines may differ.
  with tempfile.NamedTemporaryFile(dir=path.parent, prefix='.') as now:
    quiet = os.stat(now.name).st_mtime - path.stat().st_mtime
  if quiet < STALE:
    raise InputError(
      f'{_refusal(output, owner)}; if that has died, wait {STALE - quiet:.0f} s or remove {path}'
    )


def _refusal(output: str | os.PathLike, owner: dict[str, Any] | None) -> str:
  who = f'process {owner["pid"]} on {owner["host"]}, since {owner["started"]}' if owner else 'it'
  return f'{output}: another run is writing it ({who}); wait for it, or give another --output'


def _ourselves() -> dict[str, Any]:
  return {
    'host': socket.gethostname(),
    'pid': os.getpid(),
    'started': time.strftime('%Y-%m-%d %H:%M:%S'),
    'boot': _boot(),
  }


def _boot() -> str:
  return _BOOT.read_text().strip() if _BOOT.is_file() else socket.gethostname()


def _read(file: BinaryIO) -> dict[str, Any] | None:
  """Returns the owner named in the file; None for an empty or damaged one."""
  try:
    file.seek(0)
    owner = json.loads(file.read())
    return owner if {'host', 'pid', 'started', 'boot'} <= set(owner) else None
  except (ValueError, TypeError):
    return None


def _renew(path: pathlib.Path, ended: threading.Event) -> None:
  while not ended.wait(RENEWED):
    # A user may have removed the file; the run goes on.
    with contextlib.suppress(OSError):
      os.utime(path)
