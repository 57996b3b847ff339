"""The hybrid encoder (section 3.1), Eqs. (1), (2): frame -> identity and deformation latents.

IR-SE50 with a feature pyramid, as in pSp and e4e, and two sets of `map2style` heads: identity in
W+, deformation in StyleSpace. Frames are NHWC in [-1, 1], 256 px in the paper; each level of the
pyramid has a quarter of the area of the next finer one.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hybrid_jax.models.irse import IRSE, PAPER_UNITS, PAPER_WIDTHS, Conv
from hybrid_jax.models.ops import EqualizedDense


def _upsample_matrix(n: int) -> np.ndarray:
  """Returns (2n, n) weights of bilinear interpolation with aligned corners.

  PyTorch's align_corners=True, which no method of jax.image.resize has.
  """
  position = np.arange(2 * n) * ((n - 1) / (2 * n - 1))
  return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(n)))


def upsample_aligned(x: jax.Array) -> jax.Array:
  """Returns x (n, h, w, c) enlarged to (n, 2h, 2w, c), bilinear with aligned corners."""
  rows, columns = (_upsample_matrix(size).astype(x.dtype) for size in x.shape[1:3])
  return jnp.einsum('ah,bw,nhwc->nabc', rows, columns, x)


class Map2Style(nn.Module):
  """A head: stride-2 convolutions down to 1x1, then an equalised dense layer to `features`."""

  features: int
  width: int
  zero_init: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps a level (n, s, s, c), s a power of two, to float32 (n, features)."""
    # Slope 0.01 is PyTorch's default LeakyReLU, not the 0.2 of StyleGAN2.
    for i in range(int(np.log2(x.shape[1]))):
      x = jax.nn.leaky_relu(Conv(self.width, stride=2, use_bias=True, name=f'conv_{i}')(x), 0.01)
    init = nn.initializers.zeros if self.zero_init else nn.initializers.normal(1.0)
    dense = EqualizedDense(self.features, kernel_init=init, name='dense')
    x = x.reshape(x.shape[0], -1)  # n c
    return dense(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


class Encoder(nn.Module):
  """Eqs. (1), (2): a feature network, an identity head per W+ row, a deformation head per style.

  Attributes:
    num_ws, w_dim: shape of the identity latent.
    deformation_widths: length of each deformation vector (StyleSpace widths, or w_dim each).
    identity_split: numbers of identity heads on the coarse, medium and fine level; e4e: 3, 4, 11.
    deformation_split: the same for the deformation heads; figure of the paper: 2, 4, 4.
    widths, units, reduction: of the IR-SE body. The pyramid is as wide as its last stage.
    head_width: of the convolutions in the heads.
    dtype: of features and head convolutions; the latents are float32.
  """

  num_ws: int
  w_dim: int
  deformation_widths: Sequence[int]
  identity_split: Sequence[int]
  deformation_split: Sequence[int]
  widths: Sequence[int] = PAPER_WIDTHS
  units: Sequence[int] = PAPER_UNITS
  reduction: int = 16
  head_width: int = 512
  dtype: Any = jnp.float32

  def setup(self):
    """Creates the modules; their names are those that weights are stored under."""
    if sum(self.identity_split) != self.num_ws:
      raise ValueError(
        f'identity_split {tuple(self.identity_split)} must sum to the {self.num_ws} rows of W+'
      )
    if sum(self.deformation_split) != len(self.deformation_widths):
      raise ValueError(
        f'deformation_split {tuple(self.deformation_split)} must sum to the '
        f'{len(self.deformation_widths)} deformation layers'
      )
    self.backbone = IRSE(self.widths, self.units, self.reduction, self.dtype)
    self.lateral_medium = Conv(self.widths[3], 1, use_bias=True)
    self.lateral_fine = Conv(self.widths[3], 1, use_bias=True)
    self.identity_heads = [Map2Style(self.w_dim, self.head_width) for _ in range(self.num_ws)]
    # Zero at the start, so that training begins at e4e's inversion G(W, 0). [our choice]
    self.deformation_heads = [
      Map2Style(width, self.head_width, zero_init=True) for width in self.deformation_widths
    ]

  def pyramid(self, image: jax.Array, train: bool = False) -> tuple[jax.Array, ...]:
    """Returns the coarse (16x16), medium (32x32) and fine (64x64) maps of a 256 px frame."""
    _, c1, c2, c3 = self.backbone(image, train)
    p2 = upsample_aligned(c3) + self.lateral_medium(c2)
    p1 = upsample_aligned(p2) + self.lateral_fine(c1)
    return c3, p2, p1

  def identity(self, levels: Sequence[jax.Array], active_rows: jax.Array | int) -> jax.Array:
    """Maps the pyramid to W (n, l, d) around the latent average, which the caller adds.

    Row 1 is a base w and later rows are offsets from it, of which only those of the first
    `active_rows` rows are switched on: e4e's progressive schedule.
    """
    offsets = jnp.stack(_per_level(self.identity_heads, levels, self.identity_split), 1)  # n l d
    base = offsets[:, :1]
    # A mask and no slice: `active_rows` is a traced number, so that the schedule never recompiles.
    row = jnp.arange(self.num_ws)[:, None]
    return base + jnp.where((row > 0) & (row < active_rows), offsets, 0.0)

  def deformation(self, levels: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """Pyramid -> F, one (n, s) vector per deformation layer."""
    return tuple(_per_level(self.deformation_heads, levels, self.deformation_split))

  def __call__(
    self, image: jax.Array, train: bool = False, active_rows: jax.Array | int | None = None
  ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Returns W_I (n, l, d), without the latent average, and F_I of a frame I (n, h, w, 3)."""
    levels = self.pyramid(image, train)
    rows = self.num_ws if active_rows is None else active_rows
    return self.identity(levels, rows), self.deformation(levels)


def _per_level(
  heads: Sequence[Map2Style], levels: Sequence[jax.Array], split: Sequence[int]
) -> list[jax.Array]:
  """Applies each head to its level: the first `split[0]` heads to the first level, and so on."""
  # A plain loop: vmap over heads was 3 to 6 times slower on CPU.
  level_of = [level for level, count in zip(levels, split, strict=True) for _ in range(count)]
  return [head(level) for head, level in zip(heads, level_of, strict=True)]
