"""Measures the rendered world and its networks on unseen people; writes figures and sheets.

  python -m experiments.world.measure --output=experiments/results/heads_world.json
  python -m experiments.world.measure --output=... --parts=limits,sheets
  python -m experiments.world.measure --output=... --yunet=FILE.onnx --landmarker=FILE.task

Parts: speed (ms per frame), critics (error rates, R2 per motion channel), detection (what YuNet and
MediaPipe find and read in 1,000 heads at 256 px), limits (the best of the generator), sheets (PNG).
Parts that are not run keep their entry in the file. Detection needs both models; limits add
MediaPipe's errors where its model is given.
"""

import json
import pathlib
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from tqdm import tqdm

from experiments import script
from experiments.world import critics, frame_shards, limits
from hybrid_jax.evaluation import blendshapes
from hybrid_jax.evaluation.judges import TRUSTED_MOTION
from hybrid_jax.media import faces, replacing, stills
from hybrid_jax.models.ops import to_uint8
from hybrid_jax.weights import shipped
from hybrid_jax.world import clips, landmarks, parameters, people, render

PARTS = ('speed', 'critics', 'detection', 'limits', 'sheets')
TRUST = 0.8  # a channel with an R2 or correlation below this is listed and is no evidence


def speed() -> dict:
  """Returns the median ms per frame of `render` by size in px."""
  result = {}
  for size in (64, 128, 256):
    draw = jax.jit(lambda i, m, s, size=size: render.render(i, m, s, size))
    vectors = people.moment(0, 0)
    began = time.perf_counter()
    draw(*vectors).block_until_ready()  # JAX returns before the work is done
    compiled, times = time.perf_counter() - began, []
    for _ in range(30):
      began = time.perf_counter()
      draw(*vectors).block_until_ready()
      times.append(time.perf_counter() - began)
    result[f'{size}'] = {'ms': 1e3 * float(np.median(times)), 'first_call_s': compiled}
  return result


def critic_figures(test: dict) -> dict:
  """Returns the figures of each bundled critic and judge on people that no network has seen."""
  result = {}
  for name in critics.STEPS:
    if name != 'perceptual':
      result[name] = critics.figures(name, critics.shipped_variables(name), test)
  r2 = result['judge_motion']['r2']
  result['judge_motion']['untrusted'] = [name for name in r2 if r2[name] < TRUST]
  if [name for name in r2 if r2[name] >= TRUST] != list(TRUSTED_MOTION):
    print('note: change hybrid_jax.evaluation.judges.TRUSTED_MOTION, which lists other channels')
  return result


def detection(yunet: str, landmarker: str, count: int) -> dict:
  """Returns how many heads YuNet and MediaPipe find, and how well they read what was rendered."""
  detector = faces.FaceDetector(yunet)
  judge = blendshapes.Landmarker(landmarker)
  renderer = clips.Renderer(256)
  found, read, truth, errors = [], [], [], []
  for k in tqdm(range(count), desc='detection', unit='head'):
    identity, motion, scene = people.moment(people.SPLITS['test'] + k, 0)
    image, _, points = renderer(identity, motion, scene)
    face = next(iter(detector.detect(image)), None)
    found.append(face is not None)
    if face is not None:
      five = np.asarray(landmarks.five_points(points)) * 256
      errors.append(np.linalg.norm(face.landmarks - five, axis=1).mean())
    reading = judge(image)
    if reading is not None:
      read.append(reading)
      truth.append(np.asarray(motion))
  judge.close()
  truth = np.array(truth)
  names = list(parameters.MOTION)
  correlation = {
    name: float(np.corrcoef([r[name] for r in read], truth[:, names.index(name)])[0, 1])
    for name in names
    if name in read[0]
  }
  return {
    'heads': count,
    'px': 256,
    'yunet_found': sum(found),
    'yunet_landmark_error_px': float(np.mean(errors)),
    'mediapipe_found': len(read),
    'mediapipe_correlation': correlation,
    'mediapipe_untrusted': [n for n in names if abs(correlation.get(n, 0)) < TRUST],
  }


def write_sheet(path: pathlib.Path, rows: list) -> None:
  """Writes a grid of images as a PNG of 256 colours, small enough to commit."""
  with replacing(path) as part:
    Image.fromarray(stills.grid(rows)).quantize(256).save(part, 'PNG', optimize=True)


