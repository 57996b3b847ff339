"""What the commands share: one-line errors, the compilation cache, progress bars, the allocator.

Only commands import this module. The functions about the heap are for glibc and do nothing with
another C library.
"""

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Iterable, Iterator

from hybrid_jax.errors import InputError

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's malloc.h
_libc = ctypes.CDLL(None) if platform.libc_ver()[0] == 'glibc' else None
TRIM_EVERY = 32  # items of a progress bar between two calls of `trim_heap`


@contextlib.contextmanager
def running(stopped: str = 'stopped') -> Iterator[None]:
  """Prepares the heap, the compilation cache and logging; ends an error with one line.

  Args:
    stopped: the line printed after Ctrl-C.
  """
  from absl import logging

  share_heap()
  use_compilation_cache()
  logging.set_verbosity(logging.ERROR)  # Orbax warns about each checkpoint that it reads
  try:
    yield
  except (InputError, FloatingPointError) as error:
    sys.exit(f'error: {error}')
  except KeyboardInterrupt:
    sys.exit(stopped)


def use_compilation_cache(path: str | None = None) -> None:
  """Keeps compiled programs in `path`, so that a program is compiled once per machine.

  None is the user's cache folder, or JAX_COMPILATION_CACHE_DIR where it is set; '' keeps nothing.
  """
  import jax

  from hybrid_jax import environment

  if path is None:
    path = os.environ.get('JAX_COMPILATION_CACHE_DIR') or str(environment.cache_folder())
  if path:
    jax.config.update('jax_compilation_cache_dir', path)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 1.0)


def progress(items: Iterable, description: str, total: int | None) -> Iterable:
  """Shows a progress bar over frames while passing them on, and keeps the heap small."""
  from tqdm import tqdm

  for k, item in enumerate(tqdm(items, desc=description, total=total, unit='frame')):
    yield item
    if k % TRIM_EVERY == 0:
      trim_heap()


def share_heap() -> None:
  """Makes all threads share one heap; call it before they start.

  A frame is decoded, computed and encoded on different threads. With a heap per thread, memory
  freed in one cannot be reused by the others, and the process grows over thousands of frames.
  """
  if _libc:
    _libc.mallopt(_M_ARENA_MAX, 1)


def map_large_blocks() -> None:
  """Returns blocks of 64 kB and more to the system as soon as they are freed.

  Otherwise they lie between small blocks that stay, and the heap grows by some kB per frame. The
  price is a page fault for every 4 kB of a new block: negligible where networks take seconds per
  batch of frames, a third of the time where large pictures are composited.
  """
  if _libc:
    _libc.mallopt(_M_MMAP_THRESHOLD, 2**16)


def trim_heap() -> None:
  """Returns free pages to the system, also those between blocks in use.

  A video encoder leaves about 50 MB of holes which the next one does not fill exactly.
  """
  if _libc:
    _libc.malloc_trim(0)
