"""Measures the loss through files: cross-identity figures of the re-enactment command.

  python -m experiments.cost.reenact_benchmark --workdir=runs/heads --face_detector=YUNET.onnx \\
      --output=experiments/results/reenact_benchmark.json

The pairs are those of experiments/world/benchmark.py, held-out rendered people whose true answer is
one more render. Each source is a picture, its drivers a clip of one moment a second, so that
nothing is smoothed across them. Each step adds one source of loss:
  direct   the networks alone, on arrays, in one call
  ffv1     the command, pre-aligned, lossless clips
  h264     the same, clips in H.264 both ways, as the command writes them
  cropped  the face detected in larger pictures, aligned in each, and pasted back, lossless
  level    as cropped, without the driver's in-plane motion (--no-in-plane)
The result has for each the mean of every metric with a 95 % interval (bootstrap over source people)
and the paired difference to `direct`; for `ffv1` also the largest difference in grey levels, which
must be 1 at most.
"""

import argparse
import pathlib
import sys
import tempfile
from fractions import Fraction

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments import script
from hybrid_jax import cli
from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import rendered
from hybrid_jax.media import stills, video
from hybrid_jax.models.ops import from_uint8, to_uint8
from hybrid_jax.reenactment.model import Model, load_model
from hybrid_jax.reenactment.options import Options
from hybrid_jax.reenactment.run import reenact

CROPPED = {'codec': 'ffv1', 'layout': 'pasted', 'crop': 'ffhq'}
STEPS = {
  'ffv1': {'codec': 'ffv1'},
  'h264': {'codec': 'h264'},
  'cropped': CROPPED,
  'level': CROPPED | {'in_plane': False},
}
ENCODERS = {'ffv1': 'ffv1', 'h264': 'libx264'}  # of the driving clips, by the codec of the result


def direct(model: Model, data: dict[str, np.ndarray]) -> np.ndarray:
  """Returns the frames of the networks alone, (n, 64, 64, 3) uint8, at their own precision."""
  hybrid = model.networks.hybrid

  @jax.jit
  def network(E, G, source, driving):
    W_S = hybrid.identity(E, G, from_uint8(source), model.rows)
    return to_uint8(hybrid.reenact(G, W_S, hybrid.deformation(E, from_uint8(driving))))

  return rendered.in_batches(
    lambda s, d: network(model.E, model.G, s, d), data['source'], data['driving']
  )


def through_command(
  model: Model, data: dict[str, np.ndarray], step: str, frames: int, detector: str
) -> tuple[np.ndarray, list[str]]:
  """Returns frames (n, s, s, 3) uint8 of the command, and its notes about missing faces."""
  results, notes = [], []
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    source, driving = folder / 'source.png', folder / 'driving.mp4'
    # The `frames` rows of a source follow one another, and share it.
    for k in tqdm(range(0, len(data['source']), frames), desc=step, unit='person', leave=False):
      stills.write_image(source, data['source'][k])
      side = len(data['driving'][k])
      with video.VideoWriter(
        # One frame a second, so that the command smooths nothing across unrelated moments.
        driving,
        side,
        side,
        time_base=Fraction(1),
        codec=ENCODERS[STEPS[step]['codec']],
      ) as writer:
        for j, rgb in enumerate(data['driving'][k : k + frames]):
          writer.write(rgb, Fraction(j))
      options = Options(
        str(source),
        str(driving),
        str(folder / 'out.mp4'),
        face_detector=detector,
        **STEPS[step],
      )
      report = reenact(model, options)
      notes += [line for line in report.notes if 'no face in' in line][:1]
      results += [frame.rgb for frame in video.read_frames(options.output)]
  return np.stack(results), notes


def small(frames: np.ndarray) -> np.ndarray:
  """Averages frames (n, s, s, 3) uint8 to (n, 64, 64, 3)."""
  # Area averaging, as the renderer's own pixels are means over their area.
  side = (rendered.SIZE, rendered.SIZE)
  return np.stack([cv2.resize(rgb, side, interpolation=cv2.INTER_AREA) for rgb in frames])


