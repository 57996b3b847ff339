"""The training step of a stage of growth: regression, perceptual distance, and the adversary.

Images are NHWC in [-1, 1] at the stage's size. Losses of the regression are those of the 64 px
generator (`generator.py`); half of a batch are twins of the other half.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax

from experiments.world import generator as regressing
from experiments.world import growth
from experiments.world.generator import State
from hybrid_jax.models import latents
from hybrid_jax.models.ops import adaptive_avg_pool, from_uint8
from hybrid_jax.models.perceptual import LPIPS
from hybrid_jax.models.stylegan2 import Generator, ImageDiscriminator
from hybrid_jax.weights import shipped
from hybrid_jax.world import latent

W_DIM = shipped.GENERATOR['w_dim']
CHANNEL_BASE, CHANNEL_MAX = 4096, 160  # 160 up to 16 px, then 128, 64, 32, 16
CONTRAST_WEIGHT = 3.0
PERCEPTUAL_WEIGHT = 0.8
PERCEPTUAL_SIZE = 128  # px that the perceptual network sees at once: larger pictures are cropped
ADVERSARIAL_WEIGHT = 0.03
R1_GAMMA, R1_STEPS = 0.5, 16
CRITIC_RATE = 2e-3
MAPPING_RATE = 100.0  # over the mapping network's own 0.01
EMA_IMAGES = 2000  # half-life of the averaged weights; stages are short
WARMUP_STEPS = 50


@dataclasses.dataclass(frozen=True)
class Stage:
  """One part of the schedule.

  Attributes:
    size: of the pictures, px.
    trained_from: smallest layers that are trained, px; 0 is all, with the mapping.
    rate: of Adam; falls to `last_rate` along a cosine.
  """

  name: str
  size: int
  steps: int
  batch: int
  rate: float
  last_rate: float
  trained_from: int = 0
  adversarial: bool = False


def channels(size: int) -> tuple[int, ...]:
  return latents.config_f_channels(size, CHANNEL_BASE, CHANNEL_MAX)


def generator(size: int) -> Generator:
  return Generator(
    channels(size),
    w_dim=W_DIM,
    mapping_layers=shipped.GENERATOR['mapping_layers'],
    polyphase_from=0,
    up='taps',
  )


def critic(size: int) -> ImageDiscriminator:
  return ImageDiscriminator(latents.config_f_channels(size, 2048, 128))


def optimizers(stage: Stage) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
  """Of the generator's trained leaves (a flat tree), and of the critic."""
  rate = optax.warmup_cosine_decay_schedule(
    0.0, stage.rate, WARMUP_STEPS, max(stage.steps, WARMUP_STEPS + 1), stage.last_rate
  )
  faster = optax.masked(
    optax.scale(MAPPING_RATE), lambda tree: {path: path[0] == 'mapping' for path in tree}
  )
  adam = optax.scale_by_adam(0.9, 0.99)
  return (
    optax.chain(adam, faster, optax.scale_by_learning_rate(rate)),
    optax.adam(CRITIC_RATE, 0.0, 0.99),
  )


def init(stage: Stage, params: dict, average: dict) -> State:
  """The state at a stage's first step; the critic is new."""
  optimizer, critic_optimizer = optimizers(stage)
  trained, _ = growth.split(params, channels(stage.size), stage.trained_from)
  judge, judge_opt = {}, {}
  if stage.adversarial:
    image = jnp.zeros((1, stage.size, stage.size, 3))
    judge = critic(stage.size).init(jax.random.key(1), image)['params']
    judge_opt = critic_optimizer.init(judge)
  copy = lambda tree: jax.tree.map(jnp.array, tree)  # noqa: E731  the step donates them
  opt = optimizer.init(copy(trained))
  return State(jnp.zeros((), jnp.int32), copy(params), copy(average), opt, judge, judge_opt)


