"""Stage 2: what learns, what stays, and eq. 13 in the step."""

import jax
import jax.numpy as jnp
import numpy as np
import outcomes
import pytest
from small import SIZE, finetune_config, random_batch, small_config, start

from configs import common
from hybrid_jax import main
from hybrid_jax.errors import InputError
from hybrid_jax.method import losses, networks, objective
from hybrid_jax.models import latents
from hybrid_jax.models.ops import from_uint8
from hybrid_jax.training import checkpoint, config_check, parallel, steps

N = 4


def batch_with_masks():
  masks = np.zeros((2, N, SIZE, SIZE), np.uint8)
  masks[0, :, 5:12, 8:20], masks[1, :, 14:25, 3:9] = 255, 255
  return random_batch(N) | {'source_mask': masks[0], 'driving_mask': masks[1]}


@pytest.fixture(scope='module')
def stepped():
  """State before and after three steps, and the metrics of the first."""
  begin = start('finetune')
  batch, now, seen = batch_with_masks(), begin.state, []
  for _ in range(3):
    now, metrics = begin.step(now, batch)
    seen.append(jax.device_get(metrics))
  return begin.config, begin.networks, begin.frozen, batch, begin.state, now, seen


def test_only_the_heads_learn(stepped):
  *_, before, after, _ = stepped
  for name, part in before.encoder['params'].items():
    moved = max(
      float(jnp.abs(a - b).max())
      for a, b in zip(
        jax.tree.leaves(part), jax.tree.leaves(after.encoder['params'][name]), strict=True
      )
    )
    assert (moved > 0) == ('_heads_' in name), name


def test_statistics_stay(stepped):
  *_, before, after, _ = stepped
  jax.tree.map(
    np.testing.assert_array_equal, before.encoder['batch_stats'], after.encoder['batch_stats']
  )


def test_feature_term_is_equation_13(stepped):
  """Of the first step, whose deformation is zero: every decode is G(W_S, 0) with its own noise."""
  config, nets, frozen, batch, state, _, seen = stepped

  @jax.jit
  def expected(state, frozen, batch):
    S, D = from_uint8(batch['source']), from_uint8(batch['driving'])
    hybrid, G = nets.hybrid, frozen['generator']
    W_S, F_S = hybrid.encode(state.encoder, G, S)  # running statistics
    key_noise, _ = jax.random.split(jax.random.fold_in(state.key, state.step))
    noise = latents.random_noise(key_noise, 4 * N, hybrid.generator.channels)
    lpips = lambda x, y: nets.lpips.apply(frozen['lpips'], x, y)  # noqa: E731
    total = 0.0
    for k, (target, mask) in enumerate(((S, 'source_mask'), (D, 'driving_mask'))):
      image = hybrid.reenact(G, W_S, F_S if k == 0 else None, [m[k::4] for m in noise])
      reach = objective.feature_mask(batch[mask], SIZE, config.loss)
      weights = config.loss.reconstruction
      total += losses.feature_reconstruction(target, image, reach, lpips, weights)
    return total

  value = expected(state, frozen, batch)
  np.testing.assert_allclose(seen[0]['feature_reconstruction'], value, rtol=1e-3)


def test_masks_are_dilated_by_their_reach():
  loss = common.paper()['loss'] | {'mask_dilation': 2 / 32}
  mask = np.zeros((1, 32, 32), np.uint8)
  mask[0, 10, 20] = 255
  wide = objective.feature_mask(mask, 32, type('Loss', (), loss))
  assert wide.shape == (1, 32, 32, 1) and float(wide.sum()) == 25
  assert float(wide[0, 8:13, 18:23].min()) == 1
  pooled = objective.feature_mask(mask, 16, type('Loss', (), loss))
  assert float(pooled.sum()) * 4 == pytest.approx(25)


