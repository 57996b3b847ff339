"""Division of rows among processes: process i of n takes every n-th row, starting at row i.

The division needs no communication: each process reads the same table and picks its own rows.
Interleaved and not in blocks, since tables are often sorted, and the long clips then lie together.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

import jax

from hybrid_jax.errors import InputError

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Shard:
  """The rows of process `index` (from 0) of `count`; `origin` names the source of these numbers."""

  index: int
  count: int
  origin: str

  def of(self, rows: Sequence[T]) -> Sequence[T]:
    """Returns the rows of this process."""
    return rows[self.index :: self.count]


def parse(text: str) -> Shard:
  """Reads 'i/n', i from 0 to n - 1; raises InputError for any other text."""
  match = re.fullmatch(r'(\d+)/(\d+)', text)
  if not match or not int(match[1]) < int(match[2]):
    raise InputError(f'--shard={text}: give i/n, i from 0 to n - 1')
  return Shard(int(match[1]), int(match[2]), '--shard')


def from_slurm(environment: Mapping[str, str]) -> Shard | None:
  """Reads the variables of a SLURM job array, of the tasks of `srun`, or of both; None outside.

  Raises:
    InputError: the numbers of the array are not evenly spaced.
  """

  def number(name: str, default: int) -> int:
    return int(environment.get(f'SLURM_{name}') or default)

  index, count = 0, 1
  if 'SLURM_ARRAY_TASK_ID' in environment:
    count, step = number('ARRAY_TASK_COUNT', 1), number('ARRAY_TASK_STEP', 1)
    # The count is that of the tasks which exist. In an array like 0,1,5 the last index is beyond
    # it, and some rows would have no process.
    index, rest = divmod(number('ARRAY_TASK_ID', 0) - number('ARRAY_TASK_MIN', 0), step)
    if rest or not 0 <= index < count:
      raise InputError('SLURM: the numbers of the array have gaps; give --shard=i/n')
  # Not SLURM_NTASKS, which is also set in a batch script, and that is a single process.
  tasks = number('STEP_NUM_TASKS', 1)
  if tasks > 1:
    # An array of jobs of several tasks each: both divisions at once.
    index, count = index * tasks + number('PROCID', 0), count * tasks
  return Shard(index, count, 'SLURM') if count > 1 else None


def choose(text: str, environment: Mapping[str, str]) -> Shard:
  """Returns the shard of --shard=`text`, else of SLURM, else one of all rows.

  Raises:
    InputError: the text or SLURM's variables cannot be used.
  """
  return parse(text) if text else from_slurm(environment) or Shard(0, 1, 'the only process')


def use_device(shard: Shard) -> jax.Device:
  """Makes one of this machine's devices the default, in turn by the number of the process."""
  # By the number in the whole job: where SLURM gives each task its own device, there is one to
  # choose. This also starts JAX, so that a broken driver is an error before any row.
  devices = jax.local_devices()
  device = devices[shard.index % len(devices)]
  jax.config.update('jax_default_device', device)
  return device
