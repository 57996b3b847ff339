"""Batches of one size: every row once, in order, and no other shape for the step."""

import numpy as np
import pytest

from hybrid_jax.models import batching


def test_batched():
  assert list(batching.batched(range(5), 2)) == [(0, 1), (2, 3), (4,)]
  assert list(batching.batched([], 3)) == []


@pytest.mark.parametrize('n', [1, 3, 4, 7, 8])
def test_run_in_batches(n):
  x, y = np.arange(2 * n).reshape(n, 2), np.arange(n) * 10.0
  shapes = set()

  def step(a, b):
    shapes.add((a.shape, b.shape))
    assert a[-1].sum() > 0 or n == 1  # padded with the last row, not with zeros
    return a.sum(-1) + b

  np.testing.assert_array_equal(batching.run_in_batches(step, x, y, size=4), x.sum(-1) + y)
  np.testing.assert_array_equal(batching.run_in_batches(step, list(x), y, size=4), x.sum(-1) + y)
  assert shapes == {((4, 2), (4,))}


def test_padding_repeats_the_last_row():
  np.testing.assert_array_equal(batching.pad(np.array([[1, 2], [3, 4]]), 4)[2:], [[3, 4], [3, 4]])
  rows = np.ones((3, 2))
  assert batching.pad(rows, 3) is rows
