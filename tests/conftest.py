"""Full float32 products, parsed absl flags (Grain needs them), and where reference files lie.

Half of the suite's time is compilation: programs that several tests or commands have in common are
compiled once, in a cache that lives as long as the suite, and whole training steps, which run but
a few times, are compiled with few optimisations.
"""

import jax_variables  # JAX reads these environment variables when it is imported

# isort: split
import os
import pathlib
import shutil

import jax
import numpy as np
import pytest
from absl import flags
from parity import GOLDEN, SHARED

jax.config.update('jax_default_matmul_precision', 'float32')
flags.FLAGS.mark_as_parsed()


# They share the program of a training step (`small.start`), thus a process too.
TRAINING = ('test_train', 'test_finetune', 'test_steps', 'test_doctor')
COMPILES_WHOLE_STEPS = (
  *TRAINING, 'test_tuning', 'test_cma', 'test_accelerator', 'test_export', 'test_encoder',
  'test_load', 'test_state', 'test_generator', 'test_edits', 'test_convert', 'test_growth',
  'test_warm_start', 'test_large_frames',
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
  """Quick ones first, then the long ones from the longest, so that both processes end together."""
  last = {stem: k for k, stem in enumerate(COMPILES_WHOLE_STEPS, 1)}
  items.sort(key=lambda item: last.get(item.path.stem, 0))
  for item in items:
    group = 'training' if item.path.stem in TRAINING else str(item.path)
    item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope='module', autouse=True)
def few_optimisations(request):
  """In tests that compile whole steps, and in the commands they run."""
  few = request.path.stem in COMPILES_WHOLE_STEPS
  jax.config.update('jax_disable_most_optimizations', few)
  os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = str(int(few))


def pytest_unconfigure():
  if not jax_variables.IS_WORKER:
    shutil.rmtree(os.environ['JAX_COMPILATION_CACHE_DIR'], ignore_errors=True)


@pytest.fixture(scope='session')
def golden():
  """Reads golden vectors by stem."""
  return lambda stem: np.load(GOLDEN / f'{stem}.npz')


@pytest.fixture(scope='session')
def shared():
  """Path of a file of the reference collection beside the checkout; skips where it is absent."""

  def path(name: str) -> pathlib.Path:
    if not (SHARED / name).exists():
      pytest.skip(f'the reference collection is not beside this checkout: no shared/{name}')
    return SHARED / name

  return path


@pytest.fixture(scope='session')
def model():
  """See `reenacting.random_model`; its programs are compiled once."""
  import reenacting

  return reenacting.random_model()


@pytest.fixture(scope='session')
def inputs(tmp_path_factory):
  """(portrait, driving clip, its times)"""
  import reenacting

  return reenacting.write_inputs(tmp_path_factory.mktemp('inputs'))
