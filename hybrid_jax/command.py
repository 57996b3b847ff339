"""What the commands that open a model have in common."""

import contextlib
import sys
from collections.abc import Iterator

from absl import logging

from hybrid_jax import compilation, heap
from hybrid_jax.errors import InputError


@contextlib.contextmanager
def running(stopped: str = 'stopped') -> Iterator[None]:
  """Prepares memory, cache and log, and ends the process with one line for what went wrong.

  Args:
    stopped: that line after Ctrl-C.
  """
  heap.share()
  compilation.use_cache()
  logging.set_verbosity(logging.ERROR)  # Orbax warns of what reading only means
  try:
    yield
  except (InputError, FloatingPointError) as error:
    sys.exit(f'error: {error}')
  except KeyboardInterrupt:
    sys.exit(stopped)
