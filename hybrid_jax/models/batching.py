"""Batches of one size: a compiled program is made for one shape, and any other shape recompiles it.

The last batch is padded by repeating its last item, not with zeros: zeros could produce NaN in a
normalisation, or make a batch that is not finite where every real item is.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np


def batched(items: Iterable, size: int) -> Iterator[tuple]:
  """Yields tuples of `size` items, the last one shorter: `itertools.batched` of Python 3.12."""
  iterator = iter(items)
  while chunk := tuple(itertools.islice(iterator, size)):
    yield chunk


def pad(rows: np.ndarray | Sequence[np.ndarray], size: int) -> np.ndarray:
  """Returns `rows` (n, ...), 1 <= n <= `size`, as (size, ...): the last row is repeated."""
  rows = np.asarray(rows)
  if len(rows) == size:
    return rows
  return np.concatenate((rows, np.repeat(rows[-1:], size - len(rows), 0)))


def run_in_batches(
  step: Callable[..., np.ndarray], *arrays: np.ndarray | Sequence[np.ndarray], size: int
) -> np.ndarray:
  """Computes `step(*arrays)` (n, ...) from arrays (n, ...) of any n >= 1, `size` rows at a time.

  `step` sees batches of exactly `size` rows and must treat rows independently of each other.
  """
  results = []
  for start in range(0, len(arrays[0]), size):
    batch = [array[start : start + size] for array in arrays]
    count = len(batch[0])
    results.append(np.asarray(step(*(pad(rows, size) for rows in batch)))[:count])
  return np.concatenate(results)
