"""Cyclic Manifold Adjustment (section 3.3), Eqs. (15) to (18): tunes the generator for one video.

The generator changes, the latents do not: source and driver must be reconstructed from the latents
of the re-enacted frame. Pivotal tuning (PTI, Roich et al. 2021) fits the generator to the source
alone and has the same interface; it is the paper's ablation, and an option.

Symbols as in `hybrid.py`. `E` is frozen; `G['params']` is tuned.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from hybrid_jax.method import losses
from hybrid_jax.method.hybrid import Hybrid, Styles
from hybrid_jax.method.networks import Networks
from hybrid_jax.models.latents import truncate
from hybrid_jax.models.ops import adaptive_avg_pool, from_uint8

HISTORY = ('loss', 'source_l2', 'source_lpips', 'driver_l2', 'driver_lpips', 'locality')
SHOWN = 6  # drivers whose R is compared with the untuned R
MEMORY = 0.9  # decay of the running mean of LPIPS that the early stop compares


@dataclasses.dataclass(frozen=True)
class Options:
  """Choices that Eq. (15) leaves open. Where a value comes from: the paper, PTI, or "ours"."""

  # 'cma', or 'pti': the source alone.
  method: str = 'cma'
  # Lambda of Eq. (15), the weight of the driver's term; 0 leaves it out. Ours: the source's weight.
  driver_weight: float = 1.0
  # Learning rate of Adam, and the maximum number of steps. PTI.
  rate: float = 3e-4
  steps: int = 350
  # L = l2 MSE + lpips LPIPS, and the LPIPS at which tuning stops early. PTI.
  l2: float = 1.0
  lpips: float = 1.0
  enough_lpips: float = 0.06
  # Whether the gradient reaches R through the frozen encoder. [read]
  through_encoder: bool = True
  # Parts of the generator that are tuned, by prefixes of their names. PTI: all.
  tuned: tuple[str, ...] = ('const', 'affines', 'layers')
  # Driving frames of each step, and size of the pool of frames they are drawn from. Ours.
  drivers: int = 1
  pool: int = 32
  # PTI's locality regularisation: weight (off by default, as in PTI), and distance in W+.
  locality: float = 0.0
  locality_distance: float = 30.0
  # Truncation of the random latents towards which that distance is taken. PTI.
  truncation_psi: float = 0.5
  seed: int = 0


@flax.struct.dataclass
class Coded:
  """Frames (n, h, h, 3) in [-1, 1] with their latents, which tuning does not change.

  Eq. (15) compares at the size of `image`, up to the generator's; the encoder saw it pooled to its
  own.
  """

  image: jax.Array
  W: jax.Array
  F: Styles


@flax.struct.dataclass
class Job:
  """Input of one tuning: one source, `pool` drivers, the generator it starts from.

  Attributes:
    frozen: frozen loss networks, {'lpips'} and, where identity is measured, 'arcface'.
  """

  G: Any
  E: Any
  frozen: Any
  source: Coded
  drivers: Coded
  key: jax.Array
  # Fields of Options that are arrays here: another value needs no other program.
  driver_weight: jax.Array
  rate: jax.Array
  enough_lpips: jax.Array


@flax.struct.dataclass
class Tuning:
  """State of a tuning. `history` (steps, len(HISTORY)) is NaN from `step` on."""

  step: jax.Array
  params: Any
  opt: Any
  lpips: jax.Array
  history: jax.Array
  finished: jax.Array


# --- The equations -------------------------------------------------------------------------------


def cycle(
  networks: Networks, E: Mapping, G: Mapping, S: Coded, D: Coded, rows: Any, through_encoder: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns the re-enacted frame R, cyclic source S_c and cyclic driver D_c, each (n, r, r, 3)."""
  hybrid = networks.hybrid
  R = hybrid.reenact(G, S.W, D.F)  # Eq. (16): R = G(W_S, F_D)
  seen = adaptive_avg_pool(R, networks.frame_size)
  seen = seen if through_encoder else jax.lax.stop_gradient(seen)
  W_R, F_R = hybrid.encode(E, G, seen, rows)  # Eq. (16): W_R, F_R = E(R)
  S_c = hybrid.reenact(G, W_R, S.F)  # Eq. (17): S_c = G(W_R, F_S)
  D_c = hybrid.reenact(G, D.W, F_R)  # Eq. (18): D_c = G(W_D, F_R)
  return R, S_c, D_c


