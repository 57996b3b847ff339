"""LPIPS and ArcFace against their PyTorch code, and LPIPS with its real public weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import GOLDEN, error, nhwc

from hybrid_jax.method import losses
from hybrid_jax.models.perceptual import LPIPS, ArcFace
from hybrid_jax.weights import key_maps, torch_file

UNITS, WIDTHS = (3, 4, 14, 3), (8, 16, 32, 64)
REDUCED = {'vgg': (8, 16, 32, 64, 64), 'alex': (8, 24, 48, 32, 32)}


def picture(u8):
  return nhwc(u8).astype(np.float32) / 127.5 - 1


@pytest.mark.parametrize('net', ['vgg', 'alex'])
def test_lpips(net, golden):
  v = golden(f'lpips_{net}_reduced_vectors')
  state = torch_file.load(GOLDEN / f'lpips_{net}_reduced.pt')
  params = key_maps.convert(state, key_maps.lpips(net), kind=net)
  model = LPIPS(net, REDUCED[net])
  x0, x1 = picture(v['x0_u8']), picture(v['x1_u8'])

  assert error(model.apply(params, x0, x1), v['dist'].reshape(-1)) < 1e-5
  for i, term in enumerate(model.apply(params, x0, x1, method='layer_distances')):
    assert error(term, v[f'layer{i}_dist'].reshape(-1)) < 1e-5, i
  taps = [np.asarray(tap) for tap in model.apply(params, x0, method='taps')]
  for i, tap in enumerate(taps):
    assert error(tap.mean((1, 2)), v[f'feat{i}_x0_mean']) < 1e-5, i
    assert error(tap.max((1, 2, 3)), v[f'feat{i}_x0_absmax']) < 1e-5, i
  assert error(taps[-1], nhwc(v['feat4_x0'])) < 1e-5
  assert np.all(np.asarray(model.apply(params, x0, x0)) == v['dist_identical'].reshape(-1))

  grad = jax.jit(jax.grad(lambda x: jnp.sum(model.apply(params, x0, x))))(x1)
  assert np.isfinite(grad).all()  # some taps are zero in every channel: 0/0 in a careless norm
  assert error(grad, nhwc(v['grad64_x1'])) < 1e-4


def test_lpips_squeeze_with_its_real_weights(shared):
  state = dict(np.load(shared('models/lpips/squeezenet1_1.npz')))
  check = np.load(shared('models/lpips/squeeze_check.npz'))
  keys = key_maps.lpips('squeeze', lin='lpips_lin{}', features='')
  params = key_maps.convert(state, keys, kind='squeeze')
  model = LPIPS('squeeze')
  distance = model.apply(params, nhwc(check['a']), nhwc(check['b']))
  assert error(distance, check['distance'].reshape(-1)) < 1e-5
  images = (picture(check[name]) for name in ('image_u8', 'noisy_u8'))
  assert error(model.apply(params, *images), check['distance_u8'].reshape(-1)) < 1e-5


@functools.cache
def arcface():
  state = torch_file.load(GOLDEN / 'arcface_reduced.pt')
  variables = key_maps.convert(state, key_maps.arcface(UNITS, WIDTHS), kind='arcface')
  return ArcFace(112, 64, WIDTHS, UNITS, reduction=4), variables


def test_arcface(golden):
  model, variables = arcface()
  v = golden('arcface_reduced_vectors')
  x = picture(v['x112_u8'])
  before = model.apply(variables, x, method='embed')
  assert error(before, v['embedding_before_l2norm']) < 1e-5
  unit = before / np.linalg.norm(before, axis=-1, keepdims=True)
  assert error(unit, v['embedding']) < 1e-5
  _, state = model.apply(variables, x, method='embed', capture_intermediates=True)
  calls = state['intermediates']['backbone']
  assert error(calls['__call__'][0][-1], nhwc(v['body_out'])) < 1e-5
  stem = np.asarray(calls['stem_prelu']['__call__'][0])
  assert error(stem.mean((1, 2)), v['input_layer_mean']) < 1e-5


def test_identity_loss(golden):
  """Crop, overlapping adaptive pooling, embedding, eq. 8 and its gradient back to the image."""
  model, variables = arcface()
  v = golden('arcface_reduced_vectors')
  y, y_hat = picture(v['y256_u8']), picture(v['yhat256_u8'])
  assert error(model.apply(variables, y, method='crop')[:1], nhwc(v['pooled_112'])) < 1e-5
  phi_y = model.apply(variables, y)
  assert error(phi_y, v['embedding_face256']) < 1e-5
  assert error(model.apply(variables, y_hat), v['embedding_yhat']) < 1e-5

  loss = lambda image: losses.identity(phi_y, model.apply(variables, image))  # noqa: E731
  value, grad = jax.jit(jax.value_and_grad(loss))(y_hat)
  assert error(value, v['id_loss']) < 1e-5
  assert error(np.moveaxis(grad[:1, 96:128, 96:128], -1, 1), v['id_loss_grad_crop']) < 1e-3
  assert error(grad.sum((1, 2)), v['id_loss_grad_sum']) < 1e-3
  assert error(np.abs(grad).max((1, 2, 3)), v['id_loss_grad_absmax']) < 1e-3
