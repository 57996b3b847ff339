"""Data parallelism: one mesh axis, batches split over it, everything else on every device."""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hybrid_jax.errors import InputError


def join(coordinator: str, processes: int | None, process: int | None) -> None:
  """Joins several processes to one run; '' is a run of one, 'auto' asks the cluster.

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
  """A one-dimensional mesh named 'data' over the first `devices` devices (all when None)."""
  chosen = jax.devices()[:devices]
  return jax.make_mesh((len(chosen),), ('data',), axis_types=(AxisType.Auto,), devices=chosen)


def shardings(mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
  """(of batches: split along the first axis, of state and frozen weights: replicated)."""
  return NamedSharding(mesh, PartitionSpec('data')), NamedSharding(mesh, PartitionSpec())


def jit_step(step: Any, mesh: Mesh) -> Any:
  """step(state, frozen, batch) compiled for the mesh; the state's buffers are reused."""
  split, replicated = shardings(mesh)
  return jax.jit(
    step,
    in_shardings=(replicated, replicated, split),
    out_shardings=(replicated, replicated),
    donate_argnums=0,
  )


def put_batch(batch: Any, mesh: Mesh) -> Any:
  """Host arrays of this process -> global arrays split over the mesh."""
  split, _ = shardings(mesh)
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), batch)
