"""The I3D of FVD: Inception v1 inflated to videos (Carreira & Zisserman 2017), for Kinetics-400.

FVD (Unterthiner et al. 2018) compares clips by the 400 logits, before the softmax, averaged over
time: `RGB/inception_i3d/Mean` of the TensorFlow module, `return_features=True` of StyleGAN-V's
TorchScript file. Arrays are (n, t, h, w, c). Modules have the names of piergiaj/pytorch-i3d.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from hybrid_jax.models.inception import ConvUnit

SIDE = 224
# The last average is over two steps of time, each of eight frames: with fewer there is no second.
MIN_FRAMES = 9

# ('conv', features, kernel, stride); ('pool', window (t, h, w), stride); ('mixed', features of the
# branches b0, b1a, b1b, b2a, b2b, b3b). Kernels are cubes, padding is TensorFlow's SAME everywhere.
LAYERS = {
  'Conv3d_1a_7x7': ('conv', 64, 7, 2),
  'MaxPool3d_2a_3x3': ('pool', (1, 3, 3), (1, 2, 2)),
  'Conv3d_2b_1x1': ('conv', 64, 1, 1),
  'Conv3d_2c_3x3': ('conv', 192, 3, 1),
  'MaxPool3d_3a_3x3': ('pool', (1, 3, 3), (1, 2, 2)),
  'Mixed_3b': ('mixed', 64, 96, 128, 16, 32, 32),
  'Mixed_3c': ('mixed', 128, 128, 192, 32, 96, 64),
  'MaxPool3d_4a_3x3': ('pool', (3, 3, 3), (2, 2, 2)),
  'Mixed_4b': ('mixed', 192, 96, 208, 16, 48, 64),
  'Mixed_4c': ('mixed', 160, 112, 224, 24, 64, 64),
  'Mixed_4d': ('mixed', 128, 128, 256, 24, 64, 64),
  'Mixed_4e': ('mixed', 112, 144, 288, 32, 64, 64),
  'Mixed_4f': ('mixed', 256, 160, 320, 32, 128, 128),
  'MaxPool3d_5a_2x2': ('pool', (2, 2, 2), (2, 2, 2)),
  'Mixed_5b': ('mixed', 256, 160, 320, 32, 128, 128),
  'Mixed_5c': ('mixed', 384, 192, 384, 48, 128, 128),
}
BRANCHES = ('b0', 'b1a', 'b1b', 'b2a', 'b2b', 'b3b')


def unit_names() -> list[str]:
  """Returns the names of every convolution with its batch normalisation, as `Mixed_3b.b1a`."""
  names = []
  for name, (kind, *_) in LAYERS.items():
    names += {'conv': [name], 'pool': [], 'mixed': [f'{name}.{b}' for b in BRANCHES]}[kind]
  return names


class _Mixed(nn.Module):
  """1x1x1, two times 1x1x1 and 3x3x3, and 3x3x3 pooling and 1x1x1, side by side."""

  features: tuple[int, ...]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    unit = {
      name: ConvUnit(width, (3, 3, 3) if name in ('b1b', 'b2b') else (1, 1, 1), name=name)
      for name, width in zip(BRANCHES, self.features, strict=True)
    }
    pooled = nn.max_pool(x, (3, 3, 3), padding='SAME')
    branches = unit['b0'](x), unit['b1b'](unit['b1a'](x)), unit['b2b'](unit['b2a'](x))
    return jnp.concatenate((*branches, unit['b3b'](pooled)), -1)


class I3D(nn.Module):
  """The network of FVD. `divisor` divides every width but that of the logits, for small tests."""

  classes: int = 400
  divisor: int = 1

  @nn.compact
  def __call__(self, clip: jax.Array) -> jax.Array:
    """Maps clips (n, t, 224, 224, 3) in [-1, 1], from `fvd_input`, to features (n, classes).

    Raises:
      ValueError: a clip has less than 9 frames or frames of another size.
    """
    if clip.ndim != 5 or clip.shape[1] < MIN_FRAMES or clip.shape[2:] != (SIDE, SIDE, 3):
      raise ValueError(f'I3D takes (n, {MIN_FRAMES} or more, {SIDE}, {SIDE}, 3), not {clip.shape}')

    def narrow(width):
      return max(1, width // self.divisor)

    x = clip
    for name, (kind, *sizes) in LAYERS.items():
      if kind == 'conv':
        features, k, stride = sizes
        x = ConvUnit(narrow(features), (k, k, k), stride, name=name)(x)
      elif kind == 'pool':
        x = nn.max_pool(x, *sizes, padding='SAME')
      else:
        x = _Mixed(tuple(map(narrow, sizes)), name=name)(x)
    x = nn.avg_pool(x, (2, 7, 7))  # n t 1 1 c, of two steps of time each
    return nn.Dense(self.classes, precision='highest', name='logits')(x).mean((1, 2, 3))


def fvd_input(clip: jax.Array) -> jax.Array:
  """Resizes clips (n, t, h, w, 3) in [0, 1] of any size to (n, t, 224, 224, 3) in [-1, 1].

  Bilinear between pixel centres and not low-passed, as PyTorch resizes. The TensorFlow reference
  takes positions from the corner, half a pixel off: frames of 224 px are the same in both.
  """
  shape = (*clip.shape[:2], SIDE, SIDE, clip.shape[-1])
  return 2 * jax.image.resize(clip.astype(jnp.float32), shape, 'bilinear', antialias=False) - 1