def locality(hybrid: Hybrid, G: Mapping, tuned: Mapping, W: jax.Array, w: jax.Array, distance):
  """Returns images at `distance` from the pivot W (1, l, d) towards w (1, l, d): tuned, untuned."""
  away = w - W
  morphed = W + distance * away / jnp.linalg.norm(away)

  def draw(G):
    style_space = hybrid.combine(G, morphed, None)
    # Without noise, as in PTI.
    return hybrid.generator.apply({'params': G['params']}, style_space, None, method='synthesize')

  return draw(tuned), jax.lax.stop_gradient(draw(G))


class Tuner:
  """The compiled step of one model and one set of options, which serves any number of jobs.

  `networks` should be built with `polyphase_from=0`, because the weight gradient of a transposed
  convolution is slow. `rows` is the number of active W+ rows (None: all).
  """

  def __init__(self, networks: Networks, options: Options, rows: Any = None):
    self.networks, self.options, self.rows = networks, options, rows
    self.optimizer = optax.scale_by_adam()  # the rate is the job's
    self.step = jax.jit(self._step, donate_argnums=0)
    self.drift = jax.jit(self._drift)

  def job(
    self, G: Mapping, E: Mapping, frozen: Mapping, source: np.ndarray, drivers: np.ndarray
  ) -> Job:
    """Returns the job of uint8 crops, source (h, h, 3) and drivers (n, k, k, 3).

    Each is compared at its own size. `options.pool` drivers are picked evenly, or repeated, so that
    every job of the same sizes runs the same program.

    Raises:
      ValueError: a crop is larger than the pictures of generator and encoder.
    """
    largest = max(4 << len(self.networks.hybrid.generator.channels) - 1, self.networks.frame_size)
    if max(source.shape[0], drivers.shape[1]) > largest:
      # Pooling would enlarge the generated picture without an error.
      raise ValueError(f'crops {source.shape}, {drivers.shape[1:]}: at most {largest} px')
    chosen = evenly(len(drivers), self.options.pool)
    coded = functools.partial(self._coded, G, E)
    drivers = [coded(frame[None]) for frame in drivers[chosen]]
    return Job(
      G=G,
      E=E,
      frozen={name: frozen[name] for name in ('lpips', 'arcface') if name in frozen},
      source=coded(source[None]),
      drivers=jax.tree.map(lambda *x: jnp.concatenate(x), *drivers),
      key=jax.random.key(self.options.seed),
      driver_weight=jnp.float32(self.options.driver_weight),
      rate=jnp.float32(self.options.rate),
      enough_lpips=jnp.float32(self.options.enough_lpips),
    )

  @functools.partial(jax.jit, static_argnums=0)
  def _coded(self, G: Mapping, E: Mapping, frames: jax.Array) -> Coded:
    image, size = from_uint8(frames), self.networks.frame_size
    if image.shape[1] >= size:
      seen = adaptive_avg_pool(image, size)
    else:
      seen = jax.image.resize(image, (len(image), size, size, 3), 'cubic')
    return Coded(image, *self.networks.hybrid.encode(E, G, seen, self.rows))

  def start(self, job: Job) -> Tuning:
    """Returns the state before the first step."""
    # Copies, because the state is donated to the loop and the job's generator must survive.
    params = {k: jnp.copy(v) for k, v in flat(job.G['params'], self.options.tuned).items()}
    return Tuning(
      step=jnp.zeros((), jnp.int32),
      params=params,
      opt=self.optimizer.init(params),
      lpips=jnp.zeros(()),
      history=jnp.full((self.options.steps, len(HISTORY)), jnp.nan),
      finished=jnp.zeros((), bool),
    )

  def objective(self, params: Mapping, job: Job, D: Coded, key: jax.Array):
    """Returns Eq. (15), L(S, S_c) + lambda L(D, D_c), and its terms in the order of HISTORY."""
    options, hybrid = self.options, self.networks.hybrid
    G = job.G | {'params': merged(job.G['params'], params)}

    def lpips(x, y):
      return self.networks.lpips.apply(job.frozen['lpips'], x, y).mean()

    S = jax.tree.map(lambda x: jnp.repeat(x, len(D.W), 0), job.source)

    def L(target, image):
      image = adaptive_avg_pool(image, target.shape[1])
      terms = losses.mse(image, target), lpips(image, target)
      return options.l2 * terms[0] + options.lpips * terms[1], terms

    if options.method == 'pti':
      loss, source = L(job.source.image, hybrid.reenact(G, job.source.W, job.source.F))
      driver = (jnp.zeros(()), jnp.zeros(()))
    else:
      _, S_c, D_c = cycle(self.networks, job.E, G, S, D, self.rows, options.through_encoder)
      L_S, source = L(S.image, S_c)
      L_D, driver = L(D.image, D_c)
      loss = L_S + job.driver_weight * L_D  # Eq. (15)
    near = jnp.zeros(())
    if options.locality:
      tuned, untuned = locality(
        hybrid, job.G, G, job.source.W, self._sample(job.G, key), options.locality_distance
      )
      near = losses.mse(tuned, untuned) + lpips(tuned, untuned)
      loss = loss + options.locality * near
    return loss, jnp.stack((loss, *source, *driver, near))

  def _sample(self, G: Mapping, key: jax.Array) -> jax.Array:
    """Returns a random truncated latent (1, l, d), the same w in every row."""
    generator = self.networks.hybrid.generator
    if 'w_samples' in G:
      w = G['w_samples'][jax.random.randint(key, (1,), 0, len(G['w_samples']))]
    else:
      z = jax.random.normal(key, (1, generator.w_dim))
      w = generator.apply({'params': G['params']}, z, method='map')
    w = jnp.repeat(w[:, None], self.networks.hybrid.encoder.num_ws, 1)
    return truncate(w, G['w_avg'], self.options.truncation_psi)

  def _step(self, state: Tuning, job: Job) -> tuple[Tuning, jax.Array]:
    """Returns the state after a step, and whether it has finished.

    The step at which LPIPS is low enough, or a loss is not finite, changes no parameter, and a
    state that has finished stays as it is.
    """
    options = self.options
    key_drivers, key_near = jax.random.split(jax.random.fold_in(job.key, state.step))
    pick = jax.random.choice(key_drivers, options.pool, (options.drivers,), replace=False)
    D = jax.tree.map(lambda x: x[pick], job.drivers)
    (loss, terms), grads = jax.value_and_grad(self.objective, has_aux=True)(
      state.params, job, D, key_near
    )
    weight = 0.0 if options.method == 'pti' else job.driver_weight
    both = (terms[2] + weight * terms[4]) / (1 + weight)  # weighted as in Eq. (15)
    lpips = jnp.where(state.step == 0, both, MEMORY * state.lpips + (1 - MEMORY) * both)
    finished = state.finished | (lpips <= job.enough_lpips) | ~jnp.isfinite(loss)
    updates, opt = self.optimizer.update(grads, state.opt)
    keep = functools.partial(jax.tree.map, lambda a, b: jnp.where(finished, a, b))
    # Past the end there is no row to set.
    row = jnp.where(state.finished, options.steps, state.step)
    after = Tuning(
      step=state.step + ~state.finished,
      params=keep(state.params, descended(state.params, updates, job.rate)),
      opt=keep(state.opt, opt),
      lpips=lpips,
      history=state.history.at[row].set(terms, mode='drop'),
      finished=finished,
    )
    return after, jnp.copy(finished)  # a copy: the state is donated to the next step

  def _drift(self, job: Job, params: Mapping) -> tuple[jax.Array, jax.Array]:
    """Returns the distance of R from the untuned R, which Eq. (15) does not contain.

    It is the mean over SHOWN drivers of the cosine similarity of ArcFace embeddings (NaN without
    the network) and of LPIPS.
    """
    hybrid, nets, size = self.networks.hybrid, self.networks, self.networks.frame_size
    tuned = job.G | {'params': merged(job.G['params'], params)}

    def one(F: Styles) -> tuple[jax.Array, jax.Array]:
      F = jax.tree.map(lambda x: x[None], F)
      R = [adaptive_avg_pool(hybrid.reenact(G, job.source.W, F), size) for G in (job.G, tuned)]
      lpips = nets.lpips.apply(job.frozen['lpips'], *R).mean()
      if 'arcface' not in job.frozen:
        return jnp.full((), jnp.nan), lpips
      before, after = nets.arcface.apply(job.frozen['arcface'], jnp.concatenate(R))
      return (before * after).sum(), lpips

    chosen = evenly(self.options.pool, SHOWN)
    similarity, lpips = jax.lax.map(one, jax.tree.map(lambda x: x[chosen], job.drivers.F))
    return similarity.mean(), lpips.mean()

  def tune(self, job: Job, chunk: int = 25) -> Iterator[Tuning]:
    """Yields the state after every `chunk` steps; the last one is the result.

    A state is donated to the next step: use it before asking for the next one.

    Raises:
      FloatingPointError: a loss is not finite; the generator of the job is unchanged.
    """
    steps, state, ended = self.options.steps, self.start(job), False
    # A loop on the host over one compiled step. lax.while_loop and lax.scan take more cycles by the
    # estimates for a TPU, and on a CPU, where XLA computes the gradients of convolutions inside of
    # loops many times slower, they need gradients of our own (experiments/results/cma_loop.json).
    for k in range(1, steps + 1):
      state, finished = self.step(state, job)
      # The flag of the step before is read, so that the device has work while the host waits.
      last, ended = bool(ended) or k == steps, finished
      if last or k % chunk == 0:
        done = int(state.step)
        if not np.isfinite(np.asarray(state.history)[:done, 0]).all():
          raise FloatingPointError(
            f'{self.options.method}: the loss is not finite at step {done}; the generator is '
            f'unchanged; try a lower rate than {float(job.rate):g}'
          )
        yield state
        if last or bool(finished):
          return


