"""Fully sharded data parallelism (ZeRO): one mesh axis splits the batch and the state.

Means over a batch, batch normalisation and gradients are global: XLA inserts the collectives. Each
device holds a part of every large array of the state, gathers the parameters for a step, and
updates its own part. Frozen networks are on every device.
"""

import math
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hybrid_jax.errors import InputError

SMALL = 1024  # elements; splitting a smaller array costs more time than it saves memory


def join(coordinator: str, processes: int | None, process: int | None) -> None:
  """Joins this process to a run of several; call it before anything else uses a device.

  Args:
    coordinator: HOST:PORT of process 0; '' is a run of one process, 'auto' asks the cluster.
    processes, process: number of processes, and the number of this one.

  Raises:
    InputError: incomplete arguments, or no such cluster.
  """
  if not coordinator:
    if processes is not None or process is not None:
      raise InputError('--processes and --process need --coordinator=HOST:PORT')
    return
  try:
    if coordinator == 'auto':
      jax.distributed.initialize()
    elif processes is None or process is None or process >= processes:
      raise InputError('--coordinator=HOST:PORT needs --processes=N and --process=0 to N-1')
    else:
      jax.distributed.initialize(coordinator, processes, process)
  except (RuntimeError, ValueError) as error:
    raise InputError(f'--coordinator={coordinator}: {str(error).splitlines()[0]}') from error


def wait_for_all(name: str) -> None:
  """Waits up to an hour until every process of the run is here; no device takes part.

  On CPUs the first collective fails where one process comes to it 30 seconds before another, as
  after compilations that take different times.
  """
  import orbax.checkpoint as ocp  # here: it takes a second, and evaluation imports this module

  ocp.multihost.get_barrier_sync_fn()(key=name, timeout_ms=3_600_000)


def make_mesh(devices: int | None = None) -> Mesh:
  """Returns a mesh with the axis 'data' over the first `devices` devices (all when None)."""
  chosen = jax.devices()[:devices]
  # Auto is named, since the default became Explicit, which rejects some reshapes of the networks.
  return jax.make_mesh((len(chosen),), ('data',), axis_types=(AxisType.Auto,), devices=chosen)


def shardings(mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
  """Returns the shardings of batches (split along axis 0) and of frozen networks (replicated)."""
  return NamedSharding(mesh, PartitionSpec('data')), NamedSharding(mesh, PartitionSpec())


def partition(shape: tuple[int, ...], devices: int) -> PartitionSpec:
  """Returns how an array of the state is split: along its largest axis that `devices` divides.

  Of equal axes the last one. Arrays below SMALL elements, and those without such an axis, are whole
  on every device.
  """
  axes = [k for k, n in enumerate(shape) if n % devices == 0]
  if not axes or math.prod(shape) < SMALL:
    return PartitionSpec()
  largest = max(axes, key=lambda k: (shape[k], k))
  return PartitionSpec(*[None] * largest, 'data')


def sharded(tree: Any, mesh: Mesh) -> Any:
  """Returns the shapes of a tree of the state, each with its sharding by `partition`."""

  def with_sharding(x):
    sharding = NamedSharding(mesh, partition(x.shape, mesh.size))
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

  return jax.tree.map(with_sharding, tree)


def scatter(tree: Any, mesh: Mesh) -> Any:
  """Inside a program: leaves each device its part of every array, by `partition`."""
  return jax.lax.with_sharding_constraint(tree, of(sharded(tree, mesh)))


def gather(tree: Any, mesh: Mesh) -> Any:
  """Inside a program: gives every device the whole arrays.

  Without it XLA would compute layers in the parts that their parameters are stored in.
  """
  _, replicated = shardings(mesh)
  return jax.lax.with_sharding_constraint(tree, replicated)


def of(tree: Any) -> Any:
  """Returns the sharding of each array or shape of a tree."""
  return jax.tree.map(lambda x: x.sharding, tree)


def bytes_per_device(tree: Any) -> int:
  """Returns the bytes that the first device holds of arrays, or of shapes with shardings."""
  return sum(
    math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
  )


def jit_step(step: Any, state: Any, mesh: Mesh) -> Any:
  """Returns step(state, frozen, batch) jitted for the mesh; it reuses the buffers of its state.

  `state` gives the shapes: the state is split by `partition` before and after the step.
  """
  (split, replicated), parts = shardings(mesh), of(sharded(state, mesh))
  return jax.jit(
    step,
    in_shardings=(parts, replicated, split),
    out_shardings=(parts, replicated),
    donate_argnums=0,
  )


def split(tree: Any, count: int, mesh: Mesh) -> Any:
  """Inside a program: maps a batch (n, ...) to its `count` parts (count, n / count, ...).

  Part k takes the samples k, count + k, ...: every device has its share of each part, and none
  sends samples to another.
  """
  sharding = NamedSharding(mesh, PartitionSpec(None, 'data'))
  parts = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), tree)
  return jax.lax.with_sharding_constraint(parts, sharding)


def joined(parts: jax.Array) -> jax.Array:
  """Returns the batch of an array of parts: the inverse of `split`."""
  return parts.swapaxes(0, 1).reshape(-1, *parts.shape[2:])


def put_whole(tree: Any, mesh: Mesh) -> Any:
  """Puts arrays that every process holds alike on every device."""
  if jax.process_count() > 1:  # an array on a device of this process cannot be sent to the others
    tree = jax.device_get(tree)
  return jax.device_put(tree, shardings(mesh)[1])


def put_batch(batch: Any, mesh: Mesh) -> Any:
  """Returns global arrays, split over the mesh, of this process's part of a batch on the host."""
  split, _ = shardings(mesh)
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), batch)
