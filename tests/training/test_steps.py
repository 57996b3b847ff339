"""The training step against every equation computed by a separate plain call."""

import jax
import jax.numpy as jnp
import numpy as np
import outcomes
import pytest
from ml_collections import ConfigDict
from small import random_batch, small_config, start

from hybrid_jax.method import losses, networks
from hybrid_jax.method.objective import make_objective
from hybrid_jax.models import latents
from hybrid_jax.models.irse import PAPER_UNITS
from hybrid_jax.models.ops import from_uint8
from hybrid_jax.training import parallel, steps

N = 4


@pytest.fixture(scope='module')
def world():
  """(start, state) with deformation heads that are no longer zero, where all rows are active."""
  begin, rng = start(), np.random.default_rng(0)
  params = jax.tree_util.tree_map_with_path(
    lambda path, x: (
      x + 0.3 * rng.standard_normal(x.shape, np.float32)
      if 'deformation' in jax.tree_util.keystr(path)
      else x
    ),
    begin.state.encoder['params'],
  )
  state = begin.state.replace(
    encoder=begin.state.encoder | {'params': params}, step=begin.state.step + 100
  )
  return begin, jax.device_put(state, parallel.of(begin.state))


def plain_terms(config, nets, state, frozen, batch):
  """Eqs. 5 to 12 one frame set and one decode at a time: no stacking, no folding."""
  hybrid, encoder, G, E = nets.hybrid, nets.hybrid.encoder, frozen['generator'], state.encoder
  S, D, D_other = (from_uint8(batch[role]) for role in ('source', 'driving', 'other'))
  # The batch statistics are those of the three sets together.
  everything = jnp.concatenate((S, D, D_other))
  levels, updates = encoder.apply(
    E, everything, train=True, method='pyramid', mutable=['batch_stats']
  )
  part = lambda i: [level[i * N : (i + 1) * N] for level in levels]  # noqa: E731
  W_S = encoder.apply(E, part(0), encoder.num_ws, method='identity') + G['w_avg']
  F_S, F_D, F_other = (encoder.apply(E, part(i), method='deformation') for i in range(3))

  key_noise, _ = jax.random.split(jax.random.fold_in(state.key, state.step))
  noise = latents.random_noise(key_noise, 4 * N, hybrid.generator.channels)
  decode = lambda F, k: hybrid.reenact(G, W_S, F, [m[k::4] for m in noise])  # noqa: E731
  R_S, R_D, anchor, R_other = decode(F_S, 0), decode(F_D, 1), decode(None, 2), decode(F_other, 3)

  lpips = lambda x, y: nets.lpips.apply(frozen['lpips'], x, y)  # noqa: E731
  phi = lambda x: nets.arcface.apply(frozen['arcface'], x)  # noqa: E731
  weights = config.loss.reconstruction
  # R' is a batch of its own.
  levels, _ = encoder.apply(E, R_other, train=True, method='pyramid', mutable=['batch_stats'])
  W_R = encoder.apply(E, levels, encoder.num_ws, method='identity') + G['w_avg']
  return {
    'self_reconstruction': losses.reconstruction(S, R_S, lpips, weights)[0],
    'reenactment': losses.reconstruction(D, R_D, lpips, weights)[0],
    'anchor_identity': losses.identity(phi(S), phi(anchor)),
    'puppet_identity': losses.identity(phi(S), phi(R_other)),
    'latent_consistency': losses.latent_consistency(W_S, W_R, 'norm'),
    'w_variance': losses.w_variance(W_S),
    'style_proximity': jnp.mean(jnp.concatenate(F_D, -1) ** 2),
    'adversarial': losses.adversarial(nets.critic.apply(state.critic, W_S), encoder.num_ws),
  }, updates['batch_stats']


def test_every_term_is_what_its_equation_says(world):
  begin, state = world
  config, nets, frozen = begin.config, begin.networks, begin.frozen
  batch = random_batch(N)
  expected, batch_stats = jax.jit(
    lambda state, frozen, batch: plain_terms(config, nets, state, frozen, batch)
  )(state, frozen, batch)
  new, metrics = begin.step(state, batch)
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[name], value, rtol=2e-4, err_msg=name)
  # R' left no trace in the running statistics.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    new.encoder['batch_stats'],
    batch_stats,
  )
  weights = dict(config.loss.weights)
  weights['style_proximity'] = config.loss.style_proximity_ratio * weights['w_variance']
  assert not weights.pop('deformation_consistency')  # not in the paper: not even computed
  assert 'deformation_consistency' not in metrics
  total = sum(weights[name] * float(expected[name]) for name in weights)
  np.testing.assert_allclose(metrics['total'], total, rtol=2e-4)
  assert int(new.step) == 101 and float(new.r1) == float(metrics['r1']) > 0