def evenly(length: int, count: int) -> np.ndarray:
  """Returns `count` indices spread from 0 to `length` - 1, repeated where `length` is smaller."""
  return np.linspace(0, length - 1, count).round().astype(int)


def descended(params: Mapping, updates: Mapping, rate: jax.Array) -> Mapping:
  """Returns the parameters after a step of `rate` against the updates."""
  return jax.tree.map(lambda x, update: x - rate * update, params, updates)


# --- Parameters by name --------------------------------------------------------------------------


def flat(params: Mapping, tuned: tuple[str, ...]) -> dict[str, jax.Array]:
  """Returns arrays by path, of the parts whose name starts with one of `tuned`."""
  tree = flax.traverse_util.flatten_dict(params, sep='/')
  return {key: x for key, x in tree.items() if key.startswith(tuned)}


def merged(params: Mapping, changed: Mapping[str, jax.Array]) -> dict:
  """Returns the tree with its arrays replaced by those of `changed`, by path."""
  tree = flax.traverse_util.flatten_dict(params, sep='/')
  return flax.traverse_util.unflatten_dict(tree | dict(changed), sep='/')


def delta(G: Mapping, state: Tuning) -> dict[str, np.ndarray]:
  """Returns the difference of the tuned to the untuned arrays, by path."""
  before = flax.traverse_util.flatten_dict(G['params'], sep='/')
  return {key: np.asarray(x - before[key]) for key, x in state.params.items()}


def adjusted(G: Mapping, added: Mapping[str, np.ndarray]) -> dict:
  """Returns the generator's tree with a `delta` added.

  The first run renders with this tree too, not with the tuned arrays themselves, so that a later
  run that reads the delta from a file renders the same bits.
  """
  before = flax.traverse_util.flatten_dict(G['params'], sep='/')
  return dict(G) | {'params': merged(G['params'], {k: before[k] + x for k, x in added.items()})}
