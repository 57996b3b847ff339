"""Moves the axes of tensors between the order of PyTorch's files and ours, in both directions."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
  """Moves the axes of a tensor to our order when called; `back` restores the order of the file.

  Calling it accepts axes of length 1 in front; `back` gives exactly the public shape.
  """

  ours: Callable[[np.ndarray], np.ndarray]
  back: Callable[[np.ndarray], np.ndarray]

  def __call__(self, x: np.ndarray) -> np.ndarray:
    """The tensor of a file in our order of axes."""
    return self.ours(x)


copy = Layout(lambda x: x, lambda x: x)
# (o, i, k, k) <-> (k, k, i, o). PyTorch convolves without a flip, as JAX does: the kernel keeps its
# orientation. rosinality's modulated kernels have an axis of length 1 in front.
conv = Layout(
  lambda x: np.moveaxis(x.reshape(x.shape[-4:]), (2, 3, 1, 0), (0, 1, 2, 3)),
  lambda x: x.transpose(3, 2, 0, 1),
)
# (o, i, t, k, k) <-> (t, k, k, i, o)
conv3d = Layout(lambda x: x.transpose(2, 3, 4, 1, 0), lambda x: x.transpose(4, 3, 0, 1, 2))
# (o, i) <-> (i, o)
dense = Layout(lambda x: x.T, lambda x: x.T)
# A convolution of one pixel and one step of time, (o, i, 1, 1, 1) <-> (i, o)
dense_of_conv3d = Layout(lambda x: x.reshape(x.shape[:2]).T, lambda x: x.T[..., None, None, None])
# A bias, (c,) in both.
flat = Layout(lambda x: x.reshape(-1), lambda x: x)
# A bias of a map or an LPIPS linear layer, with its broadcasting axes: (1, c, 1, 1) <-> (c,)
broadcast = Layout(flat.ours, lambda x: x[None, :, None, None])
# () in both
scalar = Layout(lambda x: x.reshape(()), lambda x: x)
# (c, h, w) <-> (h, w, c); (h, w) -> (h, w, 1)
image = Layout(
  lambda x: np.moveaxis(x.reshape(-1, *x.shape[-2:]), 0, -1), lambda x: np.moveaxis(x, -1, 0)
)
# A noise map, (h, w) or rosinality's (1, 1, h, w) -> (h, w, 1) -> (h, w)
first_plane = Layout(lambda x: x.reshape(*x.shape[-2:], 1), lambda x: x[..., 0])


def batched(layout: Layout) -> Layout:
  """The same layout with an axis of length 1 in front, as rosinality stores it."""
  return Layout(layout.ours, lambda x: layout.back(x)[None])


def dense_of_map(channels: int, size: int) -> Layout:
  """A dense layer over a flattened map: PyTorch flattens (c, h, w), we flatten (h, w, c)."""

  # -1 is the number of outputs.
  def ours(x: np.ndarray) -> np.ndarray:
    x = x.reshape(-1, channels, size, size)
    return x.transpose(2, 3, 1, 0).reshape(size * size * channels, -1)

  def back(x: np.ndarray) -> np.ndarray:
    return x.reshape(size, size, channels, -1).transpose(3, 2, 0, 1).reshape(x.shape[-1], -1)

  return Layout(ours, back)
