"""Which rows are whose: every n-th row from the i-th on, for process i of n."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

import jax

from hybrid_jax.errors import InputError
from hybrid_jax.training import parallel

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Shard:
  """Process `index` (from 0) of `count`; `told` is who said so."""

  index: int
  count: int
  told: str

  def of(self, rows: Sequence[T]) -> Sequence[T]:
    return rows[self.index :: self.count]


def parse(text: str) -> Shard:
  """'i/n', i from 0 to n - 1. Raises InputError where it is not."""
  found = re.fullmatch(r'(\d+)/(\d+)', text)
  if not found or not int(found[1]) < int(found[2]):
    raise InputError(f'--shard={text}: give i/n, i from 0 to n - 1')
  return Shard(int(found[1]), int(found[2]), '--shard')


def of_slurm(environment: Mapping[str, str]) -> Shard | None:
  """From the variables of an array of jobs, of the tasks of `srun`, or of both; None outside.

  Raises:
    InputError: an array whose numbers are not evenly spaced.
  """
  number = lambda name, default: int(environment.get(f'SLURM_{name}') or default)  # noqa: E731
  index, count = 0, 1
  if 'SLURM_ARRAY_TASK_ID' in environment:
    count, step = number('ARRAY_TASK_COUNT', 1), number('ARRAY_TASK_STEP', 1)
    index, rest = divmod(number('ARRAY_TASK_ID', 0) - number('ARRAY_TASK_MIN', 0), step)
    if rest or not 0 <= index < count:
      raise InputError('SLURM: the numbers of the array have gaps; give --shard=i/n')
  # Of the step: SLURM_NTASKS is also set in a batch script, which is one process.
  tasks = number('STEP_NUM_TASKS', 1)
  if tasks > 1:
    index, count = index * tasks + number('PROCID', 0), count * tasks
  return Shard(index, count, 'SLURM') if count > 1 else None


def choose(
  text: str,
  coordinator: str,
  processes: int | None,
  process: int | None,
  environment: Mapping[str, str],
) -> Shard:
  """From --shard, from jax.distributed (see `parallel.join`), from SLURM; else all rows are ours.

  Raises:
    InputError: these contradict each other, or are wrong.
  """
  if text and coordinator:
    raise InputError('--shard and --coordinator: give one of them')
  if text:
    return parse(text)
  parallel.join(coordinator, processes, process)
  if coordinator:
    found = Shard(jax.process_index(), jax.process_count(), 'jax.distributed')
    jax.distributed.shutdown()  # it told the number; from here on nobody waits for another
    return found
  return of_slurm(environment) or Shard(0, 1, 'alone')


def use_device(shard: Shard) -> jax.Device:
  """Makes one of this machine's devices the default, in turn by the number of the process."""
  devices = jax.local_devices()
  device = devices[shard.index % len(devices)]
  jax.config.update('jax_default_device', device)
  return device
