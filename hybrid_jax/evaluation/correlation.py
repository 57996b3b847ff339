"""Do two clips move together: Pearson's correlation over time, channel by channel."""

import array
from collections.abc import Mapping

import numpy as np

# Moments at which both clips were read: so many, and this share of them.
LEAST, SHARE = 3, 0.5
# A channel that moves less than this, relative to its size, is constant but for rounding.
CONSTANT = 1e-6


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
  """Correlation of two signals (t,) where both are finite; None where nothing can be said.

  That is where less than `LEAST` moments are left or `SHARE` of all, or a signal is constant.
  """
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  both = np.isfinite(x) & np.isfinite(y)
  if both.sum() < max(LEAST, SHARE * len(x)):
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


def frozen(reference: Mapping[str, np.ndarray], generated: Mapping[str, np.ndarray]) -> list[str]:
  """Channels that move in the reference, and stand still in the generated clip.

  `correlations` has none of them: a mean over channels does not tell that they were lost.
  """
  moves = lambda x: pearson(x, x) is not None  # noqa: E731
  still = lambda x: np.isfinite(x).sum() >= LEAST and not moves(x)  # noqa: E731
  common = [name for name in reference if name in generated]
  return [name for name in common if moves(reference[name]) and still(generated[name])]


class Channels:
  """Readings that arrive moment by moment, 4 bytes each; NaN where there are none.

  count: moments; unread: those without any reading.
  """

  def __init__(self):
    self._columns: dict[str, array.array] = {}
    self.count = self.unread = 0

  def add(self, values: Mapping[str, float]) -> None:
    """The readings of one moment; {} where nothing was found."""
    for name in values:
      if name not in self._columns:
        self._columns[name] = array.array('f', [np.nan]) * self.count
    for name, column in self._columns.items():
      column.append(values.get(name, np.nan))
    self.count += 1
    self.unread += not values

  def group(self, name: str) -> dict[str, np.ndarray]:
    """(t,) by channel, of the channels called 'NAME ...'."""
    columns = self._columns.items()
    return {key: np.array(x) for key, x in columns if key.split(' ')[0] == name}
