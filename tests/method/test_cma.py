"""CMA: its equations, its loop, and parity with PTI's reference steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import outcomes
import pytest
from parity import GOLDEN, error, nhwc
from small import SIZE, small_config

from hybrid_jax.method import cma, losses, networks
from hybrid_jax.method.hybrid import Hybrid
from hybrid_jax.models.ops import adaptive_avg_pool, from_uint8
from hybrid_jax.models.perceptual import LPIPS
from hybrid_jax.models.stylegan2 import Generator
from hybrid_jax.weights import key_maps, torch_file

OPTIONS = cma.Options(steps=6, rate=1e-2, pool=3, enough_lpips=0.0)


# --- PTI: the reference --------------------------------------------------------------------------


@pytest.fixture(scope='module')
def pivotal():
  """(vectors, networks, job, last state) of PTI's twelve steps."""
  vectors = np.load(GOLDEN / 'pti_steps.npz')
  G, channels = key_maps.generator_nvlabs(torch_file.load(GOLDEN / 'nvlabs64.pt'))
  state = torch_file.load(GOLDEN / 'lpips_alex_reduced.pt')
  lpips = key_maps.convert(state, key_maps.lpips('alex'), kind='alex')
  widths = tuple(
    lpips['params'][name]['kernel'].shape[-1]
    for name in sorted((n for n in lpips['params'] if n[0] == 'f'), key=lambda n: int(n[9:]))
  )
  hybrid = Hybrid(Generator(channels, w_dim=64, polyphase_from=0), None, ())
  nets = networks.Networks(hybrid, LPIPS('alex', widths), None, None, 64)
  source = cma.Coded(nhwc(vectors['target']), vectors['w_pivot'], None)
  frozen, zero = {'lpips': lpips}, jnp.zeros(())
  options = cma.Options(method='pti', steps=12, pool=1)
  rate = jnp.float32(options.rate)
  job = cma.Job(G, None, frozen, source, source, jax.random.key(0), zero, rate, zero)
  tuner = cma.Tuner(nets, options)
  (state,) = tuner.tune(job, chunk=12)
  return vectors, nets, job, state


def test_pti_is_the_reference_step_by_step(pivotal):
  vectors, nets, job, state = pivotal
  history = np.asarray(state.history)
  for k, name in enumerate(('loss', 'l2', 'lpips')):
    np.testing.assert_allclose(history[:, k], vectors[f'history_{name}'], rtol=1e-4)
  tuned = cma.adjusted(job.G, cma.delta(job.G, state))
  image = nets.hybrid.reenact(tuned, job.source.W, None)
  assert error(image, nhwc(vectors['image_after'])) < 1e-4
  names = [key[6:] for key in vectors.files if key.startswith('after_')]
  assert len(names) == 6
  maps = key_maps.nvlabs_generator(nets.hybrid.generator.channels)
  arrays = cma.flat(tuned['params'], ('',))
  ours = {theirs: arrays[path.removeprefix('params/')] for path, (theirs, _) in maps.items()}
  layouts = {theirs: layout for theirs, layout in maps.values()}
  for name in names:
    expected = layouts[name](vectors[f'after_{name}'])
    assert error(ours[name], expected) < 1e-4, name


def test_locality_is_the_reference(pivotal):
  vectors, nets, job, state = pivotal
  tuned = cma.adjusted(job.G, cma.delta(job.G, state))
  locality = jax.jit(cma.locality, static_argnums=0)
  a, b = locality(nets.hybrid, job.G, tuned, job.source.W, vectors['reg_w_sample'], 30.0)
  assert float(losses.mse(a, b)) == pytest.approx(float(vectors['reg_l2']), rel=1e-3)
  lpips = float(nets.lpips.apply(job.frozen['lpips'], a, b).mean())
  assert lpips == pytest.approx(float(vectors['reg_lpips']), rel=1e-3)


