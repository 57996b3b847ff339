"""Data parallelism: one mesh axis, batches split over it, everything else on every device.

Means over a batch, batch normalisation and gradients are then global: XLA inserts the collectives.
"""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hybrid_jax.errors import InputError


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


def make_mesh(devices: int | None = None) -> Mesh:
  """Returns a mesh with the axis 'data' over the first `devices` devices (all when None)."""
  chosen = jax.devices()[:devices]
  # Auto is named, since the default became Explicit, which rejects some reshapes of the networks.
  return jax.make_mesh((len(chosen),), ('data',), axis_types=(AxisType.Auto,), devices=chosen)


def shardings(mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
  """Returns the shardings of batches (split along axis 0) and of everything else (replicated)."""
  return NamedSharding(mesh, PartitionSpec('data')), NamedSharding(mesh, PartitionSpec())


def jit_step(step: Any, mesh: Mesh) -> Any:
  """Returns step(state, frozen, batch) jitted for the mesh; it reuses the buffers of `state`."""
  split, replicated = shardings(mesh)
  return jax.jit(
    step,
    in_shardings=(replicated, replicated, split),
    out_shardings=(replicated, replicated),
    donate_argnums=0,
  )


def put_batch(batch: Any, mesh: Mesh) -> Any:
  """Returns global arrays, split over the mesh, of this process's part of a batch on the host."""
  split, _ = shardings(mesh)
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), batch)
