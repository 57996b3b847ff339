"""Driving signals for the baselines: motion and landmarks, read off frames by a small network.

  python -m experiments.paper.signals train runs/signals --world world/
  python -m experiments.paper.signals read runs/signals --world world/ --output read/world
  python -m experiments.paper.signals read runs/signals --kept kept/ --output read/kept

It is trained on the training split of an export (`experiments.world.export_clips`) and is no judge:
another architecture, seed and set of people. `--world` reads every frame of the export, for
trainings, into read/world/motion/train/id0000000#0.csv and the same under landmarks/, in the form
of the export. `--kept` reads the sources and driving clips of a table, for rendering, into
read/kept/motion/driving/driver_000.csv and so on.
"""

import argparse
import functools
import pathlib
from collections.abc import Callable, Iterator

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from experiments.paper import inputs, pairs, resumable
from experiments.world import export_clips
from hybrid_jax.errors import InputError
from hybrid_jax.media import sequences, stills
from hybrid_jax.models.batching import run_in_batches
from hybrid_jax.models.ops import from_uint8, to_uint8
from hybrid_jax.world import parameters, people

MOTION, POINTS = len(parameters.MOTION), 68
TOGETHER = 32  # frames that are read, or drawn, at a time
NOISE, GAIN = 0.03, 0.1  # of the augmentation


class Reader(nn.Module):
  """Image (n, s, s, 3) in [-1, 1] -> (n, 16 + 136): motion, and landmarks in shares of the side."""

  widths: tuple[int, ...] = (24, 48, 72, 96)
  hidden: int = 128

  @nn.compact
  def __call__(self, image: jax.Array) -> jax.Array:
    """See the class."""
    x = nn.Conv(self.widths[0], (5, 5), (2, 2))(image)
    for width in self.widths[1:]:
      y = nn.Conv(width, (3, 3), (2, 2))(jax.nn.relu(nn.GroupNorm(4)(x)))
      y = nn.Conv(width, (3, 3))(jax.nn.relu(nn.GroupNorm(4)(y)))
      x = y + nn.Conv(width, (1, 1))(nn.avg_pool(x, (2, 2), (2, 2)))
    x = jax.nn.relu(nn.Dense(self.hidden)(x.reshape(len(x), -1)))  # n hidden
    return 0.5 + nn.Dense(MOTION + 2 * POINTS)(x)


@flax.struct.dataclass
class State:
  """Step, weights and optimiser."""

  step: jax.Array
  params: dict
  opt: optax.OptState


def first_state(
  steps: int, rate: float, seed: int, size: int
) -> tuple[State, optax.GradientTransformation]:
  """Returns the state before the first step, and its optimiser."""
  params = Reader().init(jax.random.key(seed), jnp.zeros((1, size, size, 3)))
  optimizer = optax.adamw(optax.cosine_decay_schedule(rate, steps, 0.02), weight_decay=1e-4)
  return State(jnp.zeros((), jnp.int32), params, optimizer.init(params)), optimizer


def make_step(optimizer: optax.GradientTransformation, seed: int):
  """Returns the jitted step (state, images uint8, targets) -> (state, metrics)."""

  def loss_of(params, image, target):
    error = Reader().apply(params, image) - target
    # Squares for motion, whose mean is wanted; landmarks are exact.
    terms = {'motion': jnp.square(error[:, :MOTION]).mean(), 'points': jnp.abs(error[:, MOTION:])}
    terms['points'] = terms['points'].mean()
    return terms['motion'] + terms['points'], terms

  @jax.jit
  def step(state, image, target):
    key_gain, key_noise = jax.random.split(jax.random.fold_in(jax.random.key(seed), state.step))
    image = from_uint8(image.astype(jnp.float32))
    image *= 1 + GAIN * jax.random.normal(key_gain, (len(image), 1, 1, 1))
    image += NOISE * jax.random.normal(key_noise, image.shape)
    grads, terms = jax.grad(loss_of, has_aux=True)(state.params, image, target)
    updates, opt = optimizer.update(grads, state.opt, state.params)
    return State(state.step + 1, optax.apply_updates(state.params, updates), opt), terms

  return step


@jax.jit
def _apply(params, image):
  return Reader().apply(params, from_uint8(image.astype(jnp.float32)))