# --- CMA -----------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def world():
  """(networks, G, E, frozen, source, drivers) of a small random model with live heads."""
  config = small_config()
  config.model.polyphase_from = 0
  nets = networks.build(config.model)
  frozen, E = jax.jit(
    lambda key: (networks.random_frozen(nets, key), networks.init_encoder(nets, key))
  )(jax.random.key(0))
  live = lambda path, x: x + 0.3 * jax.random.normal(jax.random.key(len(path)), x.shape)  # noqa: E731
  E = dict(E) | {
    'params': {
      name: jax.tree_util.tree_map_with_path(live, part) if 'deformation' in name else part
      for name, part in E['params'].items()
    }
  }
  frames = np.random.default_rng(0).integers(0, 255, (6, SIZE, SIZE, 3), np.uint8)
  return nets, frozen['generator'], E, frozen, frames[0], frames[1:]


def test_the_objective_is_equation_15_and_its_gradient_goes_through_the_encoder(world):
  """Unless it is stopped there: then the value is the same, and the gradient another."""
  nets, G, E, frozen, source, drivers = world
  given = dataclasses.replace(OPTIONS, driver_weight=0.5, lpips=0.8)
  grads = {}
  for through in (True, False):
    tuner = cma.Tuner(nets, dataclasses.replace(given, through_encoder=through))
    job = tuner.job(G, E, frozen, source, drivers)
    D = jax.tree.map(lambda x: x[1:2], job.drivers)
    step = jax.jit(jax.value_and_grad(tuner.objective, has_aux=True))
    (loss, terms), grads[through] = step(tuner.start(job).params, job, D, jax.random.key(0))
  both = [jax.tree.leaves(grads[through]) for through in (True, False)]
  assert max(float(jnp.abs(x - y).max()) for x, y in zip(*both, strict=True)) > 1e-6

  @jax.jit
  def plain(S_, D_):
    h, distance = nets.hybrid, lambda x, y: nets.lpips.apply(frozen['lpips'], x, y).mean()
    (W_S, F_S), (W_D, F_D) = h.encode(E, G, S_), h.encode(E, G, D_)
    W_R, F_R = h.encode(E, G, h.reenact(G, W_S, F_D))
    S_c, D_c = h.reenact(G, W_R, F_S), h.reenact(G, W_D, F_R)
    return [losses.mse(S_, S_c), distance(S_, S_c), losses.mse(D_, D_c), distance(D_, D_c)]

  S_, D_ = from_uint8(source[None]), from_uint8(drivers[2][None])
  np.testing.assert_allclose(D.image, D_, atol=1e-6)  # the middle of five
  expected = list(map(float, plain(S_, D_)))
  np.testing.assert_allclose(terms[1:5], expected, rtol=2e-3)
  total = expected[0] + 0.8 * expected[1] + 0.5 * (expected[2] + 0.8 * expected[3])
  assert float(loss) == pytest.approx(total, rel=2e-3)


@pytest.mark.slow
def test_crops_are_compared_at_their_own_size_and_encoded_at_the_encoders():
  config = small_config()
  config.model.update(resolution=2 * SIZE, identity_split=(2, 3, 5), polyphase_from=0)
  nets = networks.build(config.model)
  frozen, E = jax.jit(
    lambda key: (networks.random_frozen(nets, key), networks.init_encoder(nets, key))
  )(jax.random.key(0))
  G, rng = frozen['generator'], np.random.default_rng(0)
  source = rng.integers(0, 255, (2 * SIZE, 2 * SIZE, 3), np.uint8)
  tuner = cma.Tuner(nets, dataclasses.replace(OPTIONS, pool=1))
  job = tuner.job(G, E, frozen, source, source[None, :SIZE, :SIZE])  # a driver of half the size
  assert job.source.image.shape[1:3] == (2 * SIZE,) * 2
  assert job.drivers.image.shape[1:3] == (SIZE,) * 2

  @jax.jit
  def both(params, job):
    S, D = job.source, job.drivers
    seen = adaptive_avg_pool(S.image, SIZE)
    _, S_c, D_c = cma.cycle(nets, E, G, S, D, None, True)
    expected = losses.mse(S_c, S.image), losses.mse(adaptive_avg_pool(D_c, SIZE), D.image)
    return nets.hybrid.encode(E, G, seen)[0], expected, tuner.objective(params, job, D, job.key)[1]

  W, expected, terms = both(tuner.start(job).params, job)
  np.testing.assert_allclose(job.source.W, W, atol=1e-5)
  np.testing.assert_allclose((terms[1], terms[3]), expected, rtol=1e-5)
  with pytest.raises(ValueError, match=f'at most {2 * SIZE} px'):
    tuner.job(G, E, frozen, source.repeat(2, 0).repeat(2, 1), source[None])
  outcomes.write(source_px=2 * SIZE, driver_px=SIZE)


