"""Full float32 products, parsed absl flags (Grain needs them), and where reference files lie."""

import os
import pathlib

os.environ.setdefault('XLA_FLAGS', '--xla_force_host_platform_device_count=4')

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402

jax.config.update('jax_default_matmul_precision', 'float32')
flags.FLAGS.mark_as_parsed()

GOLDEN = pathlib.Path(__file__).parent / 'golden'
SHARED = pathlib.Path(__file__).resolve().parents[2] / 'shared'


COMPILES_WHOLE_STEPS = {'test_encoder', 'test_load', 'test_steps', 'test_train'}


def pytest_collection_modifyitems(items):
  """Quick ones first."""
  items.sort(key=lambda item: item.path.stem in COMPILES_WHOLE_STEPS)


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


def error(actual, expected) -> float:
  """max|a - b| / max|b| over the whole array."""
  actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
  assert actual.shape == expected.shape, (actual.shape, expected.shape)
  return float(np.abs(actual - expected).max() / np.abs(expected).max())


def nhwc(x) -> np.ndarray:
  return np.moveaxis(np.asarray(x), 1, -1)
