"""Trains the inversion encoder of the rendered world (frame -> W+, the role of e4e); resumable.

  python -m experiments.world.inversion WORKDIR --frames runs/heads/frames
  python -m experiments.world.inversion WORKDIR --export hybrid_jax/weights/shipped/inversion_64.npz

The latent of a rendered frame is known: the w of its true parameters. The encoder first learns that
alone, then the picture as well, through the frozen generator. Its deformation heads stay zero,
since e4e has none. The model is that of configs/pretrain.py:heads.
"""

import argparse
import functools
import json
import math
import pathlib
import signal
import sys
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict
from tqdm import tqdm

from configs import common
from experiments import script
from experiments.world import frame_shards
from hybrid_jax.media import replacing, stills
from hybrid_jax.method import networks
from hybrid_jax.models.ops import adaptive_avg_pool, from_uint8, to_uint8
from hybrid_jax.weights import shipped
from hybrid_jax.world import latent

PIXEL_WEIGHT, PERCEPTUAL_WEIGHT, LATENT_WEIGHT = 2.0, 0.8, 0.1
DELTA_WEIGHT = 2e-3  # of the W+ rows' offsets from the first: keeps them near W, as e4e's
LOG_STEPS, SAMPLE_STEPS = 500, 2000
HALF_LIFE = 500  # steps, of the average
CHECKPOINT = 'inversion.msgpack'


@flax.struct.dataclass
class State:
  """Variables and optimiser; `average` is the exponential average of `encoder`, to be exported."""

  step: jax.Array
  encoder: Any
  average: Any
  opt: Any


def make_step(nets: networks.Networks, optimizer: optax.GradientTransformation, picture: bool):
  """Returns the jitted step (state, frozen, batch) -> (state, metrics)."""
  hybrid, encoder = nets.hybrid, nets.hybrid.encoder

  def loss_of(params, stats, G, perceptual, batch):
    image = from_uint8(batch['image'].astype(jnp.float32))
    z = latent.z(batch['identity'], batch['motion'], batch['scene'], hybrid.generator.w_dim)
    w = hybrid.generator.apply({'params': G['params']}, z, method='map')
    variables = {'params': params, 'batch_stats': stats}
    levels, updates = encoder.apply(
      variables, image, train=True, method='pyramid', mutable=['batch_stats']
    )
    offsets = encoder.apply(variables, levels, encoder.num_ws, method='identity')
    W = offsets + G['w_avg']  # as e4e: the network gives offsets to the mean latent
    metrics = {'latent': jnp.square(W - w[:, None]).mean()}
    metrics['delta'] = jnp.linalg.norm(W[:, 1:] - W[:, :1], axis=-1).sum(1).mean()
    loss = metrics['latent'] + DELTA_WEIGHT * metrics['delta']
    if picture:
      # The frame may be smaller than the picture.
      drawn = adaptive_avg_pool(hybrid.reenact(G, W, None), image.shape[1])
      metrics['l1'] = jnp.abs(drawn - image).mean()
      metrics['perceptual'] = nets.lpips.apply(perceptual, drawn, image).mean()
      # The latent keeps a small weight, so that W stays near what is known to be right.
      loss = LATENT_WEIGHT * loss + PIXEL_WEIGHT * metrics['l1']
      loss += PERCEPTUAL_WEIGHT * metrics['perceptual']
    return loss, (updates['batch_stats'], metrics)

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state: State, frozen, batch):
    params, stats = state.encoder['params'], state.encoder['batch_stats']
    grads, (stats, metrics) = jax.grad(loss_of, has_aux=True)(
      params, stats, frozen['generator'], frozen['lpips'], batch
    )
    updates, opt = optimizer.update(grads, state.opt, params)
    fresh = {'params': optax.apply_updates(params, updates), 'batch_stats': stats}
    # The second term lets the average forget the first, random weights.
    decay = jnp.minimum(0.5 ** (1 / HALF_LIFE), (1 + state.step) / (10 + state.step))
    average = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, state.average, fresh)
    return State(state.step + 1, fresh, average, opt), metrics

  return step


def without_deformation(encoder: dict) -> dict:
  """Returns the encoder without the heads that were not trained, like e4e's file."""
  params = {k: x for k, x in encoder['params'].items() if not k.startswith('deformation_heads')}
  return {**encoder, 'params': params}


def first_state(nets: networks.Networks, optimizer, path: pathlib.Path) -> State:
  """Returns the state of the checkpoint, or the first one."""
  encoder = networks.init_encoder(nets, jax.random.key(0))
  copy = jax.tree.map(jnp.copy, encoder)  # the step donates both
  state = State(jnp.zeros((), jnp.int32), encoder, copy, optimizer.init(encoder['params']))
  if path.exists():
    state = flax.serialization.from_bytes(jax.device_get(state), path.read_bytes())
    state = jax.tree.map(jnp.asarray, state)
    print(f'going on from step {int(state.step)}')
  return state


