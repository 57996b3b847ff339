"""The Inception v3 of FID (Heusel et al. 2017), as mseitzer/pytorch-fid ports it from TensorFlow.

It differs from torchvision's: average pooling inside the blocks leaves padding out of the mean, the
last block pools by maximum, batch normalisation has epsilon 1e-3, and there are 1008 classes (which
FID does not use). Arrays are NHWC. Modules have the names of the public file.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from hybrid_jax.models.irse import BatchNorm

SIDE = 299

# The steps of a branch: a pool, a convolution (name, features, kernel height, kernel width), or a
# tuple of convolutions side by side. In a block with the branch ['halve'] the last convolution of
# every branch has stride 2 and no padding.
Branch = list[str | tuple]


def _mixed_a(pooled: int) -> list[Branch]:
  return [
    [('branch1x1', 64, 1, 1)],
    [('branch5x5_1', 48, 1, 1), ('branch5x5_2', 64, 5, 5)],
    [('branch3x3dbl_1', 64, 1, 1), ('branch3x3dbl_2', 96, 3, 3), ('branch3x3dbl_3', 96, 3, 3)],
    ['average', ('branch_pool', pooled, 1, 1)],
  ]


def _mixed_c(inner: int) -> list[Branch]:
  return [
    [('branch1x1', 192, 1, 1)],
    [('branch7x7_1', inner, 1, 1), ('branch7x7_2', inner, 1, 7), ('branch7x7_3', 192, 7, 1)],
    [('branch7x7dbl_1', inner, 1, 1), ('branch7x7dbl_2', inner, 7, 1)]
    + [('branch7x7dbl_3', inner, 1, 7), ('branch7x7dbl_4', inner, 7, 1)]
    + [('branch7x7dbl_5', 192, 1, 7)],
    ['average', ('branch_pool', 192, 1, 1)],
  ]


def _mixed_e(pool: str) -> list[Branch]:
  return [
    [('branch1x1', 320, 1, 1)],
    [('branch3x3_1', 384, 1, 1), (('branch3x3_2a', 384, 1, 3), ('branch3x3_2b', 384, 3, 1))],
    [('branch3x3dbl_1', 448, 1, 1), ('branch3x3dbl_2', 384, 3, 3)]
    + [(('branch3x3dbl_3a', 384, 1, 3), ('branch3x3dbl_3b', 384, 3, 1))],
    [pool, ('branch_pool', 192, 1, 1)],
  ]


BLOCKS = {
  'Mixed_5b': _mixed_a(32),
  'Mixed_5c': _mixed_a(64),
  'Mixed_5d': _mixed_a(64),
  'Mixed_6a': [
    [('branch3x3', 384, 3, 3)],
    [('branch3x3dbl_1', 64, 1, 1), ('branch3x3dbl_2', 96, 3, 3), ('branch3x3dbl_3', 96, 3, 3)],
    ['halve'],
  ],
  'Mixed_6b': _mixed_c(128),
  'Mixed_6c': _mixed_c(160),
  'Mixed_6d': _mixed_c(160),
  'Mixed_6e': _mixed_c(192),
  'Mixed_7a': [
    [('branch3x3_1', 192, 1, 1), ('branch3x3_2', 320, 3, 3)],
    [('branch7x7x3_1', 192, 1, 1), ('branch7x7x3_2', 192, 1, 7), ('branch7x7x3_3', 192, 7, 1)]
    + [('branch7x7x3_4', 192, 3, 3)],
    ['halve'],
  ],
  'Mixed_7b': _mixed_e('average'),
  'Mixed_7c': _mixed_e('maximum'),
}
# (name, features, kernel, stride, padding), or a pool.
STEM = [
  ('Conv2d_1a_3x3', 32, 3, 2, 'VALID'),
  ('Conv2d_2a_3x3', 32, 3, 1, 'VALID'),
  ('Conv2d_2b_3x3', 64, 3, 1, 'SAME'),
  'halve',
  ('Conv2d_3b_1x1', 80, 1, 1, 'VALID'),
  ('Conv2d_4a_3x3', 192, 3, 1, 'VALID'),
  'halve',
]


def unit_names() -> list[str]:
  """Returns the name of every convolution with batch normalisation, as `Mixed_5b.branch1x1`."""
  names = [step[0] for step in STEM if step != 'halve']
  for block, branches in BLOCKS.items():
    for step in (step for branch in branches for step in branch if not isinstance(step, str)):
      names += [f'{block}.{conv[0]}' for conv in (step if isinstance(step[0], tuple) else (step,))]
  return names


class ConvUnit(nn.Module):
  """Convolution without bias, batch normalisation, ReLU; of images or of videos."""

  features: int
  kernel_size: Sequence[int]
  stride: int = 1
  padding: str | Sequence[tuple[int, int]] = 'SAME'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (n, ..., c) with as many spatial axes as `kernel_size` to (n, ..., features)."""
    strides = (self.stride,) * len(self.kernel_size)
    # Measurements are float32 on every device: a TPU's default product is bfloat16.
    conv = nn.Conv(
      self.features, self.kernel_size, strides, self.padding, use_bias=False, precision='highest',
      name='conv',
    )  # fmt: skip
    return jax.nn.relu(BatchNorm(1e-3, name='bn')(conv(x)))


