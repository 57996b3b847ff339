"""How the axes of a stored tensor become ours; no value changes."""

from collections.abc import Callable

import numpy as np

Layout = Callable[[np.ndarray], np.ndarray]


def copy(x: np.ndarray) -> np.ndarray:
  return x


def conv(x: np.ndarray) -> np.ndarray:
  """(o, i, k, k), or rosinality's (1, o, i, k, k) -> (k, k, i, o)."""
  return np.moveaxis(x.reshape(x.shape[-4:]), (2, 3, 1, 0), (0, 1, 2, 3))


def dense(x: np.ndarray) -> np.ndarray:
  """(o, i) -> (i, o)."""
  return x.T


def flat(x: np.ndarray) -> np.ndarray:
  """Drops the broadcasting axes of a bias or of an LPIPS linear layer: (1, c, 1, 1) -> (c,)."""
  return x.reshape(-1)


def scalar(x: np.ndarray) -> np.ndarray:
  """(1,) or () -> ()."""
  return x.reshape(())


def image(x: np.ndarray) -> np.ndarray:
  """(1, c, h, w) or (c, h, w) -> (h, w, c); (h, w) -> (h, w, 1)."""
  return np.moveaxis(x.reshape(-1, *x.shape[-2:]), 0, -1)


def first_plane(x: np.ndarray) -> np.ndarray:
  """A noise map, (1, 1, h, w) or (h, w) -> (h, w, 1)."""
  return x.reshape(*x.shape[-2:], 1)


def dense_of_map(channels: int, size: int) -> Layout:
  """A dense layer over a flattened map: PyTorch flattens (c, h, w), we flatten (h, w, c)."""

  def layout(x: np.ndarray) -> np.ndarray:
    x = x.reshape(-1, channels, size, size)
    return x.transpose(2, 3, 1, 0).reshape(size * size * channels, -1)

  return layout
