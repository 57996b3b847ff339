"""The growth of a generator changes no picture, and freezing leaves what is frozen."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.world import growth
from hybrid_jax.models import latents
from hybrid_jax.models.ops import upsample_skip
from hybrid_jax.models.stylegan2 import Generator
from hybrid_jax.weights import shipped

AFTER = latents.config_f_channels(256, 4096, 160)


@pytest.fixture(scope='module')
def grown():
  params = shipped.generator()['params']
  return params, growth.grow(params, shipped.CHANNELS, AFTER, jax.random.key(0))


def test_the_grown_generator_draws_the_upsampled_picture(grown):
  w = shipped.generator()['w_samples'][:1]

  @functools.partial(jax.jit, static_argnums=1)
  def draw(params, channels):
    net = Generator(channels, w_dim=w.shape[1], mapping_layers=shipped.GENERATOR['mapping_layers'])
    w_plus = jnp.repeat(w[:, None], latents.num_ws(channels), 1)
    styles = net.apply({'params': params}, w_plus, method='to_style_space')
    return net.apply({'params': params}, styles, method='synthesize')

  small, large = draw(grown[0], shipped.CHANNELS), draw(grown[1], AFTER)
  assert AFTER == (160, 160, 160, 128, 64, 32, 16)
  np.testing.assert_allclose(large, upsample_skip(upsample_skip(small)), atol=1e-5)


def test_new_maps_have_incoming_weights(grown):
  up_64 = grown[1]['layers_11']['kernel']  # 32 to 64 px: 80 to 40 maps before
  assert up_64.shape == (3, 3, 128, 64)
  assert not np.any(up_64[:, :, 80:, :40])
  assert np.std(up_64[:, :, :, 40:]) > 0.9


def test_fewer_maps_are_refused():
  params = shipped.generator()['params']
  with pytest.raises(ValueError, match='not at least'):
    growth.grow(params, shipped.CHANNELS, (160, 160, 160, 64, 40), jax.random.key(0))


@pytest.mark.parametrize(('start', 'has_mapping', 'first'), [(0, True, 0), (128, False, 14)])
def test_split_and_join(grown, start, has_mapping, first):
  trained, kept = growth.split(grown[1], AFTER, start)
  assert any(path[0] == 'mapping' for path in trained) == has_mapping
  layers = [int(path[0].split('_')[1]) for path in trained if path[0].startswith('layers')]
  assert min(layers) == first
  joined = growth.join(trained, kept)
  assert jax.tree.structure(joined) == jax.tree.structure(dict(grown[1]))
