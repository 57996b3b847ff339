"""A model small enough to compile and step in seconds, and batches for it."""

import dataclasses
import functools
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from configs import common
from hybrid_jax.media import video
from hybrid_jax.method import networks
from hybrid_jax.models.latents import first_convolutions
from hybrid_jax.training import loop, parallel, steps, validation
from hybrid_jax.training.preflight import machine
from hybrid_jax.training.state import TrainState, empty_pool
from hybrid_jax.weights import load

SIZE = 32


def small_config(**train_fields):
  """The tiny config with fewer layers, at 32 px."""
  config = ConfigDict(common.tiny())
  config.model.update(
    resolution=SIZE,
    channel_base=512,
    channel_max=16,
    w_dim=16,
    frame_size=SIZE,
    encoder_units=(1, 1, 1, 1),
    head_width=16,
    identity_split=(2, 3, 3),
    deformation_layers=first_convolutions(5),
    deformation_split=(2, 2, 1),
    arcface_size=16,
    arcface_units=(1, 1, 1, 1),
  )
  config.loss.update(resolution=SIZE, r1_steps=2)
  config.progressive.start_steps, config.progressive.every_steps = 2, 1
  config.train.update(num_steps=4, log_steps=1, sample_steps=2, checkpoint_steps=2)
  config.train.update(train_fields)
  return config


@dataclasses.dataclass
class Start:
  """The state before the first step of a config, and its step over all devices.

  Most of the time of a test of the step is its compilation. All of them take this program, which is
  the one that `loop.train` compiles for the same config, so the suite compiles it once.
  """

  config: ConfigDict
  networks: networks.Networks
  state: Any
  frozen: Any
  compiled: Any

  def step(self, state, batch, frozen=None):
    """Steps from `state`, which stays, with a batch on the host."""
    state = jax.tree.map(jax.numpy.copy, state)  # the step reuses the buffers of its state
    batch = parallel.put_batch(batch, parallel.make_mesh())
    return self.compiled(state, self.frozen if frozen is None else frozen, batch)


@functools.cache
def start(stage='pretrain'):
  """The `Start` of `small_config()`, or of stage 2 on it."""
  config = small_config() if stage == 'pretrain' else finetune_config()
  nets, mesh = networks.build(config.model), parallel.make_mesh()
  _, replicated = parallel.shardings(mesh)
  frozen, _ = load.load(nets, config.weights, config.train.seed)
  shapes, *others = machine.step_arguments(config, nets, mesh)
  step = parallel.jit_step(steps.make_step(nets, config, mesh), shapes, mesh)
  compiled = step.lower(shapes, *others).compile()
  init = jax.jit(lambda key: steps.init_state(nets, config, key), out_shardings=parallel.of(shapes))
  state = init(jax.random.key(config.train.seed))
  return Start(config, nets, state, jax.device_put(frozen, replicated), compiled)


def share_programs(patch):
  """Gives runs of equal networks and configs the same step and sampler: JAX traces them once.

  Tracing takes as long as everything else in a run of a few steps. `patch` is a `MonkeyPatch`.
  """
  make_step = steps.make_step

  def step(networks, config, mesh):
    # All that a step is made of; `train`, `data` and `weights` are the loop's.
    key = networks, str((config.stage, config.loss, config.optim, config.progressive)), mesh
    if key not in _made:
      _made[key] = make_step(networks, config, mesh)
    return _made[key]

  def jit_step(step, state, mesh):
    if step not in _jitted:  # it determines the shapes of its state
      _jitted[step] = jit_step_once(step, state, mesh)
    return _jitted[step]

  jit_step_once = parallel.jit_step
  patch.setattr(steps, 'make_step', step)
  patch.setattr(parallel, 'jit_step', jit_step)
  patch.setattr(loop, 'make_sampler', _make_sampler)


_made, _jitted = {}, {}
_make_sampler = functools.cache(validation.make_sampler)


def finetune_config():
  """Stage 2 of the small model."""
  config = small_config()
  config.stage = 'finetune'
  config.progressive.every_steps = 0
  config.optim.encoder_lr = 1e-3
  with config.unlocked():
    config.loss.weights.feature_reconstruction = 1.0
  return config


def a_state(seed):
  """A state of a few arrays, for checkpoints."""
  rng = np.random.default_rng(seed)
  params = {
    'kernel': jnp.asarray(rng.normal(size=(3, 3, 16, 32)), jnp.float32),
    'odd': jnp.asarray(rng.normal(size=(33, 35)), jnp.float32),
    'bias': jnp.asarray(rng.normal(size=32), jnp.float32),
  }
  return TrainState(
    step=jnp.asarray(3),
    key=jax.random.key(seed),
    encoder={'params': params, 'batch_stats': {}},
    encoder_opt=jax.tree.map(lambda x: 2 * x, params),
    critic={},
    critic_opt=None,
    r1=jnp.zeros(()),
    pool_real=empty_pool(2, 8),
    pool_fake=empty_pool(2, 8),
  )


def random_batch(n):
  rng = np.random.default_rng(0)
  roles = ('source', 'driving', 'other')
  return {role: rng.integers(0, 255, (n, SIZE, SIZE, 3), dtype=np.uint8) for role in roles}


def write_clip(path, seed, frames=6, shape=(SIZE, SIZE)):
  """A blob that wanders over a coloured ground, at an irregular frame rate."""
  rng = np.random.default_rng(seed)
  ground, colour = rng.integers(0, 255, (2, 3))
  y, x = np.mgrid[: shape[0], : shape[1]]
  times = [Fraction(i * i + 20 * i, 600) for i in range(frames)]
  with video.VideoWriter(path, *shape, time_base=Fraction(1, 600)) as writer:
    for i, time in enumerate(times):
      mask = ((y - 12 - i) ** 2 + (x - 10 - seed - i) ** 2 < 60)[..., None]
      writer.write(np.where(mask, colour, ground).astype(np.uint8), time)
  return times
