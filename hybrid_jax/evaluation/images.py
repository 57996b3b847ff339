"""How near two images are: one value per pair, images NHWC in [-1, 1]. And how sure a mean is."""

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np


def l1(x: jax.Array, y: jax.Array, mask: jax.Array | None = None) -> jax.Array:
  """Mean absolute difference on the [-1, 1] scale, (n,); under `mask` (n, h, w) in [0, 1] alone."""
  difference = jnp.abs(x - y).mean(-1)
  if mask is None:
    return difference.mean((1, 2))
  return (difference * mask).sum((1, 2)) / jnp.maximum(mask.sum((1, 2)), 1e-6)


def psnr(x: jax.Array, y: jax.Array) -> jax.Array:
  """Peak signal-to-noise ratio, dB, (n,); infinite for equal images. The peak is 2."""
  return 10 * jnp.log10(4 / jnp.square(x - y).mean((1, 2, 3)))


def ssim(x: jax.Array, y: jax.Array) -> jax.Array:
  """Structural similarity (Wang et al. 2004), (n,): Gaussian window of 11 px, sigma 1.5.

  The mean is over channels and over windows that lie inside the image; it needs 11 px.
  """
  return dm_pix.ssim((x + 1) / 2, (y + 1) / 2)


def identity_score(
  similarity: jax.Array, genuine: float | jax.Array, impostor: float | jax.Array
) -> jax.Array:
  """Cosine similarity on a scale where another person is 0 and another frame of the same is 1."""
  return (similarity - impostor) / (genuine - impostor)


def bootstrap(
  values: np.ndarray, groups: np.ndarray | None = None, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
  """(mean, low, high): percentile 95 % interval of the mean of `values` (n,).

  For a paired comparison give the differences. `groups` (n,) names what is drawn together, e.g. the
  person: frames of one person are no independent evidence. Without it each value is drawn alone.

  Raises:
    ValueError: no values, or as many groups as there are not values.
  """
  values = np.asarray(values, np.float64)
  groups = np.arange(len(values)) if groups is None else np.asarray(groups)
  if values.ndim != 1 or not len(values) or groups.shape != values.shape:
    raise ValueError(f'values {values.shape} and groups {groups.shape}: one group per value')
  _, member = np.unique(groups, return_inverse=True)
  sums, counts = np.bincount(member, values), np.bincount(member)
  drawn = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
  means = sums[drawn].sum(1) / counts[drawn].sum(1)
  low, high = np.percentile(means, (2.5, 97.5))
  return float(values.mean()), float(low), float(high)
