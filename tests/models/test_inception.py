"""FID's Inception against pytorch-fid, block by block, on a network of a sixteenth of its width."""

import jax
import numpy as np
import pytest
from parity import error, nhwc

from hybrid_jax.models.inception import Inception, fid_input
from hybrid_jax.weights import key_maps, metric_key_maps, torch_file


@pytest.fixture(scope='module')
def reference(shared):
  return np.load(shared('reference/fid_inception_reduced_vectors.npz'))


@pytest.fixture(scope='module')
def run(shared, reference):
  """Pooled features of the reference images, and the output of every block."""
  state = torch_file.load(shared('reference/fid_inception_reduced.pt'))
  tree = key_maps.convert(state, metric_key_maps.inception(), kind='Inception')
  images = nhwc(reference['x_u8']).astype(np.float32) / 255
  apply = lambda x: Inception(16).apply(  # noqa: E731
    tree, x, capture_intermediates=True, mutable='intermediates'
  )
  features, state = jax.jit(lambda x: apply(fid_input(x)))(images)
  return features, state['intermediates']


def test_resize(reference):
  images = nhwc(reference['x_u8']).astype(np.float32) / 255
  resized = (fid_input(images) + 1) / 2
  assert resized.shape == (2, 299, 299, 3)
  assert error(resized[:, 150], nhwc(reference['resized_row'])) < 1e-6


def test_shrinking_does_not_low_pass():
  """To half the size: each pixel is the mean of the four around its centre, and of no others."""
  image = np.random.default_rng(0).random((1, 598, 598, 3), np.float32)
  means = image.reshape(1, 299, 2, 299, 2, 3).mean((2, 4))
  assert error((fid_input(image) + 1) / 2, means) < 1e-6


def test_blocks(run, reference):
  _, outputs = run
  names = [name.removesuffix('_mean') for name in reference if name.endswith('_mean')]
  names = [name for name in names if not name.startswith('block')]
  assert len(names) == 9
  for name in names:
    (x,) = outputs[name]['__call__']
    assert error(x.mean((1, 2)), reference[f'{name}_mean']) < 2e-4, name
    assert error(x.std((1, 2)), reference[f'{name}_std']) < 2e-4, name
  (x,) = outputs['Mixed_6e']['__call__']
  assert error(x[:1, :6, :6], nhwc(reference['block2'])) < 2e-4


def test_pooled_features(run, reference):
  assert error(run[0], reference['pool3']) < 2e-4
