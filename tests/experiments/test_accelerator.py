"""The training step of the accelerator script: calibrated statistics, and loud failures."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import SIZE, small_config

from experiments.cost import accelerator, accelerator_parts
from hybrid_jax.method import networks
from hybrid_jax.models.ops import from_uint8
from hybrid_jax.training import steps


@pytest.fixture(scope='module')
def start():
  """(networks, step, state with a calibrated encoder, frozen, batch) of the paper's depth."""
  config = small_config()
  config.model.encoder_units = (3, 4, 14, 3)
  nets = networks.build(config.model)
  batch = accelerator_parts.random_batch(4, SIZE)

  @jax.jit
  def init(key, batch):
    state = steps.init_state(nets, config, key)
    encoder = accelerator_parts.calibrated(nets, state.encoder, batch)
    return state, encoder, networks.random_frozen(nets, key)

  state, encoder, frozen = init(jax.random.key(0), batch)
  step = jax.jit(steps.make_step(nets, config))
  return nets, step, state, state.replace(encoder=encoder), frozen, batch


def results(capsys) -> list[dict]:
  lines = capsys.readouterr().out.splitlines()
  return [json.loads(line.removeprefix(accelerator_parts.MARK)) for line in lines]


def test_calibrated_statistics_are_those_of_the_batch(start):
  """With them the encoder computes in evaluation what it computes in training."""
  nets, _, fresh, state, _, batch = start
  frames = jnp.concatenate([from_uint8(batch[role]) for role in accelerator_parts.ROLES])

  @jax.jit
  def levels(E):
    apply = nets.hybrid.encoder.apply
    trained, _ = apply(E, frames, train=True, method='pyramid', mutable=['batch_stats'])
    return trained, apply(E, frames, method='pyramid')

  trained, evaluated = levels(state.encoder)
  for a, b in zip(trained, evaluated, strict=True):
    # Running variances are unbiased: at 2 x 2 px of 12 frames they are 48 / 47 of the batch's.
    assert float(jnp.abs(a - b).max()) < 0.1 * float(jnp.abs(a).max())
  _, untrained = levels(fresh.encoder)
  for a, b in zip(evaluated, untrained, strict=True):
    assert float(jnp.abs(b).max()) > 10 * float(jnp.abs(a).max())


def test_steps_from_calibrated_statistics_are_finite(start, capsys):
  _, step, _, state, frozen, batch = start
  accelerator_parts.time_steps('small', step, state, frozen, batch, 3)
  (result,) = results(capsys)
  assert result['name'] == 'small' and result['finite'] is True and result['value'] > 0


def test_a_step_that_is_not_finite_names_its_values_and_fails(start, capsys):
  _, step, _, state, frozen, batch = start
  stats = state.encoder['batch_stats']
  nan = state.encoder | {'batch_stats': jax.tree.map(lambda x: x * np.nan, stats)}
  with pytest.raises(FloatingPointError, match='small: step 1: .*latent_consistency.* not finite'):
    accelerator_parts.time_steps('small', step, state.replace(encoder=nan), frozen, batch, 3)
  (result,) = results(capsys)
  assert result['finite'] is False and result['value'] is None and result['step'] == 1
  # Running statistics are used in eq. 10 alone, and its gradient reaches everything.
  assert set(result['not_finite']) == {'latent_consistency', 'total', 'gradient_norm'}


def test_the_command_exits_with_an_error_and_keeps_the_result(tmp_path, monkeypatch):
  """Where a part reports a value that is not finite, also if its process ends well."""
  bad = [{'part': 'train_step', 'name': 'x', 'value': None, 'finite': False}]
  monkeypatch.setattr(accelerator, 'measure', lambda part: (bad, False))
  monkeypatch.setattr(accelerator, 'describe', lambda: {'device': 'x', 'jax': 'y', 'commit': 'z'})
  output = tmp_path / 'results.json'
  monkeypatch.setattr('sys.argv', ['accelerator', '--parts=train_step', f'--output={output}'])
  with pytest.raises(SystemExit, match='failed: train_step'):
    accelerator.main()
  (result,) = json.loads(output.read_text())['results']
  assert result['name'] == 'x' and result['finite'] is False
