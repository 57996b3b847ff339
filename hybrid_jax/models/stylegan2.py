"""StyleGAN2 (Karras et al. 2020): mapping, W+ to StyleSpace, synthesis, and both discriminators.

The width and resolution of a network are given by `channels`, its feature maps at 4, 8, ... px:
`config_f_channels(1024)` for the paper's model, five entries for a 64 px model. Images are NHWC in
[-1, 1] (not clipped), latents as in `latents.py`, all float32.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hybrid_jax.models import blocked, latents
from hybrid_jax.models.ops import (
  SQRT2,
  EqualizedDense,
  adaptive_avg_pool,
  blur,
  conv,
  leaky_relu,
  modulated_conv,
  to_rgb,
  upsample_skip,
)


class Mapping(nn.Module):
  """The mapping network: pixel norm, then equalised dense layers with leaky ReLU."""

  w_dim: int
  num_layers: int = 8
  lr_multiplier: float = 0.01

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    """Maps z (n, d) to w (n, w_dim)."""
    x = z * jax.lax.rsqrt(jnp.mean(jnp.square(z), axis=-1, keepdims=True) + 1e-8)
    for i in range(self.num_layers):
      dense = EqualizedDense(self.w_dim, lr_multiplier=self.lr_multiplier, name=f'dense_{i}')
      x = leaky_relu(dense(x))
    return x


class StyledConv(nn.Module):
  """Modulated 3x3 convolution, then noise, bias and leaky ReLU, in this order.

  `blocks` is None for the plain form, else the blocks of input and result (see `blocked`).
  """

  features: int
  up: str | None = None
  clamp: float | None = None
  blocks: tuple[blocked.Block, blocked.Block] | None = None

  @nn.compact
  def __call__(self, x: jax.Array, styles: jax.Array, noise: jax.Array | None) -> jax.Array:
    """Maps x (n, h, w, i), styles (n, i), noise (n or 1, h, w, 1) to (n, h, w, o), or 2h, 2w."""
    width = styles.shape[-1]
    kernel = self.param('kernel', nn.initializers.normal(1.0), (3, 3, width, self.features))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    strength = self.param('noise_strength', nn.initializers.zeros, ())
    kernel = kernel / math.sqrt(9 * width)
    noise = None if noise is None else strength * noise
    if self.blocks is not None:
      before, after = self.blocks
      up = self.up is not None
      x = blocked.styled_conv(x, kernel, bias, styles, noise, up=up, before=before, after=after)
    else:
      x = modulated_conv(x, kernel, styles, up=self.up)  # n h w o
      if noise is not None:
        x = x + noise.astype(x.dtype)
      x = leaky_relu(x + bias.astype(x.dtype))
    return x if self.clamp is None else jnp.clip(x, -self.clamp, self.clamp)


class ToRGB(nn.Module):
  """Modulated 1x1 convolution to RGB, not demodulated; the result is float32.

  `block` is None for the plain form, else the input's, and the result is that of `blocked.to_rgb`.
  """

  clamp: float | None = None
  block: blocked.Block | None = None
  sums: bool = False  # see `ops.to_rgb`

  @nn.compact
  def __call__(self, x: jax.Array, styles: jax.Array) -> jax.Array:
    """Maps x (n, h, w, i) and styles (n, i) to an RGB image (n, h, w, 3)."""
    width = styles.shape[-1]
    kernel = self.param('kernel', nn.initializers.normal(1.0), (1, 1, width, 3))
    bias = self.param('bias', nn.initializers.zeros, (3,))
    kernel = kernel / math.sqrt(width)
    if self.block is not None:
      rgb = blocked.to_rgb(x, kernel[0, 0], styles, self.block) + bias[:, None, None]
      return rgb if self.clamp is None else jnp.clip(rgb, -self.clamp, self.clamp)
    rgb = to_rgb(x, kernel[0, 0], styles, sums=self.sums) + bias
    return rgb if self.clamp is None else jnp.clip(rgb, -self.clamp, self.clamp)


class Generator(nn.Module):
  """The StyleGAN2 generator with its two halves apart.

  The paper adds its deformation between `to_style_space` and `synthesize`; ordinary W+ synthesis is
  their composition.

  Attributes:
    channels: feature maps at 4, 8, ... px.
    w_dim, mapping_layers, lr_multiplier: of the mapping network.
    polyphase_from: up-convolutions to at least this many px use the polyphase lowering, smaller
      ones the transposed (see `ops`); 0 where the generator's weights are trained.
    up: the lowering that stands in for the polyphase one.
    half_dtype, half_from: layers of at least `half_from` px compute in `half_dtype`, when given;
      styles, demodulation and the RGB sum stay float32.
    remat_from: layers of at least this many px are recomputed in the backward pass.
    blocks_from: layers of at least this many px are computed in blocks, and RGB channel first (see
      `blocked`): the form for TPUs. None: everywhere the plain form.
    rgb_sums: the form of toRGB for GPUs (see `ops.to_rgb`).
    clamp: NVlabs' conv_clamp (256 in networks they trained in fp16), None otherwise.
  """

  channels: Sequence[int]
  w_dim: int = 512
  mapping_layers: int = 8
  lr_multiplier: float = 0.01
  polyphase_from: int = 512
  up: str = 'polyphase'
  half_dtype: Any = None
  half_from: int = 128
  remat_from: int | None = None
  blocks_from: int | None = None
  rgb_sums: bool = False
  clamp: float | None = None

  def setup(self):
    """Creates mapping, constant, affine maps and layers, the last two in StyleSpace order."""
    self.mapping = Mapping(self.w_dim, self.mapping_layers, self.lr_multiplier)
    self.const = self.param('const', nn.initializers.normal(1.0), (4, 4, self.channels[0]))
    table = latents.style_layers(self.channels)
    # The stored bias already holds the 1 around which styles vary.
    self.affines = [EqualizedDense(layer.width, bias_init=1.0) for layer in table]
    self.layers = [self._layer(layer) for layer in table]

  def _layer(self, layer: latents.StyleLayer) -> nn.Module:
    remat = self.remat_from is not None and layer.resolution >= self.remat_from
    wrap = nn.remat if remat else lambda module: module
    here, up, blocks = self._block(layer.resolution), None, None
    if layer.kind == 'to_rgb':
      return wrap(ToRGB)(self.clamp, here, self.rgb_sums)
    if layer.kind == 'up_conv':
      up = self.up if layer.resolution >= self.polyphase_from else 'transposed'
    # Where neither side is in larger blocks, only doubling differs from the plain form.
    if here and layer.resolution >= self.blocks_from and (up or here != (1, 1)):
      blocks = (self._block(layer.resolution // 2) if up else here), here
    return wrap(StyledConv)(layer.features, up, self.clamp, blocks)

  def _block(self, resolution: int) -> blocked.Block | None:
    """Returns the blocks that pictures of a resolution are held in, or None for the plain form."""
    if self.blocks_from is None:
      return None
    if resolution < self.blocks_from:
      return 1, 1
    return blocked.block_of(self.channels[(resolution // 4).bit_length() - 1])

  def map(self, z: jax.Array) -> jax.Array:
    """Maps z (n, d) to w (n, d)."""
    return self.mapping(z)

  def to_style_space(self, w_plus: jax.Array) -> tuple[jax.Array, ...]:
    """A of the paper: maps w_plus (n, l, d) to one (n, s) style per layer, in StyleSpace order."""
    table = latents.style_layers(self.channels)
    return tuple(
      affine(w_plus[:, layer.w_row]) for affine, layer in zip(self.affines, table, strict=True)
    )

  def synthesize(
    self,
    style_space: Sequence[jax.Array],
    noise: Sequence[jax.Array] | None = None,
    size: int | None = None,
  ) -> jax.Array:
    """Maps a style space to images (n, r, r, 3), not clipped; averaged to `size` px if given.

    `noise` holds one (n or 1, h, w, 1) map per convolution (stored or fresh); None is no noise.
    """
    n = style_space[0].shape[0]
    table = latents.style_layers(self.channels)
    maps = iter([None] * len(table) if noise is None else noise)
    x = jnp.broadcast_to(self.const, (n, *self.const.shape))
    rgb, final = None, 4 << len(self.channels) - 1
    size = size or final
    for layer, module, styles in zip(table, self.layers, style_space, strict=True):
      if layer.kind == 'to_rgb' and self.blocks_from is not None:
        rgb = blocked.add_rgb(rgb, module(x, styles), final, size)
      elif layer.kind == 'to_rgb':
        rgb = module(x, styles) + (0 if rgb is None else upsample_skip(rgb))
      else:
        half = self.half_dtype is not None and layer.resolution >= self.half_from
        x = module(x.astype(self.half_dtype if half else jnp.float32), styles, next(maps))
    if self.blocks_from is not None:
      rgb = rgb.transpose(0, 2, 3, 1)
    return adaptive_avg_pool(rgb, size)

  def __call__(self, z: jax.Array, noise: Sequence[jax.Array] | None = None) -> jax.Array:
    """Maps z (n, d) to images, with the same w in every row of W+; `init` needs this method."""
    w = self.map(z)
    w_plus = jnp.repeat(w[:, None], latents.num_ws(self.channels), axis=1)  # n l d
    return self.synthesize(self.to_style_space(w_plus), noise)


class EqualizedConv(nn.Module):
  """Equalised convolution, blurred and strided if `down`, bias and leaky ReLU if `activate`."""

  features: int
  kernel_size: int
  down: bool = False
  activate: bool = True

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x (n, h, w, i) to (n, h, w, features), or half h and w."""
    k = self.kernel_size
    kernel = self.param('kernel', nn.initializers.normal(1.0), (k, k, x.shape[-1], self.features))
    kernel = kernel / math.sqrt(k * k * x.shape[-1])
    if self.down:
      total = k + 1  # so that the blurred, unpadded, strided convolution halves the size
      x = conv(blur(x, ((total + 1) // 2, total // 2)), kernel, stride=2, padding=0)
    else:
      x = conv(x, kernel)
    if not self.activate:
      return x
    return leaky_relu(x + self.param('bias', nn.initializers.zeros, (self.features,)))


def minibatch_stddev(x: jax.Array, group: int = 4) -> jax.Array:
  """Appends one map: the mean over h, w, c of the standard deviation within groups of samples."""
  # Sample i is in group i mod n/group, as in StyleGAN2: the groups are strided, not consecutive.
  n, h, w, c = x.shape
  group = min(n, group)
  y = x.reshape(group, n // group, h, w, c)
  std = jnp.sqrt(jnp.var(y, axis=0) + 1e-8).mean(axis=(1, 2, 3))  # n/group
  return jnp.concatenate(
    (x, jnp.tile(std, group)[:, None, None, None] * jnp.ones((n, h, w, 1))), -1
  )


class ImageDiscriminator(nn.Module):
  """StyleGAN2's residual discriminator of images."""

  channels: Sequence[int]

  @nn.compact
  def __call__(self, image: jax.Array) -> jax.Array:
    """Maps images (n, r, r, 3) to logits (n, 1)."""
    x = EqualizedConv(self.channels[-1], 1, name='from_rgb')(image)
    for i in reversed(range(1, len(self.channels))):
      name = f'b{4 << i}'
      y = EqualizedConv(self.channels[i], 3, name=f'{name}_conv0')(x)
      y = EqualizedConv(self.channels[i - 1], 3, down=True, name=f'{name}_conv1')(y)
      skip = EqualizedConv(self.channels[i - 1], 1, down=True, activate=False, name=f'{name}_skip')(
        x
      )
      x = (y + skip) / SQRT2
    x = EqualizedConv(self.channels[0], 3, name='b4_conv')(minibatch_stddev(x))
    x = leaky_relu(EqualizedDense(self.channels[0], name='b4_dense')(x.reshape(x.shape[0], -1)))
    return EqualizedDense(1, name='logits')(x)


class LatentDiscriminator(nn.Module):
  """e4e's critic of single w vectors: dense layers with leaky ReLU of slope 0.2."""

  width: int = 512
  num_layers: int = 4

  @nn.compact
  def __call__(self, w: jax.Array) -> jax.Array:
    """Maps w (..., d) to logits (..., 1)."""
    # Plain dense layers and no sqrt(2) gain: e4e's critic is not equalised.
    for i in range(self.num_layers - 1):
      w = jax.nn.leaky_relu(nn.Dense(self.width, name=f'dense_{i}')(w), 0.2)
    return nn.Dense(1, name=f'dense_{self.num_layers - 1}')(w)
