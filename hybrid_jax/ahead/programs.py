"""The programs that users run, with their arguments as shapes, for a mesh of any devices."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from hybrid_jax.method import cma, networks
from hybrid_jax.models.ops import to_uint8
from hybrid_jax.reenactment.model import Programs
from hybrid_jax.training import parallel, steps
from hybrid_jax.training.preflight import machine

BATCH = 8  # pictures a device draws at once
Program = tuple[Any, tuple]  # a jitted function and its arguments


def train(config: Any, mesh: Mesh, batch: int) -> Program:
  """Returns the step of the config's stage on `batch` triplets (0: the config's)."""
  if batch:
    config = config.copy_and_resolve_references()
    config.data.batch_size = batch
  nets = networks.build(config.model, platform(mesh))
  state, *others = machine.step_arguments(config, nets, mesh)
  step = parallel.jit_step(steps.make_step(nets, config, mesh), state, mesh)
  return step, (state, *others)


def generator(config: Any, mesh: Mesh, batch: int) -> Program:
  """Returns the drawing of `batch` pictures a device from W+ latents, to 8 bits."""
  nets = networks.build(config.model, platform(mesh))
  split, replicated = parallel.shardings(mesh)
  G = _generator(nets)
  n = (batch or BATCH) * mesh.size
  W = jax.ShapeDtypeStruct((n, nets.hybrid.encoder.num_ws, config.model.w_dim), 'float32')

  def draw(G, W):
    return to_uint8(nets.hybrid.reenact(G, W, None))

  return jax.jit(draw), (placed(G, replicated), placed(W, split))


def reenact(config: Any, mesh: Mesh, batch: int) -> Program:
  """Returns the re-enactment of `batch` frames a device: deformation, then synthesis."""
  nets = networks.build(config.model, platform(mesh))
  split, replicated = parallel.shardings(mesh)
  programs, size = Programs(nets), nets.frame_size
  E = jax.eval_shape(lambda key: networks.init_encoder(nets, key), jax.random.key(0))
  W = jax.ShapeDtypeStruct((1, nets.hybrid.encoder.num_ws, config.model.w_dim), 'float32')
  frames = jax.ShapeDtypeStruct(((batch or BATCH) * mesh.size, size, size, 3), 'uint8')

  def both(E, G, W, frames):
    F, _ = programs.deformation(E, frames)
    return programs.synthesis(G, W, F)

  whole = placed((E, _generator(nets), W), replicated)
  return jax.jit(both), (*whole, placed(frames, split))


def cma_step(config: Any, mesh: Mesh, batch: int) -> Program:
  """Returns a step of CMA on one device, with `batch` drivers (0: one), at full resolution."""
  model = config.model.copy_and_resolve_references()
  model.polyphase_from = 0  # as `reenactment.tuning` builds them
  nets = networks.build(model, platform(mesh))
  tuner = cma.Tuner(nets, cma.Options(drivers=batch or 1))

  def start(key, frames):
    keys = jax.random.split(key)
    frozen, E = networks.random_frozen(nets, keys[0]), networks.init_encoder(nets, keys[1])
    job = tuner.job(frozen['generator'], E, {'lpips': frozen['lpips']}, frames[0], frames[1:])
    return tuner.start(job), job

  size = model.resolution
  frames = jax.ShapeDtypeStruct((1 + tuner.options.pool, size, size, 3), 'uint8')
  shapes = jax.eval_shape(start, jax.random.key(0), frames)
  one = Mesh(mesh.devices.reshape(-1)[:1], mesh.axis_names, axis_types=mesh.axis_types)
  return tuner.step, placed(shapes, parallel.shardings(one)[1])


PROGRAMS: dict[str, Callable[[Any, Mesh, int], Program]] = {
  'train': train, 'reenact': reenact, 'cma': cma_step, 'generator': generator
}  # fmt: skip


def platform(mesh: Mesh) -> str:
  """Returns the platform of the devices of a mesh: 'tpu', 'gpu' or 'cpu'."""
  return mesh.devices.flat[0].platform


def _generator(nets: networks.Networks) -> Any:
  frozen = jax.eval_shape(lambda key: networks.random_frozen(nets, key), jax.random.key(0))
  return frozen['generator']


def placed(tree: Any, sharding: NamedSharding) -> Any:
  """Returns a tree of shapes with this sharding."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
