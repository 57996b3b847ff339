"""Fréchet distance of two sets of features (Dowson & Landau 1982; Heusel et al. 2017), in float64.

d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)), with means m and covariances C over n - 1.
"""

import numpy as np

BLOCK = 512  # vectors that are added to the covariance together


class Moments:
  """Mean and covariance of a stream of vectors (d,), in memory that does not grow.

  Vectors are collected into blocks: a product of many costs little more than one of a few, most of
  which is the memory traffic of a (d, d) matrix.
  """

  def __init__(self):
    self.count, self._joined, self._mean, self._scatter = 0, 0, None, None
    self._waiting: list[np.ndarray] = []

  def add(self, features: np.ndarray) -> None:
    """Adds a batch (n, d).

    Raises:
      ValueError: the vectors are not finite, or of another width than earlier ones.
    """
    x = np.array(features)  # a copy: the caller may reuse its buffer
    if not np.isfinite(x).all():
      raise ValueError('features are not finite')
    if not len(x):
      return
    self._check(x.shape[1])
    self._waiting.append(x)
    self.count += len(x)
    if self.count - self._joined >= BLOCK:
      self._join()

  def merge(self, other: 'Moments') -> None:
    """Adds all vectors of another stream."""
    if not other.count:
      return
    self._check(other.width)
    if other._joined:
      shift, weight = self._moved(other._mean, other._joined)
      self._scatter += other._scatter
      self._scatter += np.outer(weight * shift, shift)
      self.count += other._joined
    for x in other._waiting:
      self.add(x)

  def _check(self, width: int) -> None:
    if self.count and width != self.width:
      raise ValueError(f'features of {self.width} and {width} numbers')

  def _join(self) -> None:
    """Adds the collected block to mean and scatter."""
    if not self._waiting:
      return
    x = np.concatenate(self._waiting).astype(np.float64)  # n d
    self._waiting, mean = [], x.mean(0)
    shift, weight = self._moved(mean, len(x))
    # The missing term w s s^T is appended as one more row, and costs no second (d, d) matrix.
    x = np.concatenate((x - mean, np.sqrt(weight) * shift[None]))
    self._scatter += x.T @ x  # d d

  def _moved(self, mean: np.ndarray, n: int) -> tuple[np.ndarray, float]:
    """Adds n vectors of mean `mean` to the mean; returns (s, w), of which w s s^T is still missing
    in the scatter.

    The pairwise update of Chan, Golub & LeVeque 1979. A sum of squares minus the squared mean would
    lose most digits for features that are far from zero.
    """
    if self._mean is None:
      self._mean, self._scatter = np.zeros_like(mean), np.zeros((len(mean), len(mean)))
    shift, total = mean - self._mean, self._joined + n
    weight = n * self._joined / total
    self._mean, self._joined = self._mean + shift * (n / total), total
    return shift, weight

  @property
  def width(self) -> int:
    """The width d; 0 before the first vector."""
    if self._waiting:
      return self._waiting[0].shape[1]
    return 0 if self._mean is None else len(self._mean)

  def mean(self) -> np.ndarray:
    """Returns the mean (d,)."""
    self._join()
    return self._mean

  def covariance(self) -> np.ndarray:
    """Returns the covariance (d, d), over n - 1; raises ValueError for fewer than two vectors."""
    if self.count < 2:
      raise ValueError(f'a covariance needs at least two vectors, not {self.count}')
    self._join()
    return self._scatter / (self.count - 1)


def distance(first: Moments, second: Moments) -> float:
  """Returns the squared distance d^2, which is the number reported as FID and FVD.

  Raises:
    ValueError: fewer than two vectors in a set, or sets of different widths.
  """
  if first.width != second.width:
    raise ValueError(f'features of {first.width} and {second.width} numbers')
  return gaussians(first.mean(), first.covariance(), second.mean(), second.covariance())


def gaussians(m_1: np.ndarray, C_1: np.ndarray, m_2: np.ndarray, C_2: np.ndarray) -> float:
  """Returns d^2 of two Gaussians from means (d,) and covariances (d, d), which may be singular.

  With C = A A^T, tr (C_1 C_2)^(1/2) is the sum of the singular values of A_1^T A_2. Their error is
  of the order of the rounding error e; that of the eigenvalues' square roots, the usual formula, is
  of the order of sqrt(e) where a covariance is singular.
  """
  # Rows and columns are as many as the ranks, so few samples of wide features are cheap.
  crossed = np.linalg.svd(_factor(C_1).T @ _factor(C_2), compute_uv=False).sum()
  value = np.square(m_1 - m_2).sum() + np.trace(C_1) + np.trace(C_2) - 2 * crossed
  return float(max(value, 0.0))  # equal sets may give -1e-15


def _factor(C: np.ndarray) -> np.ndarray:
  """Returns A (d, r) with A A^T = C, without directions in which C is zero up to rounding."""
  values, vectors = np.linalg.eigh(C)
  # eigh returns ascending eigenvalues, the smallest of a singular matrix below zero by rounding.
  kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
  return vectors[:, kept] * np.sqrt(values[kept])
