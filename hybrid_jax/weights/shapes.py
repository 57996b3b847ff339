"""Compares a tree of weights with the model that it is for."""

from collections.abc import Sequence
from typing import Any

import jax

from hybrid_jax.errors import InputError


def check(
  tree: Any,
  expected: Any,
  path: str,
  extra: Sequence[str] = (),
  model: str = 'the model of this config',
) -> None:
  """Checks that a tree has the arrays of a model, with their shapes.

  Args:
    tree: of arrays.
    expected: tree of arrays or of their shapes.
    path: file or field, for the message.
    extra: names of arrays that the tree may have besides.
    model: what `expected` is, in words.

  Raises:
    InputError: arrays are missing or too many (the first three are named), or one has another
      shape.
  """
  # By path and not by jax.tree.map, whose error for trees of another structure prints both trees.
  ours, theirs = (
    {jax.tree_util.keystr(k, simple=True, separator='/'): x.shape for k, x in leaves}
    for leaves in map(jax.tree_util.tree_leaves_with_path, (expected, tree))
  )
  for keys, what in (
    (
      [k for k in theirs if k not in ours and k not in extra],
      f'has arrays that {model} has not',
    ),
    ([k for k in ours if k not in theirs], f'lacks arrays of {model}'),
  ):
    if keys:
      raise InputError(f'{path}: {what}: {len(keys)}, first {", ".join(keys[:3])}')
  for key, shape in theirs.items():
    if key not in extra and shape != ours[key]:
      raise InputError(f'{path}: {key} is {shape}, {model} has {ours[key]}')
