"""Trains the inversion encoder of the 256 px generator (128 px frame -> W+); resumable.

  python -m experiments.world.large_inversion WORKDIR --frames FRAMES
  python -m experiments.world.large_inversion WORKDIR \\
      --export hybrid_jax/weights/shipped/inversion_256.npz

As `inversion`, from the shipped 64 px encoder where shapes agree and on the frames of
`large_frames`: first the latent alone (the w of a frame's true parameters), then the picture as
well, through the frozen generator. The model is that of configs/pretrain.py:heads_256. SIGTERM
saves and stops; the same command continues.
"""

import json
import math
import pathlib
import signal
import sys
import time

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict
from tqdm import tqdm

from configs import common
from experiments import script
from experiments.world import inversion, warm_start
from experiments.world.large_frames import KINDS, Shards
from hybrid_jax import cli
from hybrid_jax.media import replacing, stills
from hybrid_jax.method import networks
from hybrid_jax.models.ops import adaptive_avg_pool, from_uint8, to_uint8
from hybrid_jax.weights import shipped

LOG_STEPS, SHEET_STEPS, SAVE_SECONDS = 250, 1000, 240
CHUNK, SHOWN = 32, 12


def frames_at(shards: Shards, chosen: np.ndarray, kinds: np.ndarray, size: int) -> dict:
  """Frames of `Shards.rows`, pooled to `size` px."""
  data = shards.rows(chosen, kinds)
  n, h, w, c = data['image'].shape
  pooled = data['image'].reshape(n, size, h // size, size, w // size, c).mean((2, 4))
  return {name: data[name] for name in ('identity', 'motion', 'scene')} | {'image': pooled}


def batch_at(shards: Shards, step: int, size: int, frame: int) -> dict:
  """The batch of a step: random frames of random people."""
  rng = np.random.default_rng((0, step))
  chosen = rng.integers(len(shards), size=size)
  return frames_at(shards, chosen, rng.integers(len(KINDS), size=size), frame)


class Inverter:
  """Held-out frames, and what the generator draws of their inversions."""

  def __init__(self, nets: networks.Networks, G: dict, held_out: Shards, frame: int):
    self._G, count = G, len(held_out)
    self._data = frames_at(held_out, np.arange(count), np.zeros(count, int), frame)
    self._draw = jax.jit(
      lambda E, G, image: nets.hybrid.reenact(
        G, nets.hybrid.identity(E, G, from_uint8(image)), None
      )
    )

  def l1(self, encoder: dict) -> float:
    """Mean L1 on [-1, 1], at the size of the frames."""
    errors, images = [], self._data['image']
    for k in range(0, len(images), CHUNK):
      image = images[k : k + CHUNK]
      drawn = adaptive_avg_pool(self._draw(encoder, self._G, image), image.shape[1])
      errors.append(float(jnp.abs(jnp.clip(drawn, -1, 1) - from_uint8(image)).mean()))
    return float(np.mean(errors))

  def sheet(self, path: pathlib.Path, encoder: dict) -> None:
    """Writes frames above their inversions."""
    image = self._data['image'][:SHOWN]
    drawn = adaptive_avg_pool(self._draw(encoder, self._G, image), image.shape[1])
    rows = [list(np.asarray(to_uint8(x))) for x in (from_uint8(image), drawn)]
    stills.write_image(path, stills.grid(rows))


def train(args, state: inversion.State, step_fns: list, frozen: dict, inverter: Inverter) -> None:
  """Runs the remaining steps; writes checkpoints, inversion.jsonl and sheets to the workdir."""
  frame, total = common.heads_256()['model']['frame_size'], args.latent_steps + args.picture_steps
  shards = Shards(args.frames, 'train', args.people)
  shards.render(args.people, tqdm)
  stopping: list[bool] = []
  signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
  start, saved = int(state.step), time.time()
  began = time.time()
  for k in tqdm(range(start, total), initial=start, total=total, mininterval=30, unit='step'):
    batch = batch_at(shards, k, args.batch, frame)
    state, terms = step_fns[k >= args.latent_steps](state, frozen, batch)
    last = bool(stopping) or k + 1 == total
    if (k + 1) % LOG_STEPS == 0 or last:
      row = {name: float(value) for name, value in terms.items()} | {'step': k + 1}
      row['seconds_per_step'] = (time.time() - began) / (k + 1 - start)
      if not math.isfinite(row['latent']):
        sys.exit(f'error: the loss is not finite at step {k + 1}; the last checkpoint is kept')
      row['held_out_l1'] = inverter.l1(state.average)
      with open(args.workdir / 'inversion.jsonl', 'a') as file:
        file.write(json.dumps(row) + '\n')
    if (k + 1) % SHEET_STEPS == 0 or last:
      inverter.sheet(args.workdir / f'inversion-{k + 1:06d}.png', state.average)
    if last or time.time() - saved > SAVE_SECONDS:
      with replacing(args.workdir / 'inversion.msgpack') as part:
        part.write_bytes(flax.serialization.to_bytes(jax.device_get(state)))
      saved = time.time()
    if last:
      return


def main() -> None:
  parser = script.parser(__doc__)
  parser.add_argument('workdir', type=pathlib.Path)
  parser.add_argument('--frames', help='folder of rendered shards; WORKDIR/frames if not given')
  parser.add_argument('--people', type=int, default=5120, help='of three frames each')
  parser.add_argument('--held_out', type=int, default=256, help='people')
  parser.add_argument('--batch', type=int, default=16)
  parser.add_argument('--latent_steps', type=int, default=4000)
  parser.add_argument('--picture_steps', type=int, default=2000)
  parser.add_argument('--rate', type=float, default=2e-3)
  parser.add_argument('--export', help='write the averaged encoder to this .npz and stop')
  args = parser.parse_args()
  args.workdir.mkdir(parents=True, exist_ok=True)
  args.frames = args.frames or str(args.workdir / 'frames')
  cli.use_compilation_cache()

  config = ConfigDict(common.heads_256())
  nets = networks.build(config.model)
  total = args.latent_steps + args.picture_steps
  optimizer = optax.adam(optax.cosine_decay_schedule(args.rate, total, 0.02))
  encoder = warm_start.warm_start(nets, jax.random.key(0))
  copy = jax.tree.map(jnp.array, encoder)  # the step donates both
  state = inversion.State(jnp.zeros((), jnp.int32), encoder, copy, optimizer.init(copy['params']))
  path = args.workdir / 'inversion.msgpack'
  if path.exists():
    tree = flax.serialization.from_bytes(jax.device_get(state), path.read_bytes())
    state = jax.tree.map(jnp.asarray, tree)
    print(f'continuing from step {int(state.step)} of {total}')
  if args.export:
    with replacing(pathlib.Path(args.export)) as part:
      shipped.save(part, inversion.without_deformation(state.average))
    print(f'{args.export}: {pathlib.Path(args.export).stat().st_size / 1e6:.2f} MB')
    return
  frozen = shipped.frozen(config.model.resolution)
  held_out = Shards(args.frames, 'validation', args.held_out)
  held_out.render(args.held_out, tqdm)
  inverter = Inverter(nets, frozen['generator'], held_out, config.model.frame_size)
  step_fns = [inversion.make_step(nets, optimizer, picture) for picture in (False, True)]
  train(args, state, step_fns, frozen, inverter)


if __name__ == '__main__':
  main()
