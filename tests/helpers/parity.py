"""Golden vectors of the original code, and the relative error of an array against one."""

import pathlib

import numpy as np

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / 'golden'
SHARED = pathlib.Path(__file__).resolve().parents[3] / 'shared'


def error(actual, expected) -> float:
  """max|a - b| / max|b| over the whole array."""
  actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
  assert actual.shape == expected.shape, (actual.shape, expected.shape)
  return float(np.abs(actual - expected).max() / np.abs(expected).max())


def nhwc(x) -> np.ndarray:
  """(n, c, h, w) -> (n, h, w, c)."""
  return np.moveaxis(np.asarray(x), 1, -1)
