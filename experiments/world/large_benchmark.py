"""Measures the 256 px generator and encoder on held-out rendered people, at 256 and at 64 px.

  python -m experiments.world.large_benchmark --output=FILE.json --squeeze=DIR \
      --landmarker=FILE.task
  python -m experiments.world.large_benchmark ... --generator=FILE.npz --parts=generator

generator  fed the true parameters of 500 people: L1, LPIPS (SqueezeNet) at 256 px, the share of
           faces that MediaPipe finds, and the correlation of its blendshapes with the truth
encoder    cross-identity re-enactment: LPIPS and MediaPipe's errors at 256 px, and all metrics of
           `benchmark` on pictures pooled to 64 px, beside copying the source and the generator fed
           the true parameters; a sheet of 12 people beside FILE.json

Three seeds choose the people; intervals are 95 % by bootstrap over people. `goals` compares the
figures with what was set before training. No network of this file was part of a loss.
"""

import json
import pathlib

import jax
import numpy as np
from tqdm import tqdm

from experiments import script
from experiments.world import benchmark, growth_figures, limits
from experiments.world.growth_steps import W_DIM
from hybrid_jax import cli
from hybrid_jax.evaluation import rendered
from hybrid_jax.media import stills
from hybrid_jax.models.ops import adaptive_avg_pool, from_uint8, to_uint8
from hybrid_jax.models.perceptual import LPIPS
from hybrid_jax.reenactment import showcase
from hybrid_jax.reenactment.model import load_model
from hybrid_jax.weights import shipped
from hybrid_jax.world import clips, latent, parameters, people

SIZE, SMALL = 256, rendered.SIZE  # px
SEEDS = (0, 1, 2)
CHUNK = 16
READ = ('jaw_open', 'blink_left', 'blink_right', 'smile')  # by MediaPipe, against the truth
# Figure, whether it has to be at least (True) or at most (False), and the value.
GOALS = (
  ('generator/l1', False, 0.055),
  ('generator/lpips', False, 0.10),
  ('generator/found', True, 0.99),
  *((f'generator/correlation_{name}', True, 0.85) for name in READ),
  ('encoder/ours/lpips_64', False, 0.068),
  ('encoder/ours/identity_score', True, 0.93),
  ('encoder/ours/l1_face', False, 0.085),
  ('encoder/over_copy_source/expression_error', False, 0.40),
  ('encoder/over_copy_source/pose_error', False, 0.20),
)


def chunks(function, *arrays: np.ndarray) -> np.ndarray:
  """Rows of a function of float32 rows, `CHUNK` at a time: 256 px pictures are large."""
  parts = [
    np.asarray(function(*(x[k : k + CHUNK].astype(np.float32) for x in arrays)))
    for k in range(0, len(arrays[0]), CHUNK)
  ]
  return np.concatenate(parts)


class Outside:
  """LPIPS and MediaPipe at 256 px."""

  def __init__(self, judges: benchmark.Judges):
    self._judges = judges
    self._lpips = jax.jit(lambda x, y: LPIPS('squeeze').apply(judges.squeeze, x, y))

  def lpips(self, method: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n,) distances of uint8 pictures."""
    return chunks(lambda x, y: self._lpips(from_uint8(x), from_uint8(y)), method, truth)

  def read(self, pictures: np.ndarray) -> list[dict | None]:
    """MediaPipe's readings; None where it finds no face."""
    return limits.mediapipe_readings(self._judges.outside, pictures)


def correlations(readings: list, motion: np.ndarray) -> dict[str, float]:
  """Correlation of MediaPipe's `READ` channels with the true parameters, over the faces found."""
  names = list(parameters.MOTION)
  found = [k for k, reading in enumerate(readings) if reading]
  return {
    name: float(
      np.corrcoef([readings[k][name] for k in found], motion[found, names.index(name)])[0, 1]
    )
    for name in READ
  }


def fed_truth(params: dict, data: dict) -> np.ndarray:
  """The generator's pictures (n, 256, 256, 3) uint8 of true parameters."""
  z = latent.z(data['identity'], data['motion'], data['scene'], W_DIM)
  widths = shipped.channels(SIZE)
  return chunks(lambda z: to_uint8(growth_figures.draw(params, z, widths, SIZE)), np.asarray(z))


