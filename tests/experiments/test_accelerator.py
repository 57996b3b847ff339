"""The training step of the accelerator script: calibrated statistics, and loud failures."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import outcomes
import pytest
import small

from experiments.cost import (
  accelerator,
  accelerator_clip,
  accelerator_forms,
  accelerator_parts,
  accelerator_tuning,
)
from hybrid_jax.models.ops import from_uint8
from hybrid_jax.training import parallel


@pytest.fixture(scope='module')
def begin():
  """(networks, step, state, frozen, batch), calibrated; the step is that of all tests."""
  start = small.start()
  batch = accelerator_parts.random_batch(4, small.SIZE)
  _, replicated = parallel.shardings(parallel.make_mesh())
  placed = parallel.of(start.state), replicated
  random_start = functools.partial(accelerator_parts.random_start, start.networks, start.config)
  state, frozen = jax.jit(random_start, out_shardings=placed)(jax.random.key(0), batch)
  step = lambda state, frozen, batch: start.step(state, batch, frozen)  # noqa: E731
  return start.networks, step, state, frozen, batch


def results(capsys) -> list[dict]:
  lines = capsys.readouterr().out.splitlines()
  return [json.loads(line.removeprefix(accelerator_parts.MARK)) for line in lines]


@pytest.mark.slow
def test_calibrated_statistics_are_those_of_the_batch(begin):
  """With them a network computes in evaluation what it computes in training."""
  nets, _, state, frozen, batch = begin
  images = jnp.concatenate([from_uint8(batch[role]) for role in accelerator_parts.ROLES])

  @jax.jit
  def coarse(E):
    """The coarse level in training, in evaluation, and with the statistics of a fresh network."""
    apply = functools.partial(nets.hybrid.encoder.apply, method='pyramid')
    trained, _ = apply(E, images, train=True, mutable=['batch_stats'])
    fresh = jax.tree_util.tree_map_with_path(
      lambda path, x: jnp.full_like(x, path[-1].key == 'var'), E['batch_stats']
    )
    return trained[0], apply(E, images)[0], apply(E | {'batch_stats': fresh}, images)[0]

  trained, evaluated, fresh = coarse(state.encoder)
  scale = float(jnp.abs(trained).max())
  # Running variances are unbiased: at 2 x 2 px of 12 images they are 48 / 47 of the batch's.
  assert float(jnp.abs(trained - evaluated).max()) < 0.1 * scale
  assert float(jnp.abs(fresh).max()) > 2 * scale  # more with every block
  stats = jax.tree.leaves(frozen['arcface']['batch_stats'])
  assert all(np.isfinite(x).all() for x in stats) and any(np.abs(x).max() > 0 for x in stats)
  outcomes.write(difference_of_largest=float(jnp.abs(trained - evaluated).max()) / scale)


@pytest.mark.slow
def test_steps_from_calibrated_statistics_are_finite(begin, capsys):
  _, step, state, frozen, batch = begin
  accelerator_parts.time_steps('small', step, state, frozen, batch, 3)
  (result,) = results(capsys)
  assert result['name'] == 'small' and result['finite'] is True and result['value'] > 0
  outcomes.write(steps=3, finite=result['finite'])


def test_a_step_that_is_not_finite_names_its_values_and_fails(capsys):
  start, batch = small.start(), small.random_batch(4)
  step = lambda state, frozen, batch: start.step(state, batch, frozen)  # noqa: E731
  state, frozen = start.state, start.frozen
  nan = jax.tree.map(lambda x: x * np.nan, state.critic)
  with pytest.raises(FloatingPointError, match='small: step 1: .*adversarial.* not finite'):
    accelerator_parts.time_steps('small', step, state.replace(critic=nan), frozen, batch, 3)
  (result,) = results(capsys)
  assert result['finite'] is False and result['value'] is None and result['step'] == 1
  # The critic is in two terms of the encoder's step, whose gradient reaches everything.
  expected = {'adversarial', 'total', 'gradient_norm', 'critic', 'r1'}
  assert set(result['not_finite']) == expected


@pytest.mark.slow
def test_every_form_of_the_generator_draws_the_same(capsys):
  config = small.small_config()
  accelerator_forms.forms(config, 2)
  found = [result for result in results(capsys) if 'difference' in result]
  assert [r['name'] for r in found] == [f'generator, {name}' for name in accelerator_forms.FORMS]
  assert all(r['value'] > 0 and r['difference'] < 1e-5 for r in found)
  outcomes.write(largest_difference=max(r['difference'] for r in found))


@pytest.mark.slow
def test_a_clip_goes_from_files_to_a_file(capsys):
  accelerator_clip.clip(small.small_config(), 9)
  values = {result['name']: result['value'] for result in results(capsys)}
  assert values[f'clip {small.SIZE} px'] > 0
  assert values[f'clip {small.SIZE} px, first run, with compilation'] > 0
  outcomes.write(reported=sorted(values))


@pytest.mark.slow
def test_a_step_of_cma_is_timed_with_its_memory(capsys):
  """Of a small generator whose pictures are larger than the frames that its encoder sees."""
  config = small.small_config()
  config.model.update(resolution=2 * small.SIZE, identity_split=(2, 3, 5), polyphase_from=0)
  accelerator_tuning.cma_step(config, 1)
  values = {result['name']: result['value'] for result in results(capsys)}
  assert all(value > 0 for value in values.values())
  name = f'cma_step float32 {2 * small.SIZE} px'
  assert set(values) >= {name, f'{name} compile', f'{name} memory by the compiler'}
  outcomes.write(reported=sorted(values))


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
