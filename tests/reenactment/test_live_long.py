"""The memory of a long live session: pytest -m slow, some minutes."""

import outcomes
import pytest

from experiments.cost import live

pytestmark = pytest.mark.slow


def test_live_memory_does_not_grow(model):
  """10,000 frames; the measurement of experiments/cost/live.py with the small model."""
  found = live.memory(model, 10_000)
  assert found['mb_at_the_end'] - found['mb_after_a_tenth'] < 5, found
  outcomes.write(**found)