def values_of(params: dict, frames: np.ndarray) -> np.ndarray:
  """Returns the readings (t, 152) of frames (t, s, s, 3) uint8."""
  return run_in_batches(functools.partial(_apply, params), frames, size=TOGETHER)


def load(world: pathlib.Path, given: pathlib.Path, split: str) -> dict[str, np.ndarray]:
  """Returns the frames of a split of an export, and their signals.

  Args:
    given: folder of the signals: the export for the true ones, or readings of it.

  Returns:
    'image' (k, t, s, s, 3) uint8, 'motion' (k, t, 16), 'points' (k, t, 68, 2) in shares of the
    side, for k clips of t frames.
  """
  data: dict[str, list] = {'image': [], 'motion': [], 'points': []}
  for clip in tqdm(export_clips.read(world, split), desc=f'reading {split}', unit='clip'):
    frames = np.stack([stills.read_image(path) for path in clip.frames])
    motion = export_clips.read_motion(given / 'motion' / split / f'{clip.name}.csv')
    points = export_clips.read_points(given / 'landmarks' / split / f'{clip.name}.csv')
    if not len(motion) == len(points) == len(frames):
      raise InputError(f'{given}: {split}/{clip.name}: not {len(frames)} rows; read it again')
    for name, value in (('image', frames), ('motion', motion), ('points', points / len(frames[0]))):
      data[name].append(value)
  return {name: np.stack(values) for name, values in data.items()}


