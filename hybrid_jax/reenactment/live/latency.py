"""Figures of a session: latency, frames, and the time of each stage. Memory is constant."""

import collections
import contextlib
import time
from collections.abc import Iterator

import numpy as np

# Bins of equal ratio from 0.1 ms to 100 s: quantiles are exact to 0.5 %.
_LEAST, _RATIO, _BINS = 1e-4, 1.01, 1390


class Latency:
  """Median, 95 % and worst of durations in seconds, without keeping each."""

  def __init__(self):
    self._counts, self.worst = np.zeros(_BINS, np.int64), 0.0

  def add(self, seconds: float) -> None:
    """Counts a duration."""
    place = np.log(max(seconds, _LEAST) / _LEAST) / np.log(_RATIO)
    self._counts[min(int(place), _BINS - 1)] += 1
    self.worst = max(self.worst, seconds)

  def quantile(self, share: float) -> float:
    """Returns the duration that a share of all does not exceed, seconds; 0 without any."""
    total = self._counts.sum()
    if not total:
      return 0.0
    place = int(np.searchsorted(np.cumsum(self._counts), share * total))
    return min(_LEAST * _RATIO ** (place + 0.5), self.worst)

  def figures(self) -> dict[str, float]:
    """Returns median, 95 % and worst, milliseconds."""
    return {
      'latency_median_ms': round(1e3 * self.quantile(0.5), 2),
      'latency_95_ms': round(1e3 * self.quantile(0.95), 2),
      'latency_worst_ms': round(1e3 * self.worst, 2),
    }

  def __str__(self) -> str:
    median, most = self.quantile(0.5), self.quantile(0.95)
    return f'latency {1e3 * median:.0f} ms (95 %: {1e3 * most:.0f}, worst: {1e3 * self.worst:.0f})'


class Stages:
  """Sums the seconds of each stage of a frame."""

  def __init__(self):
    self.seconds: collections.Counter[str] = collections.Counter()

  @contextlib.contextmanager
  def __call__(self, name: str) -> Iterator[None]:
    """Adds the time of the block to a stage."""
    began = time.perf_counter()
    try:
      yield
    finally:
      self.seconds[name] += time.perf_counter() - began

  def shares(self) -> dict[str, float]:
    """Returns the share of each stage in the time of all."""
    total = sum(self.seconds.values()) or 1.0
    return {name: round(seconds / total, 4) for name, seconds in self.seconds.most_common()}
