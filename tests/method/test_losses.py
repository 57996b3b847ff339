"""Losses against the PyTorch code they come from, or against loops written here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import GOLDEN, error, nhwc

from hybrid_jax.method import losses
from hybrid_jax.models.stylegan2 import LatentDiscriminator
from hybrid_jax.weights import discriminator_key_maps, key_maps, torch_file


@pytest.mark.parametrize('case', ['p8', 'p4', 'p8ragged'])
def test_gradient_variance(case, golden):
  v = golden('gradient_variance_vectors')
  target, output = (
    nhwc(v[f'{case}_{k}_u8']).astype(np.float32) / 255 for k in ('target', 'output')
  )
  patch = int(v[f'{case}_patch_size'])
  # The vectors are on [0, 1], the loss takes [-1, 1].
  loss = lambda x: losses.gradient_variance(2 * x - 1, 2 * target - 1, patch)  # noqa: E731
  value, grad = jax.value_and_grad(loss)(output)
  assert error(value, v[f'{case}_loss']) < 1e-5
  assert error(grad, nhwc(v[f'{case}_grad_output'])) < 1e-4


def test_gradient_variance_grows_with_the_fourth_power_of_the_range():
  """So that 0.16 on [0, 1] is ViVFace's 0.01 on [-1, 1], but for the padded border."""
  rng = np.random.default_rng(0)
  x, y = rng.uniform(-1, 1, (2, 1, 24, 24, 3)).astype(np.float32)
  x[:, [0, -1]], y[:, [0, -1]], x[:, :, [0, -1]], y[:, :, [0, -1]] = -1, -1, -1, -1
  half = lambda image: (image + 1) / 2 - 1  # noqa: E731  half the range, the same black border
  whole = losses.gradient_variance(x, y)
  np.testing.assert_allclose(whole, 16 * losses.gradient_variance(half(x), half(y)), rtol=1e-4)


def critic():
  state = torch_file.load(GOLDEN / 'latent_discriminator.pt')
  params = key_maps.convert(state, discriminator_key_maps.latent(), kind='latent discriminator')
  return LatentDiscriminator(width=64), params


def torch_grads(grads, v, prefix):
  for i in range(4):
    dense = grads['params'][f'dense_{i}']
    yield dense['kernel'].T, v[f'{prefix}mlp.{2 * i}.weight']
    yield dense['bias'], v[f'{prefix}mlp.{2 * i}.bias']


def test_latent_discriminator(golden):
  model, params = critic()
  v = golden('latent_discriminator_vectors')
  assert error(model.apply(params, v['real_w']), v['real_pred']) < 1e-5
  assert error(model.apply(params, v['fake_w']), v['fake_pred']) < 1e-5
  assert error(model.apply(params, v['fake_wplus']), v['pred_wplus']) < 1e-5

  def loss(p):
    return losses.discriminator(model.apply(p, v['real_w']), model.apply(p, v['fake_w']))

  value, grads = jax.value_and_grad(loss)(params)
  assert error(value, v['d_loss']) < 1e-5
  for actual, expected in torch_grads(grads, v, 'd_loss_grad_'):
    assert error(actual, expected) < 1e-5


def test_r1(golden):
  model, params = critic()
  v = golden('latent_discriminator_vectors')
  penalty = lambda p: losses.r1_penalty(lambda w: model.apply(p, w), v['real_w'])  # noqa: E731
  assert error(penalty(params), v['r1_penalty']) < 1e-5
  value, grads = jax.value_and_grad(lambda p: 10 / 2 * penalty(p) * 16)(params)
  assert error(value, v['r1_final'][0]) < 1e-5
  for actual, expected in torch_grads(grads, v, 'r1_final_grad_'):
    if np.any(expected):
      assert error(actual, expected) < 1e-5
    else:
      assert np.all(actual == 0)  # piecewise linear: no bias moves the gradient's norm


