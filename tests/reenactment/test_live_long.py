"""The memory of a long live session: pytest -m slow, a minute."""

import numpy as np
import outcomes
import pytest
from small import SIZE

from experiments.cost import live

pytestmark = pytest.mark.slow


def test_live_memory_does_not_grow(model):
  """10,000 frames; the measurement of experiments/cost/live.py with the small model."""
  driver = np.random.default_rng(0).integers(0, 256, (25, SIZE, SIZE, 3), np.uint8)
  found = live.memory(model, 10_000, driver)
  assert found['mb_at_the_end'] - found['mb_after_a_tenth'] < 5, found
  outcomes.write(**found)