def perceptual_distance(weights, fake: jax.Array, real: jax.Array, key: jax.Array) -> jax.Array:
  """Mean distance by the world's perceptual network, which was trained on 64 px pictures.

  Pictures larger than `PERCEPTUAL_SIZE` are compared pooled to it, and in one random window of it.
  """
  net, size = LPIPS(**shipped.LPIPS), fake.shape[1]
  distance = lambda x, y: net.apply(weights, x, y).mean()  # noqa: E731
  if size <= PERCEPTUAL_SIZE:
    return distance(fake, real)
  row, column = jax.random.randint(key, (2,), 0, size - PERCEPTUAL_SIZE + 1)

  def window(x):
    shape = (len(x), PERCEPTUAL_SIZE, PERCEPTUAL_SIZE, 3)
    return jax.lax.dynamic_slice(x, (0, row, column, 0), shape)

  whole = [adaptive_avg_pool(x, PERCEPTUAL_SIZE) for x in (fake, real)]
  return (distance(*whole) + distance(window(fake), window(real))) / 2


def generator_loss(trained, kept, state: State, stage: Stage, perceptual, batch):
  """Loss of the trained leaves; (picture, named terms)."""
  z, real, region = batch
  fake = generator(stage.size).apply({'params': growth.join(trained, kept)}, z)
  key = jax.random.fold_in(jax.random.key(0), state.step)
  terms = {
    'regression': regressing.regression(fake, real, region),
    'contrast': regressing.contrast(fake, real, region),
    'perceptual': perceptual_distance(perceptual, fake, real, key),
  }
  weights = {'regression': 1.0, 'contrast': CONTRAST_WEIGHT, 'perceptual': PERCEPTUAL_WEIGHT}
  if stage.adversarial:
    terms['adversarial'] = jax.nn.softplus(-logits(state.critic, fake)).mean()
    weights['adversarial'] = ADVERSARIAL_WEIGHT
  loss = sum(weights[name] * terms[name] for name in weights)
  return loss, (fake, terms | {'l1': jnp.mean(jnp.abs(fake - real))})


def logits(params, image: jax.Array) -> jax.Array:
  return critic(image.shape[1]).apply({'params': params}, image)


def critic_step(optimizer, state: State, real: jax.Array, fake: jax.Array):
  """One step of the critic, with R1 every `R1_STEPS`; (state, loss)."""

  def loss_of(params):
    real_loss = jax.nn.softplus(-logits(params, real)).mean()
    return real_loss + jax.nn.softplus(logits(params, fake)).mean()

  def penalty(params):
    slope = jax.grad(lambda x: logits(params, x).sum())(real)
    return R1_GAMMA / 2 * R1_STEPS * jnp.mean(jnp.sum(jnp.square(slope), axis=(1, 2, 3)))

  loss, grads = jax.value_and_grad(loss_of)(state.critic)
  grads = jax.lax.cond(
    state.step % R1_STEPS == 0,
    lambda g: jax.tree.map(jnp.add, g, jax.grad(penalty)(state.critic)),
    lambda g: g,
    grads,
  )
  updates, opt = optimizer.update(grads, state.critic_opt)
  return state.replace(critic=optax.apply_updates(state.critic, updates), critic_opt=opt), loss


def make_step(stage: Stage):
  """jitted (state, perceptual weights, batch of uint8) -> (state, named terms)."""
  optimizer, critic_optimizer = optimizers(stage)
  half_life = EMA_IMAGES / stage.batch

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state: State, perceptual, batch):
    real = from_uint8(adaptive_avg_pool(batch['image'].astype(jnp.float32), stage.size))
    region = adaptive_avg_pool(batch['region'][..., None].astype(jnp.float32) / 255, stage.size)
    z = latent.z(batch['identity'], batch['motion'], batch['scene'], W_DIM)
    trained, kept = growth.split(state.generator, channels(stage.size), stage.trained_from)
    grads, (fake, terms) = jax.grad(generator_loss, has_aux=True)(
      trained, kept, state, stage, perceptual, (z, real, region[..., 0])
    )
    updates, opt = optimizer.update(grads, state.generator_opt)
    params = growth.join(optax.apply_updates(trained, updates), kept)
    # The mean of what there is at first: a new block starts far from its end.
    decay = jnp.minimum(0.5 ** (1 / half_life), (1 + state.step) / (10 + state.step))
    average = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, state.average, params)
    state = state.replace(generator=params, average=average, generator_opt=opt)
    if stage.adversarial:
      state, terms['critic'] = critic_step(
        critic_optimizer, state, real, jax.lax.stop_gradient(fake)
      )
    return state.replace(step=state.step + 1), terms

  return step
