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
# matters little in tests; one part of a program at a time takes a tenth less, and both cores are
# busy anyway. An XLA that does not have a flag would end the process.
QUICK_COMPILATION = {
  'xla_cpu_use_fusion_emitters': 'false', 'xla_cpu_parallel_codegen_split_count': '1',
}  # fmt: skip


def _known(flags: dict[str, str]) -> list[str]:
  """The flags, as XLA takes them, whose names the installed jaxlib contains."""
  library = pathlib.Path(importlib.util.find_spec('jaxlib').origin).parent / 'libjax_common.so'
  if not library.is_file():
    return []
  with library.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
    return [f'--{k}={v}' for k, v in flags.items() if text.find(k.encode() + b'\0') >= 0]


if not IS_WORKER:
  os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp()
# A precision is part of a program: with the same one, commands find what tests have compiled.
os.environ['JAX_DEFAULT_MATMUL_PRECISION'] = 'float32'
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.5'
# Most programs run a few times only.
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
if 'XLA_FLAGS' not in os.environ:
  devices = '--xla_force_host_platform_device_count=4'
  os.environ['XLA_FLAGS'] = ' '.join([devices, *_known(QUICK_COMPILATION)])
