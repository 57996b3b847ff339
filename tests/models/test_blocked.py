"""Blocks for TPUs against the plain form: pictures, averaged pictures and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from parity import error

from hybrid_jax.models import blocked, latents
from hybrid_jax.models.stylegan2 import Generator

# 4 to 32 px: no blocks, 1 x 2 twice, and 2 x 2.
CHANNELS = 80, 40, 40, 24


def test_blocks_and_pixels():
  x = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
  for block in ((1, 1), (1, 2), (2, 2)):
    y = blocked.to_blocks(x, block)
    a, b = block
    np.testing.assert_array_equal(y[1, 1, 2, 3 * (a * b - 1) :], x[1, 2 * a - 1, 3 * b - 1])
    np.testing.assert_array_equal(blocked.from_blocks(y, block), x)


@pytest.mark.parametrize(('channels', 'block'), [(512, (1, 1)), (64, (1, 2)), (32, (2, 2))])
def test_blocks_fill_the_lanes(channels, block):
  assert blocked.block_of(channels) == block
  assert channels * block[0] * block[1] >= blocked.LANES


@pytest.fixture(scope='module')
def inputs():
  """(plain generator, its parameters, w_plus, noise)"""
  plain, key = Generator(CHANNELS, w_dim=8, mapping_layers=1), jax.random.key(0)
  params = plain.init(key, jnp.zeros((1, 8)))['params']
  params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(key, x.shape), params)
  w = jax.random.normal(key, (2, latents.num_ws(CHANNELS), 8))
  return plain, params, w, latents.random_noise(key, 2, CHANNELS)


def draw(form, params, w, noise, size):
  styles = form.apply({'params': params}, w, method='to_style_space')
  return form.apply({'params': params}, styles, noise, size, method='synthesize')


@pytest.mark.parametrize('size', [None, 16])
def test_a_generator_in_blocks_draws_the_same(inputs, size):
  plain, *rest, noise = inputs
  if size is None:
    noise = [maps[0] for maps in noise]  # as they are stored with a generator
  rest, blocks = (*rest, noise), plain.clone(blocks_from=8)
  expected, found = jax.jit(lambda *x: (draw(plain, *x, size), draw(blocks, *x, size)))(*rest)
  assert found.shape == (2, size or 32, size or 32, 3)
  assert error(found, expected) < 1e-6


def test_its_gradients_are_the_same(inputs):
  plain, params, w, noise = inputs

  @jax.jit
  def both(params, w):
    loss = lambda form: lambda *x: jnp.sin(3 * draw(form, *x, noise, 8)).mean()  # noqa: E731
    forms = plain, plain.clone(blocks_from=8)
    return [jax.grad(loss(form), argnums=(0, 1))(params, w) for form in forms]

  expected, found = both(params, w)
  assert error(ravel_pytree(found)[0], ravel_pytree(expected)[0]) < 1e-5
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    # Those of the strength of noise are sums of float32 over all pixels that nearly cancel.
    np.testing.assert_allclose(a, b, atol=1e-3 * float(jnp.abs(b).max()) + 1e-9)
