"""Checks of the machine: codecs, devices, and the memory that the training step takes."""

import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from hybrid_jax import environment
from hybrid_jax.errors import InputError
from hybrid_jax.media import containers
from hybrid_jax.method import networks
from hybrid_jax.training import estimate, parallel, steps, triplets
from hybrid_jax.training.preflight.check import Check
from hybrid_jax.weights import shipped

GiB = 2**30
ENOUGH = 0.9  # of a device's memory; above it, fragmentation can make an allocation fail


def check_codecs() -> Check:
  """Checks that PyAV was built with every codec that a run reads or writes."""
  missing = containers.lacking_codecs()
  if missing:
    return Check('missing', 'codecs', f'{", ".join(missing)}; install PyAV from its own wheels')
  return Check('ok', 'codecs', f'{", ".join(containers.CODECS)}: read and written')


def check_devices(config: Any) -> Check:
  """Checks that a batch can be split over the devices, and that JAX sees the machine's own."""
  devices, batch, parts = jax.devices(), config.data.batch_size, config.optim.micro_batches
  kind = devices[0].device_kind
  if batch % (parts * len(devices)):
    message = f'config.data.batch_size={batch} must be divisible by the {len(devices)} devices'
    times = f', times config.optim.micro_batches={parts}' if parts > 1 else ''
    return Check('wrong', 'devices', f'{message} of kind {kind}{times}')
  unused = environment.missing_accelerator()
  message = f'{len(devices)} of kind {kind}'
  return Check('warning' if unused else 'ok', 'devices', '; '.join(filter(None, (message, unused))))


def check_step(config: Any, nets: Any, compile_step: bool) -> Iterator[Check]:
  """Compiles the training step from shapes alone, and checks the device memory it needs.

  The program is that of the run, which then finds it in the compilation cache.
  """
  if config.data.batch_size % (jax.device_count() * config.optim.micro_batches):
    return  # `check_devices` has reported it, and the step would not compile
  mesh = parallel.make_mesh()
  try:
    arguments = step_arguments(config, nets, mesh)
  except InputError as error:
    yield Check('missing', 'step', str(error))
    return
  if not compile_step:
    yield check_memory(parallel.bytes_per_device(arguments), False)
    return
  step = parallel.jit_step(steps.make_step(nets, config, mesh), arguments[0], mesh)
  began = time.monotonic()
  try:
    compiled = step.lower(*arguments).compile()
  except jax.errors.JaxRuntimeError as error:
    yield Check('wrong', 'step', f'does not compile: {str(error)[:300]}')
    return
  message = f'compiles in {time.monotonic() - began:.0f} s'
  yield Check('ok', 'step', f'{message}; {estimate.describe(compiled, config.train.num_steps)}')
  yield check_memory(estimate.memory(compiled), True)


def step_arguments(config: Any, nets: Any, mesh: Mesh) -> tuple[Any, Any, Any]:
  """Returns the (state, frozen, batch) of the training step as shapes, for a mesh."""
  key, source = jax.random.key(0), config.weights.e4e
  state = jax.eval_shape(lambda key: steps.init_state(nets, config, key), key)
  if source == 'shipped':
    frozen = jax.eval_shape(shipped.frozen)
  else:
    frozen = jax.eval_shape(lambda key: networks.random_frozen(nets, key), key)
  if source not in ('shipped', 'random'):  # an e4e file stores the average once per W+ row
    rows = (nets.hybrid.encoder.num_ws, config.model.w_dim)
    frozen['generator']['w_avg'] = jax.ShapeDtypeStruct(rows, 'float32')
  # With the shardings of the run: with others the program would not be found in the cache.
  split, replicated = parallel.shardings(mesh)

  def with_sharding(sharding, tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

  sizes = triplets.shapes(config.model.frame_size, config.stage == 'finetune')
  n = config.data.batch_size
  batch = {name: jax.ShapeDtypeStruct((n, *size), 'uint8') for name, size in sizes.items()}
  return (
    parallel.sharded(state, mesh),
    with_sharding(replicated, frozen),
    with_sharding(split, batch),
  )


def check_memory(needed: int | None, whole: bool) -> Check:
  """Compares the bytes needed per device with those of a device.

  Args:
    needed: bytes, or None where the compiler reports none.
    whole: False if `needed` counts the arguments of the step only.
  """
  available = estimate.available()
  if needed is None or available is None:
    return Check('warning', 'memory', 'this device does not report its memory')
  message = f'{needed / GiB:.2f} GiB of the {available / GiB:.2f} GiB of a device'
  message = message if whole else f'at least {message}, for state and frozen networks'
  if needed > available:
    message += '; raise config.optim.micro_batches, or set config.model.half_dtype and .remat_from'
  status = 'wrong' if needed > available else 'warning' if needed > ENOUGH * available else 'ok'
  return Check(status, 'memory', message)