def steps_of_seed(
  model: Model, data: dict[str, np.ndarray], seed: int, steps: list[str], args: argparse.Namespace
) -> tuple[dict[str, np.ndarray], int]:
  """Returns frames (n, 64, 64, 3) uint8 by step, and the number of clips with missing faces."""
  frames, missing = {'direct': direct(model, data)}, 0
  if args.face_detector:
    # Larger pictures of the same people and moments, for the detector.
    large = rendered.pairs(seed, args.people, args.frames, True, size=args.size)
  for step in steps:
    if 'crop' in STEPS[step]:
      found, notes = through_command(model, large, step, args.frames, args.face_detector)
      frames[step], missing = small(found), len(notes)
    else:
      frames[step], _ = through_command(model, data, step, args.frames, '')
  return frames, missing


def measure(model: Model, steps: list[str], args: argparse.Namespace) -> dict:
  """Returns the figures of every step over all seeds."""
  judge, groups, worst, missing = rendered.Judges(), [], 0, 0
  parts: dict[str, dict[str, list]] = {step: {} for step in ('direct', *steps)}
  for seed in args.seeds:
    data = rendered.pairs(seed, args.people, args.frames, True)
    ends = rendered.scale(judge, data, True)
    groups.append(data['person'])
    frames, count = steps_of_seed(model, data, seed, steps, args)
    missing += count
    worst = max(worst, int(np.abs(frames['ffv1'].astype(int) - frames['direct']).max()))
    for step, images in frames.items():
      method = np.asarray(from_uint8(jnp.asarray(images)))
      for metric, value in rendered.measure(judge, method, data, ends).items():
        parts[step].setdefault(metric, []).append(value)
  people = np.concatenate(groups)
  values = {step: {m: np.concatenate(v) for m, v in of.items()} for step, of in parts.items()}
  plain = values['direct']
  return {
    'worst_grey_levels_ffv1': worst,
    'clips_with_missing_faces': missing,
    'frames': len(people),
    'model': pathlib.PurePath(args.workdir).name or model.name,
    'steps': {
      step: {metric: script.interval(v, people) for metric, v in of.items()}
      for step, of in values.items()
    },
    'loss': {
      f'{step} - direct': {
        metric: script.interval(v - plain[metric], people) for metric, v in values[step].items()
      }
      for step in steps
    },
  }


def parse_args() -> argparse.Namespace:
  parser = script.parser(__doc__)
  add = parser.add_argument
  add('--workdir', default='', help='of a training run (default: the bundled model)')
  add('--face_detector', default='', help='YuNet or MediaPipe file; needed by cropped and level')
  add('--people', type=int, default=40, help='source people of each seed (%(default)s)')
  add('--frames', type=int, default=6, help='driving frames of each (%(default)s)')
  add('--seeds', type=int, nargs='+', default=[0, 1, 2], help='(%(default)s)')
  add('--size', type=int, default=256, help='of the larger pictures, px (%(default)s)')
  add('--output', type=pathlib.Path, required=True, help='.json file to write')
  return parser.parse_args()


def main() -> None:
  args = parse_args()
  cli.use_compilation_cache()
  record = script.record()
  steps = [step for step in STEPS if args.face_detector or 'crop' not in STEPS[step]]
  try:
    result = measure(load_model(args.workdir), steps, args)
  except InputError as error:
    sys.exit(f'error: {error}')
  script.write_json(args.output, result | {'measured': record})
  for step, metrics in result['steps'].items():
    names = ('l1', 'l1_face', 'ssim', 'identity_score', 'expression_error', 'pose_error')
    print(f'{step}: ' + ', '.join(f'{m} {metrics[m]["mean"]:.4f}' for m in names))
  worst = result['worst_grey_levels_ffv1']
  print(f'ffv1 differs from direct by {worst} grey levels at most')
  if worst > 1:
    sys.exit("error: the command's frames differ from those of the networks")


if __name__ == '__main__':
  main()
