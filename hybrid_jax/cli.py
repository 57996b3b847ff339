"""What the commands share: flags, one-line errors, compilation cache, progress bars, allocator.

Only commands import this module. It imports nothing slow at its top: the data workers of a training
are spawned and import the command again. The functions about the heap are for glibc and do nothing
with another C library.
"""

import contextlib
import ctypes
import functools
import os
import pathlib
import platform
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, TextIO

from hybrid_jax.errors import InputError, memory_named

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's malloc.h
_libc = ctypes.CDLL(None) if platform.libc_ver()[0] == 'glibc' else None
# What to do if the memory is too small for a training.
LESS_TRAINING = (
  'compute each batch in parts: --config.optim.micro_batches=4, or recompute the layers of the '
  'generator from 64 px on: --config.model.remat_from=64'
)
TRIM_EVERY = 32  # items of a progress bar between two calls of `trim_heap`


@contextlib.contextmanager
def running(
  stopped: str = 'stopped',
  *,
  lower: str = 'take a device with more memory, or JAX_PLATFORMS=cpu',
  compilation_cache: str | None = None,
  shared_heap: bool = True,
) -> Iterator[None]:
  """Prepares the heap, the compilation cache and logging; ends an error with one line.

  Args:
    stopped: the line printed after Ctrl-C.
    lower: what to do if memory runs out.
    compilation_cache: see `use_compilation_cache`.
    shared_heap: see `share_heap`.
  """
  from absl import flags, logging

  if shared_heap:
    share_heap()
  use_compilation_cache(compilation_cache)
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.ERROR)  # Orbax warns about each checkpoint that it reads
  try:
    with memory_named(lower):
      yield
  except (InputError, FloatingPointError) as error:
    sys.exit(f'error: {error}')
  except OSError as error:  # a full disk, a name that is too long, a folder that is not ours
    sys.exit(f'error: {error.filename or "a file"}: cannot be used ({error.strerror or error})')
  except KeyboardInterrupt:
    sys.exit(stopped)


class _Outlived:
  """A text stream that is read by another program, which may end first: the rest is dropped."""

  def __init__(self, stream: TextIO):
    self._stream = stream

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)

  def write(self, text: str) -> int:
    """Writes, or drops, the text."""
    with self._until_closed():
      self._stream.write(text)
    return len(text)

  def flush(self) -> None:
    """Writes, or drops, what is buffered."""
    with self._until_closed():
      self._stream.flush()

  @contextlib.contextmanager
  def _until_closed(self) -> Iterator[None]:
    try:
      yield
    except BrokenPipeError:
      # The interpreter flushes at its end too, what is still buffered included.
      with open(os.devnull, 'w') as nowhere:
        os.dup2(nowhere.fileno(), self._stream.fileno())


def command(main: Callable[[], Any]) -> None:
  """Runs a command to its end also where its output is piped into one that ends, as `head -1`."""
  # The result of most commands is a file: it must not depend on who reads the messages.
  sys.stdout, sys.stderr = _Outlived(sys.stdout), _Outlived(sys.stderr)
  try:
    main()
  finally:
    sys.stdout.flush()
    sys.stderr.flush()


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


def progress(
  items: Iterable,
  description: str | Callable[[], str],
  total: int | None,
  unit: str = 'frame',
) -> Iterator:
  """Shows a progress bar while passing items on, and keeps the heap small; see `progress.py`."""
  from tqdm import tqdm

  done = max(0, total - len(items)) if total and isinstance(items, Sized) else 0
  describe = description if callable(description) else lambda: description
  bar = tqdm(items, describe(), total, initial=done, unit=unit)
  trim_heap()  # of what compiling and loading have left
  with ticking(bar):
    for k, item in enumerate(bar):
      yield item
      if callable(description):
        bar.set_description(describe(), refresh=False)
      if k % TRIM_EVERY == 0:
        trim_heap()


@contextlib.contextmanager
def ticking(bar: Any) -> Iterator[None]:
  """Lets the seconds of a progress bar pass in a terminal, also while nothing else moves it."""
  over = threading.Event()

  def tick() -> None:
    while not over.wait(1.0):
      bar.refresh()

  thread = threading.Thread(target=tick, name='progress bar', daemon=True)
  if sys.stderr.isatty():  # a log would have a line for every second
    thread.start()
  try:
    yield
  finally:
    over.set()
    if thread.is_alive():
      thread.join()


def report(line: str) -> None:
  """Prints a line at once, above a progress bar if there is one."""
  from tqdm import tqdm

  tqdm.write(line)
  sys.stdout.flush()


# --- Commands with a config ----------------------------------------------------------------------


@functools.cache  # main and doctor may be imported by one process, and absl allows one definition
def define_config() -> tuple[Any, Any]:
  """Defines --config and --workdir and returns their holders, for commands that take a config."""
  from absl import flags
  from ml_collections import config_flags

  config = config_flags.DEFINE_config_file('config', None, 'Config file.', lock_config=True)
  text = 'Folder (or gs://) of checkpoints, logs and samples [runs/CONFIG or runs/CONFIG_ARGUMENT].'
  return config, flags.DEFINE_string('workdir', None, text)


def parse_flags(config: Any, argv: list[str]) -> list[str]:
  """Parses the command line as absl does; an error in it or in the config ends with one line.

  Args:
    config: the holder of --config.
    argv: the command line.
  """
  from absl import app, flags

  app.define_help_flags()
  try:
    rest = flags.FLAGS(argv)
    if config.value is not None:  # `download` can do without
      config.value.lock()  # a config file that cannot be loaded fails at its first use
  except (flags.Error, AttributeError, KeyError, ImportError, OSError) as error:
    # The last line: config_flags puts a traceback of the config file before it.
    lines = [line.strip() for line in str(error).replace('\\n', '\n').splitlines()]
    message = next(line for line in reversed(lines) if line)
    if isinstance(error, AttributeError | KeyError):
      message = 'no such config field; ' + message.strip("'")
    sys.exit(f'error: {message}')
  if len(rest) > 1:
    sys.exit(f'error: unexpected argument {rest[1]!r}; options are written --name=value')
  return rest


def default_workdir() -> str:
  """Returns runs/CONFIG or runs/CONFIG_ARGUMENT for --config=FOLDER/CONFIG.py:ARGUMENT."""
  from absl import flags
  from ml_collections import config_flags

  path, _, argument = config_flags.get_config_filename(flags.FLAGS['config']).partition('.py')
  name = pathlib.Path(path).name + argument.replace(':', '_')
  return os.path.join('runs', re.sub(r'[^\w.-]', '_', name))


# --- The allocator -------------------------------------------------------------------------------


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
