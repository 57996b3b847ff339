"""Trains the small StyleGAN2 of the rendered world; resumable.

  python -m experiments.world.generator WORKDIR                      # frames, then all stages
  python -m experiments.world.generator WORKDIR --export hybrid_jax/weights/shipped/generator_64.npz

Stage 1 regresses the renderer through the mapping network (true parameters as z). Half of a batch
are twins: the same moments with another expression, or with glasses, beards and hair changed, whose
difference has a loss of its own. Stage 2 adds the world's perceptual network (critics.py trains it
first) and an adversary with R1, and keeps the regression. Weights are averaged (EMA). Sample grids
(truth above generator, held-out people), a log and checkpoints go to WORKDIR; the same command
resumes from them.
"""

import argparse
import functools
import json
import math
import pathlib
import signal
import sys
import time
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from experiments import script
from experiments.world import frame_shards
from hybrid_jax.media import replacing, stills
from hybrid_jax.models import latents
from hybrid_jax.models.ops import adaptive_avg_pool, from_uint8, to_uint8
from hybrid_jax.models.perceptual import LPIPS
from hybrid_jax.models.stylegan2 import Generator, ImageDiscriminator
from hybrid_jax.weights import shipped
from hybrid_jax.world import latent, people

W_DIM = shipped.GENERATOR['w_dim']
# Mouth, eyes and brows are 8 % of the pixels, and carry most of the motion.
REGION_WEIGHT = 10.0
R1_GAMMA, R1_STEPS = 0.5, 16
CRITIC_RATE = 2e-3
ADVERSARIAL_WEIGHT = 0.03
PERCEPTUAL_WEIGHT = 0.3
CONTRAST_WEIGHT = 4.0
CHANGED = 12  # grey levels between a person and their twin
LOG_STEPS, SAMPLE_STEPS = 500, 2000
HALF_LIFE = 20_000  # images, of the average
CHECKPOINT = 'state.msgpack'


@flax.struct.dataclass
class State:
  """Parameters and optimisers; `average` is the EMA of `generator`."""

  step: jax.Array
  generator: Any
  average: Any
  generator_opt: Any
  critic: Any
  critic_opt: Any


def generator(size: int) -> Generator:
  """Returns the generator of `size` px."""
  model = shipped.GENERATOR
  channels = latents.config_f_channels(size, model['channel_base'], model['channel_max'])
  return Generator(channels, w_dim=W_DIM, mapping_layers=model['mapping_layers'], polyphase_from=0)


def critic(size: int) -> ImageDiscriminator:
  """Returns the adversary of `size` px."""
  return ImageDiscriminator(latents.config_f_channels(size, 2048, 128))


def generator_optimizer(rate: optax.Schedule, mapping: float) -> optax.GradientTransformation:
  """Returns Adam, with the mapping network's rate multiplied by `mapping`."""
  # StyleGAN2 slows its mapping network to 0.01. Here it has to learn the renderer's parameters.
  faster = optax.masked(
    optax.scale(mapping),
    lambda tree: jax.tree_util.tree_map_with_path(lambda path, _: path[0].key == 'mapping', tree),
  )
  return optax.chain(optax.scale_by_adam(0.9, 0.99), faster, optax.scale_by_learning_rate(rate))


def init(size: int, optimizer, critic_optimizer, key) -> State:
  """Returns the state before the first step."""
  key_g, key_d = jax.random.split(key)
  params = generator(size).init(key_g, jnp.zeros((1, W_DIM)))['params']
  critic_params = critic(size).init(key_d, jnp.zeros((1, size, size, 3)))['params']
  return State(
    step=jnp.zeros((), jnp.int32),
    generator=params,
    average=jax.tree.map(jnp.copy, params),  # the step donates both
    generator_opt=optimizer.init(params),
    critic=critic_params,
    critic_opt=critic_optimizer.init(critic_params),
  )


