"""Image metrics, one value per pair, and the bootstrap interval of a mean.

Images are NHWC in [-1, 1].
"""

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np


def l1(x: jax.Array, y: jax.Array, mask: jax.Array | None = None) -> jax.Array:
  """Returns the mean absolute difference on the [-1, 1] scale, (n,).

  Args:
    mask: (n, h, w) weights in [0, 1] of the pixels.
  """
  difference = jnp.abs(x - y).mean(-1)
  if mask is None:
    return difference.mean((1, 2))
  weight = jnp.maximum(mask.sum((1, 2)), 1e-6)  # a mask may be empty
  return (difference * mask).sum((1, 2)) / weight


def psnr(x: jax.Array, y: jax.Array) -> jax.Array:
  """Returns the peak signal-to-noise ratio in dB, (n,); infinite for equal images."""
  # The range [-1, 1] has a peak of 2, squared 4.
  return 10 * jnp.log10(4 / jnp.square(x - y).mean((1, 2, 3)))


def ssim(x: jax.Array, y: jax.Array) -> jax.Array:
  """Returns the structural similarity (Wang et al. 2004), (n,): Gaussian window, sigma 1.5.

  The window has 11 px, which an image must have at least. The mean is over channels and over
  windows inside the image.
  """
  return dm_pix.ssim((x + 1) / 2, (y + 1) / 2)


def identity_score(
  similarity: jax.Array, genuine: float | jax.Array, impostor: float | jax.Array
) -> jax.Array:
  """Returns cosine similarity on a scale where another person is 0 and the same person is 1."""
  return (similarity - impostor) / (genuine - impostor)


def bootstrap(
  values: np.ndarray, groups: np.ndarray | None = None, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
  """Returns (mean, low, high): the mean of `values` (n,) and its percentile 95 % interval.

  Args:
    values: for a paired comparison, the differences.
    groups: (n,) of labels; values of a group are drawn together. Use the person, because frames of
      one person are not independent. Without it each value is drawn alone.

  Raises:
    ValueError: there are no values, or not one group per value.
  """
  values = np.asarray(values, np.float64)
  # Each draw takes as many groups as there are, with repetition; a group may have any size.
  groups = np.arange(len(values)) if groups is None else np.asarray(groups)
  if values.ndim != 1 or not len(values) or groups.shape != values.shape:
    raise ValueError(f'values {values.shape} and groups {groups.shape}: one group per value')
  _, member = np.unique(groups, return_inverse=True)
  sums, counts = np.bincount(member, values), np.bincount(member)
  drawn = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
  means = sums[drawn].sum(1) / counts[drawn].sum(1)
  low, high = np.percentile(means, (2.5, 97.5))
  return float(values.mean()), float(low), float(high)
