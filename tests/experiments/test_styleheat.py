"""Our StyleHEAT and the network of driving signals, with small random networks."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from experiments.paper import resumable, signals, styleheat, styleheat_train
from hybrid_jax.errors import InputError
from hybrid_jax.method import networks
from hybrid_jax.models.ops import from_uint8

CONFIG = styleheat.Config(
  warp_size=16,
  descriptor=8,
  warper_widths=(8, 8),
  calibration_widths=(8, 8),
  warping_alone=0.0,  # every step is one program
  rate=1e-2,
)


@pytest.fixture(scope='module')
def training():
  nets = networks.build(small.small_config().model)
  keys = jax.random.split(jax.random.key(0))
  weights = jax.jit(lambda key: networks.random_frozen(nets, key))(keys[0])
  weights['inversion'] = jax.jit(lambda key: networks.init_encoder(nets, key))(keys[1])
  return styleheat_train.Training(CONFIG, 8, nets, weights)


@pytest.fixture(scope='module')
def data():
  rng = np.random.default_rng(0)
  # A blob that moves with the first parameter.
  motion = rng.uniform(size=(3, 4, 16)).astype(np.float32)
  x = np.arange(small.SIZE) / small.SIZE
  blob = np.exp(-40 * np.square(x - motion[..., :1]))  # k t s
  image = np.round(255 * blob[:, :, None, :, None] * np.ones((1, 1, small.SIZE, 1, 3)))
  return {'image': image.astype(np.uint8), 'motion': motion}


def run(training, data, workdir, steps):
  def advance(state, k):
    return training.advance(state, k, signals.batch_at(k, 0, 2, data))

  state = resumable.restore(workdir, training.first_state(0))
  return resumable.run(workdir, state, steps, advance, lambda state: {}, 1)


def test_warp_reads_where_the_flow_points():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 5, 6, 3)).astype(np.float32)
  flow = rng.normal(scale=3, size=(2, 5, 6, 2)).astype(np.float32)
  found = np.asarray(styleheat.warp(x, flow))
  for n, i, j in np.ndindex(2, 5, 6):
    px, py = np.clip(j + flow[n, i, j, 0], 0, 5), np.clip(i + flow[n, i, j, 1], 0, 4)
    wanted = sum(
      x[n, a, b] * max(0, 1 - abs(py - a)) * max(0, 1 - abs(px - b))
      for a in range(5)
      for b in range(6)
    )
    np.testing.assert_allclose(found[n, i, j], wanted, atol=1e-5)
  np.testing.assert_array_equal(styleheat.warp(x, 0 * flow), x)


def test_shapes_and_before_training_it_is_the_inversion(training, data):
  state, G = training.first_state(0), training.weights['generator']
  image, motion = from_uint8(data['image'][0].astype(np.float32)), data['motion'][0]
  drawn = training.draw(state.params, training.weights, image, motion)
  hybrid = training.nets.hybrid

  @jax.jit
  def expected(E, G, image):
    w_plus = hybrid.identity(E, G, image)
    # A flow moves what the layers up to `warp_size` have drawn.
    flow, still = jnp.ones((4, 16, 16, 2)), lambda x: (0, 0)
    moved = styleheat.synthesize(CONFIG, hybrid.generator, G, w_plus, flow, still)
    return hybrid.synthesize(G, hybrid.combine(G, w_plus, None)), moved

  inversion, moved = expected(training.weights['inversion'], G, image)
  # Flow and calibration are zero at first.
  np.testing.assert_allclose(drawn, inversion, atol=2e-5)
  assert moved.shape == inversion.shape and float(jnp.abs(moved - inversion).max()) > 1e-3


def test_steps_lower_the_loss_and_a_stopped_run_ends_the_same(training, data, tmp_path):
  (tmp_path / 'parts').mkdir()
  whole = run(training, data, tmp_path, 6)
  rows = [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()]
  assert [row['step'] for row in rows] == [1, 2, 3, 4, 5, 6]
  assert np.mean([row['l1'] for row in rows[-2:]]) < rows[0]['l1']
  run(training, data, tmp_path / 'parts', 3)
  again = run(training, data, tmp_path / 'parts', 6)
  jax.tree.map(np.testing.assert_array_equal, whole, again)


def test_settings_of_a_run_stay(tmp_path):
  resumable.begin(tmp_path / 'run', {'steps': 3, 'widths': (1, 2)})
  resumable.begin(tmp_path / 'run', {'steps': 3, 'widths': (1, 2)})
  with pytest.raises(InputError, match='was begun with steps 3; give the same'):
    resumable.begin(tmp_path / 'run', {'steps': 4, 'widths': (1, 2)})
  with pytest.raises(InputError, match='no training'):
    resumable.settings_of(tmp_path)
  (tmp_path / 'run' / resumable.CHECKPOINT).write_bytes(b'damaged')
  with pytest.raises(InputError, match='cannot be read'):
    resumable.restore(tmp_path / 'run', {'a': np.zeros(2)})


def test_the_reader_of_signals_learns_and_reads_any_number_of_frames():
  rng = np.random.default_rng(0)
  frames = rng.integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
  target = rng.uniform(size=(5, signals.MOTION + 2 * signals.POINTS)).astype(np.float32)
  state, optimizer = signals.first_state(10, 3e-3, 0, 32)
  step = signals.make_step(optimizer, 0)
  losses = []
  for _ in range(10):
    state, terms = step(state, frames, target)
    losses.append(float(terms['motion'] + terms['points']))
  assert losses[-1] < 0.8 * losses[0]
  found = signals.values_of(state.params, frames)
  assert found.shape == target.shape
  np.testing.assert_allclose(signals.values_of(state.params, frames[:2]), found[:2], atol=1e-5)