def regression(fake: jax.Array, real: jax.Array, region: jax.Array) -> jax.Array:
  """Returns the L1 of pixels (features weighted), of their slopes, and of coarser levels."""
  error = fake - real
  weight = 1 + REGION_WEIGHT * region[..., None]
  loss = jnp.mean(weight * jnp.abs(error)) / jnp.mean(weight)
  for axis in (1, 2):
    slope = jnp.diff(error, axis=axis)
    weights = jax.lax.slice_in_dim(weight, 1, None, axis=axis)
    loss += 0.5 * jnp.mean(weights * jnp.abs(slope)) / jnp.mean(weights)
  for level in (2, 4, 8):
    loss += 0.3 * jnp.mean(jnp.abs(adaptive_avg_pool(error, error.shape[1] // level)))
  return loss


def contrast(fake: jax.Array, real: jax.Array, region: jax.Array) -> jax.Array:
  """Returns the error of the change from the first half of a batch to its twins.

  In the gradient of the pixels people and poses outweigh a mouth; their difference cancels here.
  """
  # L1 alone is least at the median, which of a rare movement is its absence.
  change = lambda x: jnp.subtract(*jnp.split(x, 2))  # noqa: E731
  weight = 1 + REGION_WEIGHT * jnp.maximum(*jnp.split(region, 2))[..., None]
  error, loss = change(fake) - change(real), 0.0
  for level in (1, 2, 4):
    e = adaptive_avg_pool(error, error.shape[1] // level)
    w = adaptive_avg_pool(weight, error.shape[1] // level)
    loss += jnp.mean(w * (jnp.abs(e) + 2 * jnp.square(e))) / jnp.mean(w) / level
  return loss


def make_step(size: int, optimizer, critic_optimizer, adversarial: bool, ema_steps: float):
  """Returns the jitted step (state, batch) -> (state, metrics)."""
  net, judge, perceptual = generator(size), critic(size), LPIPS(**shipped.LPIPS)
  perceptual_weights = shipped.load('perceptual') if adversarial else None
  logits = lambda params, x: judge.apply({'params': params}, x)  # noqa: E731

  def generator_loss(params, state, z, real, region):
    fake = net.apply({'params': params}, z)
    loss = regression(fake, real, region)
    metrics = {'regression': loss, 'l1': jnp.mean(jnp.abs(fake - real))}
    metrics['contrast'] = contrast(fake, real, region)
    loss += CONTRAST_WEIGHT * metrics['contrast']
    if adversarial:
      metrics['generator'] = jax.nn.softplus(-logits(state.critic, fake)).mean()
      metrics['perceptual'] = perceptual.apply(perceptual_weights, fake, real).mean()
      loss += ADVERSARIAL_WEIGHT * metrics['generator']
      loss += PERCEPTUAL_WEIGHT * metrics['perceptual']
    return loss, (fake, metrics)

  def critic_loss(params, real, fake):
    return (
      jax.nn.softplus(-logits(params, real)).mean() + jax.nn.softplus(logits(params, fake)).mean()
    )

  def penalty(params, real):
    slope = jax.grad(lambda x: logits(params, x).sum())(real)
    # Applied every R1_STEPS steps, and weighted so that its mean is as if it were in each.
    return R1_GAMMA / 2 * R1_STEPS * jnp.mean(jnp.sum(jnp.square(slope), axis=(1, 2, 3)))

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state: State, batch):
    real = from_uint8(batch['image'].astype(jnp.float32))
    region = batch['region'].astype(jnp.float32) / 255
    z = latent.z(batch['identity'], batch['motion'], batch['scene'], W_DIM)
    grads, (fake, metrics) = jax.grad(generator_loss, has_aux=True)(
      state.generator, state, z, real, region
    )
    updates, generator_opt = optimizer.update(grads, state.generator_opt)
    params = optax.apply_updates(state.generator, updates)
    # The second term lets the average forget the first, random weights.
    decay = jnp.minimum(0.5 ** (1 / ema_steps), (1 + state.step) / (10 + state.step))
    average = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, state.average, params)
    state = state.replace(generator=params, average=average, generator_opt=generator_opt)
    if adversarial:
      fake = jax.lax.stop_gradient(fake)
      value, grads = jax.value_and_grad(critic_loss)(state.critic, real, fake)

      def with_penalty(grads):
        return jax.tree.map(jnp.add, grads, jax.grad(penalty)(state.critic, real))

      grads = jax.lax.cond(state.step % R1_STEPS == 0, with_penalty, lambda g: g, grads)
      updates, critic_opt = critic_optimizer.update(grads, state.critic_opt)
      metrics['critic'] = value
      state = state.replace(
        critic=optax.apply_updates(state.critic, updates), critic_opt=critic_opt
      )
    return state.replace(step=state.step + 1), metrics

  return step


def rarity(data: dict, twins: dict) -> np.ndarray:
  """Returns the chance (n,) of each pair: by its change of motion, for rare movements' sake."""
  # The regression is conditional on the parameters, so that drawing some more often does not bias
  # it.
  change = data['motion'] - twins['motion']
  weight = np.square(change[:, 3:] / change[:, 3:].std(0)).sum(1)
  return weight / weight.sum()


def changed_regions(data: dict, traits: dict) -> None:
  """Adds to the regions of `traits` where its images differ from the people without the traits."""
  for k, image in enumerate(traits['image']):
    differs = np.abs(image.astype(np.int16) - data['image'][k]).mean(-1) > CHANGED
    traits['region'][k][differs] = 255


def batch_at(pools: list, step: int, size: int, seed: int) -> dict:
  """Returns the batch of a step: moments, then their twins, from (step, seed) alone.

  `pools` are (moments, twins, chance of each pair), used in turn.
  """
  data, twins, chance = pools[step % len(pools)]
  order = np.random.default_rng((seed, step)).choice(len(chance), size // 2, p=chance)
  return {name: np.concatenate((data[name][order], twins[name][order])) for name in data}


def validate(size: int):
  """Returns two functions: one draws true parameters, the other gives the mean L1 of doing so."""

  @jax.jit
  def draw(params, i, m, s):
    return generator(size).apply({'params': params}, latent.z(i, m, s, W_DIM))

  def l1(params, data, count=1024, chunk=64):
    errors = []
    for k in range(0, min(count, len(data['image'])), chunk):
      part = {name: data[name][k : k + chunk] for name in data}
      fake = draw(params, part['identity'], part['motion'], part['scene'])
      real = from_uint8(part['image'].astype(np.float32))
      errors.append(float(jnp.abs(jnp.clip(fake, -1, 1) - real).mean()))
    return float(np.mean(errors))

  return draw, l1


def save(path: pathlib.Path, state: State) -> None:
  """Writes a checkpoint."""
  with replacing(path) as temporary:
    temporary.write_bytes(flax.serialization.to_bytes(jax.device_get(state)))


def export(path: str, state: State, size: int) -> None:
  """Writes the averaged generator in float16, with latents of training people and their mean."""
  net = generator(size)
  i, m, s = jax.vmap(people.moment, (0, None))(jnp.arange(4096), 0)
  z = latent.z(i, m, s, W_DIM)
  params = jax.device_get(state.average)
  w = net.apply({'params': params}, z, method='map')
  with replacing(path) as temporary:
    shipped.save(temporary, {'params': params, 'w_avg': w.mean(0), 'w_samples': w[:1024]})
  print(f'{path}: {pathlib.Path(path).stat().st_size / 1e6:.2f} MB')


def optimizers(args: argparse.Namespace) -> tuple:
  """Returns the optimisers of generator and adversary."""
  decay = optax.cosine_decay_schedule(args.rate, args.regression_steps, 0.1)
  rate = optax.join_schedules(
    [decay, optax.constant_schedule(args.adversarial_rate)], [args.regression_steps]
  )
  return generator_optimizer(rate, args.mapping_rate), optax.adam(CRITIC_RATE, 0.0, 0.99)


def restore(path: pathlib.Path, state: State) -> State:
  """Returns the state of a checkpoint, or `state` where there is none."""
  if not path.exists():
    return state
  state = jax.tree.map(
    jnp.asarray, flax.serialization.from_bytes(jax.device_get(state), path.read_bytes())
  )
  print(f'going on from step {int(state.step)}')
  return state


def read_data(frames: str, people: int, size: int) -> tuple[dict, list]:
  """Returns held-out frames, and the pools of `batch_at`."""
  held_out = frame_shards.rendered(frames, 'validation', 700, 3, size)
  data, twins, traits = (
    frame_shards.rendered(frames, 'train', count, 3, size, kind)
    for kind, count in (('', people), ('twins', people), ('traits', people // 3))
  )
  changed_regions(data, traits)
  real = from_uint8(held_out['image'].astype(np.float32))
  mean = from_uint8(data['image'].mean(0))
  print(f'{len(data["image"])} frames; L1 of the mean image {np.abs(real - mean).mean():.4f}')
  even = np.full(len(traits['image']), 1 / len(traits['image']))
  return held_out, [(data, twins, rarity(data, twins)), (data, traits, even)]


def write_sample(path: pathlib.Path, draw, average, held_out: dict) -> None:
  """Writes a sheet of 36 held-out people, truth above generator."""
  chosen = slice(0, 3 * 36, 3)
  vectors = (held_out[name][chosen] for name in ('identity', 'motion', 'scene'))
  fake = to_uint8(draw(average, *vectors))
  pairs = np.stack((held_out['image'][chosen], np.asarray(fake)), 1)
  rows = pairs.reshape(3, 12, 2, *fake.shape[1:]).swapaxes(1, 2).reshape(-1, 12, *fake.shape[1:])
  stills.write_image(path, stills.grid(list(rows)))


def train(args: argparse.Namespace, workdir: pathlib.Path, state: State, optimizers: tuple) -> None:
  """Runs the steps of both stages that are left; SIGTERM ends it after a checkpoint."""
  held_out, pools = read_data(args.frames or str(workdir / 'frames'), args.people, args.size)
  draw, l1 = validate(args.size)
  stopping = []
  signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
  total = args.regression_steps + args.adversarial_steps
  start, stop = int(state.step), min(total, args.stop_at or total)
  steps = {
    adversarial: make_step(args.size, *optimizers, adversarial, HALF_LIFE / args.batch)
    for adversarial in (False, True)
    if not adversarial or stop > args.regression_steps
  }
  began = time.time()
  for k in tqdm(range(start, stop), initial=start, total=stop, mininterval=10, unit='step'):
    batch = batch_at(pools, k, args.batch, args.seed)
    state, metrics = steps[k >= args.regression_steps](state, batch)
    last = bool(stopping) or k + 1 == stop
    if (k + 1) % LOG_STEPS == 0 or last:
      row = {name: float(value) for name, value in metrics.items()}
      row |= {'step': k + 1, 'held_out_l1': l1(state.average, held_out)}
      row |= {'seconds_per_step': (time.time() - began) / (k + 1 - start)}
      # Before the checkpoint is overwritten.
      if not math.isfinite(row['regression']):
        sys.exit(f'error: the loss is not finite at step {k + 1}; the last checkpoint is kept')
      with open(workdir / 'log.jsonl', 'a') as file:
        file.write(json.dumps(row) + '\n')
      save(workdir / CHECKPOINT, state)
    if (k + 1) % SAMPLE_STEPS == 0 or last:
      write_sample(workdir / f'sample-{k + 1:06d}.png', draw, state.average, held_out)
    if stopping:
      return


def parse_args() -> argparse.Namespace:
  parser = script.parser(__doc__)
  add = parser.add_argument
  add('workdir', help='folder of checkpoints, log and samples')
  add('--frames', help='folder of rendered shards (WORKDIR/frames)')
  add('--people', type=int, default=14_000, help='of training (%(default)s)')
  add('--size', type=int, default=64, help='px (%(default)s)')
  add('--batch', type=int, default=16, help='half of them twins (%(default)s)')
  add('--regression_steps', type=int, default=32_000, help='of stage 1 (%(default)s)')
  add('--adversarial_steps', type=int, default=2_000, help='of stage 2 (%(default)s)')
  add('--rate', type=float, default=6e-3, help='falls to a tenth over stage 1 (%(default)s)')
  add('--adversarial_rate', type=float, default=4e-4, help='of stage 2 (%(default)s)')
  add(
    '--mapping_rate', type=float, default=100.0, help='of the mapping network, times its own 0.01'
  )
  add('--stop_at', type=int, help='stop at this step, to be resumed later')
  add('--seed', type=int, default=0)
  add('--export', help='write the averaged weights to this .npz and stop')
  return parser.parse_args()


def main() -> None:
  args = parse_args()
  workdir = pathlib.Path(args.workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  both = optimizers(args)
  state = restore(workdir / CHECKPOINT, init(args.size, *both, jax.random.key(args.seed)))
  if args.export:
    export(args.export, state, args.size)
  else:
    train(args, workdir, state, both)


if __name__ == '__main__':
  main()
