"""Operators of StyleGAN2: equalised layers, FIR resampling, modulated convolution.

Arrays are NHWC, kernels HWIO (k k i o) and dense kernels (i, o). Values follow
rosinality/stylegan2-pytorch, the layout of the public FFHQ and e4e checkpoints: stored weights have
unit variance and are scaled at run time ("equalised learning rate", Karras et al. 2018).
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

SQRT2 = math.sqrt(2.0)


@jax.custom_jvp
def leaky_relu(x: jax.Array) -> jax.Array:
  """Returns the leaky ReLU of slope 0.2, times the sqrt(2) that keeps unit variance."""
  return jax.nn.leaky_relu(x, 0.2) * SQRT2


@leaky_relu.defjvp
def _leaky_relu_jvp(primals, tangents):
  # From the sign of the result, which is kept anyway: neither the input nor a mask need to be.
  y = leaky_relu(*primals)
  return y, jnp.where(y >= 0, SQRT2, 0.2 * SQRT2).astype(y.dtype) * tangents[0]


def parameter(module: nn.Module, name: str, init: Callable, shape: tuple[int, ...]) -> jax.Array:
  """Returns a parameter of a module: the one it was given, or in `init` a new one."""
  # Flax traces the initialiser of a given parameter too, to compare shapes: half of the time in
  # which an encoder is traced. Here the readers of weights compare them.
  if module.has_variable('params', name):
    return module.get_variable('params', name)
  return module.param(name, init, shape)


class EqualizedDense(nn.Module):
  """Dense layer with weight scale `lr_multiplier / sqrt(in)` and bias scale `lr_multiplier`."""

  features: int
  lr_multiplier: float = 1.0
  bias_init: float = 0.0
  kernel_init: Any = nn.initializers.normal(1.0)

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x (..., i) to (..., features)."""
    fan_in = x.shape[-1]

    def init(key, shape):
      return self.kernel_init(key, shape) / self.lr_multiplier

    kernel = parameter(self, 'kernel', init, (fan_in, self.features))
    bias = parameter(self, 'bias', nn.initializers.constant(self.bias_init), (self.features,))
    kernel = kernel * (self.lr_multiplier / math.sqrt(fan_in))
    # Latents and styles stay float32 on every device: a TPU's default product is bfloat16.
    return jnp.dot(x, kernel, precision='highest') + bias * self.lr_multiplier


