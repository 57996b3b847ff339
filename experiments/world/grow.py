"""Grows the shipped 64 px generator to 128 and 256 px: one resumable command for the whole recipe.

  python -m experiments.world.grow WORKDIR --squeeze=DIR
  python -m experiments.world.grow WORKDIR --export hybrid_jax/weights/shipped/generator_256.npz

Renders the first frames, then trains the stages of `STAGES` in order and renders the remaining
frames in between. WORKDIR receives one checkpoint for each stage (delete it to repeat the stage and
those after it), log.jsonl and sample sheets (truth, the 64 px generator upsampled, this one;
held-out people). SIGTERM saves and stops; the same command continues.

Figures in log.jsonl, on held-out people and at the stage's size: `l1` on [-1, 1], `l1_region` of
mouth, eyes and brows, `perceptual` by the world's network, `lpips` by SqueezeNet where --squeeze
names the folder of squeezenet1_1.npz. Rows with "stage": "upsampled" have the same of the 64 px
generator.

Expected: 12 hours of one CPU core, of which 1.4 are rendering: the sum of the seconds a step beside
`STAGES`. Those of adversaries and of 256 px are of the slower polyphase lowering, on a busy CPU.
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
from tqdm import tqdm

from experiments import script
from experiments.world import generator as regressing
from experiments.world import growth, growth_figures
from experiments.world.growth_steps import (
  W_DIM,
  Stage,
  State,
  channels,
  generator,
  init,
  make_step,
)
from experiments.world.large_frames import KINDS, SHARD, Shards
from hybrid_jax import cli
from hybrid_jax.media import replacing
from hybrid_jax.weights import shipped
from hybrid_jax.world import latent, people

STAGES = (
  # The new block alone; the layers below have no backward pass: 1.8 s.
  Stage('128-new', 128, 150, 16, 4e-3, 4e-3, trained_from=128),
  # 2.2 s.
  Stage('128-all', 128, 5500, 16, 3e-3, 3e-4),
  # 4.8 s.
  Stage('128-adversary', 128, 1000, 16, 4e-4, 2e-4, adversarial=True),
  # 2.8 s, batch of 8.
  Stage('256-new', 256, 500, 8, 4e-3, 2e-3, trained_from=256),
  # 4.7 s.
  Stage('256-all', 256, 3000, 8, 1.5e-3, 2e-4),
  # 8 s.
  Stage('256-adversary', 256, 800, 8, 3e-4, 1.5e-4, adversarial=True),
)
RENDER_STEPS = 60  # steps between two shards, while frames are missing
LOG_STEPS = 100
SHEET_STEPS = 200
SAVE_SECONDS = 240
SEED = 0


def rarity(motion: np.ndarray) -> np.ndarray:
  """Probability of each person's pair, by how much the twin's expression differs: (people,)."""
  change = (motion[:, 1] - motion[:, 0])[:, 3:]
  weight = np.square(change / change.std(0)).sum(1)
  return weight / weight.sum()


def batch_at(shards: Shards, step: int, size: int) -> dict[str, np.ndarray]:
  """The batch of a step: `size` / 2 moments, then their twins, in expression or in traits by turns.

  A function of the step and of the frames that exist.
  """
  kind = 1 + step % 2
  chance = rarity(shards.vectors['motion']) if kind == 1 else None
  rng = np.random.default_rng((SEED, step))
  chosen = rng.choice(len(shards), size // 2, p=chance, replace=False)
  batch = shards.rows(np.tile(chosen, 2), np.repeat((0, kind), size // 2))
  if KINDS[kind] == 'traits':
    # Glasses, beards and hair lie outside of mouth, eyes and brows: weigh what they change as well.
    before, after = np.split(batch['image'].astype(np.int16), 2)
    batch['region'][size // 2 :][np.abs(after - before).mean(-1) > regressing.CHANGED] = 255
  return batch


def load(path: pathlib.Path, like: State) -> State:
  tree = flax.serialization.from_bytes(jax.device_get(like), path.read_bytes())
  return jax.tree.map(jnp.asarray, tree)


def save(path: pathlib.Path, state: State) -> None:
  with replacing(path) as part:
    part.write_bytes(flax.serialization.to_bytes(jax.device_get(state)))


def begin(stage: Stage, before: tuple[int, dict, dict]) -> State:
  """The first state of a stage from (size, parameters, average) of the one before."""
  size, params, average = before
  now = shipped.CHANNELS if size == 0 else channels(size)
  if now != channels(stage.size):
    key = jax.random.key(stage.size)  # the same new weights in both
    params, average = (growth.grow(p, now, channels(stage.size), key) for p in (params, average))
  return init(stage, params, average)


class Run:
  """Training of the stages in a workdir."""

  def __init__(self, workdir: pathlib.Path, train: Shards, held_out: Shards, figures, persons: int):
    self.workdir, self.train, self.persons = workdir, train, persons
    self.held_out, self.figures = held_out, figures
    self.perceptual = shipped.load('perceptual')
    self.stopping: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: self.stopping.append(True))

  def log(self, row: dict) -> None:
    with open(self.workdir / 'log.jsonl', 'a') as file:
      file.write(json.dumps(row) + '\n')

  def stage(self, stage: Stage, state: State) -> State:
    """Trains a stage to its end, or until the process is asked to stop."""
    path, step_of = self.workdir / f'{stage.name}.msgpack', make_step(stage)
    start, saved, spent, counted = int(state.step), time.time(), 0.0, 0
    bar = tqdm(range(start, stage.steps), stage.name, stage.steps, initial=start, mininterval=30)
    for k in bar:
      if k % RENDER_STEPS == 0:
        self.train.render(min(self.persons, len(self.train) + SHARD))
      began = time.time()
      batch = batch_at(self.train, k, stage.batch)
      state, terms = jax.block_until_ready(step_of(state, self.perceptual, batch))
      if k > start:  # the first compiles
        spent, counted = spent + time.time() - began, counted + 1
      last = bool(self.stopping) or k + 1 == stage.steps
      if (k + 1) % LOG_STEPS == 0 or last:
        self.report(stage, state, terms, spent / max(counted, 1))
        spent, counted = 0.0, 0
      if last or time.time() - saved > SAVE_SECONDS:
        save(path, state)
        saved = time.time()
      if last:
        break
    return state

  def report(self, stage: Stage, state: State, terms: dict, seconds: float) -> None:
    """Writes a row of the log and, at times, a sheet; refuses to go on with a broken state."""
    step = int(state.step)
    row = {'stage': stage.name, 'step': step, 'seconds_per_step': round(seconds, 3)}
    row |= {'people': len(self.train), 'time': time.strftime('%H:%M', time.gmtime())}
    row |= {f'train/{name}': round(float(value), 5) for name, value in terms.items()}
    if not math.isfinite(row['train/regression']):
      sys.exit(f'error: the loss of {stage.name} is not finite at step {step}')
    row |= self.figures(state.average, stage.size)
    self.log(row)
    if step % SHEET_STEPS == 0 or step == stage.steps or self.stopping:
      self.figures.sheet(self.workdir / f'{stage.name}-{step:05d}.png', state.average, stage.size)

  def all_stages(self) -> None:
    params = shipped.generator()['params']
    before, size = (0, params, params), 0
    for stage in STAGES:
      state = begin(stage, before)
      path = self.workdir / f'{stage.name}.msgpack'
      if path.exists():
        state = load(path, state)
        print(f'{stage.name}: continuing from step {int(state.step)} of {stage.steps}')
      if stage.size != size and int(state.step) == 0:
        self.log({'stage': 'upsampled', **self.figures(params, stage.size, shipped.CHANNELS)})
      if int(state.step) < stage.steps:
        state = self.stage(stage, state)
      if self.stopping:
        return
      before, size = (stage.size, state.generator, state.average), stage.size


def export(workdir: pathlib.Path, path: pathlib.Path) -> None:
  """Writes the averaged generator of the last stage that began, and latents of training people."""
  params = shipped.generator()['params']
  before, newest = (0, params, params), None
  for stage in STAGES:
    if not (workdir / f'{stage.name}.msgpack').exists():
      break
    newest = load(workdir / f'{stage.name}.msgpack', begin(stage, before))
    before = (stage.size, newest.generator, newest.average)
  if newest is None:
    sys.exit(f'error: {workdir} has no checkpoint')
  i, m, s = jax.vmap(people.moment, (0, None))(jnp.arange(4096), 0)
  z = latent.z(i, m, s, W_DIM)
  w = generator(before[0]).apply({'params': newest.average}, z, method='map')
  tree = {'params': newest.average, 'w_avg': w.mean(0), 'w_samples': w[:1024]}
  with replacing(path) as part:
    shipped.save(part, jax.device_get(tree))
  print(f'{path}: {before[0]} px, {path.stat().st_size / 1e6:.2f} MB')


def main() -> None:
  parser = script.parser(__doc__)
  parser.add_argument('workdir', type=pathlib.Path)
  parser.add_argument('--frames', help='folder of rendered shards; WORKDIR/frames if not given')
  parser.add_argument('--people', type=int, default=5120, help='of three frames each')
  parser.add_argument('--first_people', type=int, default=192, help='rendered before training')
  parser.add_argument('--held_out', type=int, default=256, help='people')
  parser.add_argument('--squeeze', default='', help='folder with squeezenet1_1.npz')
  parser.add_argument('--export', type=pathlib.Path, help='write the weights to this .npz and stop')
  args = parser.parse_args()
  args.workdir.mkdir(parents=True, exist_ok=True)
  if args.export:
    export(args.workdir, args.export)
    return
  cli.use_compilation_cache()
  frames = args.frames or str(args.workdir / 'frames')
  held_out, train = (
    Shards(frames, 'validation', args.held_out),
    Shards(frames, 'train', args.people),
  )
  held_out.render(args.held_out, tqdm)
  train.render(args.first_people, tqdm)
  figures = growth_figures.Figures(held_out, args.squeeze)
  Run(args.workdir, train, held_out, figures, args.people).all_stages()


if __name__ == '__main__':
  main()
