"""Comparing a tree of weights with the model it is meant for."""

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
  """Raises InputError for arrays that one side alone has, else at the first of another shape."""
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
