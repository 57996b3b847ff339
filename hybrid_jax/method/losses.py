"""The paper's losses (section 3.2), one function per equation.

Symbols: `S` source, `D` same-identity driver, `R` a re-enacted frame, `W` identity latent
(n, l, d), `F` deformation latent, `phi` unit identity embeddings (n, d). Images are NHWC in [-1, 1]
at the loss resolution. Each function returns one scalar, a mean over the batch, without its weight.

The public text of the paper has lost its displayed formulas: [stated] marks those that its words
give, [read] those that are our reading.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

_SOBEL_X = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32)
_GREY = np.array([0.2989, 0.5870, 0.1140], np.float32)


def safe_norm(x: jax.Array, axis: int | tuple[int, ...] = -1) -> jax.Array:
  """Returns ||x||_2 with a zero gradient at zero: inactive rows and a fresh F are exactly zero."""
  # Two `where`: the gradient of sqrt(0) is infinite, and infinite times zero is NaN.
  square = jnp.sum(jnp.square(x), axis=axis)
  zero = square == 0
  return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))


def mse(x: jax.Array, y: jax.Array) -> jax.Array:
  """Returns the mean squared error."""
  return jnp.mean(jnp.square(x - y))


def gradient_variance(x: jax.Array, y: jax.Array, patch: int = 8) -> jax.Array:
  """Returns the distance of local variances of Sobel gradients (Abrahamyan et al. 2022).

  Images are in [-1, 1]. The variance is over patches of `patch` px; rows and columns that fill no
  whole patch are dropped.
  """

  def variances(image: jax.Array) -> list[jax.Array]:
    # On [0, 1], since the loss grows with the fourth power of the range. 'highest' twice, because
    # TF32 rounding shows in a variance of small differences.
    grey = jnp.dot((image + 1) / 2, _GREY, precision='highest')  # n h w
    kernels = jnp.stack((_SOBEL_X, _SOBEL_X.T), -1)[:, :, None]  # k k 1 o
    edges = jax.lax.conv_general_dilated(
      grey[..., None],
      kernels,
      (1, 1),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision='highest',
    )
    n, h, w, o = edges.shape
    rows, columns = h // patch, w // patch
    edges = edges[:, : rows * patch, : columns * patch]
    patches = edges.reshape(n, rows, patch, columns, patch, o)
    return jnp.var(patches, axis=(2, 4), ddof=1)  # n rows columns o; unbiased as torch.var

  return 2 * mse(variances(x), variances(y))  # the x and the y term, each a mean of its own


def reconstruction(
  target: jax.Array,
  image: jax.Array,
  lpips: Callable[[jax.Array, jax.Array], jax.Array],
  weights: Mapping[str, float],
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns L_rec(I, J) = l2 MSE + lpips LPIPS + gradient_variance GV [stated], and its terms.

  Eqs. (5) and (6) are L_rec of (S, G(W_S, F_S)) and of (D, G(W_S, F_D)) [stated].
  """
  terms = {  # Eq. (7)
    'l2': mse(image, target),
    'lpips': jnp.mean(lpips(image, target)),
    'gradient_variance': gradient_variance(image, target),
  }
  return weighted_sum(terms, weights), terms


def identity(phi_S: jax.Array, phi_R: jax.Array) -> jax.Array:
  """Returns 1 - <phi(S), phi(R)>, R the anchor G(W_S, 0) or G(W_S, F_D') [read]."""
  return 1 - jnp.mean(jnp.sum(phi_S * phi_R, axis=-1))  # Eqs. (8), (9)


def latent_consistency(W_S: jax.Array, W_R: jax.Array, form: str) -> jax.Array:
  """Returns the distance of W_S and W_R', R' = G(W_S, F_D') [read].

  `form` is 'norm', the mean over W+ rows of ||W_S - W_R'||_2, or 'mse', ViVFace's.
  """
  return mse(W_S, W_R) if form == 'mse' else jnp.mean(safe_norm(W_S - W_R))  # Eq. (10)


def w_variance(W: jax.Array) -> jax.Array:
  """Returns sum_i ||W_i - W_1||_2, e4e's delta norm; inactive rows contribute zero [read]."""
  return jnp.sum(jnp.mean(safe_norm(W - W[:, :1]), axis=0))  # Eq. (11)


def style_proximity(F: Sequence[jax.Array]) -> jax.Array:
  """Returns sum_j ||F_j||_2, which keeps deformations near the source's StyleSpace [read]."""
  return sum(jnp.mean(safe_norm(F_j)) for F_j in F)  # Eq. (12)


def deformation_mse(F: Sequence[jax.Array], other: Sequence[jax.Array]) -> jax.Array:
  """Returns the mean squared error of two deformation latents, over the entries of all layers.

  ViVFace has it twice: of F_D and zero for Eq. (12), and of F_D' and F_R', which the paper lacks.
  """
  return mse(jnp.concatenate(F, -1), jnp.concatenate(other, -1))


def feature_reconstruction(
  target: jax.Array,
  image: jax.Array,
  mask: jax.Array,
  lpips: Callable[[jax.Array, jax.Array], jax.Array],
  weights: Mapping[str, float],
) -> jax.Array:
  """Returns L_rec with both images multiplied by the target's mask (n, h, w, 1) in [0, 1] [read].

  A batch without any mask gives zero.
  """
  target, image = mask * target, mask * image
  # All terms are means over the frame, most of which is masked: divided by the area of the mask, or
  # they would shrink with the features.
  area = jnp.maximum(jnp.mean(mask), 1e-3)
  terms = {  # Eq. (13)
    'l2': mse(image, target),
    'lpips': jnp.mean(lpips(image, target)),
    'gradient_variance': gradient_variance(image, target),
  }
  return weighted_sum(terms, weights) / area


def adversarial(logits: jax.Array, active_rows: jax.Array | int) -> jax.Array:
  """Returns the mean over active rows of softplus(-D(W_i)): the encoder's side of e4e's adversary.

  `logits` (n, l, 1) are D(W_i) of every W+ row.
  """
  per_row = jnp.mean(jax.nn.softplus(-logits[..., 0]), axis=0)  # l
  active = jnp.arange(per_row.shape[0]) < active_rows
  return jnp.sum(jnp.where(active, per_row, 0.0)) / jnp.sum(active)


def discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
  """Returns the critic's loss softplus(-D(real)) + softplus(D(fake)), of logits (n, 1)."""
  return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))


def r1_penalty(critic: Callable[[jax.Array], jax.Array], real: jax.Array) -> jax.Array:
  """Returns the mean over the batch of ||d D(real) / d real||^2 (Mescheder et al. 2018)."""
  # The gradient of the sum holds each sample's own gradient: D has no batch statistics.
  gradient = jax.grad(lambda x: jnp.sum(critic(x)))(real)
  return jnp.mean(jnp.sum(jnp.square(gradient), axis=tuple(range(1, real.ndim))))


def weighted_sum(terms: Mapping[str, jax.Array], weights: Mapping[str, float]) -> jax.Array:
  """Returns sum_k weights[k] terms[k]; terms without a weight are only reported.

  Raises:
    KeyError: a weight has no term, and would silently do nothing.
  """
  unknown = sorted(set(weights) - set(terms))
  if unknown:
    raise KeyError(f'loss weights without a term: {unknown}; terms are {sorted(terms)}')
  return sum(weights[name] * terms[name] for name in weights)  # Eq. (14)