def measure_generator(params: dict, outside: Outside, count: int) -> dict:
  """Figures of the generator fed the true parameters of `count` test people."""
  draw = clips.Renderer(SIZE)
  rows = []
  for seed in SEEDS:
    rng = np.random.default_rng(seed)
    numbers = rng.choice(rendered.TEST_PEOPLE, -(-count // len(SEEDS)), replace=False)
    for number in tqdm(numbers, desc=f'rendering, seed {seed}', unit='frame'):
      person = people.SPLITS['test'] + int(number)
      vectors = jax.device_get(people.moment(person, seed))
      row = dict(zip(('identity', 'motion', 'scene'), vectors, strict=True))
      rows.append(row | {'person': person, 'truth': draw(*vectors)[0]})
  data = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
  drawn = fed_truth(params, data)
  l1 = np.abs(from_uint8(drawn.astype(np.float32)) - from_uint8(data['truth'].astype(np.float32)))
  readings, true_readings = outside.read(drawn), outside.read(data['truth'])
  result = {
    'frames': len(drawn),
    'l1': script.interval(l1.mean((1, 2, 3)), data['person']),
    'lpips': script.interval(outside.lpips(drawn, data['truth']), data['person']),
    'found': float(np.mean([reading is not None for reading in readings])),
    'found_in_truth': float(np.mean([reading is not None for reading in true_readings])),
  }
  for name, value in correlations(readings, data['motion']).items():
    result[f'correlation_{name}'] = value
  for name, value in correlations(true_readings, data['motion']).items():
    result[f'correlation_of_truth_{name}'] = value
  return result


def pooled(pictures: np.ndarray, size: int) -> np.ndarray:
  """uint8 pictures at a smaller size."""
  pool = lambda x: to_uint8(adaptive_avg_pool(from_uint8(x), size))  # noqa: E731
  return np.concatenate([np.asarray(pool(x[None].astype(np.float32))) for x in pictures])


def methods_of(model, params: dict, data: dict) -> dict[str, np.ndarray]:
  """Pictures (n, 256, 256, 3) uint8 of each method for pairs `data`."""
  seen = {name: pooled(data[name], model.size) for name in ('source', 'driving')}
  return {
    'ours': showcase.answers(model, data | seen),
    'copy_source': data['source'],
    'limit_true_parameters': fed_truth(params, data),
  }


def measure_encoder(model, params: dict, judges, outside: Outside, args) -> tuple[dict, list]:
  """Figures of cross-identity re-enactment, and the rows of a sheet."""
  everything: dict[str, dict[str, list]] = {}
  groups, sheet = [], []
  for seed in SEEDS:
    data = rendered.pairs(seed, args.people, args.frames, True, size=SIZE, progress=cli.progress)
    small = data | {n: pooled(data[n], SMALL) for n in ('source', 'driving', 'truth')}
    face = from_uint8(pooled(np.repeat(data['face'][..., None], 3, -1), SMALL).astype(np.float32))
    small['face'] = np.asarray((face[..., 0] + 1) * 127.5)
    ends, readings = rendered.scale(judges, small, True), outside.read(data['truth'])
    methods = methods_of(model, params, data)
    for name, pictures in methods.items():
      shrunk = np.asarray(from_uint8(pooled(pictures, SMALL).astype(np.float32)))
      values = rendered.measure(judges, shrunk, small, ends)
      truth = np.asarray(from_uint8(small['truth'].astype(np.float32)))
      values['lpips_64'] = judges.perceptual(shrunk, truth)
      values['lpips_256'] = outside.lpips(pictures, data['truth'])
      floats = from_uint8(pictures.astype(np.float32))
      values |= benchmark.mediapipe_errors(judges, floats, readings)
      for metric, value in values.items():
        everything.setdefault(name, {}).setdefault(metric, []).append(np.asarray(value))
    groups.append(data['person'])
    if not sheet:
      first = slice(0, 12 * args.frames, args.frames)
      columns = (data['source'], data['driving'], *methods.values(), data['truth'])
      shown = [column[first] for column in columns]
      sheet = [list(column[k : k + 6]) for k in (0, 6) for column in shown]
  people_of = np.concatenate(groups)
  result: dict = {
    name: {metric: script.interval(np.concatenate(x), people_of) for metric, x in metrics.items()}
    for name, metrics in everything.items()
  }
  copied = result['copy_source']
  result['over_copy_source'] = {
    metric: {'mean': x['mean'] / copied[metric]['mean']} for metric, x in result['ours'].items()
  }
  return result, sheet


def compared(result: dict) -> dict[str, dict]:
  """Each goal whose figure was measured: the figure, the goal, and whether it was reached."""
  goals = {}
  for path, at_least, goal in GOALS:
    value = result
    for name in path.split('/'):
      value = value.get(name, {}) if isinstance(value, dict) else {}
    value = value.get('mean') if isinstance(value, dict) else value
    if value is not None:
      reached = value >= goal if at_least else value <= goal
      goals[path] = {'value': value, 'at least' if at_least else 'at most': goal}
      goals[path]['reached'] = bool(reached)
  return goals


def main() -> None:
  parser = script.parser(__doc__)
  parser.add_argument('--output', type=pathlib.Path, required=True)
  parser.add_argument('--parts', default='generator,encoder')
  parser.add_argument('--generator', default='', help='.npz of weights (the shipped ones)')
  parser.add_argument('--ours', default='', help='workdir of the encoder (the shipped one)')
  parser.add_argument('--squeeze', required=True, help='folder with squeezenet1_1.npz')
  parser.add_argument('--landmarker', required=True, help='MediaPipe face landmarker, .task')
  parser.add_argument('--count', type=int, default=500, help='frames of the generator')
  parser.add_argument('--people', type=int, default=40, help='sources of each seed')
  parser.add_argument('--frames', type=int, default=6, help='driving frames of each source')
  args = parser.parse_args()
  cli.use_compilation_cache()
  measured = script.record()  # before anything is written
  known = json.loads((script.RESULTS / 'heads_world.json').read_text())
  judges = benchmark.Judges(args.squeeze, args.landmarker, known)
  outside = Outside(judges)
  tree = shipped.read(args.generator) if args.generator else shipped.generator(SIZE)
  result = json.loads(args.output.read_text()) if args.output.exists() else {}
  if 'generator' in args.parts:
    result['generator'] = measure_generator(tree['params'], outside, args.count)
  if 'encoder' in args.parts:
    model = load_model(args.ours)
    result['encoder'], sheet = measure_encoder(model, tree['params'], judges, outside, args)
    stills.write_image(args.output.with_suffix('.png'), stills.grid(sheet))
  result |= {'goals': compared(result), 'seeds': list(SEEDS), 'measured': measured}
  script.write_json(args.output, result)
  for name, goal in result['goals'].items():
    print(name, json.dumps(goal))


if __name__ == '__main__':
  main()
