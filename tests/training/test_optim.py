"""Ranger against e4e's file, all 60 steps of each trajectory; the critic's Adam with lazy R1."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from parity import GOLDEN, error

from hybrid_jax.method import losses
from hybrid_jax.models.stylegan2 import LatentDiscriminator
from hybrid_jax.training import optim
from hybrid_jax.weights import discriminator_key_maps, key_maps, torch_file

NAMES = ('conv', 'fc', 'bias', 'scalar')


def outputs_last(name, x):
  """PyTorch keeps output channels first; the gradient is centralised over all other axes."""
  return {
    'conv': lambda: np.moveaxis(x, (-2, -1, -3, -4), (-4, -3, -2, -1)),
    'fc': lambda: x.mT,
  }.get(name, lambda: x)()


@pytest.mark.parametrize(
  ('run', 'options'),
  [
    ('default', {}),
    ('conv_only', {'min_centralized_rank': 4}),
    ('no_gc', {'min_centralized_rank': 9}),
    ('lr1e4', {'learning_rate': 1e-4}),
    ('weight_decay', {'weight_decay': 0.1}),
  ],
)
def test_ranger(run, options, golden):
  v = golden('ranger_trajectories')
  at = lambda prefix: {n: outputs_last(n, v[f'{prefix}_{n}']) for n in NAMES}  # noqa: E731
  target, curvature, noise = (
    at('target'),
    at('curvature'),
    outputs_last('conv', v['grad_noise_conv']),
  )
  tx = optim.ranger(**({'learning_rate': 0.01} | options))

  def loss(params, g):
    square = sum(0.5 * jnp.sum(curvature[n] * (params[n] - target[n]) ** 2) for n in NAMES)
    return square + jnp.sum(g * params['conv'])

  @jax.jit
  def step(params, state, g):
    value, grads = jax.value_and_grad(loss)(params, g)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state, value

  params = jax.tree.map(jnp.asarray, at('init'))
  state = tx.init(params)
  for i in range(60):
    params, state, value = step(params, state, noise[i])
    assert error(value, v[f'{run}_loss'][i]) < 1e-5, i
    for name in NAMES:
      assert error(params[name], outputs_last(name, v[f'{run}_{name}'][i])) < 1e-5, (name, i)


def test_a_parameter_warms_up_from_its_first_gradient():
  """A head that is switched on late takes the same steps as one that was on from the start."""
  tx = optim.ranger(0.01)
  grads = np.random.default_rng(0).standard_normal((20, 3, 4)).astype(np.float32)
  zero = np.zeros_like(grads[:1])
  early, late = np.concatenate((grads, zero)), np.concatenate((np.repeat(zero, 1000, 0), grads))

  def run(sequence):
    def step(carry, g):
      params, state = carry
      updates, state = tx.update({'w': g}, state, params)
      params = optax.apply_updates(params, updates)
      return (params, state), params['w']

    params = {'w': jnp.ones((3, 4))}
    return jax.jit(lambda xs: jax.lax.scan(step, (params, tx.init(params)), xs)[1])(sequence)

  path = run(late)
  np.testing.assert_array_equal(path[999], np.ones((3, 4)))
  np.testing.assert_allclose(path[1000:], run(early)[:20], rtol=1e-6)


def test_critic_training_with_lazy_r1(golden):
  """20 steps of e4e's update; R1 is a second Adam step on the same state every fourth time."""
  v = golden('latent_discriminator_training')
  state = torch_file.load(GOLDEN / 'latent_discriminator.pt')
  params = key_maps.convert(state, discriminator_key_maps.latent(), kind='latent discriminator')
  model, tx = LatentDiscriminator(width=64), optax.adam(1e-3)
  opt = tx.init(params)
  for i in range(20):
    real, fake = v['real_w'][i], v['fake_w'][i]
    value, grads = jax.value_and_grad(
      lambda p, r=real, f=fake: losses.discriminator(model.apply(p, r), model.apply(p, f))
    )(params)
    assert error(value, v['d_loss'][i]) < 1e-5
    updates, opt = tx.update(grads, opt)
    params = optax.apply_updates(params, updates)
    if i % 4 == 0:
      value, grads = jax.value_and_grad(
        lambda p, r=real: 10 / 2 * 4 * losses.r1_penalty(lambda w: model.apply(p, w), r)
      )(params)
      assert error(value, v['r1_final'][i // 4]) < 1e-5
      updates, opt = tx.update(grads, opt)
      params = optax.apply_updates(params, updates)
  for i in range(4):
    dense = params['params'][f'dense_{i}']
    assert error(dense['kernel'].T, v[f'final_mlp.{2 * i}.weight']) < 1e-5
    assert error(dense['bias'], v[f'final_mlp.{2 * i}.bias']) < 1e-5
