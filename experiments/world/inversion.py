"""Trains the inversion encoder of the rendered world (frame -> W+, the role of e4e); resumable.

  python -m experiments.world.inversion WORKDIR --frames runs/heads/frames
  python -m experiments.world.inversion WORKDIR --export hybrid_jax/weights/shipped/inversion_64.npz

A rendered frame has a known latent, the w of its true parameters. The encoder first learns that
alone, then the picture as well, through the frozen generator. Its deformation heads stay zero, as
e4e has none. The model is that of configs/pretrain.py:heads.
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
from experiments.world import frames as heads_frames
from hybrid_jax.media import replacing, stills
from hybrid_jax.method import networks
from hybrid_jax.models.ops import from_uint8, to_uint8
from hybrid_jax.weights import shipped
from hybrid_jax.world import latent

PIXEL_WEIGHT, PERCEPTUAL_WEIGHT, LATENT_WEIGHT = 2.0, 0.8, 0.1
DELTA_WEIGHT = 2e-3  # of the W+ rows' offsets from the first: keeps them near W


@flax.struct.dataclass
class State:
  step: jax.Array
  encoder: Any
  average: Any  # exponential, half-life 500 steps: what is exported
  opt: Any


def make_step(nets: networks.Networks, optimizer: optax.GradientTransformation, picture: bool):
  """jitted (state, frozen, batch) -> (state, metrics)."""
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
    W = offsets + G['w_avg']
    metrics = {'latent': jnp.square(W - w[:, None]).mean()}
    metrics['delta'] = jnp.linalg.norm(W[:, 1:] - W[:, :1], axis=-1).sum(1).mean()
    loss = metrics['latent'] + DELTA_WEIGHT * metrics['delta']
    if picture:
      drawn = hybrid.reenact(G, W, None)
      metrics['l1'] = jnp.abs(drawn - image).mean()
      metrics['perceptual'] = nets.lpips.apply(perceptual, drawn, image).mean()
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
    decay = jnp.minimum(0.5 ** (1 / 500), (1 + state.step) / (10 + state.step))
    average = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, state.average, fresh)
    return State(state.step + 1, fresh, average, opt), metrics

  return step


def without_deformation(encoder: dict) -> dict:
  """The encoder without the heads that it never trained, as e4e comes."""
  params = {k: x for k, x in encoder['params'].items() if not k.startswith('deformation_heads')}
  return {**encoder, 'params': params}


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('workdir')
  parser.add_argument('--frames', default='runs/heads/frames', help='folder of rendered shards')
  parser.add_argument('--people', type=int, default=14_000)
  parser.add_argument('--batch', type=int, default=16)
  parser.add_argument('--latent_steps', type=int, default=5000)
  parser.add_argument('--picture_steps', type=int, default=4000)
  parser.add_argument('--rate', type=float, default=2e-3)
  parser.add_argument('--export', help='write the averaged encoder to this .npz and stop')
  args = parser.parse_args()

  config = ConfigDict(common.heads())
  nets, size = networks.build(config.model), config.model.frame_size
  workdir = pathlib.Path(args.workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  total = args.latent_steps + args.picture_steps
  optimizer = optax.adam(optax.cosine_decay_schedule(args.rate, total, 0.02))
  encoder = networks.init_encoder(nets, jax.random.key(0))
  copy = jax.tree.map(jnp.copy, encoder)  # the step donates both
  state = State(jnp.zeros((), jnp.int32), encoder, copy, optimizer.init(encoder['params']))
  path = workdir / 'inversion.msgpack'
  if path.exists():
    state = flax.serialization.from_bytes(jax.device_get(state), path.read_bytes())
    state = jax.tree.map(jnp.asarray, state)
    print(f'going on from step {int(state.step)}')
  if args.export:
    with replacing(pathlib.Path(args.export)) as temporary:
      shipped.save(temporary, without_deformation(state.average))
    print(f'{args.export}: {pathlib.Path(args.export).stat().st_size / 1e6:.2f} MB')
    return

  frozen = shipped.frozen()
  held_out, data, twins = (
    heads_frames.load(heads_frames.render_shards(args.frames, split, count, 3, size, kind))
    for split, count, kind in (
      ('validation', 700, ''),
      ('train', args.people, ''),
      ('train', args.people, 'twins'),
    )
  )
  invert = jax.jit(
    lambda E, G, image: nets.hybrid.reenact(G, nets.hybrid.identity(E, G, from_uint8(image)), None)
  )

  def l1(count=512, chunk=64):
    errors = []
    for k in range(0, count, chunk):
      image = held_out['image'][k : k + chunk].astype(np.float32)
      drawn = invert(state.average, frozen['generator'], image)
      errors.append(float(jnp.abs(jnp.clip(drawn, -1, 1) - from_uint8(image)).mean()))
    return float(np.mean(errors))

  stopping: list[bool] = []
  signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
  step_fns = [make_step(nets, optimizer, picture) for picture in (False, True)]
  start, frames = int(state.step), len(data['image'])
  for k in tqdm(range(start, total), initial=start, total=total, mininterval=10, unit='step'):
    rng = np.random.default_rng((0, k))
    chosen = data if rng.random() < 0.5 else twins
    pick = rng.integers(0, frames, args.batch)
    batch = {name: chosen[name][pick] for name in ('image', 'identity', 'motion', 'scene')}
    state, metrics = step_fns[k >= args.latent_steps](state, frozen, batch)
    last = bool(stopping) or k + 1 == total
    if (k + 1) % 500 == 0 or last:
      row = {name: float(value) for name, value in metrics.items()}
      row |= {'step': k + 1, 'held_out_l1': l1()}
      if not math.isfinite(row['latent']):
        sys.exit(f'error: the loss is not finite at step {k + 1}; the last checkpoint is kept')
      with open(workdir / 'inversion.jsonl', 'a') as file:
        file.write(json.dumps(row) + '\n')
      with replacing(path) as temporary:
        temporary.write_bytes(flax.serialization.to_bytes(jax.device_get(state)))
    if (k + 1) % 2000 == 0 or last:
      image = held_out['image'][: 3 * 24 : 3]
      drawn = np.asarray(to_uint8(invert(state.average, frozen['generator'], image)))
      rows = [list(x[j : j + 12]) for j in (0, 12) for x in (image, drawn)]
      stills.write_image(workdir / f'inversion-{k + 1:06d}.png', stills.grid(rows))
    if stopping:
      return


if __name__ == '__main__':
  main()
