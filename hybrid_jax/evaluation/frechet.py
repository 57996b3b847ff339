"""Fréchet distance of two sets of features (Dowson & Landau 1982; Heusel et al. 2017), in float64.

d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)), with means m and covariances C over n - 1.
"""

import numpy as np


class Moments:
  """Mean and covariance of a stream of vectors (d,): two arrays, however many vectors pass."""

  def __init__(self):
    self.count, self._mean, self._scatter = 0, None, None

  def add(self, features: np.ndarray) -> None:
    """Takes a batch (n, d).

    Raises:
      ValueError: they are not finite, or of another width than those before.
    """
    x = np.asarray(features, np.float64)
    if not np.isfinite(x).all():
      raise ValueError('features are not finite')
    if len(x):
      mean = x.mean(0)
      self._join(len(x), mean, (x - mean).T @ (x - mean))

  def merge(self, other: 'Moments') -> None:
    """Takes all vectors of another stream."""
    if other.count:
      self._join(other.count, other._mean, other._scatter)

  def _join(self, n: int, mean: np.ndarray, scatter: np.ndarray) -> None:
    """Chan, Golub & LeVeque 1979: both parts about their own means, and what lies between these."""
    if self._mean is None:
      self._mean, self._scatter = np.zeros_like(mean), np.zeros_like(scatter)
    if mean.shape != self._mean.shape:
      raise ValueError(f'features of {len(self._mean)} and {len(mean)} numbers')
    shift = mean - self._mean
    self._scatter += scatter + np.outer(shift, shift) * (n * self.count / (n + self.count))
    self._mean = self._mean + shift * (n / (n + self.count))
    self.count += n

  @property
  def width(self) -> int:
    """d; 0 before the first vector."""
    return 0 if self._mean is None else len(self._mean)

  def mean(self) -> np.ndarray:
    """(d,)"""
    return self._mean

  def covariance(self) -> np.ndarray:
    """(d, d), over n - 1. Raises ValueError for less than two vectors."""
    if self.count < 2:
      raise ValueError(f'a covariance takes two vectors or more, not {self.count}')
    return self._scatter / (self.count - 1)


def distance(first: Moments, second: Moments) -> float:
  """The squared distance d^2, which is what is called FID and FVD.

  Raises:
    ValueError: less than two vectors in a set, or sets of different widths.
  """
  if first.width != second.width:
    raise ValueError(f'features of {first.width} and {second.width} numbers')
  return gaussians(first.mean(), first.covariance(), second.mean(), second.covariance())


def gaussians(m_1: np.ndarray, C_1: np.ndarray, m_2: np.ndarray, C_2: np.ndarray) -> float:
  """d^2 of two Gaussians from means (d,) and covariances (d, d), which may be singular.

  With C = A A^T, tr (C_1 C_2)^(1/2) is the sum of the singular values of A_1^T A_2. Rounding enters
  these as such, and not as its square root, as it does into a square root of the product.
  """
  crossed = np.linalg.svd(_factor(C_1).T @ _factor(C_2), compute_uv=False).sum()
  value = np.square(m_1 - m_2).sum() + np.trace(C_1) + np.trace(C_2) - 2 * crossed
  return float(max(value, 0.0))


def _factor(C: np.ndarray) -> np.ndarray:
  """A (d, r) with A A^T = C, without the directions in which C is zero but for rounding."""
  values, vectors = np.linalg.eigh(C)
  kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
  return vectors[:, kept] * np.sqrt(values[kept])