def sheets(folder: pathlib.Path) -> list[str]:
  """Writes sheets of people, generated people, sweeps and interpolations; returns their names."""
  frozen = shipped.generator()
  from_w = jax.jit(lambda w: to_uint8(limits.draw(frozen, w)))
  vectors = jax.vmap(lambda n: people.moment(n, 0))(people.SPLITS['test'] + jnp.arange(96))
  renderer = clips.Renderer(128)
  drawn = [renderer(*(v[k] for v in vectors))[0] for k in range(60)]
  write_sheet(folder / 'heads_people.png', [drawn[k : k + 12] for k in range(0, 60, 12)])
  w = limits.true_w(frozen, *vectors)
  generated = np.asarray(from_w(w))
  write_sheet(folder / 'heads_generated.png', [generated[k : k + 16] for k in range(0, 96, 16)])
  write_sheet(folder / 'heads_sweeps.png', _sweeps(frozen, from_w, vectors[0][5], vectors[2][5]))
  # Straight lines in W between pairs of people.
  t = jnp.linspace(0, 1, 10)[:, None]
  lines = [np.asarray(from_w(w[2 * k] * (1 - t) + w[2 * k + 1] * t)) for k in range(8)]
  write_sheet(folder / 'heads_interpolations.png', lines)
  return ['heads_people.png', 'heads_generated.png', 'heads_sweeps.png', 'heads_interpolations.png']


def _sweeps(frozen: dict, from_w: Callable, identity, scene) -> list[list[np.ndarray]]:
  """Returns rows of each motion parameter from end to end: rendered, and generated below."""
  renderer, cells = clips.Renderer(64), []
  for name, ends in parameters.MOTION.items():
    values = np.linspace(*ends, 7)
    motion = np.stack([parameters.pack(parameters.MOTION, **{name: v}) for v in values])
    rendered = [renderer(identity, m, scene)[0] for m in motion]
    identities, scenes = (jnp.stack([v] * 7) for v in (identity, scene))
    generated = from_w(limits.true_w(frozen, identities, motion, scenes))
    cells.append((rendered, list(np.asarray(generated))))
  return [cells[k][j] + cells[k + 1][j] for k in range(0, len(cells), 2) for j in (0, 1)]


def main() -> None:
  parser = script.parser(__doc__)
  parser.add_argument('--output', required=True, type=pathlib.Path, help='.json file to update')
  parser.add_argument('--parts', default=','.join(PARTS), help='of %(default)s')
  parser.add_argument('--frames', default='runs/heads/frames', help='folder of rendered shards')
  parser.add_argument('--yunet', default='', help='YuNet, .onnx')
  parser.add_argument('--landmarker', default='', help='MediaPipe face landmarker, .task')
  parser.add_argument('--count', type=int, default=1000, help='heads to detect (%(default)s)')
  parser.add_argument('--invert', type=int, default=48, help='frames to fit (%(default)s)')
  args = parser.parse_args()
  parts = args.parts.split(',')
  if unknown := [part for part in parts if part not in PARTS]:
    sys.exit(f'error: --parts={args.parts}: no part {unknown[0]!r}; choose from {", ".join(PARTS)}')
  known = json.loads(args.output.read_text()) if args.output.exists() else {}
  record = script.record()
  test = {}
  if {'critics', 'limits'} & set(parts):
    test = frame_shards.rendered(args.frames, 'test', 700, 3, 64)
  for part in parts:
    if part == 'speed':
      value = speed()
    elif part == 'critics':
      value = critic_figures(test)
    elif part == 'detection':
      value = detection(args.yunet, args.landmarker, args.count)
    elif part == 'limits':
      train = frame_shards.rendered(args.frames, 'train', 1024, 3, 64)
      untrusted = known['detection']['mediapipe_untrusted'] if args.landmarker else []
      value, sheet = limits.measure(
        test, train['image'].mean(0), args.landmarker, untrusted, args.invert
      )
      write_sheet(script.RESULTS / 'heads_limits.png', sheet)
    else:
      value = {'files': sheets(args.output.parent)}
    known[part] = value | {'measured': record}
    print(json.dumps({part: known[part]}, indent=1))
    script.write_json(args.output, known)


if __name__ == '__main__':
  main()
