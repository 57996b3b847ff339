"""The encoder against e4e's and pSp's PyTorch code: outputs, features, gradients, training mode.

The weights are 10 MB and stay in the reference collection beside the checkout.
"""

import jax
import jax.numpy as jnp
import numpy as np
import outcomes
import pytest
from parity import error, nhwc

from hybrid_jax.method.encoder import Encoder
from hybrid_jax.models.stylegan2 import Generator
from hybrid_jax.weights import key_maps, torch_file

UNITS, WIDTHS, SPLIT = (3, 4, 14, 3), (8, 16, 32, 64), (3, 4, 3)
MODEL = Encoder(
  num_ws=10,
  w_dim=64,
  deformation_widths=(32,) * 7,
  identity_split=SPLIT,
  deformation_split=(2, 4, 1),
  widths=WIDTHS,
  units=UNITS,
  reduction=4,
  head_width=64,
)


@pytest.fixture(scope='module')
def e4e(shared):
  file = torch_file.load(shared('reference/e4e_reduced.pt'))
  state = key_maps.with_prefix(file['state_dict'], 'encoder.')
  keys = key_maps.e4e_encoder(UNITS, WIDTHS, SPLIT, sizes=(16, 32, 64))
  variables = key_maps.convert(state, keys, kind='e4e encoder')
  decoder, _ = key_maps.generator(
    key_maps.with_prefix(file['state_dict'], 'decoder.'), file['latent_avg']
  )
  vectors = np.load(shared('reference/e4e_reduced_vectors.npz'))
  image = nhwc(vectors['x_u8']).astype(np.float32) / 127.5 - 1
  return variables, decoder, vectors, image


def identity(variables, image, active_rows=10):
  levels = MODEL.apply(variables, image, method='pyramid')
  return MODEL.apply(variables, levels, active_rows, method='identity')


def test_w_plus_and_decoded_image(e4e):
  variables, decoder, v, image = e4e
  W = identity(variables, image)
  assert error(W, v['w_deltas_out']) < 1e-5
  w_plus = W + decoder['w_avg']
  assert error(w_plus, v['wplus']) < 1e-5
  model = Generator((32, 32, 32, 32, 16), w_dim=64)
  params = {'params': decoder['params']}
  styles = model.apply(params, w_plus, method='to_style_space')
  decoded = model.apply(params, styles, decoder['noise_const'], method='synthesize')
  assert error(decoded, nhwc(v['image'])) < 1e-5


def test_progressive_rows(e4e):
  variables, _, v, image = e4e
  for stage in (0, 2, 5, 8):
    assert error(identity(variables, image, stage + 1), v[f'w_stage{stage}']) < 1e-5, stage


def test_body_and_pyramid(e4e):
  variables, _, v, image = e4e
  (c3, p2, p1), state = MODEL.apply(variables, image, method='pyramid', capture_intermediates=True)
  calls = state['intermediates']['backbone']
  names = {'stem_prelu': 'input_layer'} | {f'body_{i}': f'body_{i:02d}' for i in range(24)}
  for ours, theirs in names.items():
    x = np.asarray(calls[ours]['__call__'][0])
    assert error(x.mean((1, 2)), v[f'{theirs}_mean']) < 1e-5, ours
    assert error(x.std((1, 2)), v[f'{theirs}_std']) < 1e-5, ours
  _, c1, c2, _ = calls['__call__'][0]
  for actual, name in ((c1, 'c1'), (c2, 'c2'), (c3, 'c3'), (p2, 'p2'), (p1[:1], 'p1')):
    assert error(actual, nhwc(v[name])) < 1e-5, name


def test_heads(e4e):
  """pSp uses head i alone, e4e adds head 1: the raw heads are the same numbers."""
  variables, _, v, image = e4e
  W = np.array(identity(variables, image))
  heads = np.concatenate((W[:, :1], W[:, 1:] - W[:, :1]), axis=1)
  assert error(heads, v['heads']) < 1e-5
  assert error(heads, v['w_psp_out']) < 1e-5


