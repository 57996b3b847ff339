"""A batch in parts: which samples they are, and what is a mean over them."""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import finetune, pretrain, variants
from hybrid_jax.errors import InputError
from hybrid_jax.training import config_check, parallel, steps


def objective(params, batch_stats, critic, frozen, batch, rows, key, train):
  """One without statistics of a batch, whose latents name their sample."""
  loss = jnp.mean(jnp.square(batch['source'] @ params * critic + frozen))
  stats = batch_stats + 0.1 * (jnp.mean(batch['source']) - batch_stats) * rows
  return loss, (batch['source'], stats, {'total': loss})


@pytest.fixture
def gradients(monkeypatch):
  """Gradients of 16 samples over 4 devices, whole and in two parts, and the compiled second."""
  monkeypatch.setattr(steps, 'make_objective', lambda networks, config: objective)
  mesh = parallel.make_mesh(4)
  split, replicated = parallel.shardings(mesh)
  rng = np.random.default_rng(0)
  batch = {'source': rng.normal(size=(16, 64)).astype(np.float32)}
  args = rng.normal(size=(64, 32)).astype(np.float32), jnp.ones(()), 2.0, 0.5, batch, 1
  args = *args, jax.random.key(0)

  def gradient(count):
    config = SimpleNamespace(optim=SimpleNamespace(micro_batches=count))
    function = steps.make_gradient(None, config, mesh)
    placed = [replicated] * len(args)
    placed[4] = split
    return jax.jit(function, in_shardings=tuple(placed)).lower(*args).compile()

  whole, parts = gradient(1), gradient(2)
  batch = jax.device_put(args[4], split)
  values = [jax.device_put(x, replicated) for x in args]
  values[4] = batch
  return whole(*values), parts(*values), parts.as_text()


def test_gradients_statistics_and_metrics_are_those_of_the_whole_batch(gradients):
  whole, parts, _ = gradients
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, parts)
  # In the order of the batch.
  np.testing.assert_array_equal(whole[1][0], parts[1][0])


def test_no_sample_changes_its_device_and_gradients_are_split(gradients):
  _, (grads, _), text = gradients
  assert grads.sharding.shard_shape(grads.shape) == (16, 32)
  moved = {m[0] for m in re.finditer(r'(all-to-all|collective-permute|all-gather)\(', text)}
  assert not moved


def test_a_batch_that_cannot_be_divided_is_refused():
  config = pretrain.get_config('tiny+v5e1')
  config_check.check(config)
  config.optim.micro_batches = 3
  with pytest.raises(InputError, match='micro_batches=3 must be a divisor of data.batch_size=4'):
    config_check.check(config)


@pytest.mark.parametrize('device', variants.DEVICES)
def test_a_device_changes_both_stages_and_composes(device):
  for make in (pretrain.get_config, finetune.get_config):
    config = make(device)
    config.train.init_from = 'run'
    config_check.check(config)
    assert config.model.resolution == 1024 and config.data.batch_size == 8
    assert config.optim.micro_batches == variants.DEVICES[device].get('optim', {}).get(
      'micro_batches', 1
    )
    assert make(f'tiny+{device}').model.resolution == 64


@pytest.mark.parametrize(('name', 'text'), [('v5e9', "'v5e9'"), ('tiny+heads', '2 variants')])
def test_an_unknown_variant_is_named(name, text):
  with pytest.raises(ValueError, match=text):
    pretrain.get_config(name)
