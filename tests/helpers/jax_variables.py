"""Environment variables of the tests: four CPU devices, and one compilation cache for the suite.

Worker processes and the commands that tests start inherit them.
"""

import importlib.util
import mmap
import os
import pathlib
import tempfile

IS_WORKER = 'PYTEST_XDIST_WORKER' in os.environ  # of the process that distributes the tests
# XLA's older emitters compile a training step in half the time, and its results run slower, which
# matters little in tests. An XLA that does not have the flag would end the process.
QUICK_COMPILATION = 'xla_cpu_use_fusion_emitters'


def _has(flag: str) -> bool:
  """Whether the installed jaxlib contains the name of a flag."""
  library = pathlib.Path(importlib.util.find_spec('jaxlib').origin).parent / 'libjax_common.so'
  if not library.is_file():
    return False
  with library.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
    return text.find(flag.encode() + b'\0') >= 0


if not IS_WORKER:
  os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp()
# A precision is part of a program: with the same one, commands find what tests have compiled.
os.environ['JAX_DEFAULT_MATMUL_PRECISION'] = 'float32'
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.5'
if 'XLA_FLAGS' not in os.environ:
  flags = '--xla_force_host_platform_device_count=4'
  if _has(QUICK_COMPILATION):
    flags += f' --{QUICK_COMPILATION}=false'
  os.environ['XLA_FLAGS'] = flags
