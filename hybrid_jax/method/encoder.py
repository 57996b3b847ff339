"""The hybrid encoder (section 3.1): frame -> identity in W+ and deformation in StyleSpace.

IR-SE50 with a feature pyramid, as pSp and e4e have it, and two sets of `map2style` heads. Frames
are NHWC in [-1, 1], 256 px in the paper; each level is a quarter of the area of the one below it.
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
  """(2n, n) bilinear interpolation with aligned corners, which no jax.image.resize method has."""
  position = np.arange(2 * n) * ((n - 1) / (2 * n - 1))
  return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(n)))


def upsample_aligned(x: jax.Array) -> jax.Array:
  """(n, h, w, c) -> (n, 2h, 2w, c), bilinear, corners aligned."""
  rows, columns = (_upsample_matrix(size).astype(x.dtype) for size in x.shape[1:3])
  return jnp.einsum('ah,bw,nhwc->nabc', rows, columns, x)


class Map2Style(nn.Module):
  """Stride-2 convolutions down to 1x1 (slope 0.01), then an equalised dense layer to `features`."""

  features: int
  width: int
  zero_init: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for i in range(int(np.log2(x.shape[1]))):
      x = jax.nn.leaky_relu(Conv(self.width, stride=2, use_bias=True, name=f'conv_{i}')(x), 0.01)
    init = nn.initializers.zeros if self.zero_init else nn.initializers.normal(1.0)
    dense = EqualizedDense(self.features, kernel_init=init, name='dense')
    x = x.reshape(x.shape[0], -1)
    return dense(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


class Encoder(nn.Module):
  """Eqs. 1-2: one feature network, an identity head per W+ row, a deformation head per style.

  Attributes:
    num_ws, w_dim: shape of the identity latent.
    deformation_widths: length of each deformation vector (StyleSpace widths, or w_dim each).
    identity_split: how many identity heads read the coarse, medium and fine level; e4e's 3, 4, 11.
    deformation_split: the same for the deformation heads; the paper's figure has 2, 4, 4.
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
    """Frame -> coarse (16x16), medium (32x32) and fine (64x64) maps, for a 256 px frame."""
    _, c1, c2, c3 = self.backbone(image, train)
    p2 = upsample_aligned(c3) + self.lateral_medium(c2)
    p1 = upsample_aligned(p2) + self.lateral_fine(c1)
    return c3, p2, p1

  def identity(self, levels: Sequence[jax.Array], active_rows: jax.Array | int) -> jax.Array:
    """Pyramid -> W (n, l, d) around the latent average, which the caller adds.

    Row 1 is a base w, later rows are offsets from it; only the first `active_rows` rows have theirs
    switched on (e4e's progressive schedule; a traced number, so that it never recompiles).
    """
    offsets = jnp.stack(_per_level(self.identity_heads, levels, self.identity_split), 1)  # n l d
    base = offsets[:, :1]
    row = jnp.arange(self.num_ws)[:, None]
    return base + jnp.where((row > 0) & (row < active_rows), offsets, 0.0)

  def deformation(self, levels: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """Pyramid -> F, one (n, s) vector per deformation layer."""
    return tuple(_per_level(self.deformation_heads, levels, self.deformation_split))

  def __call__(
    self, image: jax.Array, train: bool = False, active_rows: jax.Array | int | None = None
  ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Frame (n, h, w, 3) -> W_I (n, l, d) without the latent average, F_I."""
    levels = self.pyramid(image, train)
    rows = self.num_ws if active_rows is None else active_rows
    return self.identity(levels, rows), self.deformation(levels)


def _per_level(
  heads: Sequence[Map2Style], levels: Sequence[jax.Array], split: Sequence[int]
) -> list[jax.Array]:
  """Each head on its level. A plain loop: vmap over heads was 3 to 6 times slower on CPU."""
  level_of = [level for level, count in zip(levels, split, strict=True) for _ in range(count)]
  return [head(level) for head, level in zip(heads, level_of, strict=True)]
