"""The pool of past latents against a plain loop, and the progressive schedule."""

import types

import jax
import jax.numpy as jnp
import numpy as np

from hybrid_jax.training.state import empty_pool, query_pool
from hybrid_jax.training.steps import active_rows


def slow_query(stored, w, key, size):
  """One vector at a time on a Python list, with the same random draws."""
  returned = []
  for vector, k in zip(w, jax.random.split(key, len(w)), strict=True):
    key_swap, key_index = jax.random.split(k)
    if len(stored) < size:
      stored.append(vector)
      returned.append(vector)
    elif jax.random.bernoulli(key_swap):
      index = int(jax.random.randint(key_index, (), 0, size))
      returned.append(stored[index])
      stored[index] = vector
    else:
      returned.append(vector)
  return np.stack(returned)


def test_pool_against_a_list():
  size, pool, stored = 5, empty_pool(5, 3), []
  swapped = 0
  for step in range(12):
    key = jax.random.key(step)
    w = np.asarray(jax.random.normal(jax.random.fold_in(key, 1), (4, 3)))
    actual, pool = jax.jit(query_pool)(pool, w, key)
    expected = slow_query(stored, w, key, size)
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(pool.latents[: len(stored)], np.stack(stored))
    assert int(pool.count) == len(stored)
    swapped += int(np.any(np.asarray(actual) != w, axis=1).sum())
  assert 8 <= swapped <= 36  # about half of the 43 queries of a full pool


def test_pool_of_size_zero_passes_through():
  w = jnp.ones((2, 3))
  actual, _ = query_pool(empty_pool(0, 3), w, jax.random.key(0))
  assert actual is w


def test_progressive_rows_as_in_e4e():
  start, every, num_ws = 20_000, 2_000, 18
  progressive = types.SimpleNamespace(start_steps=start, every_steps=every)
  # e4e switches stage i on at steps[i] = 0, start, start + every, ...
  steps = [0] + [start + i * every for i in range(num_ws - 1)]
  for step in (0, 1, 19_999, 20_000, 21_999, 22_000, 51_999, 52_000, 200_000):
    expected = sum(step >= s for s in steps)
    assert int(active_rows(jnp.asarray(step), progressive, num_ws)) == expected
  progressive.every_steps = 0
  assert int(active_rows(jnp.asarray(0), progressive, num_ws)) == num_ws
