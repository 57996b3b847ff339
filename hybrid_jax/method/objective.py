"""The training objective, eqs. (5) to (14): one pass over a batch of triplets.

A batch is {'source', 'driving', 'other'}: uint8 (n, h, w, 3) frames S, D (same person as S) and D'
(another person) at the encoder's size; stage 2 adds 'source_mask' and 'driving_mask', uint8
(n, h, w). Symbols as in `hybrid.py` and `losses.py`.

Images that go through one network together are stacked on a new axis 1 and folded into the batch,
which keeps each sample on its device; concatenating along the batch axis would move them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hybrid_jax.method import losses
from hybrid_jax.method.encoder import Encoder
from hybrid_jax.method.networks import Networks
from hybrid_jax.models import latents
from hybrid_jax.models.ops import adaptive_avg_pool, from_uint8


def _fold(*images: jax.Array) -> jax.Array:
  """k arrays (n, ...) -> (n k, ...), sample by sample."""
  if len(images) == 1:
    return images[0]
  return jnp.stack(images, axis=1).reshape(-1, *images[0].shape[1:])


def _unfold(x: jax.Array, k: int) -> list[jax.Array]:
  """(n k, ...) -> k arrays (n, ...): the inverse of `_fold`."""
  x = x.reshape(-1, k, *x.shape[1:])
  return [x[:, i] for i in range(k)]


def _pyramids(
  encoder: Encoder, E: Mapping, images: Sequence[jax.Array], train: bool, by_role: bool
) -> tuple[list[jax.Array], Mapping]:
  """Returns the levels of k batches of images (n, h, w, 3), folded, and the batch statistics after.

  With `train`, all images are normalised together, or each of the k batches on its own (`by_role`).
  """
  statistics, levels = E['batch_stats'], []
  for image in images if by_role else [_fold(*images)]:
    level, updates = encoder.apply(
      E | {'batch_stats': statistics}, image, train, method='pyramid', mutable=['batch_stats']
    )
    statistics = updates['batch_stats']
    levels.append(level)
  return [_fold(*level) for level in zip(*levels, strict=True)], statistics


def make_objective(networks: Networks, config: Any) -> Callable:
  """Returns the objective of one batch, Eqs. (5) to (14); it updates nothing.

  The result is objective(params, batch_stats, critic, frozen, batch, rows, key, train) -> (total,
  (W_S, batch_stats, metrics)). `rows` is the number of active W+ rows, `frozen` the tree of
  `networks.py`. With `train`, the encoder's body normalises by the statistics of the batch (stage 1
  only) and `batch_stats` are the updated running statistics.
  """
  hybrid, encoder, size = networks.hybrid, networks.hybrid.encoder, config.loss.resolution
  reconstruction_weights = dict(config.loss.reconstruction)
  weights = dict(config.loss.weights)
  # The paper fixes the ratio of the weights of Eqs. (12) and (11), not the weight of (12).
  weights['style_proximity'] = config.loss.style_proximity_ratio * weights['w_variance']
  if not weights['deformation_consistency']:  # it is not in the paper, and costs the heads of F_R'
    del weights['deformation_consistency']
  readings, finetune = config.loss.readings, config.stage == 'finetune'
  running, by_role = (readings.batch_statistics == name for name in ('running', 'role'))

  def objective(params, batch_stats, critic, frozen, batch, rows, key, train):
    G = frozen['generator']
    S, D, D_other = (from_uint8(batch[role]) for role in ('source', 'driving', 'other'))

    # Eqs. (1), (2), one pass over 3 n frames. Only the source's identity latent is ever used.
    E = {'params': freeze_features(params) if finetune else params, 'batch_stats': batch_stats}
    training = train and not finetune
    levels, updated = _pyramids(encoder, E, (S, D, D_other), training, by_role)
    levels_S = [_unfold(level, 3)[0] for level in levels]
    W_S = encoder.apply(E, levels_S, rows, method='identity') + G['w_avg']
    F = encoder.apply(E, levels, method='deformation')
    F_S, F_D, F_other = zip(*(_unfold(F_l, 3) for F_l in F), strict=True)

    # Four decodes in one pass: the images of Eqs. (5), (6), (8) and (9).
    zero = tuple(jnp.zeros_like(F_l) for F_l in F_S)
    styles = [hybrid.combine(G, W_S, F_l) for F_l in (F_S, F_D, zero, F_other)]
    styles = tuple(_fold(*layer) for layer in zip(*styles, strict=True))
    # Fresh noise at every step, as e4e trains; re-enactment uses the stored maps.
    noise = latents.random_noise(key, 4 * S.shape[0], hybrid.generator.channels)
    # The loss resolution is 256: LPIPS at 1024 would cost 16 times as much.
    decoded = hybrid.synthesize(G, styles, noise, size)
    R_S, R_D, anchor, R_other = _unfold(decoded, 4)
    S_loss, D_loss = (adaptive_avg_pool(x, size) for x in (S, D))

    def lpips(x, y):
      return networks.lpips.apply(frozen['lpips'], x, y)

    self_rec, terms_S = losses.reconstruction(S_loss, R_S, lpips, reconstruction_weights)  # Eq. (5)
    reenactment, terms_D = losses.reconstruction(D_loss, R_D, lpips, reconstruction_weights)  # (6)

    phi = networks.arcface.apply(frozen['arcface'], _fold(S_loss, anchor, R_other))
    phi_S, phi_anchor, phi_other = _unfold(phi, 3)

    # Eq. (10): R' goes through the encoder again, as a batch of its own or with running statistics,
    # since its frames come from another distribution than the batch's. No stop_gradient: the
    # gradient flows through generator and encoder, to W_S and to W_R'.
    E_R = E | {'batch_stats': updated} if by_role else E
    again = adaptive_avg_pool(R_other, S.shape[1])
    levels_R, updated_R = _pyramids(encoder, E_R, (again,), training and not running, by_role)
    W_R = encoder.apply(E, levels_R, rows, method='identity') + G['w_avg']

    logits = networks.critic.apply(critic, W_S)
    terms = {
      'self_reconstruction': self_rec,  # Eq. (5)
      'reenactment': reenactment,  # Eq. (6)
      'anchor_identity': losses.identity(phi_S, phi_anchor),  # Eq. (8)
      'puppet_identity': losses.identity(phi_S, phi_other),  # Eq. (9)
      # Eq. (10)
      'latent_consistency': losses.latent_consistency(W_S, W_R, readings.latent_consistency),
      'w_variance': losses.w_variance(W_S),  # Eq. (11)
      'style_proximity': losses.deformation_mse(F_D, zero)  # Eq. (12)
      if readings.style_proximity == 'mse'
      else losses.style_proximity(F),  # over all three frames
      'adversarial': losses.adversarial(logits, rows),
    }
    if 'deformation_consistency' in weights:
      F_R = encoder.apply(E, levels_R, method='deformation')
      terms['deformation_consistency'] = losses.deformation_mse(F_other, F_R)
    if finetune:
      terms['feature_reconstruction'] = sum(  # Eq. (13)
        losses.feature_reconstruction(
          target, image, feature_mask(mask, size, config.loss), lpips, reconstruction_weights
        )
        for target, image, mask in (
          (S_loss, R_S, batch['source_mask']),
          (D_loss, R_D, batch['driving_mask']),
        )
      )
    total = losses.weighted_sum(terms, weights)  # Eq. (14)
    parts = {f'self_{k}': v for k, v in terms_S.items()}
    parts |= {f'reenactment_{k}': v for k, v in terms_D.items()}
    return total, (W_S, updated_R if by_role else updated, {'total': total} | terms | parts)

  return objective


def freeze_features(params: Mapping) -> dict:
  """Returns the same parameters, with a gradient for the heads only, for stage 2.

  Stage 2 keeps the feature network of stage 1: only parts named `*_heads_*` learn.
  """
  return {
    name: part if '_heads_' in name else jax.lax.stop_gradient(part)
    for name, part in params.items()
  }


def feature_mask(mask: jax.Array, size: int, loss: Any) -> jax.Array:
  """Returns the mask of Eq. (13): uint8 (n, h, w) -> dilated (n, size, size, 1) in [0, 1].

  `loss` is the section of the config; its `mask_dilation` is in frame sides, so that the reach
  does not depend on the resolution of the frames.
  """
  mask = mask[..., None].astype(jnp.float32) / 255
  reach = round(loss.mask_dilation * mask.shape[1])
  window = 2 * reach + 1
  mask = nn.max_pool(mask, (window, window), (1, 1), 'SAME')
  return adaptive_avg_pool(mask, size)
