"""Estimates of the memory and time of a training step, made before the first one runs."""

import os
import time
from typing import Any

import jax
import jax.numpy as jnp

GiB = 2**30


def flops_per_second(size: int = 2048, repeats: int = 3) -> float:
  """Returns the measured FLOP/s of a float32 matrix product (size, size) on the first device.

  At the default precision, as the step runs. The first product is left out: it compiles.
  """
  x = jax.device_put(jnp.ones((size, size)), jax.devices()[0])
  product = jax.jit(jnp.matmul)
  product(x, x).block_until_ready()
  began = time.perf_counter()
  for _ in range(repeats):
    y = product(x, x)
  y.block_until_ready()
  return 2 * size**3 * repeats / (time.perf_counter() - began)


def memory(compiled: Any) -> int | None:
  """Returns the peak bytes per device of a compiled step, or None where XLA reports none.

  Aliased bytes are subtracted: the new state is written into the buffers of the donated old one.
  """
  held = compiled.memory_analysis()
  return held and (
    held.argument_size_in_bytes
    + held.output_size_in_bytes
    - held.alias_size_in_bytes
    + held.temp_size_in_bytes
  )


def available() -> int | None:
  """Returns the usable bytes of the first device, or None where it does not report them.

  A CPU device gets its share of the machine's memory.
  """
  device = jax.devices()[0]
  if device.platform == 'cpu':
    total = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    return total // len(jax.devices())
  return (device.memory_stats() or {}).get('bytes_limit')


def describe(compiled: Any, num_steps: int) -> str:
  """Returns one line: memory of a compiled step by XLA's count, and a lower bound of its time.

  The bound is the number of operations over the speed of a matrix product.
  """
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
  if isinstance(cost, list):  # some backends return one dict per program
    cost = cost[0]
  parts = []
  if memory is not None:
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    parts.append(
      f'{held / GiB:.2f} GiB of arguments and results, '
      f'{memory.temp_size_in_bytes / GiB:.2f} GiB of temporaries a device'
    )
  operations = cost.get('flops', 0.0)
  if operations > 0:
    least = operations / flops_per_second()
    parts.append(
      f'{operations / 1e9:,.1f} GFLOP a step, so at least {least:.3g} s at the speed of a matrix '
      f'product here, and {least * num_steps / 3600:.2g} h for {num_steps:,} steps'
    )
  return 'estimate: ' + ('; '.join(parts) or 'this device reports no analysis of a compiled step')
