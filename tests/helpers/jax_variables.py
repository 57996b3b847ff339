"""Environment variables of the tests: four CPU devices, and one compilation cache for the suite.

Worker processes and the commands that tests start inherit them.
"""

import os
import tempfile

IS_WORKER = 'PYTEST_XDIST_WORKER' in os.environ  # of the process that distributes the tests
if not IS_WORKER:
  os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp()
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.5'
os.environ.setdefault('XLA_FLAGS', '--xla_force_host_platform_device_count=4')
