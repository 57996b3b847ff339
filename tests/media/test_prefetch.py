"""Items made in a thread: their order, errors and end."""

import contextlib
import itertools

import pytest

from hybrid_jax.media.prefetch import prefetch


def test_items_come_in_order_and_errors_are_raised():
  assert list(prefetch(range(100), 3)) == list(range(100))

  def broken():
    yield 1
    raise KeyError('midway')

  items = prefetch(broken(), 3)
  assert next(items) == 1
  with pytest.raises(KeyError, match='midway'):
    next(items)
  with contextlib.closing(prefetch(itertools.count(), 3)) as items:
    assert next(items) == 0  # and the thread ends, or closing would wait for ever
