"""Reads the text of a compiled program: cycles (TPU) or bytes moved (GPU), and their layers."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterable

BYTES = {
  'f64': 8, 's64': 8, 'u64': 8, 'f32': 4, 's32': 4, 'u32': 4, 'bf16': 2, 'f16': 2, 's16': 2,
  'u16': 2, 's8': 1, 'u8': 1, 'pred': 1,
}  # fmt: skip
_SHAPE = re.compile(rf'\b({"|".join(BYTES)})\[([\d,]*)\]')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_SOURCE = re.compile(r'op_name="([^"]*)"')
_KERNEL = re.compile(r'\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)')
# A library's memory to work in, the last result of its call: allocated, and hardly ever used.
_SCRATCH = re.compile(r', [su]8\[\d+\]\{0\}\)(?= custom-call)')
# They move nothing.
_FREE = {'parameter', 'constant', 'get-tuple-element', 'tuple', 'bitcast'}
# Parts of an operation's name that name no layer: what JAX wraps functions in.
_WRAPPERS = re.compile(
  r'^(jit\(.*\)|closed_call|while|body|cond|branch_\d+_fun|checkpoint|remat.*)$'
)


@dataclasses.dataclass(frozen=True)
class Operation:
  """One operation: cycles or bytes, its kind, and the layer that it comes from."""

  cost: int
  kind: str
  layer: str


def cycles(text: str) -> list[Operation]:
  """Returns the operations that the TPU's compiler estimates cycles for.

  Those inside of a loop are counted once.
  """
  found = []
  for line in text.splitlines():
    if cost := _CYCLES.search(line):
      name = line.split('=')[0].strip().lstrip('%').removeprefix('ROOT %')
      found.append(Operation(int(cost[1]), re.sub(r'[.\d]+$', '', name), _layer(line)))
  return found


def traffic(text: str) -> list[Operation]:
  """Returns the kernels of a GPU's program with the bytes that they read and write at least."""
  entry = text[text.index('ENTRY ') :]
  entry, sizes, found = entry[: entry.index('\n}')], {}, []
  entry = _SCRATCH.sub(')', entry)
  for line in entry.splitlines()[1:]:
    if not (kernel := _KERNEL.match(line)):
      continue
    name, shape, kind, arguments = kernel.groups()
    sizes[name] = _size(shape)
    if kind not in _FREE:
      read = sum(sizes.get(a.strip().lstrip('%'), 0) for a in arguments.split(','))
      found.append(Operation(sizes[name] + read, kind, _layer(line)))
  return found


def _size(shapes: str) -> int:
  """Returns the bytes of the arrays that a piece of text names."""
  numbers = ((kind, filter(None, sides.split(','))) for kind, sides in _SHAPE.findall(shapes))
  return sum(BYTES[kind] * math.prod(map(int, sides)) for kind, sides in numbers)


def _layer(line: str) -> str:
  found = _SOURCE.search(line)
  return layer(found[1]) if found else 'the compiler'


def layer(source: str) -> str:
  """Returns the layer of an operation's name in JAX, as 'generator/layers_3/conv, backward'."""
  parts, backward = [], 'transpose(' in source
  for part in source.split('/'):
    # transpose(jvp(Generator)) is the backward pass of Generator.
    while wrapped := re.fullmatch(r'(?:transpose|jvp|vmap|pjit)\((.*)\)', part):
      part = wrapped[1]
    if part and not _WRAPPERS.match(part):
      parts.append(part)
  return '/'.join(parts) + (', backward' if backward else '')


def by_layer(operations: Iterable[Operation]) -> list[tuple[str, int]]:
  """Returns (layer, its cost), the costliest first."""
  total: collections.Counter[str] = collections.Counter()
  for operation in operations:
    total[operation.layer] += operation.cost
  return total.most_common()