@pytest.mark.slow
def test_gradients(e4e):
  """In float64, where no activation falls on the other side of a kink (trap E12 of the vectors)."""
  variables, _, v, image = e4e
  names = {
    'input_layer.0.weight': 'backbone/stem_conv/kernel',
    'input_layer.1.weight': 'backbone/stem_norm/scale',
    'input_layer.2.weight': 'backbone/stem_prelu/slope',
    'body.0.res_layer.1.weight': 'backbone/body_0/conv0/kernel',
    'body.0.res_layer.5.fc1.weight': 'backbone/body_0/squeeze/kernel',
    'body.3.shortcut_layer.0.weight': 'backbone/body_3/shortcut_conv/kernel',
    'body.3.shortcut_layer.1.bias': 'backbone/body_3/shortcut_norm/bias',
    'body.12.res_layer.2.weight': 'backbone/body_12/prelu/slope',
    'body.23.res_layer.4.weight': 'backbone/body_23/norm1/scale',
    'latlayer1.bias': 'lateral_medium/bias',
    'latlayer2.weight': 'lateral_fine/kernel',
    'styles.0.convs.0.bias': 'identity_heads_0/conv_0/bias',
    'styles.4.convs.2.bias': 'identity_heads_4/conv_1/bias',
    'styles.9.linear.weight': 'identity_heads_9/dense/kernel',
  }
  with jax.enable_x64(True):
    to64 = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)  # noqa: E731
    precise = MODEL.clone(dtype=jnp.float64)

    def loss(params):
      levels = precise.apply(to64(variables) | {'params': params}, to64(image), method='pyramid')
      W = precise.apply({'params': params}, levels, 10, method='identity')
      return jnp.sum(W * to64(v['loss_weights']))

    grads = jax.jit(jax.grad(loss))(to64(variables['params']))
  for theirs, ours in names.items():
    grad = grads
    for part in ours.split('/'):
      grad = grad[part]
    expected = v[f'grad64_{theirs}']
    if expected.ndim == 4:
      expected = np.moveaxis(expected, (2, 3, 1, 0), (0, 1, 2, 3))
    elif expected.ndim == 2:
      expected = expected.T
    assert error(grad, expected) < 1e-8, theirs
  outcomes.write(parameters=len(names), bound=1e-8)


def test_training_mode_updates_statistics_as_pytorch_does(e4e):
  variables, _, v, image = e4e
  levels, updates = MODEL.apply(
    variables, image, train=True, method='pyramid', mutable=['batch_stats']
  )
  W = MODEL.apply(variables, levels, 10, method='identity')
  assert error(W, v['train_w_deltas_out']) < 1e-4
  stats = updates['batch_stats']['backbone']
  for theirs, ours in {
    'input_layer.1': 'stem_norm',
    'body.0.res_layer.0': 'body_0/norm0',
    'body.3.shortcut_layer.1': 'body_3/shortcut_norm',
    'body.10.res_layer.4': 'body_10/norm1',
    'body.23.res_layer.4': 'body_23/norm1',
  }.items():
    node = stats
    for part in ours.split('/'):
      node = node[part]
    assert error(node['mean'], v[f'train_{theirs}.running_mean']) < 1e-4, ours
    assert error(node['var'], v[f'train_{theirs}.running_var']) < 1e-4, ours


def test_deformation_starts_at_zero_and_keeps_widths():
  widths = (32, 16, 8, 32, 32, 16, 8)
  model = MODEL.clone(deformation_widths=widths, units=(1, 1, 1, 1))
  image = jax.random.normal(jax.random.key(1), (2, 64, 64, 3))
  (W, F), _ = jax.jit(model.init_with_output)(jax.random.key(0), image)
  assert W.shape == (2, 10, 64) and np.abs(W).max() > 0
  assert [f.shape for f in F] == [(2, width) for width in widths]
  assert all(np.all(f == 0) for f in F)
