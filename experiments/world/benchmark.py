"""Measures re-enactment on held-out rendered people, where the true answer is one more render.

  python -m experiments.world.benchmark --output=experiments/results
  python -m experiments.world.benchmark --output=... --ten_minutes=runs/heads \\
      --squeeze=DIR --landmarker=FILE.task

Writes heads_cross_identity.json and heads_same_identity.json: for our encoder, for that of a ten
minutes' run, for copying source or driver and for the generator's limits, the mean and 95 %
interval (bootstrap over source people) of every metric, paired differences to the copies, and the
anchor property. `--squeeze` is a folder with squeezenet1_1.npz (LPIPS on its real weights).
"""

import argparse
import functools
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from experiments.world import measure as heads_world
from hybrid_jax.evaluation import blendshapes, images, rendered
from hybrid_jax.evaluation.judges import TRUSTED_MOTION
from hybrid_jax.media import replacing, stills
from hybrid_jax.models.ops import adaptive_avg_pool, from_uint8, to_uint8
from hybrid_jax.models.perceptual import LPIPS
from hybrid_jax.reenactment import showcase
from hybrid_jax.reenactment.model import Model, load_model
from hybrid_jax.weights import key_maps, shipped
from hybrid_jax.world import clips, parameters, people

ROOT = pathlib.Path(__file__).resolve().parents[2]

SEEDS = (0, 1, 2)


class Judges(rendered.Judges):
  """With the outside ones: LPIPS on its real weights, and MediaPipe."""

  def __init__(self, squeeze: str, landmarker: str, known: dict):
    super().__init__()
    self.squeeze = None
    if squeeze:
      state = dict(np.load(pathlib.Path(squeeze) / 'squeezenet1_1.npz'))
      keys = key_maps.lpips('squeeze', lin='lpips_lin{}', features='')
      self.squeeze = key_maps.convert(state, keys, kind='squeeze')
    self.outside, self.outside_names = None, []
    if landmarker:
      self.outside = blendshapes.Landmarker(landmarker)
      untrusted = known['detection']['mediapipe_untrusted']
      self.outside_names = [n for n in parameters.MOTION if n not in untrusted]

    def large(x):
      return jax.image.resize(x, (len(x), 128, 128, 3), 'bilinear')

    self._perceptual = jax.jit(
      lambda x, y: LPIPS('squeeze').apply(self.squeeze, large(x), large(y))
    )

  def perceptual(self, x, y):
    return rendered.in_batches(self._perceptual, x, y)


def measure(judge: Judges, method: np.ndarray, data: dict, ends: dict) -> dict:
  values = rendered.measure(judge, method, data, ends)
  if judge.squeeze is not None:
    truth = from_uint8(data['truth'].astype(np.float32))
    values['perceptual'] = judge.perceptual(np.clip(method, -1, 1), np.asarray(truth))
  return values


def outside(judge: Judges, method: np.ndarray, truth: list[dict | None]) -> dict:
  """The same errors by MediaPipe, against its own reading of the true frames."""
  names = judge.outside_names
  known = np.array([[r[n] for n in names] for r in truth if r])
  mean, spread = dict(zip(names, known.mean(0), strict=True)), known.std(0)
  rows = []
  for read, true in zip(
    heads_world.opinions(judge.outside, to_uint8(jnp.asarray(method))), truth, strict=True
  ):
    true, read = true or mean, read or mean
    rows.append([abs(read[n] - true[n]) for n in names] / spread)
  rows = np.array(rows)
  is_pose = np.array([n in rendered.POSE for n in names])
  return {
    'expression_error_mediapipe': rows[:, ~is_pose].mean(1),
    'pose_error_mediapipe': rows[:, is_pose].mean(1),
  }


def anchors(judge: Judges, model: Model, count: int, frames: int) -> dict:
  """Variance over a person's frames of what the judge reads in G(w_id, 0), over that of frames."""
  draw, first = rendered.renderer(rendered.SIZE), people.SPLITS['test']
  within = {'frames': [], 'anchors': []}
  for k in range(count):
    times = np.random.default_rng(k).uniform(0, people.CLIP_SECONDS, frames).astype(np.float32)
    identity, motion, scene = clips.vectors(first + k, 0, times)
    drawn = np.stack([draw(identity, m, scene)[0] for m in motion])
    within['frames'].append(judge.read(from_uint8(drawn.astype(np.float32))).var(0))
    still = [np.zeros(sum(model.widths), np.float32)]
    anchor = np.stack([next(model.images(model.identity(x), still, 1)) for x in drawn])
    within['anchors'].append(judge.read(from_uint8(anchor.astype(np.float32))).var(0))
  ratios = np.mean(within['anchors'], 0) / np.mean(within['frames'], 0)
  names = list(parameters.MOTION)
  return {n: float(ratios[names.index(n)]) for n in TRUSTED_MOTION}


def summary(values: np.ndarray, groups: np.ndarray) -> dict:
  mean, low, high = images.bootstrap(values, groups)
  return {'mean': mean, 'low': low, 'high': high}


