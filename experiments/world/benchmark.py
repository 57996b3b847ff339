"""Measures re-enactment on unseen rendered people, whose true answer is one more render.

  python -m experiments.world.benchmark --output=experiments/results
  python -m experiments.world.benchmark --output=... --ten_minutes=runs/heads \\
      --squeeze=DIR --landmarker=FILE.task

Writes heads_cross_identity.json and heads_same_identity.json: for the bundled encoder, for that of
a run of ten minutes, for copies of source and driver and for the generator's limits, the mean and
95 % interval (bootstrap over source people) of every metric, paired differences to the copies, and
how much motion is left in the anchors G(w_id, 0). `--squeeze` is a folder with squeezenet1_1.npz
(LPIPS on its real weights).
"""

import argparse
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments import script
from experiments.world import limits
from experiments.world.squeeze import squeeze_lpips
from hybrid_jax.evaluation import blendshapes, rendered
from hybrid_jax.evaluation.judges import TRUSTED_MOTION
from hybrid_jax.media import stills
from hybrid_jax.models.ops import adaptive_avg_pool, from_uint8, to_uint8
from hybrid_jax.models.perceptual import LPIPS
from hybrid_jax.reenactment import showcase
from hybrid_jax.reenactment.model import Model, load_model
from hybrid_jax.weights import shipped
from hybrid_jax.world import clips, parameters, people

SEEDS = (0, 1, 2)
SHOWN = 12  # people on the sheet
COPIES = ('copy_source', 'copy_driving')

# {method: {metric: [(n,) of each seed]}}
Values = dict[str, dict[str, list[np.ndarray]]]


# --- Judges --------------------------------------------------------------------------------------


class Judges(rendered.Judges):
  """The judges of rendered heads, with LPIPS on its real weights and MediaPipe where given."""

  def __init__(self, squeeze: str, landmarker: str, known: dict):
    super().__init__()
    self.squeeze = squeeze_lpips(squeeze) if squeeze else None
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
    """Returns LPIPS (n,) between images in [-1, 1]."""
    return rendered.in_batches(self._perceptual, x, y)


def measure(
  judge: Judges, method: np.ndarray, data: dict, ends: dict, readings: list[dict | None]
) -> dict[str, np.ndarray]:
  """Returns each metric (n,) of a method's frames; `readings` are MediaPipe's of the truth."""
  values = rendered.measure(judge, method, data, ends)
  if judge.squeeze is not None:
    truth = from_uint8(data['truth'].astype(np.float32))
    values['perceptual'] = judge.perceptual(np.clip(method, -1, 1), np.asarray(truth))
  if judge.outside is not None:
    values |= mediapipe_errors(judge, method, readings[: len(method)])
  return values


def mediapipe_errors(judge: Judges, method: np.ndarray, truth: list[dict | None]) -> dict:
  """Returns the errors of motion by MediaPipe, against its own reading of the true frames."""
  names = judge.outside_names
  known = np.array([[r[n] for n in names] for r in truth if r])
  mean, spread = dict(zip(names, known.mean(0), strict=True)), known.std(0)
  rows, images = [], to_uint8(jnp.asarray(method))
  for read, true in zip(limits.mediapipe_readings(judge.outside, images), truth, strict=True):
    # A frame without a face counts as the mean reading, so that a method cannot gain by it.
    true, read = true or mean, read or mean
    rows.append([abs(read[n] - true[n]) for n in names] / spread)
  rows = np.array(rows)
  is_pose = np.array([n in rendered.POSE for n in names])
  return {
    'expression_error_mediapipe': rows[:, ~is_pose].mean(1),
    'pose_error_mediapipe': rows[:, is_pose].mean(1),
  }


def anchor_variance(judge: Judges, model: Model, count: int, frames: int) -> dict[str, float]:
  """Returns by channel the variance of motion over a person's anchors, over that of the frames.

  0 where the anchor does not depend on the frame, 1 where it keeps the motion.
  """
  draw, first = clips.Renderer(rendered.SIZE), people.SPLITS['test']
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


# --- Methods -------------------------------------------------------------------------------------


@jax.jit
def drawn_from(frozen: dict, w: jax.Array) -> jax.Array:
  """Returns the generator's images of w (n, d), (n, 64, 64, 3)."""
  return adaptive_avg_pool(limits.draw(frozen, w), rendered.SIZE)


def frames_of_methods(
  models: dict[str, Model], data: dict, fitted: int
) -> dict[str, np.ndarray | jax.Array]:
  """Returns the frames of each method in [-1, 1]; 'limit' has the first `fitted` pairs only."""
  frozen = shipped.generator()
  floats = {n: from_uint8(data[n].astype(np.float32)) for n in ('source', 'driving', 'truth')}
  w = limits.true_w(frozen, data['identity'], data['motion'], data['scene'])
  methods = {
    name: from_uint8(showcase.answers(model, data).astype(np.float32))
    for name, model in models.items()
  }
  methods |= {'copy_source': floats['source'], 'copy_driving': floats['driving']}
  methods['limit_true_parameters'] = rendered.in_batches(functools.partial(drawn_from, frozen), w)
  if fitted:
    methods['limit'] = limits.fit(frozen, w[:fitted], floats['truth'][:fitted], offsets=True)
  return methods


