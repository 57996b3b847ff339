"""Full float32 products, parsed absl flags (Grain needs them), and where reference files lie.

Half of the suite's time is compilation: programs that several tests or commands have in common are
compiled once, with few optimisations, in a cache that lives as long as the suite, and training
steps of equal configs are also traced once. Everything that renders people does so at 64 px, with
one program, and mostly at four moments of a clip.
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

flags.FLAGS.mark_as_parsed()


# The longest first, so that both processes end together. Those of the training step
# (`small.start`) are apart, so that the second one finds the program in the cache.
COMPILES_WHOLE_STEPS = (
  'test_train', 'test_tuning', 'test_cma', 'test_finetune', 'test_accelerator', 'test_steps',
  'test_stores', 'test_doctor', 'test_generator', 'test_export', 'test_encoder', 'test_load',
  'test_edits', 'test_convert', 'test_growth', 'test_warm_start', 'test_large_frames', 'test_state',
  'test_notebooks',
)  # fmt: skip


# Their programs run often, or a clip must equal itself to the last bit. They come first: later
# modules of a process take the same programs.
OPTIMISED = 'test_render', 'test_evaluate', 'test_measure'


def pytest_collection_modifyitems(items):
  """Quick ones first."""
  last = {stem: k for k, stem in enumerate(COMPILES_WHOLE_STEPS, 1)} | dict.fromkeys(OPTIMISED, -1)
  items.sort(key=lambda item: last.get(item.path.stem, 0))


@pytest.fixture(scope='module', autouse=True)
def optimisations(request):
  """Compiles with few of them, but for `OPTIMISED`, in tests and in the commands that they run."""
  few = request.path.stem not in OPTIMISED
  jax.config.update('jax_disable_most_optimizations', few)
  os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = str(int(few))


@pytest.fixture(scope='module', autouse=True)
def shared_programs(request):
  """In tests that train several times."""
  with pytest.MonkeyPatch.context() as patch:
    if request.path.stem in ('test_train', 'test_finetune', 'test_accelerator', 'test_steps'):
      import small

      small.share_programs(patch)
    yield


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