def _pool(x: jax.Array, kind: str) -> jax.Array:
  """3x3 pooling: 'average' and 'maximum' keep the size, 'halve' is the unpadded one of stride 2."""
  if kind == 'halve':
    return nn.max_pool(x, (3, 3), (2, 2))
  same = ((1, 1), (1, 1))
  if kind == 'maximum':  # the padding is -inf, and never the maximum
    return nn.max_pool(x, (3, 3), padding=same)
  return nn.avg_pool(x, (3, 3), padding=same, count_include_pad=False)


class _Block(nn.Module):
  """Branches of `BLOCKS[name]` side by side."""

  divisor: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    branches = BLOCKS[self.name]
    reduction = ['halve'] in branches
    outs = []
    for branch in branches:
      y = x
      for i, step in enumerate(branch):
        if isinstance(step, str):
          y = _pool(y, step)
        elif isinstance(step[0], tuple):
          y = jnp.concatenate([self._unit(conv, False)(y) for conv in step], -1)
        else:
          y = self._unit(step, reduction and i == len(branch) - 1)(y)
      outs.append(y)
    return jnp.concatenate(outs, -1)

  def _unit(self, step: tuple, halve: bool) -> ConvUnit:
    name, features, *kernel = step
    stride, padding = (2, 'VALID') if halve else (1, 'SAME')
    return ConvUnit(features // self.divisor, kernel, stride, padding, name=name)


class Inception(nn.Module):
  """The network of FID. `divisor` divides every width, for small tests."""

  divisor: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps frames (n, 299, 299, 3) in [-1, 1], from `fid_input`, to pooled features (n, 2048)."""
    for step in STEM:
      if step == 'halve':
        x = _pool(x, step)
      else:
        name, features, k, stride, padding = step
        x = ConvUnit(features // self.divisor, (k, k), stride, padding, name=name)(x)
    for name in BLOCKS:
      x = _Block(self.divisor, name=name)(x)
    return jnp.mean(x, axis=(1, 2))


def fid_input(image: jax.Array) -> jax.Array:
  """Resizes images (n, h, w, 3) in [0, 1] to (n, 299, 299, 3) in [-1, 1], as pytorch-fid does.

  Bilinear between pixel centres and not low-passed, also where it shrinks: FID of large images
  depends on that, and numbers are comparable only with the same resize.
  """
  shape = (image.shape[0], SIDE, SIDE, image.shape[-1])
  resized = jax.image.resize(image.astype(jnp.float32), shape, 'bilinear', antialias=False)
  return 2 * resized - 1