@pytest.fixture(scope='module')
def tuned(world):
  nets, G, E, frozen, source, drivers = world
  tuner, traces = cma.Tuner(nets, OPTIONS), []
  inner = tuner.objective
  tuner.objective = lambda *args: (traces.append(1), inner(*args))[1]
  job = tuner.job(G, E, frozen, source, drivers)
  states = []
  for state in tuner.tune(job, chunk=2):
    states.append((*jax.device_get((state.step, state.history)), len(jax.live_arrays())))
  return tuner, job, state, states, traces


def test_a_tuning_lowers_its_objective_and_leaves_the_original(world, tuned):
  nets, G, *_ = world
  tuner, job, state, states, _ = tuned
  assert [int(step) for step, *_ in states] == [2, 4, 6]
  assert len({arrays for *_, arrays in states[1:]}) == 1  # memory does not grow
  history = states[-1][1]
  assert np.isfinite(history).all() and np.isnan(states[0][1][2:]).all()
  D = jax.tree.map(lambda x: x[:1], job.drivers)
  objective = jax.jit(lambda p: tuner.objective(p, job, D, job.key)[0])
  assert float(objective(state.params)) < float(objective(tuner.start(job).params))
  added = cma.delta(G, state)
  assert {key.split('_')[0].split('/')[0] for key in added} == {'const', 'affines', 'layers'}
  assert not any(key.startswith('mapping') for key in added)
  assert max(float(np.abs(x).max()) for x in added.values()) > 1e-3
  again = tuner.start(job).params
  for key, x in cma.flat(G['params'], OPTIONS.tuned).items():
    np.testing.assert_array_equal(x, again[key])


def test_other_jobs_and_chunks_run_the_same_program(world, tuned):
  nets, G, E, frozen, source, drivers = world
  tuner, job, state, states, traces = tuned
  before = len(traces)
  (whole,) = tuner.tune(job, chunk=6)  # six steps of one dispatch
  np.testing.assert_array_equal(whole.history, states[-1][1])  # chunks change nothing
  *_, other = tuner.tune(tuner.job(G, E, frozen, drivers[0], drivers[:2]), chunk=3)
  assert len(traces) == before
  assert not np.array_equal(other.history, whole.history)


def test_it_stops_when_lpips_is_enough(world, tuned):
  nets, G, E, frozen, source, drivers = world
  tuner, job, _, states, _ = tuned
  first = states[-1][1][0]
  enough = float(first[2] + first[4]) / 2 + 1e-4
  (state,) = tuner.tune(job.replace(enough_lpips=jnp.float32(enough)))
  assert int(state.step) == 1 and bool(state.finished)
  # Before the first change, as PTI does.
  assert all(not x.any() for x in cma.delta(G, state).values())


def test_without_a_driver_the_source_alone_is_enough(world, tuned):
  tuner, job, *_ = tuned
  alone = job.replace(driver_weight=jnp.float32(0))
  *_, state = tuner.tune(alone)
  first = np.asarray(state.history)[0]
  assert first[4] > first[2]  # the mean would not be enough
  (state,) = tuner.tune(alone.replace(enough_lpips=jnp.float32(first[2] + 1e-4)))
  assert int(state.step) == 1 and bool(state.finished)


def test_a_loss_that_is_not_finite_leaves_the_generator(world, tuned):
  _, G, *_ = world
  tuner, job, *_ = tuned
  broken = job.replace(source=job.source.replace(W=job.source.W * jnp.nan))
  before = jax.device_get(G['params'])
  with pytest.raises(FloatingPointError, match='cma: the loss is not finite at step 1'):
    list(tuner.tune(broken))
  jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(G['params']))


def test_drift_is_none_without_tuning(tuned):
  tuner, job, state, *_ = tuned
  similarity, distance = tuner.drift(job, tuner.start(job).params)
  assert float(similarity) == pytest.approx(1, abs=1e-5) and float(distance) < 1e-6
  similarity, distance = tuner.drift(job, state.params)
  assert float(similarity) < 1 - 1e-5 and float(distance) > 1e-4
