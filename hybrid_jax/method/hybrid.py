"""The paper's forward pass, Eqs. (1) to (4): encode, combine, synthesise.

Symbols as in the paper: `S` source frame, `D` driving frame, `W` identity latent in W+ (n, l, d),
`F` facial-deformation latent, a tuple of (n, s) StyleSpace offsets. `G` is the generator's tree:
{'params', 'noise_const', 'w_avg'}; `E` the encoder's {'params', 'batch_stats'}. Images are NHWC in
[-1, 1]. [stated] marks formulas that the words of the paper give.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hybrid_jax.method.encoder import Encoder
from hybrid_jax.models import latents
from hybrid_jax.models.stylegan2 import Generator

Styles = tuple[jax.Array, ...]


class Directions(NamedTuple):
  """Edit directions: unit strength of edit e adds `W[e]` (l, d) to W+ and `s[.][e]` to a layer."""

  W: jax.Array
  s: Styles

  def times(self, strength: jax.Array) -> tuple[jax.Array, Styles]:
    """Maps strengths (n, e) to dW_edit (n, l, d) and ds_edit of `Hybrid.reenact`."""
    # 'highest': latents stay float32 on every device.
    dW_edit = jnp.einsum('ne,eld->nld', strength, self.W, precision='highest')
    return dW_edit, tuple(jnp.matmul(strength, s, precision='highest') for s in self.s)


@dataclasses.dataclass(frozen=True)
class Hybrid:
  """Encoder and generator with the layers that carry the deformation.

  Attributes:
    deformation_layers: StyleSpace indices to which `F` is added; the paper's are the first ten
      convolutions (`latents.first_convolutions(10)`).
    hybrid: False is the ablation with both latents in W+: `F` is added to the first W+ rows.
  """

  generator: Generator
  encoder: Encoder
  deformation_layers: tuple[int, ...]
  hybrid: bool = True

  def encode(
    self, E: Mapping, G: Mapping, image: jax.Array, active_rows: jax.Array | int | None = None
  ) -> tuple[jax.Array, Styles]:
    """Returns (w_id, s_f) of a frame I (n, h, w, 3): W_I, F_I = E(I).

    w_id (n, l, d) includes the latent average. `active_rows` is the number of W+ rows that
    progressive training has switched on; None is all.
    """
    W, F = self.encoder.apply(E, image, active_rows=active_rows)  # Eqs. (1), (2)
    return W + G['w_avg'], F  # the encoder learns offsets from the average, as in pSp [stated]

  def identity(
    self, E: Mapping, G: Mapping, image: jax.Array, active_rows: jax.Array | int | None = None
  ) -> jax.Array:
    """Returns w_id alone (n, l, d), which is needed once per source."""
    rows = self.encoder.num_ws if active_rows is None else active_rows
    levels = self.encoder.apply(E, image, method='pyramid')
    return self.encoder.apply(E, levels, rows, method='identity') + G['w_avg']

  def deformation(self, E: Mapping, image: jax.Array) -> Styles:
    """Returns s_f alone, for driving frames: without the cost of the identity heads."""
    levels = self.encoder.apply(E, image, method='pyramid')
    return self.encoder.apply(E, levels, method='deformation')

  def combine(self, G: Mapping, W: jax.Array, F: Styles | None) -> Styles:
    """Returns A(W) + F, one (n, s) per layer; `F` None gives the neutral anchor G(W, 0)."""
    # The ablation: F are offsets (n, d) of the first rows of W+.
    if F is not None and not self.hybrid:
      W = W.at[:, : len(F)].add(jnp.stack(F, axis=1))
      F = None
    s = list(self.generator.apply({'params': G['params']}, W, method='to_style_space'))  # A(W)
    for layer, offset in zip(self.deformation_layers, F or (), strict=F is not None):
      s[layer] = s[layer] + offset  # s_l = A_l(W_l) + F_l [stated by the figure]
    return tuple(s)

  def synthesize(
    self,
    G: Mapping,
    style_space: Styles,
    noise: Sequence[jax.Array] | None = None,
    size: int | None = None,
  ) -> jax.Array:
    """Returns the image (n, r, r, 3) of a style space, averaged to `size` px if given.

    `noise` None takes the stored maps.
    """
    noise = G['noise_const'] if noise is None else noise
    return self.generator.apply(
      {'params': G['params']}, style_space, noise, size, method='synthesize'
    )

  def reenact(
    self,
    G: Mapping,
    W_S: jax.Array,
    F_D: Styles | None,
    noise: Sequence[jax.Array] | None = None,
    dW_edit: jax.Array | float = 0.0,
    ds_edit: Styles | None = None,
  ) -> jax.Array:
    """Returns R = G(W_S + dW_edit, F_D) (n, r, r, 3): source identity, driver deformation.

    `ds_edit`, one (n, s) for each layer, edits single StyleSpace channels; it is not in the paper.
    """
    # Eq. (3): R = G(W_S, F_D).  Eq. (4), with a semantic edit: G(W_S + dW_edit, F_D) [stated]
    s = self.combine(G, W_S + dW_edit, F_D)
    if ds_edit is not None:
      s = tuple(style + change for style, change in zip(s, ds_edit, strict=True))
    return self.synthesize(G, s, noise)


def deformation_widths(
  channels: Sequence[int], deformation_layers: Sequence[int], w_dim: int, hybrid: bool
) -> tuple[int, ...]:
  """Returns the length of each deformation vector: the style width of its layer.

  In the ablation without the hybrid space it is w_dim.
  """
  table = latents.style_layers(channels)
  return tuple(table[i].width if hybrid else w_dim for i in deformation_layers)
