"""Compiles a program for a device that is not here, and says what it would take there."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from hybrid_jax.ahead import costs
from hybrid_jax.ahead.devices import BANDWIDTH, GiB, Target
from hybrid_jax.ahead.programs import PROGRAMS
from hybrid_jax.errors import InputError

TOP = 10
# A share of the memory is the runtime's own: its buffers, and what fragmentation leaves unused.
USABLE = 0.95


@dataclasses.dataclass(frozen=True)
class Report:
  """What a compiler says of a program. All of it is an estimate, good for memory and for ratios.

  Attributes:
    arguments, outputs, temporaries: bytes a device; outputs without those that reuse arguments.
    unit: 'cycles' on a TPU, 'bytes' moved on a GPU. cost: their sum. kernels: number of them.
    seconds: the cost at the device's clock, or at its bandwidth; a lower bound on a GPU.
    top: (layer, cost) of the costliest layers.
    compile_s: seconds that compiling took here.
  """

  topology: str
  program: str
  devices: int
  memory: int
  arguments: int
  outputs: int
  temporaries: int
  unit: str
  cost: int
  kernels: int
  seconds: float
  top: tuple[tuple[str, int], ...]
  compile_s: float

  @property
  def needed(self) -> int:
    """Bytes that a device needs."""
    return self.arguments + self.outputs + self.temporaries

  @property
  def fits(self) -> bool:
    """Whether it fits the memory of a device."""
    return self.needed <= USABLE * self.memory

  def lines(self) -> Iterator[str]:
    """Yields the report as text."""
    gib = lambda x: f'{x / GiB:.2f}'  # noqa: E731
    fits = 'fits' if self.fits else 'does NOT fit'
    yield (
      f'{self.topology}, {self.program}: {fits}: {gib(self.needed)} of {gib(self.memory)} GiB a '
      f'device (arguments {gib(self.arguments)}, results {gib(self.outputs)}, temporaries '
      f'{gib(self.temporaries)}); compiled in {self.compile_s:.0f} s'
    )
    if self.unit == 'cycles':
      cost = f'{self.cost / 1e6:.1f} M cycles, {1e3 * self.seconds:.1f} ms'
    else:
      cost = f'{self.cost / 1e9:.2f} GB moved, at least {1e3 * self.seconds:.1f} ms'
    yield f'estimate of the compiler: {cost} in {self.kernels} kernels; by layer:'
    for layer, cost in self.top:
      yield f'{cost / max(self.cost, 1):7.1%}  {layer}'

  def asdict(self) -> dict:
    """Returns it for a JSON file."""
    return dataclasses.asdict(self) | {'fits': self.fits, 'needed': self.needed}


def compiled(
  config: Any,
  target: Target,
  name: str,
  batch: int = 0,
  say: Callable[[str], None] = lambda _: None,
) -> tuple[Report, str]:
  """Compiles a program of PROGRAMS for a target; returns the report, and the program as text.

  Args:
    batch: triplets, frames or drivers; 0 takes the default of the program.
    say: is told what is being done, because compiling takes minutes.

  Raises:
    InputError: the program does not compile for the device.
  """
  say(f'{name}: tracing')
  program, arguments = PROGRAMS[name](config, target.mesh, batch)
  try:
    lowered = program.lower(*arguments)
    say(f'{name}: compiling for {target.name} (minutes at 1024 px)')
    began = time.monotonic()
    done = lowered.compile(compiler_options=dict(target.options))
  except (jax.errors.JaxRuntimeError, ValueError) as error:
    text = ' '.join(str(error).split())[:300]
    raise InputError(f'{name} does not compile for {target.name}: {text}') from error
  took, text, memory = time.monotonic() - began, done.as_text(), done.memory_analysis()
  unit = 'cycles' if target.clock else 'bytes'
  operations = (costs.cycles if target.clock else costs.traffic)(text)
  cost = sum(operation.cost for operation in operations)
  report = Report(
    topology=target.name,
    program=name,
    devices=target.mesh.size,
    memory=target.memory,
    arguments=memory.argument_size_in_bytes,
    outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
    temporaries=memory.temp_size_in_bytes,
    unit=unit,
    cost=cost,
    kernels=len(operations),
    seconds=cost / (target.clock or BANDWIDTH),
    top=tuple(costs.by_layer(operations)[:TOP]),
    compile_s=took,
  )
  return report, text
