"""Do two clips move together: Pearson's correlation over time, channel by channel."""

from collections.abc import Mapping

import numpy as np

LEAST = 3  # moments at which both clips were read
# A channel that moves less than this, relative to its size, is constant but for rounding.
CONSTANT = 1e-6


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
  """Correlation of two signals (t,) where both are finite; None where nothing can be said.

  That is where less than `LEAST` moments are left, or a signal is constant.
  """
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  both = np.isfinite(x) & np.isfinite(y)
  if both.sum() < LEAST:
    return None
  spread = []
  for signal in (x[both], y[both]):
    centred = signal - signal.mean()
    length = np.linalg.norm(centred)
    if length <= CONSTANT * np.linalg.norm(signal):
      return None
    spread.append(centred / length)
  return float(np.clip(spread[0] @ spread[1], -1, 1))


def correlations(
  reference: Mapping[str, np.ndarray], generated: Mapping[str, np.ndarray]
) -> dict[str, float]:
  """By channel that both clips have and in which something can be said."""
  found = {
    name: pearson(reference[name], generated[name]) for name in reference if name in generated
  }
  return {name: r for name, r in found.items() if r is not None}
