"""What the way through files costs: cross-identity figures through the re-enactment command.

  python -m experiments.cost.reenact_benchmark --workdir=runs/heads --face_detector=YUNET.onnx \\
      --output=experiments/results/reenact_benchmark.json

The pairs are those of experiments/world/benchmark.py, held-out rendered people whose true answer is
one more render. Each source is a picture, its drivers a clip of one moment a second, so that
nothing is smoothed across them. Steps, each of which adds one thing that costs:
  direct   the networks alone, on arrays, in one call
  ffv1     the command, pre-aligned, lossless clips
  h264     the same, clips in H.264 both ways, as the command writes them
  cropped  the face found by a detector in larger pictures, cut out and pasted back, lossless
Of each the mean of every metric with a 95 % interval (bootstrap over source people), and the paired
difference to `direct`; of `ffv1` the largest difference in grey levels, which must be 1 at most.
"""

import argparse
import contextlib
import io
import json
import pathlib
import sys
import tempfile
from fractions import Fraction

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments.world.measure import provenance
from hybrid_jax import cli
from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import images, rendered
from hybrid_jax.media import replacing, stills, video
from hybrid_jax.models.ops import from_uint8, to_uint8
from hybrid_jax.reenactment import run
from hybrid_jax.reenactment.model import Model, load_model
from hybrid_jax.reenactment.options import Options

CODECS = {'ffv1': 'ffv1', 'h264': 'libx264', 'cropped': 'ffv1'}


def direct(model: Model, data: dict[str, np.ndarray]) -> np.ndarray:
  """(n, 64, 64, 3) uint8: the networks alone, at their own precision."""
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
  """(n, s, s, 3) uint8 frames as the command writes them, and what it noted of missing faces."""
  made, notes = [], []
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    source, driving = folder / 'source.png', folder / 'driving.mp4'
    for k in tqdm(range(0, len(data['source']), frames), desc=step, unit='person', leave=False):
      stills.write_image(source, data['source'][k])
      side = len(data['driving'][k])
      with video.VideoWriter(
        driving, side, side, time_base=Fraction(1), codec=CODECS[step]
      ) as writer:
        for j, rgb in enumerate(data['driving'][k : k + frames]):
          writer.write(rgb, Fraction(j))
      options = Options(
        str(source),
        str(driving),
        str(folder / 'out.mp4'),
        face_detector=detector,
        layout='pasted' if detector else 'result',
        codec='h264' if step == 'h264' else 'ffv1',
      )
      said = io.StringIO()
      with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        run.reenact(model, options)
      notes += [line for line in said.getvalue().splitlines() if 'no face in' in line][:1]
      made += [frame.rgb for frame in video.read_frames(options.output)]
  return np.stack(made), notes


def small(frames: np.ndarray) -> np.ndarray:
  """(n, s, s, 3) uint8 -> (n, 64, 64, 3) uint8, averaged."""
  side = (rendered.SIZE, rendered.SIZE)
  return np.stack([cv2.resize(rgb, side, interpolation=cv2.INTER_AREA) for rgb in frames])


def summary(values: list[np.ndarray], groups: np.ndarray) -> dict[str, float]:
  mean, low, high = images.bootstrap(np.concatenate(values), groups)
  return {'mean': mean, 'low': low, 'high': high}


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--workdir', default='', help='of the encoder (the shipped model)')
  parser.add_argument('--face_detector', default='', help='YuNet or MediaPipe file; else no crops')
  parser.add_argument('--people', type=int, default=40, help='source people of each seed')
  parser.add_argument('--frames', type=int, default=6, help='driving frames of each')
  parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
  parser.add_argument('--size', type=int, default=256, help='of the larger pictures, px')
  parser.add_argument('--output', type=pathlib.Path, required=True, help='.json file to write')
  args = parser.parse_args()
  cli.use_compilation_cache()
  measured = provenance('cross') | {'command': 'python ' + ' '.join(sys.argv)}
  try:
    model = load_model(args.workdir)
  except InputError as error:
    sys.exit(f'error: {error}')

  judge, groups, worst, gone = rendered.Judges(), [], 0, 0
  steps = [step for step in CODECS if args.face_detector or step != 'cropped']
  values: dict[str, dict[str, list]] = {step: {} for step in ('direct', *steps)}
  for seed in args.seeds:
    data = rendered.pairs(seed, args.people, args.frames, True)
    ends = rendered.scale(judge, data, True)
    groups.append(data['person'])
    made = {'direct': direct(model, data)}
    for step in steps:
      if step == 'cropped':
        large = rendered.pairs(seed, args.people, args.frames, True, size=args.size)
        frames, notes = through_command(model, large, step, args.frames, args.face_detector)
        made[step], gone = small(frames), gone + len(notes)
      else:
        made[step], _ = through_command(model, data, step, args.frames, '')
    worst = max(worst, int(np.abs(made['ffv1'].astype(int) - made['direct']).max()))
    for step, frames in made.items():
      method = np.asarray(from_uint8(jnp.asarray(frames)))
      for metric, value in rendered.measure(judge, method, data, ends).items():
        values[step].setdefault(metric, []).append(value)

  people = np.concatenate(groups)
  result = {step: {m: summary(v, people) for m, v in values[step].items()} for step in values}
  loss = {
    f'{step} - direct': {
      metric: summary([a - b for a, b in zip(v, values['direct'][metric], strict=True)], people)
      for metric, v in values[step].items()
    }
    for step in steps
  }
  record = {
    'worst_grey_levels_ffv1': worst,
    'clips_with_missing_faces': gone,
    'frames': len(people),
    'model': pathlib.PurePath(args.workdir).name or model.name,
    'steps': result,
    'loss': loss,
    'measured': measured,
  }
  with replacing(args.output) as part:
    part.write_text(json.dumps(record, indent=1) + '\n')
  for step, metrics in result.items():
    told = ('l1', 'l1_face', 'ssim', 'identity_score', 'expression_error', 'pose_error')
    print(f'{step}: ' + ', '.join(f'{m} {metrics[m]["mean"]:.4f}' for m in told))
  print(f'ffv1 differs from direct by {worst} grey levels at most')
  if worst > 1:
    sys.exit('error: the command does not give what the networks give')


if __name__ == '__main__':
  main()
