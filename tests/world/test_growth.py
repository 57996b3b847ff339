"""The growth of a generator changes no picture, and freezing leaves what is frozen."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import outcomes
import pytest
from parity import error

from experiments.world import growth
from hybrid_jax.models import latents
from hybrid_jax.models.ops import upsample_skip
from hybrid_jax.models.stylegan2 import Generator
from hybrid_jax.weights import shipped

BEFORE, AFTER = (12, 8, 6), (16, 16, 12, 8, 4)  # 16 and 64 px
W_DIM, MAPPING_LAYERS = 8, 2


@pytest.fixture(scope='module')
def grown():
  """Parameters before and after, of a random generator in which no bias or noise is zero."""
  net = Generator(BEFORE, w_dim=W_DIM, mapping_layers=MAPPING_LAYERS)
  shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, W_DIM)))['params']
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), shapes)
  return params, growth.grow(params, BEFORE, AFTER, jax.random.key(0))


@functools.partial(jax.jit, static_argnums=2)
def draw(params, w, channels):
  net = Generator(channels, w_dim=w.shape[1], mapping_layers=len(params['mapping']))
  w_plus = jnp.repeat(w[:, None], latents.num_ws(channels), 1)
  styles = net.apply({'params': params}, w_plus, method='to_style_space')
  return net.apply({'params': params}, styles, method='synthesize')


@pytest.mark.slow
def test_the_grown_generator_draws_the_upsampled_picture(grown):
  w = np.random.default_rng(1).standard_normal((1, W_DIM), np.float32)
  small, large = draw(grown[0], w, BEFORE), draw(grown[1], w, AFTER)
  assert large.shape == (1, 64, 64, 3) and np.std(small) > 0.1
  found = error(large, upsample_skip(upsample_skip(small)))
  assert found < 1e-5
  outcomes.write(relative_error=found)


@pytest.mark.slow
def test_the_shipped_generator_grown_to_256_px():
  params, w = shipped.generator()['params'], shipped.generator()['w_samples'][:1]
  after = latents.config_f_channels(256, 4096, 160)
  assert after == (160, 160, 160, 128, 64, 32, 16)
  small = draw(params, w, shipped.CHANNELS)
  large = draw(growth.grow(params, shipped.CHANNELS, after, jax.random.key(0)), w, after)
  found = error(large, upsample_skip(upsample_skip(small)))
  assert found < 1e-5
  outcomes.write(channels=after, relative_error=found)


def test_new_maps_have_incoming_weights(grown):
  up_16 = grown[1]['layers_5']['kernel']  # 8 to 16 px: 8 to 6 maps before
  assert up_16.shape == (3, 3, 16, 12)
  assert not np.any(up_16[:, :, 8:, :6])
  assert np.std(up_16[:, :, :, 6:]) > 0.9


def test_fewer_maps_are_refused():
  with pytest.raises(ValueError, match='not at least'):
    growth.grow({}, BEFORE, (16, 16, 5), jax.random.key(0))


@pytest.mark.parametrize(('start', 'has_mapping', 'first'), [(0, True, 0), (32, False, 8)])
def test_split_and_join(grown, start, has_mapping, first):
  trained, kept = growth.split(grown[1], AFTER, start)
  assert any(path[0] == 'mapping' for path in trained) == has_mapping
  layers = [int(path[0].split('_')[1]) for path in trained if path[0].startswith('layers')]
  assert min(layers) == first
  joined = growth.join(trained, kept)
  assert jax.tree.structure(joined) == jax.tree.structure(dict(grown[1]))
