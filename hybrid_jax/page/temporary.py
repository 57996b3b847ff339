"""The temporary folder of a server, also removed if the server was killed."""

import contextlib
import fcntl
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

FOLDER = 'hybrid_jax_page_'  # how temporary folders begin


@contextlib.contextmanager
def folder() -> Iterator[pathlib.Path]:
  """Gives a temporary folder, and removes those of servers that were killed."""
  for other in pathlib.Path(tempfile.gettempdir()).glob(f'{FOLDER}*'):
    # Not locked by a server that runs, or not ours.
    with contextlib.suppress(OSError), open(other / 'lock') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      shutil.rmtree(other)
  with tempfile.TemporaryDirectory(prefix=FOLDER) as root, open(f'{root}/lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield pathlib.Path(root)