def run(args, judge: Judges, models: dict[str, Model], cross: bool) -> dict:
  everything: dict[str, dict[str, list]] = {}
  groups, sheet = [], []
  for seed in SEEDS:
    data = rendered.pairs(seed, args.people, args.frames, cross)
    floats = {n: from_uint8(data[n].astype(np.float32)) for n in ('source', 'driving', 'truth')}
    ends = rendered.scale(judge, data, cross)
    vectors = (data['identity'], data['motion'], data['scene'])
    frozen = shipped.generator()
    w = heads_world.fed_truth(frozen, *vectors)
    methods = {
      name: from_uint8(showcase.answers(model, data).astype(np.float32))
      for name, model in models.items()
    }
    methods |= {'copy_source': floats['source'], 'copy_driving': floats['driving']}
    methods['limit_true_parameters'] = rendered.in_batches(functools.partial(drawn_from, frozen), w)
    readings = []
    if judge.outside is not None:
      readings = heads_world.opinions(judge.outside, data['truth'])
    if seed == SEEDS[0]:
      best = slice(0, args.invert)
      methods['limit'] = heads_world.invert(
        frozen, w[best], floats['truth'][best], offsets=True, steps=400
      )
    for name, method in methods.items():
      part = data if len(method) == len(data['truth']) else {n: x[best] for n, x in data.items()}
      values = measure(judge, np.asarray(method), part, ends)
      if judge.outside is not None:
        values |= outside(judge, method, readings[: len(method)])
      for metric, value in values.items():
        everything.setdefault(name, {}).setdefault(metric, []).append(value)
    groups.append(data['person'])
    if seed == SEEDS[0]:
      order = ['source', 'driving', 'truth']
      shown = [data[n][: 12 * args.frames : args.frames] for n in order]
      shown += [
        np.asarray(to_uint8(jnp.asarray(m)))[: 12 * args.frames : args.frames]
        for n, m in methods.items()
        if n in models or n == 'limit_true_parameters'
      ]
      sheet = [list(row) for row in shown]
  groups = np.concatenate(groups)
  result: dict = {}
  for name, metrics in everything.items():
    result[name] = {}
    for metric, parts in metrics.items():
      values = np.concatenate(parts)
      own = groups if len(values) == len(groups) else groups[: len(values)]
      result[name][metric] = summary(values, own)
  result['paired'] = {
    f'{name} - {copy}': {
      metric: summary(np.concatenate(x) - np.concatenate(everything[copy][metric]), groups)
      for metric, x in everything[name].items()
    }
    for name in models
    for copy in ('copy_source', 'copy_driving')
  }
  result['over_copy_source'] = {
    name: {m: x['mean'] / result['copy_source'][m]['mean'] for m, x in result[name].items()}
    for name in (*models, 'limit_true_parameters')
  }
  kind = 'cross' if cross else 'same'
  path = pathlib.Path(args.output) / f'heads_{kind}_identity.png'
  stills.write_image(path, stills.grid(sheet))
  return result


def bare(option: str) -> str:
  """An option of the command with its file by name alone."""
  name, _, value = option.partition('=')
  return (
    f'{name}={pathlib.PurePath(value).name}' if name in ('--squeeze', '--landmarker') else option
  )


@jax.jit
def drawn_from(frozen: dict, w: jax.Array) -> jax.Array:
  net, variables = heads_world.net(), {'params': frozen['params']}
  rows = heads_world.latents.num_ws(shipped.CHANNELS)
  styles = net.apply(variables, jnp.repeat(w[:, None], rows, 1), method='to_style_space')
  return adaptive_avg_pool(net.apply(variables, styles, method='synthesize'), rendered.SIZE)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--output', required=True, help='folder')
  parser.add_argument('--ours', default='', help='workdir of the encoder (the shipped one)')
  parser.add_argument('--ten_minutes', default='', help='workdir of the ten minutes run')
  parser.add_argument('--squeeze', default='', help='folder with squeezenet1_1.npz')
  parser.add_argument('--landmarker', default='', help='MediaPipe face landmarker, .task')
  parser.add_argument('--people', type=int, default=40, help='source people of each seed')
  parser.add_argument('--frames', type=int, default=6, help='driving frames of each')
  parser.add_argument('--invert', type=int, default=48, help='frames of the optimised limit')
  args = parser.parse_args()

  command = ' '.join(['python -m experiments.world.benchmark', *map(bare, sys.argv[1:])])
  measured = heads_world.provenance('') | {'command': command}  # before anything is written
  known = json.loads((ROOT / 'experiments/results/heads_world.json').read_text())
  judge = Judges(args.squeeze, args.landmarker, known)
  models = {'ours': load_model(args.ours)}
  if args.ten_minutes:
    models['ours_10_minutes'] = load_model(f'{args.ten_minutes}/finetune')
  for kind, cross in (('cross', True), ('same', False)):
    result = run(args, judge, models, cross)
    result |= {
      'frames': len(SEEDS) * args.people * args.frames,
      'seeds': list(SEEDS),
      'trusted': list(TRUSTED_MOTION),
      'trusted_mediapipe': judge.outside_names,
      'anchor_variance_ratio': {n: anchors(judge, m, 24, 12) for n, m in models.items()},
      'measured': measured,
    }
    path = pathlib.Path(args.output) / f'heads_{kind}_identity.json'
    with replacing(path) as temporary:
      temporary.write_text(json.dumps(result, indent=1) + '\n')
    for name in (*models, 'copy_source', 'copy_driving', 'limit_true_parameters', 'limit'):
      row = ', '.join(
        f'{m} {result[name][m]["mean"]:.3f}'
        for m in ('l1', 'l1_face', 'identity_score', 'expression_error', 'pose_error')
      )
      print(f'{kind} {name}: {row}')


if __name__ == '__main__':
  main()
