"""Frozen loss networks: LPIPS (Zhang et al. 2018, version 0.1) and the ArcFace identity network.

Images are NHWC in [-1, 1], RGB.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hybrid_jax.models.irse import IRSE, PAPER_UNITS, PAPER_WIDTHS, BatchNorm
from hybrid_jax.models.ops import adaptive_avg_pool, conv

# Backbones as torchvision numbers their `features`: (index, kind, argument), and 'tap' where LPIPS
# compares.
#   conv: (width index, kernel, stride, padding); pool: (window, ceil_mode), stride 2;
#   fire: (squeeze, expand).
ALEX = (
  [(0, 'conv', (0, 11, 4, 2)), 'tap', (2, 'pool', (3, False)), (3, 'conv', (1, 5, 1, 2)), 'tap']
  + [(5, 'pool', (3, False)), (6, 'conv', (2, 3, 1, 1)), 'tap', (8, 'conv', (3, 3, 1, 1)), 'tap']
  + [(10, 'conv', (4, 3, 1, 1)), 'tap']
)
VGG16 = (
  [(0, 'conv', (0, 3, 1, 1)), (2, 'conv', (0, 3, 1, 1)), 'tap', (4, 'pool', (2, False))]
  + [(5, 'conv', (1, 3, 1, 1)), (7, 'conv', (1, 3, 1, 1)), 'tap', (9, 'pool', (2, False))]
  + [(10 + 2 * i, 'conv', (2, 3, 1, 1)) for i in range(3)] + ['tap', (16, 'pool', (2, False))]
  + [(17 + 2 * i, 'conv', (3, 3, 1, 1)) for i in range(3)] + ['tap', (23, 'pool', (2, False))]
  + [(24 + 2 * i, 'conv', (4, 3, 1, 1)) for i in range(3)] + ['tap']
)  # fmt: skip
SQUEEZE = (
  [(0, 'conv', (0, 3, 2, 0)), 'tap', (2, 'pool', (3, True)), (3, 'fire', (16, 64))]
  + [(4, 'fire', (16, 64)), 'tap', (5, 'pool', (3, True)), (6, 'fire', (32, 128))]
  + [(7, 'fire', (32, 128)), 'tap', (8, 'pool', (3, True)), (9, 'fire', (48, 192)), 'tap']
  + [(10, 'fire', (48, 192)), 'tap', (11, 'fire', (64, 256)), 'tap', (12, 'fire', (64, 256)), 'tap']
)
BACKBONES = {
  'alex': (ALEX, (64, 192, 384, 256, 256)),
  'vgg': (VGG16, (64, 128, 256, 512, 512)),
  'squeeze': (SQUEEZE, (64,)),
}

SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
SCALE = np.array([0.458, 0.448, 0.450], np.float32)


class _Conv(nn.Module):
  features: int
  kernel_size: int
  stride: int = 1
  padding: int = 0

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
    kernel = self.param('kernel', nn.initializers.he_normal(), shape)
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    # jax.nn.relu selects instead of multiplying: its gradient is finite where a tap is all zero.
    return jax.nn.relu(conv(x, kernel, stride=self.stride, padding=self.padding) + bias)


class _Fire(nn.Module):
  squeeze: int
  expand: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = _Conv(self.squeeze, 1, name='squeeze')(x)
    one = _Conv(self.expand, 1, name='expand1x1')(x)
    three = _Conv(self.expand, 3, padding=1, name='expand3x3')(x)
    return jnp.concatenate((one, three), axis=-1)


def _max_pool(x: jax.Array, window: int, ceil_mode: bool) -> jax.Array:
  """Max pooling of stride 2; `ceil_mode` keeps a last window that reaches over the edge."""
  extra = [(size - window) % 2 if ceil_mode else 0 for size in x.shape[1:3]]
  return nn.max_pool(x, (window, window), (2, 2), [(0, e) for e in extra])


class LPIPS(nn.Module):
  """Perceptual distance of two images.

  Attributes:
    net: 'alex' (training), 'vgg' or 'squeeze'.
    widths: channels of the backbone where they differ from torchvision's.
  """

  net: str = 'alex'
  widths: Sequence[int] | None = None

  def setup(self):
    """Creates the layers of the backbone and the weights of the taps."""
    table, widths = BACKBONES[self.net]
    widths = self.widths or widths
    features = {}
    for entry in table:
      if entry == 'tap' or entry[1] == 'pool':
        continue
      index, kind, argument = entry
      features[f'{index}'] = (
        _Fire(*argument) if kind == 'fire' else _Conv(widths[argument[0]], *argument[1:])
      )
    self.features = features
    init = nn.initializers.constant(0.1)
    self.lin = [self.param(f'lin{i}', init, (width,)) for i, width in enumerate(self._tap_widths())]

  def _tap_widths(self) -> list[int]:
    table, widths = BACKBONES[self.net]
    widths, taps, current = self.widths or widths, [], 0
    for entry in table:
      if entry == 'tap':
        taps.append(current)
      elif entry[1] == 'conv':
        current = widths[entry[2][0]]
      elif entry[1] == 'fire':
        current = 2 * entry[2][1]
    return taps

  def taps(self, image: jax.Array) -> list[jax.Array]:
    """Returns the backbone's activations (n, h, w, c) after the layers that LPIPS compares."""
    x, taps = (image - SHIFT) / SCALE, []
    for entry in BACKBONES[self.net][0]:
      if entry == 'tap':
        taps.append(x)
      elif entry[1] == 'pool':
        x = _max_pool(x, *entry[2])
      else:
        x = self.features[f'{entry[0]}'](x)
    return taps

  def layer_distances(self, x: jax.Array, y: jax.Array) -> list[jax.Array]:
    """Returns the (n,) terms of the distance, one per tap."""

    def unit(f):
      # Epsilon outside of the root, as in LPIPS: inside it would change small activations.
      return f / (jnp.sqrt(jnp.sum(f * f, -1, keepdims=True)) + 1e-10)

    pairs = zip(self.lin, self.taps(x), self.taps(y), strict=True)
    return [jnp.mean(jnp.square(unit(a) - unit(b)) @ lin, axis=(1, 2)) for lin, a, b in pairs]

  def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns (n,) distances of images x and y, each (n, h, w, 3) in [-1, 1]."""
    return sum(self.layer_distances(x, y))


class ArcFace(nn.Module):
  """phi of the paper: unit identity embeddings of FFHQ-aligned squares, as the generator's are.

  Attributes:
    size: side of the cropped face, px.
    embedding: length of the embedding.
    widths, units, reduction, dtype: of the body, see `IRSE`.
  """

  size: int = 112
  embedding: int = 512
  widths: Sequence[int] = PAPER_WIDTHS
  units: Sequence[int] = PAPER_UNITS
  reduction: int = 16
  dtype: Any = jnp.float32

  def setup(self):
    """Creates the modules."""
    self.backbone = IRSE(self.widths, self.units, self.reduction, self.dtype)
    self.body_norm, self.out_norm = BatchNorm(), BatchNorm()
    self.dense = nn.Dense(self.embedding)

  def crop(self, image: jax.Array) -> jax.Array:
    """Crops the face of FFHQ-aligned images (n, h, h, 3) and pools it to (n, size, size, 3)."""
    # Rows 35..222 and columns 32..219 of 256 px, as in pSp's ID loss.
    side = image.shape[1] / 256
    top, bottom, left, right = (round(edge * side) for edge in (35, 223, 32, 220))
    return adaptive_avg_pool(image[:, top:bottom, left:right], self.size)

  def embed(self, face: jax.Array, train: bool = False) -> jax.Array:
    """Returns the embedding (n, d), before normalisation, of cropped faces (n, size, size, 3)."""
    # float32 from here: a cosine of half-precision embeddings shows their rounding.
    x = self.body_norm(self.backbone(face, train)[-1].astype(jnp.float32), train)
    return self.out_norm(self.dense(x.reshape(x.shape[0], -1)), train)

  def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
    """Returns unit embeddings (n, d) of FFHQ-aligned images (n, h, h, 3) in [-1, 1]."""
    x = self.embed(self.crop(image), train)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