def flat(data: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  """Returns the frames (n, s, s, 3) of `load`, and what is read off them (n, 152)."""
  count = data['motion'].shape[0] * data['motion'].shape[1]
  values = [data[name].reshape(count, -1) for name in ('motion', 'points')]
  return data['image'].reshape(count, *data['image'].shape[2:]), np.concatenate(values, 1)


def batch_at(k: int, seed: int, size: int, data: dict) -> dict:
  """Returns the batch of step `k`: `size` pairs of two frames of a clip, 'image' and 'motion'."""
  rng = np.random.default_rng((seed, k))
  clip = rng.integers(0, len(data['image']), (size, 1))
  frames = np.stack([rng.permutation(data['image'].shape[1])[:2] for _ in range(size)])
  return {name: data[name][clip, frames] for name in ('image', 'motion')}


def render(
  kept: pathlib.Path, given: pathlib.Path | None, output: pathlib.Path, draw: Callable, size: int
) -> None:
  """Renders every pair of a table with the motion of its driving clip, see `of_driving`.

  Args:
    draw: maps sources (n, s, s, 3) in [-1, 1] and motion (n, 16) to images like the sources.
    size: side in px of the pictures that `draw` takes.

  Raises:
    InputError: a source has another size, or a driving clip has no motion of its length.
  """
  output.mkdir(parents=True, exist_ok=True)
  for pair in tqdm(pairs.read(kept), unit='clip'):
    source = from_uint8(stills.read_image(pair.source).astype(np.float32))
    if source.shape != (size, size, 3):
      raise InputError(f'{pair.source}: {len(source)} px; this network has {size} px')
    times = [frame.time for frame in sequences.read(pair.driving)]
    motion = of_driving(kept, given, pair.driving)
    if len(motion) != len(times):
      raise InputError(f'{pair.driving}: {len(times)} frames, and {len(motion)} rows of motion')
    sources = np.broadcast_to(source, (len(motion), *source.shape))
    drawn = np.asarray(to_uint8(jnp.asarray(run_in_batches(draw, sources, motion, size=TOGETHER))))
    inputs.write_clip(output / f'{pair.name}.mp4', zip(drawn, times, strict=True))


def of_driving(kept: pathlib.Path, given: pathlib.Path | None, driving: pathlib.Path) -> np.ndarray:
  """Returns the motion (t, 16) of a driving clip of a table: read, or the true one if not `given`.

  Raises:
    InputError: the clip has no readings, or no true motion beside it.
  """
  if given:
    return export_clips.read_motion(given / 'motion' / f'{name_of(kept, driving)}.csv')
  try:
    return np.load(driving.with_suffix('.npz'))['motion'].astype(np.float32)
  except (OSError, ValueError, KeyError) as error:
    raise InputError(f'{driving}: no true motion beside it; give --signals') from error


def train(args: argparse.Namespace) -> None:
  """Trains, or goes on; prints the errors on people of the validation split."""
  settings = {name: getattr(args, name) for name in ('steps', 'batch', 'rate', 'seed')}
  size = export_clips.read_index(args.world)['options']['size']
  resumable.begin(args.workdir, settings | {'size': size})
  state, optimizer = first_state(args.steps, args.rate, args.seed, size)
  state = resumable.restore(args.workdir, state)
  images, targets = flat(load(args.world, args.world, 'train'))
  held_out = flat(load(args.world, args.world, 'validation'))
  step = make_step(optimizer, args.seed)

  def advance(state, k):
    pick = np.random.default_rng((args.seed, k)).integers(0, len(images), args.batch)
    return step(state, images[pick], targets[pick])

  report = functools.partial(errors, *held_out)
  state = resumable.run(args.workdir, state, args.steps, advance, report, args.checkpoint_steps)
  for name, value in errors(*held_out, state).items():
    print(f'{name:28} {value:.4f}')


def errors(images: np.ndarray, targets: np.ndarray, state: State) -> dict[str, float]:
  """Returns R2 of each motion parameter, and the mean error of landmarks in shares of the side."""
  found = values_of(state.params, images)
  spread = targets[:, :MOTION].var(0) + 1e-9
  r2 = 1 - np.square(found - targets)[:, :MOTION].mean(0) / spread
  apart = (found - targets)[:, MOTION:].reshape(-1, POINTS, 2)
  named = {f'r2_{name}': float(x) for name, x in zip(parameters.MOTION, r2, strict=True)}
  return named | {'landmarks': float(np.linalg.norm(apart, axis=-1).mean())}


def inputs_of(args: argparse.Namespace) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
  """Yields (name of the files, frames, times) of every clip to read."""
  if args.world:
    options = export_clips.read_index(args.world)['options']
    times = export_clips.clips.spread_times(options['frames'])
    for split in people.SPLITS:
      for clip in export_clips.read(args.world, split):
        yield f'{split}/{clip.name}', np.stack([*map(stills.read_image, clip.frames)]), times
    return
  paths = dict.fromkeys(path for pair in pairs.read(args.kept) for path in pair[1:])
  for path in paths:
    frames = list(sequences.read(path))
    times = [float(frame.time or 0) for frame in frames]
    yield name_of(args.kept, path), np.stack([frame.rgb for frame in frames]), np.array(times)


def name_of(kept: pathlib.Path, path: pathlib.Path) -> str:
  """Returns the name of the readings of a file of a table, such as 'driving/driver_000'."""
  return path.relative_to(kept).with_suffix('').as_posix()


def read(args: argparse.Namespace) -> None:
  """Writes the readings of every clip."""
  if bool(args.world) == bool(args.kept):
    raise InputError('give --world or --kept, what to read')
  given = resumable.settings_of(args.workdir)
  state, _ = first_state(given['steps'], given['rate'], given['seed'], given['size'])
  params, size = resumable.trained(args.workdir, state).params, given['size']
  count = 0
  for name, frames, times in tqdm(inputs_of(args), unit='clip'):
    if frames.shape[1:3] != (size, size):
      raise InputError(f'{name}: {frames.shape[2]} x {frames.shape[1]} px; trained for {size} px')
    values, count = values_of(params, frames), count + 1
    points = size * values[:, MOTION:].reshape(-1, POINTS, 2)
    export_clips.write_points(args.output / 'landmarks' / f'{name}.csv', points)
    export_clips.write_motion(args.output / 'motion' / f'{name}.csv', times, values[:, :MOTION])
  print(f'{args.output}: {count} clips')


def parse_args() -> argparse.Namespace:
  parser = resumable.parser_of(__doc__, ('train', 'read'), steps=6000, rate=2e-3, every=500)
  add = parser.add_argument
  add('--world', type=pathlib.Path, help='an export of the rendered world')
  add('--kept', type=pathlib.Path, help='folder of --keep of a table')
  add('--output', type=pathlib.Path, help='folder of the readings')
  add('--batch', type=int, default=32, help='(%(default)s)')
  return parser.parse_args()


if __name__ == '__main__':
  resumable.command(parse_args(), train=(train, 'world'), read=(read, 'output'))