def sheet_of(data: dict, methods: dict, models: dict[str, Model], frames: int) -> list[list]:
  """Returns rows of pictures: source, driver, truth, each model, the generator's limit."""
  chosen = slice(0, SHOWN * frames, frames)
  rows = [data[n][chosen] for n in ('source', 'driving', 'truth')]
  rows += [
    np.asarray(to_uint8(jnp.asarray(images)))[chosen]
    for name, images in methods.items()
    if name in models or name == 'limit_true_parameters'
  ]
  return [list(row) for row in rows]


def run(
  args: argparse.Namespace, judge: Judges, models: dict[str, Model], cross: bool
) -> tuple[dict, list[list]]:
  """Measures every method on the pairs of all SEEDS; returns the figures and a sheet."""
  values: Values = {}
  groups, sheet = [], []
  for seed in SEEDS:
    is_first = seed == SEEDS[0]
    data = rendered.pairs(seed, args.people, args.frames, cross)
    ends = rendered.scale(judge, data, cross)
    # Fitting takes minutes, so the limit is of some pairs of one seed.
    methods = frames_of_methods(models, data, args.invert if is_first else 0)
    readings = []
    if judge.outside is not None:
      readings = limits.mediapipe_readings(judge.outside, data['truth'])
    for name, method in methods.items():
      part = {n: x[: len(method)] for n, x in data.items()}
      measured = measure(judge, np.asarray(method), part, ends, readings)
      for metric, value in measured.items():
        values.setdefault(name, {}).setdefault(metric, []).append(value)
    groups.append(data['person'])
    if is_first:
      sheet = sheet_of(data, methods, models, args.frames)
  return summary(values, np.concatenate(groups), list(models)), sheet


def summary(values: Values, groups: np.ndarray, models: list[str]) -> dict:
  """Returns intervals of each metric and method, and each model against the copies."""
  result: dict = {}
  for name, metrics in values.items():
    joined = {metric: np.concatenate(parts) for metric, parts in metrics.items()}
    result[name] = {
      metric: script.interval(value, groups[: len(value)]) for metric, value in joined.items()
    }
  result['paired'] = {
    f'{name} - {copy}': {
      metric: script.interval(np.concatenate(x) - np.concatenate(values[copy][metric]), groups)
      for metric, x in values[name].items()
    }
    for name in models
    for copy in COPIES
  }
  result['over_copy_source'] = {
    name: {m: x['mean'] / result['copy_source'][m]['mean'] for m, x in result[name].items()}
    for name in (*models, 'limit_true_parameters')
  }
  return result


def parse_args() -> argparse.Namespace:
  parser = script.parser(__doc__)
  parser.add_argument('--output', required=True, type=pathlib.Path, help='folder')
  parser.add_argument('--ours', default='', help='workdir of the encoder (default: the bundled)')
  parser.add_argument('--ten_minutes', default='', help='workdir of the run of ten minutes')
  parser.add_argument('--squeeze', default='', help='folder with squeezenet1_1.npz')
  parser.add_argument('--landmarker', default='', help='MediaPipe face landmarker, .task')
  parser.add_argument('--people', type=int, default=40, help='sources of each seed (%(default)s)')
  parser.add_argument('--frames', type=int, default=6, help='driving frames of each (%(default)s)')
  parser.add_argument('--invert', type=int, default=48, help='pairs of the limit (%(default)s)')
  return parser.parse_args()


def main() -> None:
  args = parse_args()
  record = script.record()
  known = json.loads((script.RESULTS / 'heads_world.json').read_text())
  judge = Judges(args.squeeze, args.landmarker, known)
  models = {'ours': load_model(args.ours)}
  if args.ten_minutes:
    models['ours_10_minutes'] = load_model(f'{args.ten_minutes}/finetune')
  for kind, cross in (('cross', True), ('same', False)):
    result, sheet = run(args, judge, models, cross)
    stills.write_image(args.output / f'heads_{kind}_identity.png', stills.grid(sheet))
    result |= {
      'frames': len(SEEDS) * args.people * args.frames,
      'seeds': list(SEEDS),
      'trusted': list(TRUSTED_MOTION),
      'trusted_mediapipe': judge.outside_names,
      'anchor_variance_ratio': {n: anchor_variance(judge, m, 24, 12) for n, m in models.items()},
      'measured': record,
    }
    script.write_json(args.output / f'heads_{kind}_identity.json', result)
    for name in (*models, *COPIES, 'limit_true_parameters', 'limit'):
      row = ', '.join(
        f'{m} {result[name][m]["mean"]:.3f}'
        for m in ('l1', 'l1_face', 'identity_score', 'expression_error', 'pose_error')
      )
      print(f'{kind} {name}: {row}')


if __name__ == '__main__':
  main()
