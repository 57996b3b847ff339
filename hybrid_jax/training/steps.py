"""One pure training step: step(state, frozen, batch) -> (state, metrics).

The encoder takes a step of Ranger on the objective (`method/objective.py`), then the latent critic
takes one of Adam on the same latents. `batch` is a batch of triplets as the objective reads it;
`frozen` is an argument and never a closure: closed-over arrays become constants of the executable.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from hybrid_jax.method import losses
from hybrid_jax.method.networks import Networks, init_encoder
from hybrid_jax.method.objective import make_objective
from hybrid_jax.training import optim, parallel
from hybrid_jax.training.state import TrainState, empty_pool, query_pool

Step = Callable[[TrainState, Mapping, Mapping], tuple[TrainState, dict[str, jax.Array]]]


def active_rows(step: jax.Array | int, progressive: Any, num_ws: int) -> jax.Array:
  """Returns the number of active W+ rows: 1 until `start_steps`, one more each `every_steps`.

  The schedule of e4e. With `every_steps` 0 all rows are active from the beginning.
  """
  start, every = progressive.start_steps, progressive.every_steps
  if every == 0:
    return jnp.asarray(num_ws)
  return jnp.where(step < start, 1, jnp.minimum(2 + (step - start) // every, num_ws))


def optimizers(config: Any) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
  """Returns Ranger for the encoder and Adam for the latent critic, as in e4e."""
  return optim.ranger(config.optim.encoder_lr), optax.adam(config.optim.critic_lr)


def init_state(
  networks: Networks, config: Any, key: jax.Array, encoder: Mapping | None = None
) -> TrainState:
  """Returns the state before step 0, with a fresh encoder or the given {'params', 'batch_stats'}.

  The key is split in the same way in both cases, so that the critic starts alike.
  """
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


def make_step(networks: Networks, config: Any, mesh: Mesh) -> Step:
  """Returns the step of stage 1 (section 3.2: the whole encoder) or stage 2 (heads, Eq. (13)).

  Its state is split over `mesh`; only the parameters are gathered, and the optimisers update parts.
  """
  encoder = networks.hybrid.encoder
  gradient = make_gradient(networks, config, mesh)
  critic_step = make_critic_step(networks, config, mesh)
  encoder_tx, _ = optimizers(config)

  def step(state: TrainState, frozen: Mapping, batch: Mapping):
    # Randomness depends on the seed and the step alone, so that a resumed run draws the same.
    key_noise, key_critic = jax.random.split(jax.random.fold_in(state.key, state.step))
    rows = active_rows(state.step, config.progressive, encoder.num_ws)
    params = state.encoder['params']
    whole = parallel.gather((params, state.encoder['batch_stats'], state.critic), mesh)
    grads, (W_S, batch_stats, metrics) = gradient(*whole, frozen, batch, rows, key_noise)
    updates, encoder_opt = encoder_tx.update(grads, state.encoder_opt, params)
    params = optax.apply_updates(params, updates)
    # The critic learns after the encoder, from the same latents. e4e trains it before, which costs
    # a second encoding.
    state, critic_metrics = critic_step(state, frozen, jax.lax.stop_gradient(W_S), rows, key_critic)
    metrics |= critic_metrics | {'active_rows': rows, 'gradient_norm': optax.tree.norm(grads)}
    state = state.replace(
      step=state.step + 1,
      encoder={'params': params, 'batch_stats': batch_stats},
      encoder_opt=encoder_opt,
    )
    return state, metrics

  return step


def make_gradient(networks: Networks, config: Any, mesh: Mesh) -> Callable:
  """Returns the gradient of the objective in the encoder's parameters, split over `mesh`.

  The result is gradient(params, batch_stats, critic, frozen, batch, rows, key) -> (grads, (W_S,
  batch_stats, metrics)). With `optim.micro_batches` the batch is computed in parts, one after
  another: gradients, batch statistics and metrics are the means of those of the parts. As all terms
  are means over samples, that is the gradient of the whole batch but for what reads several
  samples: batch normalisation (stage 1, Eq. (10) with it) and the area of the masks of Eq. (13) are
  of a part. Noise is drawn for each part. The latents `W_S` of all parts come together again: the
  critic's step, with its pool and R1, is always that of the whole batch.
  """
  objective, count = make_objective(networks, config), config.optim.micro_batches

  def part(*args):
    grads, aux = jax.grad(objective, has_aux=True)(*args, True)
    return parallel.scatter(grads, mesh), aux

  def whole(params, batch_stats, critic, frozen, batch, rows, key):
    # A scan in the step and not optax.MultiSteps, which accumulates over calls of the step: a step
    # stays one batch for schedules, critic, logs, checkpoints and the data's order.
    def add(total, inputs):
      batch, key = inputs
      grads, aux = part(params, batch_stats, critic, frozen, batch, rows, key)
      return jax.tree.map(jnp.add, total, grads), aux

    zero = parallel.scatter(jax.tree.map(jnp.zeros_like, params), mesh)
    inputs = parallel.split(batch, count, mesh), jax.random.split(key, count)
    total, (W_S, stats, metrics) = jax.lax.scan(add, zero, inputs)
    # As a change, so that statistics that stay (stage 2) do so in every bit.
    batch_stats = jax.tree.map(lambda old, x: old + jnp.mean(x - old, axis=0), batch_stats, stats)
    metrics = jax.tree.map(jnp.mean, metrics)
    return jax.tree.map(lambda x: x / count, total), (parallel.joined(W_S), batch_stats, metrics)

  return part if count == 1 else whole


def make_critic_step(networks: Networks, config: Any, mesh: Mesh) -> Callable:
  """Returns critic_step(state, frozen, W_S, rows, key) -> (state, metrics): e4e's latent critic.

  One Adam step on the logistic loss, and every `r1_steps` a second one on the R1 penalty (lazy R1).
  Both share the moments of one optimiser, as in e4e.
  """
  _, critic_tx = optimizers(config)
  logits = networks.critic.apply

  def apply_gradient(loss, critic, opt):
    value, grads = jax.value_and_grad(loss)(parallel.gather(critic, mesh))
    updates, opt = critic_tx.update(parallel.scatter(grads, mesh), opt, critic)
    return optax.apply_updates(critic, updates), opt, value

  def critic_step(state, frozen, W_S, rows, key):
    key_z, key_row, key_real, key_fake = jax.random.split(key, 4)
    n = len(W_S)
    real = sample_w(networks.hybrid, frozen['generator'], key_z, n)
    # One row per sample: a random active one when the pool is used, row 1 otherwise.
    row = jax.random.randint(key_row, (n,), 0, rows) if config.loss.pool_size else jnp.zeros(n, int)
    fake = jnp.take_along_axis(W_S, row[:, None, None], axis=1)[:, 0]  # n d
    real, pool_real = query_pool(state.pool_real, real, key_real)
    fake, pool_fake = query_pool(state.pool_fake, fake, key_fake)

    def logistic_loss(critic):
      return losses.discriminator(logits(critic, real), logits(critic, fake))

    def r1_loss(critic):
      # Times r1_steps, since it is applied only every so many steps.
      scale = config.loss.r1_gamma / 2 * config.loss.r1_steps
      return scale * losses.r1_penalty(lambda w: logits(critic, w), real)

    critic, opt, value = apply_gradient(logistic_loss, state.critic, state.critic_opt)
    # lax.cond, not a Python branch: one program serves steps with and without R1.
    critic, opt, r1 = jax.lax.cond(
      state.step % config.loss.r1_steps == 0,
      lambda critic, opt: apply_gradient(r1_loss, critic, opt),
      lambda critic, opt: (critic, opt, state.r1),
      critic,
      opt,
    )
    state = state.replace(
      critic=critic, critic_opt=opt, r1=r1, pool_real=pool_real, pool_fake=pool_fake
    )
    return state, {'critic': value, 'r1': r1}

  return critic_step


def sample_w(hybrid: Any, G: Mapping, key: jax.Array, count: int) -> jax.Array:
  """Returns (count, d) latents of the generator: mapped noise, or samples stored with it.

  The z of the rendered world are true parameters of people, not noise, so its generator stores
  'w_samples' (m, d), latents of training people.
  """
  if 'w_samples' in G:
    return jax.random.choice(key, G['w_samples'], (count,))
  z = jax.random.normal(key, (count, hybrid.generator.w_dim))
  return hybrid.generator.apply({'params': G['params']}, z, method='map')
