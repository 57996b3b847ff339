"""StyleGAN2's image discriminator against rosinality's and NVlabs', their gradients too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import GOLDEN, error, nhwc

from hybrid_jax.models.stylegan2 import ImageDiscriminator
from hybrid_jax.weights import discriminator_key_maps, key_maps, torch_file

FAMILIES = {
  # family: (file, channels, map, tensors whose gradients are known)
  'rosinality': (
    'image_discriminator',
    (32, 32, 32, 32, 16),
    discriminator_key_maps.rosinality,
    ('convs.0.0.weight', 'convs.2.conv2.1.weight', 'final_linear.0.weight'),
  ),
  'nvlabs': (
    'nvlabs_discriminator',
    (24, 24, 24, 16),
    discriminator_key_maps.nvlabs,
    ('b32.fromrgb.weight', 'b16.conv1.weight', 'b8.skip.weight', 'b4.fc.weight'),
  ),
}


@pytest.fixture(scope='module', params=FAMILIES)
def reference(request, golden):
  """(module, key map, parameters, vectors, images, tensors whose gradients are known)."""
  file, channels, keys, names = FAMILIES[request.param]
  state = torch_file.load(GOLDEN / f'{file}.pt')
  kind, unneeded = 'image discriminator', (r'.*kernel', r'.*resample_filter')
  params = key_maps.convert(state.get('d', state), keys(channels), kind=kind, unneeded=unneeded)
  v = golden(f'{file}_vectors')
  x = v['x_u8'].astype(np.float32) / 127.5 - 1 if 'x_u8' in v else v['x']
  return ImageDiscriminator(channels), keys(channels), params, v, nhwc(x), names


def test_logits(reference):
  """Batches of 2, 4 and 8: a smaller group, one whole group, and two interleaved ones."""
  module, _, params, v, x, _ = reference
  apply = jax.jit(module.apply)
  assert error(apply(params, x), v['logits']) < 1e-5
  assert error(apply(params, x[:2]), v['logits_batch2']) < 1e-5
  assert error(apply(params, np.concatenate((x, 0.5 * x))), v['logits_batch8']) < 1e-5


def test_gradients(reference):
  module, keys, params, v, x, names = reference
  total = lambda params, x: jnp.sum(module.apply(params, x))  # noqa: E731
  by_params, by_x = jax.jit(jax.grad(total, (0, 1)))(params, x)
  assert error(by_x, nhwc(v['grad_x'])) < 1e-4
  for ours, (theirs, layout) in keys.items():
    if theirs in names:
      _, module, leaf = ours.split('/')
      actual = by_params['params'][module][leaf]
      assert error(actual, layout(v[f'grad_{theirs}'])) < 1e-4, theirs
