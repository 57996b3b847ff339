"""What the converters of public files share: their result, and the checks against a model.

A converter takes the content of a file, as `files.read` returns it, and a label that names the file
in messages. It places every tensor or lists it as not needed, fills every parameter of the model,
and compares all shapes with that model; a tensor without a place is an `InputError`.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.weights import shapes
from hybrid_jax.weights.torch_modules import Module


@dataclasses.dataclass(frozen=True)
class Conversion:
  """The result of a converter.

  Attributes:
    parts: trees of float32 arrays by part ('generator', 'encoder', ...).
    sizes: the sizes of each part, as `sizes` reads them from the tensors.
    zeros: number of arrays that the file does not hold and that are zero.
    left_out: entries of the file that hold tensors and were left out as a whole.
  """

  parts: dict[str, Any]
  sizes: dict[str, dict]
  zeros: int = 0
  left_out: tuple[str, ...] = ()

  def __or__(self, other: 'Conversion') -> 'Conversion':
    return Conversion(
      self.parts | other.parts,
      self.sizes | other.sizes,
      self.zeros + other.zeros,
      self.left_out + other.left_out,
    )


def check_network(
  tree: Any,
  module: Any,
  *inputs: tuple[int, ...],
  label: str,
  only: str = '',
) -> None:
  """Compares `tree` with the variables that `module` creates for float32 inputs of these shapes.

  Args:
    only: pattern of the parameters to compare; '' is all.

  Raises:
    InputError: an array is missing, left over or of another shape, or the sizes make no network.
  """
  # Every module creates its parameters from the shape of its inputs.
  inputs = [jax.ShapeDtypeStruct(shape, np.float32) for shape in inputs]
  try:
    # Shapes alone: no memory is taken, whatever sizes a hostile file asks for.
    expected = jax.eval_shape(module.init, jax.random.key(0), *inputs)
  except (TypeError, ValueError, ZeroDivisionError, IndexError, OverflowError) as error:
    detail = ' '.join(str(error).split())[:150]
    raise InputError(f'{label}: its tensors make no network ({detail})') from error
  # A backbone without linear layers fills a part of its module.
  if only:
    expected = {'params': {k: x for k, x in expected['params'].items() if re.match(only, k)}}
  shapes.check(tree, expected, label, model='the network that its tensors describe')


def require_entries(content: Any, label: str, needed: str, optional: str = '') -> None:
  """Checks that the content of a file is a dict of these entries, named in one string each.

  Raises:
    InputError: an entry is missing or unknown.
  """
  required, allowed = set(needed.split()), set(f'{needed} {optional}'.split())
  # A module saved whole is a dict of its tensors, not of entries.
  if not isinstance(content, Mapping) or isinstance(content, Module):
    raise InputError(f'no {label}: it holds a {type(content).__name__}, not named entries')
  if missing := sorted(required - set(content)):
    raise InputError(f'no {label}: it has no {missing[0]}')
  unknown = [key for key in content if key not in allowed]
  if unknown:
    # A key of a hostile file can be of any length and type.
    names = (ascii(key)[:80] if isinstance(key, str) else type(key).__name__ for key in unknown[:3])
    raise InputError(
      f'{label}: {len(unknown)} entries have no place here, first {", ".join(names)}'
    )


def require_parts(path: str, kind: str, held: Iterable[str], needed: Sequence[str]) -> None:
  """Raises InputError if weights of `kind` that hold the parts `held` lack one of `needed`."""
  held = list(held)
  missing = [part for part in needed if part not in held]
  if missing:
    raise InputError(
      f'{path}: {kind} weights, which hold {", ".join(held) or "nothing"} and no {missing[0]}'
    )
