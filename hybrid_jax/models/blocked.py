"""Large layers for TPUs: pixels in blocks of 1 x 2 or 2 x 2, whose channels fill the lanes.

In blocks of (a, b) a picture (n, h, w, c) is held as (n, h/a, w/b, a b c): channel (b p + q) c + k
is channel k of pixel (a i + p, b j + q). All of it equals the plain form of `ops` up to rounding,
with the same weights. A convolution does more multiplications, most of them with zero, and is still
several times faster, because 32 channels alone leave three quarters of the 128 lanes empty.

RGB pictures are channel first, (n, 3, h, w): with the channels last, 3 of 128 lanes would be used.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hybrid_jax.models.ops import adaptive_matrix, conv, demodulation, polyphase_kernel

Block = tuple[int, int]  # pixels of a block along h and w
LANES = 128


def block_of(channels: int) -> Block:
  """Returns the block (1, 1), (1, 2) or (2, 2) with which `channels` fill the lanes best."""
  if channels > LANES // 2:
    return 1, 1
  return (1, 2) if channels > LANES // 4 else (2, 2)


def to_blocks(x: jax.Array, block: Block) -> jax.Array:
  """Maps (n, h, w, c) to (n, h/a, w/b, a b c)."""
  (n, h, w, c), (a, b) = x.shape, block
  x = x.reshape(n, h // a, a, w // b, b, c).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(n, h // a, w // b, a * b * c)


def from_blocks(x: jax.Array, block: Block) -> jax.Array:
  """Maps (n, h/a, w/b, a b c) to (n, h, w, c)."""
  (n, h, w, c), (a, b) = x.shape, block
  x = x.reshape(n, h, w, a, b, -1).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(n, a * h, b * w, c // (a * b))


def _taps(size: int) -> np.ndarray:
  """Returns (block, p, P, tap): 1 where pixel p of a block is what pixel P reads at this tap."""
  table = np.zeros((3, size, size, 3), np.float32)
  for block, p, P in np.ndindex(3, size, size):
    tap = size * (block - 1) + p - P + 1
    if 0 <= tap < 3:
      table[block, p, P, tap] = 1
  return table


def block_kernel(kernel: jax.Array, block: Block) -> jax.Array:
  """Returns (3, 3, a b i, a, b, o), which does on blocks what (3, 3, i, o) does on pixels."""
  rows, columns = map(_taps, block)
  blocks = jnp.einsum('xpPu,yqQv,uvio->xypqiPQo', rows, columns, kernel)
  return blocks.reshape(3, 3, -1, *block, kernel.shape[-1])


def up_kernel(kernel: jax.Array, before: Block, after: Block) -> tuple[jax.Array, Block]:
  """Returns the kernel of an up-convolution from blocks to blocks, and the blocks of its result.

  The result of one block holds 2a x 2b pixels: (R, C) blocks of the size `after`, in this order.
  """
  # (3, 3, a b i, a, b, 2, 2, o): the polyphase form's four outputs of each pixel.
  blocks = block_kernel(polyphase_kernel(kernel), before)
  blocks = blocks.reshape(*blocks.shape[:5], 2, 2, -1)
  (a, b), (r, c) = before, after
  many = 2 * a // r, 2 * b // c
  # Rows 2 P + p of the block, columns 2 Q + q; then each as (block, pixel of the block).
  blocks = blocks.transpose(0, 1, 2, 3, 5, 4, 6, 7).reshape(
    3, 3, -1, many[0], r, many[1], c, blocks.shape[-1]
  )
  return blocks.transpose(0, 1, 2, 3, 5, 4, 6, 7), many


def tiled(x: jax.Array, block: Block) -> jax.Array:
  """Repeats values per channel (..., c) for the pixels of a block, (..., a b c)."""
  return jnp.concatenate([x] * (block[0] * block[1]), -1)


def modulated_conv(
  x: jax.Array, kernel: jax.Array, styles: jax.Array, *, up: bool, before: Block, after: Block
) -> jax.Array:
  """Computes `ops.modulated_conv`, x in blocks `before`, the result in blocks `after`."""
  x = x * tiled(styles, before)[:, None, None, :].astype(x.dtype)
  many = (1, 1)
  if up:
    blocks, many = up_kernel(kernel, before, after)
  else:
    blocks = block_kernel(kernel, before)
  y = conv(x, blocks.reshape(3, 3, x.shape[-1], -1))
  # Whole blocks change place, which keeps the lanes full.
  y = from_blocks(y, many)
  return y * tiled(demodulation(kernel, styles), after)[:, None, None, :].astype(y.dtype)


def noise_blocks(noise: jax.Array, features: int, block: Block) -> jax.Array:
  """Maps noise (n, h, w, 1) to blocks with the same value for every channel."""
  return jnp.repeat(to_blocks(noise, block), features, axis=-1)


# --- RGB -----------------------------------------------------------------------------------------


def to_rgb(x: jax.Array, kernel: jax.Array, styles: jax.Array, block: Block) -> jax.Array:
  """Computes the modulated 1x1 convolution (i, 3) to RGB, channel first.

  Returns:
    (n, a, b, 3, h/a, w/b): pixel (p, q) of each block apart.
  """
  weights = (styles[:, :, None] * kernel).astype(x.dtype)  # n i 3
  (n, h, w, _), pixels = x.shape, block[0] * block[1]
  # One product with a block diagonal, so that the channels of a block stay together.
  diagonal = jnp.einsum('ab,nic->naibc', jnp.eye(pixels, dtype=x.dtype), weights)
  diagonal = diagonal.reshape(n, -1, 3 * pixels)
  y = jnp.einsum('nhwk,nkm->nmhw', x, diagonal, preferred_element_type=jnp.float32)
  return y.reshape(n, *block, 3, h, w)


@functools.cache
def _doubling(size: int) -> np.ndarray:
  """Returns (2 size, size): `ops.upsample_skip` along one axis."""
  matrix = np.zeros((2 * size, size), np.float64)
  for i in range(size):
    matrix[2 * i, i] = matrix[2 * i + 1, i] = 0.75
    if i:
      matrix[2 * i, i - 1] = 0.25
    if i + 1 < size:
      matrix[2 * i + 1, i + 1] = 0.25
  return matrix


@functools.cache
def resizing(size: int, final: int, pooled: int) -> np.ndarray:
  """Returns (pooled, size): doubles rows of `size` px up to `final`, then averages to `pooled`."""
  matrix = np.eye(size)
  while len(matrix) < final:
    matrix = _doubling(len(matrix)) @ matrix
  return (adaptive_matrix(final, pooled) @ matrix).astype(np.float32)


def add_rgb(total: jax.Array | None, rgb: jax.Array, final: int, pooled: int) -> jax.Array:
  """Adds the RGB of one resolution, brought to the result's size, to (n, 3, pooled, pooled).

  StyleGAN2 doubles the sum of all smaller pictures again and again. Doubling is linear: each can be
  brought to its final size at once, by a constant matrix for rows and one for columns.

  Args:
    rgb: what `to_rgb` returned.
    final: resolution of the generator, px. pooled: size of the result, at most `final`.
  """
  _, a, b, _, h, w = rgb.shape
  rows = resizing(a * h, final, pooled).reshape(pooled, h, a)
  columns = resizing(b * w, final, pooled).reshape(pooled, w, b)
  # 'high': on a TPU three passes of bfloat16, since the default would show in 8 bits.
  here = jnp.einsum('Hhp,Wwq,npqchw->ncHW', rows, columns, rgb, precision='high')
  return here if total is None else total + here
