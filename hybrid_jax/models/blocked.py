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

from hybrid_jax.models.ops import (
  adaptive_matrix,
  conv,
  demodulation,
  leaky_relu,
  polyphase_kernel,
)

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


def styled_conv(
  x: jax.Array,
  kernel: jax.Array,
  bias: jax.Array,
  styles: jax.Array,
  noise: jax.Array | None,
  *,
  up: bool,
  before: Block,
  after: Block,
) -> jax.Array:
  """Computes modulated convolution, noise, bias and leaky ReLU, as `stylegan2.StyledConv`.

  x is in blocks `before`, the result in blocks `after`; noise is (n or 1, h, w, 1), already scaled.
  """
  x = x * tiled(styles, before)[:, None, None, :].astype(x.dtype)
  blocks, many = up_kernel(kernel, before, after) if up else (block_kernel(kernel, before), (1, 1))
  y = conv(x, blocks.reshape(3, 3, x.shape[-1], -1))
  # All in the place where the convolution leaves it, so that XLA makes one pass of it.
  whole = many[0] * after[0], many[1] * after[1]
  y = y * tiled(demodulation(kernel, styles), whole)[:, None, None, :].astype(y.dtype)
  if noise is not None:
    noise = noise.reshape(-1, *noise.shape[-3:])  # stored maps are (h, w, 1)
    noise = to_blocks(to_blocks(noise, after), many)
    y = y + jnp.repeat(noise, len(bias), axis=-1).astype(y.dtype)
  y = leaky_relu(y + tiled(bias, whole).astype(y.dtype))
  # Whole blocks change place, which keeps the lanes full.
  return from_blocks(y, many)


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


def resized(rgb: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
  """Applies matrices (H, a h), (W, b w) to a picture (n, a, b, 3, h, w); returns (n, 3, H, W)."""
  _, a, b, _, h, w = rgb.shape
  rows, columns = rows.reshape(-1, h, a), columns.reshape(-1, w, b)
  # 'high': on a TPU three passes of bfloat16, since the default would show in 8 bits.
  return jnp.einsum('Hhp,Wwq,npqchw->ncHW', rows, columns, rgb, precision='high')


def add_rgb(total: jax.Array | None, rgb: jax.Array, final: int, pooled: int) -> jax.Array:
  """Adds the RGB of a resolution, as `to_rgb` returns it, to the sum of all smaller ones.

  Up to `pooled` px the sum is doubled each time, as in StyleGAN2. Beyond, each picture is brought
  to the result's size at once, by one matrix for rows and one for columns: all of it is linear.

  Args:
    final: resolution of the generator, px. pooled: size of the result.

  Returns:
    (n, 3, s, s) where s is the smaller of the resolution and `pooled`.
  """
  size = rgb.shape[1] * rgb.shape[4]
  if size > pooled:
    own = resizing(size, final, pooled)
    earlier = resizing(pooled, final, pooled) if size == 2 * pooled else None
  else:
    own, earlier = np.eye(size, dtype=np.float32), resizing(size // 2, size, size)
  # The identity puts the pixels of blocks in their places; where there are none, it does nothing.
  here = rgb[:, 0, 0] if own.shape == rgb.shape[4:] else resized(rgb, own, own)
  if total is None:
    return here
  return here + (total if earlier is None else resized(total[:, None, None], earlier, earlier))
