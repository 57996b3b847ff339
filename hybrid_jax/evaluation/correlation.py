"""Pearson's correlation over time of two clips, channel by channel."""

import array
from collections.abc import Mapping

import numpy as np

# A correlation needs this many moments at which both clips were read, and this share of all.
LEAST, SHARE = 3, 0.5
# A channel that varies less than this, relative to its size, is constant up to rounding errors.
CONSTANT = 1e-6


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
  """Returns the correlation of two signals (t,) over the moments at which both are finite.

  None with fewer moments than `LEAST` or than `SHARE` of all, or if a signal is constant.
  """
  # float64, because a large mean leaves few digits of float32 for the motion.
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  both = np.isfinite(x) & np.isfinite(y)
  if both.sum() < max(LEAST, SHARE * len(x)):
    return None
  spread = []
  for signal in (x[both], y[both]):
    centred = signal - signal.mean()
    length = np.linalg.norm(centred)
    # Relative to the signal's size, so that rounding of a large constant is not taken for motion.
    if length <= CONSTANT * np.linalg.norm(signal):
      return None
    spread.append(centred / length)
  return float(np.clip(spread[0] @ spread[1], -1, 1))


def correlations(
  reference: Mapping[str, np.ndarray], generated: Mapping[str, np.ndarray]
) -> dict[str, float]:
  """Returns the correlation of each channel that both clips have and for which it is defined."""
  found = {
    name: pearson(reference[name], generated[name]) for name in reference if name in generated
  }
  return {name: r for name, r in found.items() if r is not None}


def frozen(reference: Mapping[str, np.ndarray], generated: Mapping[str, np.ndarray]) -> list[str]:
  """Returns the channels that move in the reference but not in the generated clip.

  `correlations` leaves them out, so that a mean over its channels hides this failure.
  """
  moves = lambda x: pearson(x, x) is not None  # noqa: E731
  still = lambda x: np.isfinite(x).sum() >= LEAST and not moves(x)  # noqa: E731
  common = [name for name in reference if name in generated]
  return [name for name in common if moves(reference[name]) and still(generated[name])]


class Channels:
  """Accumulates readings moment by moment, 4 bytes each; NaN stands for a missing one.

  Attributes:
    count: moments. unread: moments without any reading.
  """

  def __init__(self):
    self._columns: dict[str, array.array] = {}
    self.count = self.unread = 0

  def add(self, values: Mapping[str, float]) -> None:
    """Adds the readings of one moment; {} if there is no face."""
    for name in values:
      if name not in self._columns:  # a channel that appears late was missing until now
        self._columns[name] = array.array('f', [np.nan]) * self.count
    for name, column in self._columns.items():
      column.append(values.get(name, np.nan))
    self.count += 1
    self.unread += not values

  def group(self, name: str) -> dict[str, np.ndarray]:
    """Returns the signals (t,) of the channels called 'NAME ...', by channel."""
    columns = self._columns.items()
    return {key: np.array(x) for key, x in columns if key.split(' ')[0] == name}