def test_configs_of_stage_2():
  config = finetune_config()
  with pytest.raises(InputError, match="init_from='' must be a stage 1 run's workdir"):
    config_check.check(config)
  config.train.init_from = 'runs/pretrain'
  config_check.check(config)
  config.stage = 'pretrain'
  with pytest.raises(InputError, match='feature_reconstruction belongs to stage 2 alone'):
    config_check.check(config)


def config_of_both_stages():
  config = small_config(num_steps=2, val_steps=9, sample_steps=9)
  config.data.update(rendered_people=2, frames_per_clip=2)
  with config.unlocked():
    config.then = {
      'stage': 'finetune',
      'loss': {'weights': {'feature_reconstruction': 1.0}},
      'progressive': {'every_steps': 0},
      'optim': {'encoder_lr': 1e-3},  # as in `finetune_config`: one program
      'train': {'num_steps': 1},
    }
  return config


def test_the_config_of_the_stage_that_follows():
  config = config_of_both_stages()
  second = main.following(config, 'runs/first')
  config_check.check(second)
  assert (second.stage, second.train.init_from, second.train.num_steps) == (
    'finetune', 'runs/first', 1
  )  # fmt: skip
  assert not second.then and second.data == config.data and second.model == config.model
  expected = finetune_config()
  assert (second.loss, second.optim, second.progressive) == (
    expected.loss, expected.optim, expected.progressive
  )  # fmt: skip
  assert config.stage == 'pretrain' and config.then  # unchanged


@pytest.mark.slow
def test_stage_2_follows_at_once_where_the_config_says_so(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  config = config_of_both_stages()
  main.run(config, str(tmp_path / 'run'))
  first, second = (
    checkpoint.read_config(str(tmp_path / 'run' / name)) for name in ('', 'finetune')
  )
  assert (first['stage'], second['stage']) == ('pretrain', 'finetune')
  assert second['data'] == first['data'] and second['train']['init_from'] == str(tmp_path / 'run')
  nets = networks.build(config.model)
  shapes = jax.eval_shape(lambda key: networks.init_encoder(nets, key), jax.random.key(0))
  (step, before), (last, after) = (
    checkpoint.restore_encoder(str(tmp_path / 'run' / name), shapes) for name in ('', 'finetune')
  )
  assert (step, last) == (2, 1)
  body = lambda encoder: encoder['params']['backbone']  # noqa: E731
  jax.tree.map(np.testing.assert_array_equal, body(before), body(after))
  outcomes.write(stages=[first['stage'], second['stage']], steps=[step, last])


@pytest.mark.slow
def test_a_batch_in_parts_gives_the_step_of_the_whole(stepped):
  """Nothing in stage 2 reads several samples but the area of the masks, here alike in all."""
  config, nets, frozen, batch, state, *_ = stepped
  batch = {k: np.repeat(x[:1], N, 0) if 'mask' in k else x for k, x in batch.items()}
  expected, metrics = start('finetune').step(state, batch)
  config = config.copy_and_resolve_references()
  config.optim.micro_batches = 2
  mesh = parallel.make_mesh(2)
  step = parallel.jit_step(steps.make_step(nets, config, mesh), state, mesh)
  moved = jax.device_put(jax.device_get(state), parallel.of(parallel.sharded(state, mesh)))
  frozen = parallel.put_whole(jax.device_get(frozen), mesh)
  found, metrics_found = step(moved, frozen, parallel.put_batch(batch, mesh))
  # The first moment after one step is the gradient, centralised and scaled.
  for a, b in zip(*(jax.tree.leaves(s.encoder_opt.mu) for s in (expected, found)), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(np.abs(a).max(), 1e-6))
  same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
  jax.tree.map(same, metrics, metrics_found)
  jax.tree.map(same, expected.critic, found.critic)
  jax.tree.map(
    np.testing.assert_array_equal, state.encoder['batch_stats'], found.encoder['batch_stats']
  )
  outcomes.write(micro_batches=2, bound=1e-5)
