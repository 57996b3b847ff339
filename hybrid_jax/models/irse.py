"""IR-SE ResNet-50, the body shared by the e4e encoder and the ArcFace identity network.

Source: TreB1eN/InsightFace_Pytorch as used by omertov/encoder4editing. NHWC.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hybrid_jax.models.ops import conv, parameter

PAPER_WIDTHS = (64, 128, 256, 512)
PAPER_UNITS = (3, 4, 14, 3)


class BatchNorm(nn.Module):
  """Batch normalisation as PyTorch updates it: momentum 0.1 and an *unbiased* running variance.

  `momentum` is Flax's, the share of the old value: 1 minus PyTorch's. Flax's own module keeps the
  biased variance, which differs visibly at 16x16 px and below.
  """

  epsilon: float = 1e-5
  momentum: float = 0.9

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Normalises x (..., c) by statistics of the batch if `train`, else by the running ones."""
    width = x.shape[-1]
    scale = parameter(self, 'scale', nn.initializers.ones, (width,))
    bias = parameter(self, 'bias', nn.initializers.zeros, (width,))
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (width,))
    running_var = self.variable('batch_stats', 'var', jnp.ones, (width,))
    mean, var = running_mean.value, running_var.value
    if train:
      axes = tuple(range(x.ndim - 1))
      count = x.size // width
      x32 = x.astype(jnp.float32)  # a sum over a batch of half-precision maps would round
      mean, var = jnp.mean(x32, axes), jnp.var(x32, axes)
      if not self.is_initializing():  # init must return statistics (0, 1), not those of its input
        decay = self.momentum
        running_mean.value = decay * running_mean.value + (1 - decay) * mean
        unbiased = var * (count / (count - 1))
        running_var.value = decay * running_var.value + (1 - decay) * unbiased
    gain = scale * jax.lax.rsqrt(var + self.epsilon)
    return (x * gain + (bias - mean * gain)).astype(x.dtype)  # in float32 also where x is half


class PReLU(nn.Module):
  """max(x, 0) + slope * min(x, 0), one slope per channel."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies it to x (..., c)."""
    slope = parameter(self, 'slope', nn.initializers.constant(0.25), (x.shape[-1],))
    return jnp.where(x >= 0, x, slope.astype(x.dtype) * x)


class Conv(nn.Module):
  """Convolution with symmetric padding k // 2."""

  features: int
  kernel_size: int = 3
  stride: int = 1
  use_bias: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x (n, h, w, i) to (n, h / stride, w / stride, features)."""
    shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
    kernel = parameter(self, 'kernel', nn.initializers.he_normal(), shape)
    x = conv(x, kernel, stride=self.stride)
    if self.use_bias:
      x = x + parameter(self, 'bias', nn.initializers.zeros, (self.features,)).astype(x.dtype)
    return x


class Bottleneck(nn.Module):
  """Residual block: BN, conv, PReLU, conv (strided), BN, squeeze-excite, plus the shortcut."""

  features: int
  stride: int
  reduction: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps x (n, h, w, i) to (n, h / stride, w / stride, features)."""
    if x.shape[-1] == self.features:
      shortcut = x[:, :: self.stride, :: self.stride]  # MaxPool2d(1, stride) of the reference
    else:
      shortcut = Conv(self.features, 1, self.stride, name='shortcut_conv')(x)
      shortcut = BatchNorm(name='shortcut_norm')(shortcut, train)
    y = BatchNorm(name='norm0')(x, train)
    y = PReLU(name='prelu')(Conv(self.features, name='conv0')(y))
    y = BatchNorm(name='norm1')(Conv(self.features, stride=self.stride, name='conv1')(y), train)
    gate = jnp.mean(y, axis=(1, 2), keepdims=True)
    gate = jax.nn.relu(Conv(self.features // self.reduction, 1, name='squeeze')(gate))
    return y * jax.nn.sigmoid(Conv(self.features, 1, name='excite')(gate)) + shortcut


class IRSE(nn.Module):
  """The body: a stem and four stages, each of which halves the size in its first block.

  Attributes:
    widths, units: channels and blocks of each stage.
    reduction: of the squeeze-excite gates.
    dtype: of the computation (parameters and statistics stay float32).
  """

  widths: Sequence[int] = PAPER_WIDTHS
  units: Sequence[int] = PAPER_UNITS
  reduction: int = 16
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array, train: bool = False) -> list[jax.Array]:
    """Maps images (n, h, w, 3) to the last map of each stage, at strides 2, 4, 8 and 16."""
    x = Conv(self.widths[0], name='stem_conv')(image.astype(self.dtype))
    x = PReLU(name='stem_prelu')(BatchNorm(name='stem_norm')(x, train))
    stages, block = [], 0
    for width, units in zip(self.widths, self.units, strict=True):
      for unit in range(units):
        stride = 2 if unit == 0 else 1
        x = Bottleneck(width, stride, self.reduction, name=f'body_{block}')(x, train)
        block += 1
      stages.append(x)
    return stages
