"""One pure training step: step(state, frozen, batch) -> (state, metrics).

A batch is {'source', 'driving', 'other'}: uint8 (n, h, w, 3) frames S, D and D' at the encoder's
size; stage 2 adds 'source_mask' and 'driving_mask', uint8 (n, h, w). Images that go through one
network together are stacked on a new axis 1 and folded into the batch, which keeps them on their
device; concatenating along the batch axis would move them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from hybrid_jax.method import losses
from hybrid_jax.method.networks import Networks, init_encoder
from hybrid_jax.models import latents
from hybrid_jax.models.ops import adaptive_avg_pool, from_uint8
from hybrid_jax.training import optim
from hybrid_jax.training.state import TrainState, empty_pool, query_pool

Step = Callable[[TrainState, Mapping, Mapping], tuple[TrainState, dict[str, jax.Array]]]


def _fold(*images: jax.Array) -> jax.Array:
  """k arrays (n, ...) -> (n k, ...), sample by sample."""
  return jnp.stack(images, axis=1).reshape(-1, *images[0].shape[1:])


def _unfold(x: jax.Array, k: int) -> list[jax.Array]:
  """(n k, ...) -> k arrays (n, ...): the inverse of `_fold`."""
  x = x.reshape(-1, k, *x.shape[1:])
  return [x[:, i] for i in range(k)]


def active_rows(step: jax.Array | int, progressive: Any, num_ws: int) -> jax.Array:
  """Progressive W+ rows as in e4e: one until `start_steps`, one more every `every_steps` steps.

  `every_steps` 0 switches all rows on from the beginning.
  """
  start, every = progressive.start_steps, progressive.every_steps
  if every == 0:
    return jnp.asarray(num_ws)
  return jnp.where(step < start, 1, jnp.minimum(2 + (step - start) // every, num_ws))


def optimizers(config: Any) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
  """Ranger for the encoder, Adam for the latent critic."""
  return optim.ranger(config.optim.encoder_lr), optax.adam(config.optim.critic_lr)


def init_state(
  networks: Networks, config: Any, key: jax.Array, encoder: Mapping | None = None
) -> TrainState:
  """The state before step 0, from a fresh encoder or from a given {'params', 'batch_stats'}."""
  key_encoder, key_critic, key = jax.random.split(key, 3)
  encoder = dict(init_encoder(networks, key_encoder) if encoder is None else encoder)
  w_dim = networks.hybrid.generator.w_dim
  critic = networks.critic.init(key_critic, jnp.zeros((1, w_dim)))
  encoder_tx, critic_tx = optimizers(config)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    key=key,
    encoder=encoder,
    encoder_opt=encoder_tx.init(encoder['params']),
    critic=critic,
    critic_opt=critic_tx.init(critic),
    r1=jnp.zeros(()),
    pool_real=empty_pool(config.loss.pool_size, w_dim),
    pool_fake=empty_pool(config.loss.pool_size, w_dim),
  )


def freeze_features(params: Mapping) -> dict:
  """The same parameters, of which only the heads learn: stage 2 keeps the feature network."""
  return {
    name: part if '_heads_' in name else jax.lax.stop_gradient(part)
    for name, part in params.items()
  }


def make_objective(networks: Networks, config: Any) -> Callable:
  """Eqs. 5 to 14 of one batch, without updating anything.

  The result is objective(params, batch_stats, critic, frozen, batch, rows, key, train) -> (total,
  (W_S, batch_stats, metrics)). With `train`, the body normalises by the batch's statistics (stage 1
  only) and returns updated ones.
  """
  hybrid, encoder, size = networks.hybrid, networks.hybrid.encoder, config.loss.resolution
  reconstruction_weights = dict(config.loss.reconstruction)
  weights = dict(config.loss.weights)
  weights['style_proximity'] = config.loss.style_proximity_ratio * weights['w_variance']
  finetune = config.stage == 'finetune'

  def objective(params, batch_stats, critic, frozen, batch, rows, key, train):
    G = frozen['generator']
    S, D, D_other = (from_uint8(batch[role]) for role in ('source', 'driving', 'other'))

    # Eqs. 1-2, one pass over 3 n frames. Only the source's identity latent is ever used.
    E = {'params': freeze_features(params) if finetune else params, 'batch_stats': batch_stats}
    levels, updates = encoder.apply(
      E,
      _fold(S, D, D_other),
      train=train and not finetune,
      method='pyramid',
      mutable=['batch_stats'],
    )
    levels_S = [_unfold(level, 3)[0] for level in levels]
    W_S = encoder.apply(E, levels_S, rows, method='identity') + G['w_avg']
    F = encoder.apply(E, levels, method='deformation')
    F_S, F_D, F_other = zip(*(_unfold(F_l, 3) for F_l in F), strict=True)

    # Four decodes in one pass: eqs. 5, 6, 8 and 9.
    zero = tuple(jnp.zeros_like(F_l) for F_l in F_S)
    styles = [hybrid.combine(G, W_S, F_l) for F_l in (F_S, F_D, zero, F_other)]
    styles = tuple(_fold(*layer) for layer in zip(*styles, strict=True))
    noise = latents.random_noise(key, 4 * S.shape[0], hybrid.generator.channels)
    decoded = hybrid.synthesize(G, styles, noise)
    # The loss resolution is 256: LPIPS at 1024 would cost 16 times as much.
    R_S, R_D, anchor, R_other = _unfold(adaptive_avg_pool(decoded, size), 4)
    S_loss, D_loss = (adaptive_avg_pool(x, size) for x in (S, D))

    lpips = lambda x, y: networks.lpips.apply(frozen['lpips'], x, y)  # noqa: E731
    self_rec, terms_S = losses.reconstruction(S_loss, R_S, lpips, reconstruction_weights)  # Eq. 5
    reenactment, terms_D = losses.reconstruction(D_loss, R_D, lpips, reconstruction_weights)  # 6

    phi = networks.arcface.apply(frozen['arcface'], _fold(S_loss, anchor, R_other))
    phi_S, phi_anchor, phi_other = _unfold(phi, 3)

    # Eq. 10: R' goes through the encoder again, with running statistics, since its frames are of
    # another kind than the batch's; the gradient flows through generator and encoder on both sides.
    levels_R = encoder.apply(E, adaptive_avg_pool(R_other, S.shape[1]), method='pyramid')
    W_R = encoder.apply(E, levels_R, rows, method='identity') + G['w_avg']

    logits = networks.critic.apply(critic, W_S)
    terms = {
      'self_reconstruction': self_rec,  # Eq. 5
      'reenactment': reenactment,  # Eq. 6
      'anchor_identity': losses.identity(phi_S, phi_anchor),  # Eq. 8
      'puppet_identity': losses.identity(phi_S, phi_other),  # Eq. 9
      'latent_consistency': losses.latent_consistency(W_S, W_R),  # Eq. 10
      'w_variance': losses.w_variance(W_S),  # Eq. 11
      'style_proximity': losses.style_proximity(F),  # Eq. 12
      'adversarial': losses.adversarial(logits, rows),
    }
    if finetune:
      terms['feature_reconstruction'] = sum(  # Eq. 13
        losses.feature_reconstruction(
          target, image, feature_mask(mask, size, config.loss), lpips, reconstruction_weights
        )
        for target, image, mask in (
          (S_loss, R_S, batch['source_mask']),
          (D_loss, R_D, batch['driving_mask']),
        )
      )
    total = losses.weighted_sum(terms, weights)  # Eq. 14
    parts = {f'self_{k}': v for k, v in terms_S.items()}
    parts |= {f'reenactment_{k}': v for k, v in terms_D.items()}
    return total, (W_S, updates['batch_stats'], {'total': total} | terms | parts)

  return objective


def feature_mask(mask: jax.Array, size: int, loss: Any) -> jax.Array:
  """uint8 masks (n, h, w) -> dilated (n, size, size, 1) in [0, 1]."""
  mask = mask[..., None].astype(jnp.float32) / 255
  reach = round(loss.mask_dilation * mask.shape[1])
  window = 2 * reach + 1
  mask = nn.max_pool(mask, (window, window), (1, 1), 'SAME')
  return adaptive_avg_pool(mask, size)


def sample_w(hybrid: Any, G: Mapping, key: jax.Array, count: int) -> jax.Array:
  """(count, d) latents as the generator's own: mapped noise, or drawn from those it came with.

  The rendered world's z are true parameters, not noise, so its generator brings 'w_samples' (m, d).
  """
  if 'w_samples' in G:
    return jax.random.choice(key, G['w_samples'], (count,))
  z = jax.random.normal(key, (count, hybrid.generator.w_dim))
  return hybrid.generator.apply({'params': G['params']}, z, method='map')


def make_step(networks: Networks, config: Any) -> Step:
  """One step of stage 1 (section 3.2: the whole encoder) or stage 2 (its heads, with eq. 13)."""
  hybrid, encoder = networks.hybrid, networks.hybrid.encoder
  objective = make_objective(networks, config)
  encoder_tx, critic_tx = optimizers(config)

  def critic_step(state, frozen, W_S, rows, key):
    """One Adam step of the latent critic, and R1 as a second one every `r1_steps` (lazy R1)."""
    key_z, key_row, key_real, key_fake = jax.random.split(key, 4)
    n = len(W_S)
    real = sample_w(hybrid, frozen['generator'], key_z, n)
    # One row per sample: a random active one when the pool is used, row 1 otherwise.
    row = jax.random.randint(key_row, (n,), 0, rows) if config.loss.pool_size else jnp.zeros(n, int)
    fake = jnp.take_along_axis(W_S, row[:, None, None], axis=1)[:, 0]  # n d
    real, pool_real = query_pool(state.pool_real, real, key_real)
    fake, pool_fake = query_pool(state.pool_fake, fake, key_fake)

    def apply_gradient(loss, critic, opt):
      value, grads = jax.value_and_grad(loss)(critic)
      updates, opt = critic_tx.update(grads, opt, critic)
      return optax.apply_updates(critic, updates), opt, value

    logits = networks.critic.apply
    critic, opt, value = apply_gradient(
      lambda p: losses.discriminator(logits(p, real), logits(p, fake)),
      state.critic,
      state.critic_opt,
    )

    def r1_step(critic, opt):
      scale = config.loss.r1_gamma / 2 * config.loss.r1_steps
      penalty = lambda p: scale * losses.r1_penalty(lambda w: logits(p, w), real)  # noqa: E731
      return apply_gradient(penalty, critic, opt)

    critic, opt, r1 = jax.lax.cond(
      state.step % config.loss.r1_steps == 0,
      r1_step,
      lambda critic, opt: (critic, opt, state.r1),
      critic,
      opt,
    )
    state = state.replace(
      critic=critic, critic_opt=opt, r1=r1, pool_real=pool_real, pool_fake=pool_fake
    )
    return state, {'critic': value, 'r1': r1}

  def step(state: TrainState, frozen: Mapping, batch: Mapping):
    key_noise, key_critic = jax.random.split(jax.random.fold_in(state.key, state.step))
    rows = active_rows(state.step, config.progressive, encoder.num_ws)
    params = state.encoder['params']
    grads, (W_S, batch_stats, metrics) = jax.grad(objective, has_aux=True)(
      params, state.encoder['batch_stats'], state.critic, frozen, batch, rows, key_noise, True
    )
    updates, encoder_opt = encoder_tx.update(grads, state.encoder_opt, params)
    params = optax.apply_updates(params, updates)
    # The critic learns after the encoder, from the same latents: e4e encodes a second time.
    state, critic_metrics = critic_step(state, frozen, jax.lax.stop_gradient(W_S), rows, key_critic)
    metrics |= critic_metrics | {'active_rows': rows, 'gradient_norm': optax.tree.norm(grads)}
    state = state.replace(
      step=state.step + 1,
      encoder={'params': params, 'batch_stats': batch_stats},
      encoder_opt=encoder_opt,
    )
    return state, metrics

  return step