def export(path: pathlib.Path, state: State) -> None:
  """Writes the averaged encoder in float16."""
  with replacing(path) as temporary:
    shipped.save(temporary, without_deformation(state.average))
  print(f'{path}: {path.stat().st_size / 1e6:.2f} MB')


def held_out_l1(draw, held_out: dict, count: int = 512, chunk: int = 64) -> float:
  """Returns the mean L1 on [-1, 1] of `draw`'s reconstructions of held-out frames."""
  errors = []
  for k in range(0, count, chunk):
    image = held_out['image'][k : k + chunk].astype(np.float32)
    errors.append(float(jnp.abs(jnp.clip(draw(image), -1, 1) - from_uint8(image)).mean()))
  return float(np.mean(errors))


def write_sample(path: pathlib.Path, draw, held_out: dict) -> None:
  """Writes a sheet of 24 held-out people, truth above reconstruction."""
  image = held_out['image'][: 3 * 24 : 3]
  drawn = np.asarray(to_uint8(draw(image)))
  rows = [list(x[j : j + 12]) for j in (0, 12) for x in (image, drawn)]
  stills.write_image(path, stills.grid(rows))


def batch_at(step: int, size: int, data: dict, twins: dict) -> dict:
  """Returns the batch of a step, of either kind of frames, from its number alone."""
  rng = np.random.default_rng((0, step))
  chosen = data if rng.random() < 0.5 else twins
  pick = rng.integers(0, len(data['image']), size)
  return {name: chosen[name][pick] for name in ('image', 'identity', 'motion', 'scene')}


def train(
  args: argparse.Namespace,
  workdir: pathlib.Path,
  nets: networks.Networks,
  state: State,
  optimizer: optax.GradientTransformation,
  size: int,
) -> None:
  """Runs the steps that are left, on frames of `size` px; SIGTERM ends it after a checkpoint."""
  frozen = shipped.frozen()
  held_out = frame_shards.rendered(args.frames, 'validation', 700, 3, size)
  data, twins = (
    frame_shards.rendered(args.frames, 'train', args.people, 3, size, kind)
    for kind in ('', 'twins')
  )
  invert = jax.jit(
    lambda E, G, image: nets.hybrid.reenact(G, nets.hybrid.identity(E, G, from_uint8(image)), None)
  )
  stopping: list[bool] = []
  signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
  step_fns = [make_step(nets, optimizer, picture) for picture in (False, True)]
  start, total = int(state.step), args.latent_steps + args.picture_steps
  for k in tqdm(range(start, total), initial=start, total=total, mininterval=10, unit='step'):
    batch = batch_at(k, args.batch, data, twins)
    state, metrics = step_fns[k >= args.latent_steps](state, frozen, batch)
    draw = functools.partial(invert, state.average, frozen['generator'])
    last = bool(stopping) or k + 1 == total
    if (k + 1) % LOG_STEPS == 0 or last:
      row = {name: float(value) for name, value in metrics.items()}
      row |= {'step': k + 1, 'held_out_l1': held_out_l1(draw, held_out)}
      # Before the checkpoint is overwritten.
      if not math.isfinite(row['latent']):
        sys.exit(f'error: the loss is not finite at step {k + 1}; the last checkpoint is kept')
      with open(workdir / 'inversion.jsonl', 'a') as file:
        file.write(json.dumps(row) + '\n')
      with replacing(workdir / CHECKPOINT) as temporary:
        temporary.write_bytes(flax.serialization.to_bytes(jax.device_get(state)))
    if (k + 1) % SAMPLE_STEPS == 0 or last:
      write_sample(workdir / f'inversion-{k + 1:06d}.png', draw, held_out)
    if stopping:
      return


def parse_args() -> argparse.Namespace:
  parser = script.parser(__doc__)
  add = parser.add_argument
  add('workdir', help='folder of checkpoints, log and samples')
  add('--frames', default='runs/heads/frames', help='folder of rendered shards (%(default)s)')
  add('--people', type=int, default=14_000, help='of training (%(default)s)')
  add('--batch', type=int, default=16, help='(%(default)s)')
  add('--latent_steps', type=int, default=5000, help='with the latent alone (%(default)s)')
  add('--picture_steps', type=int, default=4000, help='with the picture too (%(default)s)')
  add('--rate', type=float, default=2e-3, help='falls to 2 %% over all steps (%(default)s)')
  add('--export', type=pathlib.Path, help='write the averaged encoder to this .npz and stop')
  return parser.parse_args()


def main() -> None:
  args = parse_args()
  workdir = pathlib.Path(args.workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  config = ConfigDict(common.heads())
  nets = networks.build(config.model)
  total = args.latent_steps + args.picture_steps
  optimizer = optax.adam(optax.cosine_decay_schedule(args.rate, total, 0.02))
  state = first_state(nets, optimizer, workdir / CHECKPOINT)
  if args.export:
    export(args.export, state)
  else:
    train(args, workdir, nets, state, optimizer, config.model.frame_size)


if __name__ == '__main__':
  main()
