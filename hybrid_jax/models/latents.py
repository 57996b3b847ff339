"""The layer table of StyleGAN2: which row of W+ feeds which layer, and the order of StyleSpace.

Conventions used everywhere in the package:

  w           (n, d)      mapping network output, d = 512 in the paper
  w_plus      (n, l, d)   one w per W+ row, l = 18 at 1024 px
  style_space tuple of (n, s) arrays, one per entry of `style_layers`, in the order of Wu et al.
              (2021): for each resolution its convolutions, then its toRGB
  s_f         tuple of (n, s) arrays, additive offsets for the chosen entries only

A style vector is as wide as its layer's *input*, so `style_space` is a tuple, not one array.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax


@dataclasses.dataclass(frozen=True)
class StyleLayer:
  """One modulated layer. `w_row` is the W+ row that feeds it, `width` the length of its style."""

  kind: str  # 'conv', 'up_conv' or 'to_rgb'
  resolution: int  # of the layer's output, px
  w_row: int
  width: int
  features: int


def config_f_channels(resolution: int, base: int = 32768, maximum: int = 512) -> tuple[int, ...]:
  """Returns the feature maps at 4, 8, ... `resolution` px of StyleGAN2 config-f.

  512 up to 64 px, then half at each doubling: 32 at 1024 px.
  """
  return tuple(min(maximum, base >> i) for i in range(2, int(math.log2(resolution)) + 1))


def num_ws(channels: Sequence[int]) -> int:
  """Returns the number of rows of W+: 18 at 1024 px, 10 at 64 px."""
  return 2 * len(channels)


def style_layers(channels: Sequence[int]) -> tuple[StyleLayer, ...]:
  """Returns all modulated layers in StyleSpace order: 26 entries, 9088 channels at 1024 px.

  A toRGB shares the W+ row of the next resolution's first convolution; only the last has a row of
  its own.
  """
  layers = [
    StyleLayer('conv', 4, 0, channels[0], channels[0]),
    StyleLayer('to_rgb', 4, 1, channels[0], 3),
  ]
  for i, (below, here) in enumerate(zip(channels[:-1], channels[1:], strict=True), start=1):
    layers += [
      StyleLayer('up_conv', 4 << i, 2 * i - 1, below, here),
      StyleLayer('conv', 4 << i, 2 * i, here, here),
      StyleLayer('to_rgb', 4 << i, 2 * i + 1, here, 3),
    ]
  return tuple(layers)


def first_convolutions(count: int) -> tuple[int, ...]:
  """Returns StyleSpace indices of the first `count` convolutions: 0, 2, 3, 5, 6, 8, 9, ...

  The paper's ten "first layers" read this way reach 128 px; counted with toRGB they would be
  `tuple(range(10))` and reach 32 px.
  """
  # The k-th convolution follows k // 2 + k % 2 toRGB layers.
  return tuple(k + (k + 1) // 2 for k in range(count))


def noise_shapes(channels: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
  """Returns (h, w, 1) of the noise map of each convolution, in order."""
  return tuple(
    (layer.resolution, layer.resolution, 1)
    for layer in style_layers(channels)
    if layer.kind != 'to_rgb'
  )


def random_noise(key: jax.Array, batch: int, channels: Sequence[int]) -> tuple[jax.Array, ...]:
  """Returns unit-variance noise maps for `batch` images, one (n, h, w, 1) per convolution."""
  shapes = noise_shapes(channels)
  keys = jax.random.split(key, len(shapes))
  return tuple(jax.random.normal(k, (batch, *shape)) for k, shape in zip(keys, shapes, strict=True))


def truncate(w: jax.Array, w_avg: jax.Array, truncation_psi: float) -> jax.Array:
  """Returns w pulled towards the mean latent: w_avg + psi (w - w_avg)."""
  return w_avg + truncation_psi * (w - w_avg)
