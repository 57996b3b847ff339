"""The One Euro filter (Casiez, Roussel and Vogel 2012): steady at rest, prompt in motion."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Cutoffs:
  """Parameters of the filter.

  Attributes:
    least: cutoff at rest, Hz; lower is steadier, 0 turns the filter off.
    slope: added to the cutoff for each unit of speed, Hz; higher lags less.
    speed: cutoff of the smoothing of the speed, Hz.
  """

  least: float = 1.0
  slope: float = 8.0
  speed: float = 1.0


class OneEuro:
  """Filters vectors (d,), each component by itself."""

  def __init__(self, cutoffs: Cutoffs):
    self._cutoffs = cutoffs
    self.forget()

  @property
  def on(self) -> bool:
    """Whether it filters at all."""
    return self._cutoffs.least > 0

  def forget(self) -> None:
    """Begins anew with the next value."""
    self._time, self._value, self._speed = None, None, None

  def __call__(self, value: np.ndarray, time: float) -> np.ndarray:
    """Returns the filtered value at a time in seconds; times increase."""
    if self._time is None or time <= self._time:
      self._time, self._value, self._speed = time, value, np.zeros_like(value)
      return value
    step = time - self._time
    # The paper's speed is measured from the last filtered value, not from the last given one.
    speed = (value - self._value) / step
    self._speed = self._speed + _weight(self._cutoffs.speed, step) * (speed - self._speed)
    cutoff = self._cutoffs.least + self._cutoffs.slope * np.abs(self._speed)
    self._value = self._value + _weight(cutoff, step) * (value - self._value)
    self._time = time
    return self._value


def _weight(cutoff: np.ndarray | float, step: float) -> np.ndarray | float:
  """Weight of the new value in exponential smoothing with a cutoff in Hz, `step` seconds apart."""
  return 1 / (1 + 1 / (2 * math.pi * cutoff * step))
