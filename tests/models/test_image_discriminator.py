"""StyleGAN2's image discriminator against rosinality's, its gradients too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import GOLDEN, error, nhwc

from hybrid_jax.models.stylegan2 import ImageDiscriminator
from hybrid_jax.weights import key_maps, torch_file

CHANNELS = (32, 32, 32, 32, 16)
KEYS = key_maps.image_discriminator(CHANNELS)


@pytest.fixture(scope='module')
def params():
  state = torch_file.load(GOLDEN / 'image_discriminator.pt')['d']
  return key_maps.convert(state, KEYS, kind='image discriminator', unneeded=(r'.*kernel',))


def test_logits(params, golden):
  """Batches of 2, 4 and 8: a smaller group, one whole group, and two interleaved ones."""
  v = golden('image_discriminator_vectors')
  x = nhwc(v['x'])
  apply = jax.jit(ImageDiscriminator(CHANNELS).apply)
  assert error(apply(params, x), v['logits']) < 1e-5
  assert error(apply(params, x[:2]), v['logits_batch2']) < 1e-5
  assert error(apply(params, np.concatenate((x, 0.5 * x))), v['logits_batch8']) < 1e-5


def test_gradients(params, golden):
  v = golden('image_discriminator_vectors')
  total = lambda params, x: jnp.sum(ImageDiscriminator(CHANNELS).apply(params, x))  # noqa: E731
  by_params, by_x = jax.jit(jax.grad(total, (0, 1)))(params, nhwc(v['x']))
  assert error(by_x, nhwc(v['grad_x'])) < 1e-4
  names = ('convs.0.0.weight', 'convs.2.conv2.1.weight', 'final_linear.0.weight')
  for ours, (theirs, layout) in KEYS.items():
    if theirs in names:
      _, module, leaf = ours.split('/')
      actual = by_params['params'][module][leaf]
      assert error(actual, layout(v[f'grad_{theirs}'])) < 1e-4, theirs
