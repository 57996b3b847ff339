"""The encoder of larger frames keeps what the shipped 64 px encoder has."""

import jax
import numpy as np
import outcomes
import pytest
from ml_collections import ConfigDict

from configs import common
from experiments.world import warm_start
from hybrid_jax.method import networks
from hybrid_jax.models.irse import Conv
from hybrid_jax.weights import shipped

pytestmark = pytest.mark.slow  # an encoder of the shipped width is compiled


@pytest.fixture(scope='module')
def trees():
  nets = networks.build(ConfigDict(common.heads_256()).model)
  return shipped.load('inversion_64'), warm_start.warm_start(nets, jax.random.key(0))


def test_shared_layers_are_copied(trees):
  old, new = trees
  jax.tree.map(np.testing.assert_array_equal, old['params']['backbone'], new['params']['backbone'])
  head = new['params']['identity_heads_0']
  assert set(head) == {'conv_0', 'conv_1', 'conv_2', 'dense'}
  np.testing.assert_array_equal(
    head['dense']['kernel'], old['params']['identity_heads_0']['dense']['kernel']
  )


def test_new_rows_begin_at_the_base_row(trees):
  assert not np.any(trees[1]['params']['identity_heads_13']['dense']['kernel'])


def test_the_new_convolution_averages(trees):
  kernel = trees[1]['params']['identity_heads_0']['conv_2']['kernel']
  width = kernel.shape[-1]
  x = np.random.default_rng(0).standard_normal((1, 2, 2, width)).astype(np.float32)
  y = Conv(width, stride=2).apply({'params': {'kernel': kernel}}, x)
  np.testing.assert_allclose(y[0, 0, 0], x.mean((0, 1, 2)), atol=1e-6)
  outcomes.write(largest_difference=float(np.abs(y[0, 0, 0] - x.mean((0, 1, 2))).max()))