def test_other_readings_of_equations_10_and_12(world):
  """Every role a batch of its own, and the consistency of the deformation, as in ViVFace."""
  begin, state = world
  config = ConfigDict(begin.config.to_dict())
  config.loss.readings.update(
    latent_consistency='mse', style_proximity='norm', batch_statistics='role'
  )
  config.loss.weights.deformation_consistency = 1.0
  nets, frozen, batch = begin.networks, begin.frozen, random_batch(N)
  encoder, rows = nets.hybrid.encoder, nets.hybrid.encoder.num_ws
  objective = make_objective(nets, config)

  @jax.jit
  def both(state, frozen):
    G = frozen['generator']
    E, key = dict(state.encoder), jax.random.key(0)
    args = (E['params'], E['batch_stats'], state.critic, frozen, batch, rows, key, True)
    total, (W_S, kept, terms) = objective(*args)
    noise = latents.random_noise(key, 4 * N, nets.hybrid.generator.channels)
    codes, image = [], None
    for role in ('source', 'driving', 'other', None):
      if role is None:
        image = nets.hybrid.reenact(G, codes[0][0], codes[2][1], [m[3::4] for m in noise])
      else:
        image = from_uint8(batch[role])
      (W, F), updates = encoder.apply(E, image, train=True, mutable=['batch_stats'])
      E |= updates
      codes.append((W + G['w_avg'], F))
    flat = lambda k: jnp.concatenate(codes[k][1], -1)  # noqa: E731
    expected = {
      'latent_consistency': jnp.mean((codes[0][0] - codes[3][0]) ** 2),
      'style_proximity': losses.style_proximity(
        [jnp.concatenate(layer) for layer in zip(*(F for _, F in codes[:3]), strict=True)]
      ),
      'deformation_consistency': jnp.mean((flat(2) - flat(3)) ** 2),
    }
    return terms, expected, kept, E['batch_stats'], W_S - codes[0][0]

  terms, expected, kept, statistics, gap = both(state, frozen)
  assert float(jnp.abs(gap).max()) < 1e-4
  for name, value in expected.items():
    np.testing.assert_allclose(terms[name], value, rtol=2e-4, err_msg=name)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
  jax.tree.map(close, kept, statistics)


def full_depth(reading):
  """(config, networks) of an encoder with all blocks of the paper's, and few channels."""
  config = small_config()
  config.model.encoder_units = PAPER_UNITS
  config.loss.readings.batch_statistics = reading
  return config, networks.build(config.model)


@pytest.mark.slow
def test_equation_10_is_of_the_size_of_w_for_a_fresh_encoder_of_full_depth():
  """Running statistics are untrained: with 24 blocks each adds to the scale of the next."""
  found, key = {}, jax.random.key(0)
  for reading in ('batch', 'running'):
    config, nets = full_depth(reading)
    frozen, E = networks.random_frozen(nets, key), networks.init_encoder(nets, key)
    critic = nets.critic.init(key, jnp.zeros((1, config.model.w_dim)))
    objective, rows = make_objective(nets, config), nets.hybrid.encoder.num_ws
    _, (_, _, terms) = jax.jit(objective, static_argnums=7)(
      E['params'], E['batch_stats'], critic, frozen, random_batch(N), rows, key, True
    )
    found[reading] = float(terms['latent_consistency'])
  assert found['batch'] < 100 and found['running'] > 10 * found['batch']
  outcomes.write(blocks=sum(PAPER_UNITS), latent_consistency=found)


@pytest.mark.slow
def test_a_fresh_encoder_of_full_depth_survives_20_steps():
  config, nets = full_depth(small_config().loss.readings.batch_statistics)
  key = jax.random.key(0)
  frozen, state = networks.random_frozen(nets, key), steps.init_state(nets, config, key)
  step = jax.jit(steps.make_step(nets, config, parallel.make_mesh(1)))
  for _ in range(20):
    state, metrics = step(state, frozen, random_batch(N))
    assert all(np.isfinite(value) for value in metrics.values())
  assert float(metrics['gradient_norm']) < 1e4
  outcomes.write(steps=20, gradient_norm=float(metrics['gradient_norm']))


def test_latent_consistency_reaches_both_heads(world):
  """Eq. 10 alone, through the generator and the encoder: W_S and F_D' both get a gradient."""
  begin, state = world
  objective = make_objective(begin.networks, begin.config)
  rows = begin.networks.hybrid.encoder.num_ws

  def equation_10(params, state, frozen, batch):
    E = state.encoder['batch_stats']
    _, (_, _, terms) = objective(params, E, state.critic, frozen, batch, rows, state.key, True)
    return terms['latent_consistency']

  params = state.encoder['params']
  gradient = jax.jit(jax.grad(equation_10))(params, state, begin.frozen, random_batch(N))
  for part in ('backbone', 'identity_heads_0', 'identity_heads_7', 'deformation_heads_4'):
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradient[part])) > 0, part
