"""What the user can put right."""

import contextlib
from collections.abc import Iterator

# JAX and the drivers of devices; CUDA; OpenCV. They have no type of error in common.
_EXHAUSTED = ('RESOURCE_EXHAUSTED', 'OUT_OF_MEMORY', 'out of memory', 'Insufficient memory')


class InputError(ValueError):
  """Bad input: one line that says what is wrong, with which file or field, and what to do.

  Commands print it and exit with 1; beside it they catch only what a machine refuses (memory, disk
  space, permissions), so that our own mistakes show a traceback.
  """


@contextlib.contextmanager
def memory_named(lower: str) -> Iterator[None]:
  """Turns exhausted memory, of the device or of the host, into an InputError of one line.

  Args:
    lower: what to do about it, such as 'lower --batch-size'.
  """
  try:
    yield
  except Exception as error:
    text = ' '.join(str(error).split())
    exhausted = isinstance(error, MemoryError) or any(word in text for word in _EXHAUSTED)
    if not exhausted or isinstance(error, InputError):
      raise
    raise InputError(f'out of memory: {lower} ({text[:160] or "MemoryError"})') from error