def test_encoder_side_and_delta_norm(golden):
  model, params = critic()
  v = golden('latent_discriminator_vectors')
  value, grad = jax.value_and_grad(lambda W: losses.adversarial(model.apply(params, W), 10))(
    v['fake_wplus']
  )
  assert error(value, v['encoder_adv_loss']) < 1e-5
  assert error(grad, v['encoder_adv_grad']) < 1e-5
  for stage in (3, 9):

    def loss(W, stage=stage):
      rows = jnp.arange(10)[:, None]
      return losses.w_variance(jnp.where(rows <= stage, W, W[:, :1]))  # rows above equal row 1

    value, grad = jax.value_and_grad(loss)(v['fake_wplus'])
    assert error(value, v[f'delta_loss_stage{stage}']) < 1e-5
    assert error(grad, v[f'delta_loss_stage{stage}_grad']) < 1e-5


def test_adversarial_counts_active_rows_only():
  logits = jnp.arange(12.0).reshape(2, 6, 1) - 6
  slow = np.mean([np.logaddexp(0, -np.asarray(logits)[:, i, 0]).mean() for i in range(4)])
  np.testing.assert_allclose(losses.adversarial(logits, 4), slow, rtol=1e-6)


def test_identity_consistency_proximity_by_loops():
  rng = np.random.default_rng(0)
  W, V = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
  F = [rng.standard_normal((3, k)).astype(np.float32) for k in (2, 7)]
  phi, psi = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (W[:, 0], V[:, 0]))
  slow_identity = np.mean([1 - phi[n] @ psi[n] for n in range(3)])
  np.testing.assert_allclose(losses.identity(phi, psi), slow_identity, rtol=1e-5)
  rows = [np.linalg.norm(W[n, i] - V[n, i]) for n in range(3) for i in range(4)]
  np.testing.assert_allclose(losses.latent_consistency(W, V, 'norm'), np.mean(rows), rtol=1e-5)
  np.testing.assert_allclose(
    losses.latent_consistency(W, V, 'mse'), np.mean((W - V) ** 2), rtol=1e-5
  )
  squares = [x**2 for f in F for x in f.ravel()]
  zero = [np.zeros_like(f) for f in F]
  np.testing.assert_allclose(losses.deformation_mse(F, zero), np.mean(squares), rtol=1e-5)
  slow_proximity = sum(np.mean([np.linalg.norm(f[n]) for n in range(3)]) for f in F)
  np.testing.assert_allclose(losses.style_proximity(F), slow_proximity, rtol=1e-5)


def test_norms_have_a_zero_gradient_at_zero():
  zero = jnp.zeros((2, 3, 4))
  for loss in (losses.w_variance, lambda x: losses.latent_consistency(x, zero, 'norm')):
    assert np.all(jax.grad(loss)(zero) == 0)
  assert np.all(jax.grad(lambda f: losses.style_proximity([f]))(zero[0]) == 0)


def test_a_weight_without_a_term_is_refused():
  with pytest.raises(KeyError, match='lpisp'):
    losses.weighted_sum({'l2': 1.0, 'lpips': 2.0}, {'l2': 1.0, 'lpisp': 1.0})


def test_feature_reconstruction_looks_at_the_mask_alone():
  """Eq. 13 by a loop over pixels, and blind to what lies outside the mask."""
  rng = np.random.default_rng(0)
  target, image = rng.uniform(-1, 1, (2, 2, 16, 16, 3)).astype(np.float32)
  mask = np.zeros((2, 16, 16, 1), np.float32)
  mask[0, 3:9, 4:10], mask[1, 8:16, 0:8] = 1, 0.5
  weights = {'l2': 1.0, 'lpips': 0.8, 'gradient_variance': 0.01}
  lpips = lambda x, y: jnp.abs(x - y).mean((1, 2, 3))  # noqa: E731
  value = losses.feature_reconstruction(target, image, mask, lpips, weights)
  square = sum(
    (mask[n, y, x, 0] * (target[n, y, x] - image[n, y, x]) ** 2 * mask[n, y, x, 0]).sum()
    for n in range(2)
    for y in range(16)
    for x in range(16)
  )
  expected = square / 3 / mask.sum()
  expected += 0.8 * np.abs(mask * (target - image)).mean() / mask.mean()
  expected += 0.01 * losses.gradient_variance(mask * image, mask * target) / mask.mean()
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  other = np.where(mask > 0, image, rng.uniform(-1, 1, image.shape)).astype(np.float32)
  np.testing.assert_array_equal(
    value, losses.feature_reconstruction(target, other, mask, lpips, weights)
  )
  nothing = losses.feature_reconstruction(target, image, 0 * mask, lpips, weights)
  assert float(nothing) == 0