def conv(
  x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int | None = None
) -> jax.Array:
  """Returns the convolution with symmetric explicit padding (k // 2 unless given)."""
  # Never 'SAME': for stride 2 it pads (0, 1), one pixel off PyTorch's (1, 1).
  pad = kernel.shape[0] // 2 if padding is None else padding
  return jax.lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    (stride, stride),
    ((pad, pad), (pad, pad)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def _blur_axis(x: jax.Array, axis: int, pad: tuple[int, int], gain: float) -> jax.Array:
  """Applies the FIR [1, 3, 3, 1] / 8 * gain along one axis."""
  # As shifted adds and not as a convolution: XLA fuses them with the layers around.
  widths = [(0, 0)] * x.ndim
  widths[axis] = pad
  x = jnp.pad(x, widths)
  length = x.shape[axis] - 3
  a, b, c, d = (jax.lax.slice_in_dim(x, i, i + length, axis=axis) for i in range(4))
  return ((a + d) + 3 * (b + c)) * (gain / 8)


def blur(x: jax.Array, pad: tuple[int, int], gain: float = 1.0) -> jax.Array:
  """Applies the separable low-pass [1, 3, 3, 1] over h and w; the 2-D kernel sums to `gain`."""
  return _blur_axis(_blur_axis(x, 1, pad, math.sqrt(gain)), 2, pad, math.sqrt(gain))


def _interleave(even: jax.Array, odd: jax.Array, axis: int) -> jax.Array:
  """Returns even[0], odd[0], even[1], odd[1], ... along `axis`."""
  shape = list(even.shape)
  shape[axis] *= 2
  return jnp.stack((even, odd), axis=axis + 1).reshape(shape)


def upsample_skip(x: jax.Array) -> jax.Array:
  """Doubles an RGB image with the FIR [1, 3, 3, 1] (gain 4): each output is 3/4 near + 1/4 far."""
  for axis in (1, 2):
    widths = [(0, 0)] * x.ndim
    widths[axis] = (1, 1)
    padded = jnp.pad(x, widths)  # zeros outside, as in upfirdn2d
    n = x.shape[axis]
    before, after = (jax.lax.slice_in_dim(padded, i, i + n, axis=axis) for i in (0, 2))
    x = _interleave(0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after, axis)
  return x


def _polyphase_table() -> np.ndarray:
  """Returns (phase, tap, k): weight of kernel tap k in the 3-tap filter of each output phase.

  Along one axis, zero insertion, transposed 3-tap convolution and the FIR f = [1, 3, 3, 1] / 4 with
  padding (1, 1) give y[m] = sum_{u, k} f[u] w[k] x_up[m + u - 1 - k]. Only even positions of x_up
  hold x, so output phase m = 2 i + p reads x[i + a - 1] with weight f[2 (a - 1) + 1 + k - p].
  """
  fir = np.array([1, 3, 3, 1], np.float32) / 4
  table = np.zeros((2, 3, 3), np.float32)
  for p in range(2):
    for a in range(3):
      for k in range(3):
        u = 2 * (a - 1) + 1 + k - p
        if 0 <= u < 4:
          table[p, a, k] = fir[u]
  return table


def polyphase_kernel(kernel: jax.Array) -> jax.Array:
  """Returns (3, 3, i, 4o): the four outputs, phases (p, q) first, of doubling with (3, 3, i, o)."""
  table = _polyphase_table()
  phases = jnp.einsum('pak,qbl,klio->abipqo', table, table, kernel)
  return phases.reshape(3, 3, kernel.shape[2], -1)


def up_conv_transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Doubles the resolution: transposed 3x3 convolution of stride 2, then the FIR (n 2h 2w o).

  The cheaper lowering of wide layers where only the input's gradient is needed; its *weight*
  gradient is slow, and at 512 px and above its blur costs more than the convolution.
  """
  # Reversed last (PyTorch's conv_transpose2d flips both axes): only so does XLA, on a GPU, see the
  # gradient of a strided convolution: a quarter of the multiplications, and no padded copy of x.
  kernel = jax.lax.optimization_barrier(kernel.astype(x.dtype))
  y = jax.lax.conv_general_dilated(
    x,
    kernel[::-1, ::-1],
    window_strides=(1, 1),
    padding=((2, 2), (2, 2)),
    lhs_dilation=(2, 2),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )  # n 2h+1 2w+1 o
  return blur(y, (1, 1), gain=4.0)


def up_conv_polyphase(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Computes `up_conv_transposed` as one 3x3 convolution to four phases and depth-to-space.

  Faster at 512 px and above, and where the gradient of the weights is needed.
  """
  n, h, w, _ = x.shape
  features = kernel.shape[-1]
  y = conv(x, polyphase_kernel(kernel))
  y = y.reshape(n, h, w, 2, 2, features).transpose(0, 1, 3, 2, 4, 5)  # n h p w q o
  return y.reshape(n, 2 * h, 2 * w, features)


def _taps_to_rows(taps: jax.Array, axis: int, tap_axis: int) -> jax.Array:
  """Sums the three taps of a transposed convolution of stride 2 along one axis: h -> 2h + 2.

  Row m = 2 i + k of the result is tap k of row i of the input; the last row is zero.
  """
  first, middle, last = (jax.lax.index_in_dim(taps, k, tap_axis, keepdims=False) for k in range(3))
  before, after = ([(0, 0)] * first.ndim for _ in range(2))
  before[axis], after[axis] = (1, 0), (0, 1)
  even = jnp.pad(first, after) + jnp.pad(last, before)
  return _interleave(even, jnp.pad(middle, after), axis)


def up_conv_taps(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """The same as `up_conv_transposed`: one matrix product for the nine taps, then shifted adds.

  A quarter of the polyphase form's multiplications, and matrix products as gradients: on CPU the
  fastest where a generator is trained, 1.9 to 2.9 times (batch of 16, 32 to 128 px).
  """
  n, h, w, i = x.shape
  taps = jnp.dot(
    x.reshape(-1, i), kernel.astype(x.dtype).transpose(2, 0, 1, 3).reshape(i, -1)
  ).reshape(n, h, w, 3, 3, -1)
  y = _taps_to_rows(_taps_to_rows(taps, 1, 3), 2, 3)[:, :-1, :-1]
  return blur(y, (1, 1), gain=4.0)


UP_CONV = {
  'transposed': up_conv_transposed,
  'polyphase': up_conv_polyphase,
  'taps': up_conv_taps,
}


def demodulation(kernel: jax.Array, styles: jax.Array) -> jax.Array:
  """Returns (n, o) factors for unit variance of each output map: rsqrt(sum_ikk (w s)^2 + 1e-8)."""
  energy = jnp.sum(jnp.square(kernel), axis=(0, 1))  # i o
  return jax.lax.rsqrt(jnp.dot(jnp.square(styles), energy, precision='highest') + 1e-8)


def modulated_conv(
  x: jax.Array,
  kernel: jax.Array,
  styles: jax.Array,
  *,
  up: str | None = None,
) -> jax.Array:
  """Convolves with a kernel that is scaled per sample by `styles` (Karras et al. 2020, eqs. 1-3).

  Each output map has unit variance (demodulation).

  Args:
    x: (n, h, w, i). kernel: (k, k, i, o), float32, already equalised. styles: (n, i), float32.
    up: None, or the lowering that doubles the resolution, one of `UP_CONV`.
  """
  # Scale the input, convolve with the shared kernel, scale the output: equal to the grouped form up
  # to rounding, several times faster, and the batch axis stays free to be sharded.
  x = x * styles[:, None, None, :].astype(x.dtype)
  y = conv(x, kernel) if up is None else UP_CONV[up](x, kernel)
  return y * demodulation(kernel, styles)[:, None, None, :].astype(y.dtype)


def to_rgb(x: jax.Array, kernel: jax.Array, styles: jax.Array, *, sums: bool) -> jax.Array:
  """Returns the modulated 1x1 convolution to RGB, without demodulation, as float32 (n, h, w, 3).

  Args:
    x: (n, h, w, i). kernel: (i, 3), float32, already equalised. styles: (n, i), float32.
    sums: as three sums over channels, which XLA joins on a GPU with the activation before them, so
      that x need not be written; else as one matrix product, on CPU several times faster than a
      convolution with three results.
  """
  weights = styles[:, :, None] * kernel  # n i 3
  if sums:
    x = x.astype(jnp.float32)
    return jnp.stack([jnp.sum(x * weights[:, None, None, :, c], -1) for c in range(3)], -1)
  weights = weights.astype(x.dtype)
  return jnp.einsum('nhwi,nic->nhwc', x, weights, preferred_element_type=jnp.float32)


def adaptive_matrix(size: int, out: int) -> np.ndarray:
  """Returns (out, size) whose row i averages the window [floor(i s / o), ceil((i + 1) s / o))."""
  matrix = np.zeros((out, size), np.float32)
  for i in range(out):
    start, stop = i * size // out, -((i + 1) * size // -out)
    matrix[i, start:stop] = 1 / (stop - start)
  return matrix


def adaptive_avg_pool(x: jax.Array, size: int) -> jax.Array:
  """Pools (n, h, w, c) to (n, size, size, c) as PyTorch's AdaptiveAvgPool2d; windows overlap."""
  if x.shape[1:3] == (size, size):
    return x
  if x.shape[1] % size == 0 and x.shape[2] % size == 0:
    n, h, w, c = x.shape
    return x.reshape(n, size, h // size, size, w // size, c).mean(axis=(2, 4))
  n, h, w, c = x.shape
  rows, columns = adaptive_matrix(h, size), adaptive_matrix(w, size)
  # Not one einsum: XLA moves h to the end for it, and for sides such as 188 finds no tiles of that
  # product on a GPU without autotuning.
  x = jnp.matmul(rows, x.reshape(n, h, w * c)).reshape(n * size, w, c)  # n*a w c
  return jnp.matmul(columns, x).reshape(n, size, size, c)


def from_uint8(image: jax.Array) -> jax.Array:
  """Maps 0..255 to float32 in [-1, 1]."""
  return image / 127.5 - 1


def to_uint8(image: jax.Array) -> jax.Array:
  """Maps [-1, 1] to uint8, rounded and clipped; on the device, so that a quarter is transferred."""
  return jnp.clip(jnp.round((image + 1) * 127.5), 0, 255).astype(jnp.uint8)
