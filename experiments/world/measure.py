"""Measures the rendered world and its networks on held-out people; writes figures and sheets.

  python -m experiments.world.measure --output=experiments/results/heads_world.json
  python -m experiments.world.measure --output=... --parts=limits,sheets
  python -m experiments.world.measure --output=... --yunet=FILE.onnx --landmarker=FILE.task

Parts: speed (ms a frame), critics (error rates, R2 per motion channel), detection (what outside
judges find and read in 1,000 heads at 256 px), limits (the generator's best), sheets (PNG). Parts
that were not run keep what the file says of them. Detection needs both models; limits take
MediaPipe's opinion where it is given.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from experiments.world import critics as heads_critics
from experiments.world import frames
from hybrid_jax.evaluation import blendshapes, rendered
from hybrid_jax.evaluation.judges import TRUSTED_MOTION
from hybrid_jax.media import faces, replacing, stills
from hybrid_jax.models import latents
from hybrid_jax.models.ops import from_uint8, to_uint8
from hybrid_jax.models.stylegan2 import Generator
from hybrid_jax.weights import shipped
from hybrid_jax.world import clips, landmarks, latent, parameters, people, render

ROOT = pathlib.Path(__file__).resolve().parents[2]

PARTS = ('speed', 'critics', 'detection', 'limits', 'sheets')
TRUST = 0.8  # R2 or correlation below this: the channel is listed and not used as evidence
EXPRESSION = [name for name in parameters.MOTION if name not in blendshapes.POSE]


def speed() -> dict:
  """Median ms a frame of `render`."""
  result = {}
  for size in (64, 128, 256):
    draw = jax.jit(lambda i, m, s, size=size: render.render(i, m, s, size))
    vectors = people.moment(0, 0)
    began = time.perf_counter()
    draw(*vectors).block_until_ready()
    compiled, times = time.perf_counter() - began, []
    for _ in range(30):
      began = time.perf_counter()
      draw(*vectors).block_until_ready()
      times.append(time.perf_counter() - began)
    result[f'{size}'] = {'ms': 1e3 * float(np.median(times)), 'first_call_s': compiled}
  return result


def critics(test: dict) -> dict:
  """Figures of each shipped critic and judge on people no network has seen."""
  result = {}
  for name in heads_critics.STEPS:
    if name != 'perceptual':
      result[name] = heads_critics.figures(name, heads_critics.shipped_variables(name), test)
  r2 = result['judge_motion']['r2']
  result['judge_motion']['untrusted'] = [name for name in r2 if r2[name] < TRUST]
  if [name for name in r2 if r2[name] >= TRUST] != list(TRUSTED_MOTION):
    print('note: hybrid_jax.evaluation.judges.TRUSTED_MOTION lists other channels: change it')
  return result


def detection(yunet: str, landmarker: str, count: int) -> dict:
  """How many heads the outside judges find, and how well they read what was rendered."""
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
    opinion = judge(image)
    if opinion is not None:
      read.append(opinion)
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


def net() -> Generator:
  return Generator(
    shipped.CHANNELS,
    w_dim=shipped.GENERATOR['w_dim'],
    mapping_layers=shipped.GENERATOR['mapping_layers'],
    polyphase_from=0,
  )


def fed_truth(frozen: dict, identity, motion, scene) -> jax.Array:
  """w of the true parameters."""
  z = latent.z(identity, motion, scene, shipped.GENERATOR['w_dim'])
  return net().apply({'params': frozen['params']}, z, method='map')


def invert(frozen: dict, w: jax.Array, real: jax.Array, *, offsets: bool, steps: int):
  """Optimises W+ (and StyleSpace offsets) of every image on the truth; returns the images."""
  generator, variables = net(), {'params': frozen['params']}
  rows = latents.num_ws(shipped.CHANNELS)
  w_plus = jnp.repeat(w[:, None], rows, 1)
  styles = jax.eval_shape(lambda x: generator.apply(variables, x, method='to_style_space'), w_plus)
  free = {'w_plus': w_plus}
  if offsets:
    free['s'] = tuple(jnp.zeros(s.shape) for s in styles)

  def draw(free):
    style = generator.apply(variables, free['w_plus'], method='to_style_space')
    if offsets:
      style = tuple(a + b for a, b in zip(style, free['s'], strict=True))
    return generator.apply(variables, style, method='synthesize')

  # Equal weight to each image, whatever the batch: a sum over images.
  loss = lambda free: jnp.abs(draw(free) - real).mean((1, 2, 3)).sum()  # noqa: E731
  optimizer = optax.adam(optax.cosine_decay_schedule(0.02, steps, 0.05))

  @jax.jit
  def step(free, opt):
    updates, opt = optimizer.update(jax.grad(loss)(free), opt)
    return optax.apply_updates(free, updates), opt

  opt = optimizer.init(free)
  for _ in tqdm(range(steps), desc=f'W+{" and S" if offsets else ""}', mininterval=10):
    free, opt = step(free, opt)
  return jnp.clip(draw(free), -1, 1)


def expression_error(judge: rendered.Judges, image: jax.Array, test: dict) -> float:
  """Mean over trusted channels of |judge's reading - truth| / standard deviation of the truth."""
  errors = judge.motion_errors(np.asarray(image), test['motion'])
  return float(np.mean([error for name, error in errors.items() if name in EXPRESSION]))


def opinions(judge, image: np.ndarray) -> list[dict | None]:
  """MediaPipe's readings of small frames, enlarged to where it finds faces."""
  import cv2

  return [
    judge(cv2.resize(x, (256, 256), interpolation=cv2.INTER_CUBIC)) for x in np.asarray(image)
  ]


def outside_errors(judge, image, readings: list, trusted: list[str], spread: dict) -> dict:
  """The same error by MediaPipe, against its reading of the truth; and the share of faces found.

  Where it finds a face in the truth and none here, the error is that of the mean reading.
  """
  mean = {n: np.mean([r[n] for r in readings if r]) for n in trusted}
  errors, found = [], 0
  for read, true in zip(opinions(judge, image), readings, strict=True):
    if true is None:
      continue
    found += read is not None
    errors.append([abs((read or mean)[n] - true[n]) / spread[n] for n in trusted])
  return {'expression_error_mediapipe': float(np.mean(errors)), 'found': found / len(errors)}


def limits(test: dict, train_mean: np.ndarray, landmarker: str, known: dict, count: int) -> dict:
  """Mean image, generator fed the true parameters, optimised W+, and W+ with StyleSpace offsets."""
  frozen = shipped.generator()
  part = {name: x[::3][:count] for name, x in test.items()}
  real = from_uint8(part['image'].astype(np.float32))
  w = fed_truth(frozen, part['identity'], part['motion'], part['scene'])
  rows = latents.num_ws(shipped.CHANNELS)
  draw = jax.jit(
    lambda w: net().apply(
      {'params': frozen['params']},
      net().apply(
        {'params': frozen['params']}, jnp.repeat(w[:, None], rows, 1), method='to_style_space'
      ),
      method='synthesize',
    )
  )
  images = {
    'truth': real,
    'mean_image': jnp.broadcast_to(from_uint8(train_mean), real.shape),
    'true_parameters': jnp.clip(draw(w), -1, 1),
    'optimised_w_plus': invert(frozen, w, real, offsets=False, steps=400),
    'optimised_w_plus_and_s': invert(frozen, w, real, offsets=True, steps=400),
  }
  trusted = [n for n in EXPRESSION if n in TRUSTED_MOTION]
  result = {'frames': len(real), 'px': 64, 'trusted': trusted}
  inside, judge, outside = rendered.Judges(), None, []
  if landmarker:
    judge = blendshapes.Landmarker(landmarker)
    untrusted = known['detection']['mediapipe_untrusted']
    outside = [n for n in EXPRESSION if n not in untrusted]
    readings = opinions(judge, part['image'])
    spread = {n: np.std([r[n] for r in readings if r]) for n in outside}
    result |= {'trusted_mediapipe': outside, 'mediapipe_found_in_truth': sum(map(bool, readings))}
  for name, image in images.items():
    result[name] = {
      'l1': float(jnp.abs(image - real).mean()),
      'expression_error': expression_error(inside, image, part),
    }
    if judge is not None:
      result[name] |= outside_errors(judge, to_uint8(image), readings, outside, spread)
  stacked = np.stack([np.asarray(to_uint8(images[n]))[:16] for n in images])
  write_sheet(ROOT / 'experiments/results/heads_limits.png', list(stacked))
  return result


def write_sheet(path: pathlib.Path, rows: list) -> None:
  """A grid of images as a PNG of 256 colours: small enough to commit."""
  from PIL import Image

  with replacing(path) as part:
    Image.fromarray(stills.grid(rows)).quantize(256).save(part, 'PNG', optimize=True)


def sheets(folder: pathlib.Path) -> list[str]:
  """PNG sheets: people, generated people, parameter sweeps and interpolations."""
  frozen, rows = shipped.generator(), latents.num_ws(shipped.CHANNELS)

  @jax.jit
  def from_w(w):
    variables = {'params': frozen['params']}
    styles = net().apply(variables, jnp.repeat(w[:, None], rows, 1), method='to_style_space')
    return to_uint8(net().apply(variables, styles, method='synthesize'))

  first = people.SPLITS['test']
  vectors = jax.vmap(lambda n: people.moment(n, 0))(first + jnp.arange(96))
  renderer = clips.Renderer(128)
  drawn = [renderer(*(v[k] for v in vectors))[0] for k in range(60)]
  write_sheet(folder / 'heads_people.png', [drawn[k : k + 12] for k in range(0, 60, 12)])
  made = np.asarray(from_w(fed_truth(frozen, *vectors)))
  write_sheet(folder / 'heads_generated.png', [made[k : k + 16] for k in range(0, 96, 16)])
  # Each motion parameter from end to end; the renderer above, the generator below.
  small, names = clips.Renderer(64), list(parameters.MOTION)
  identity, scene = vectors[0][5], vectors[2][5]
  cells = []
  for name in names:
    values = np.linspace(*parameters.MOTION[name], 7)
    motion = np.stack([parameters.pack(parameters.MOTION, **{name: v}) for v in values])
    true = [small(identity, m, scene)[0] for m in motion]
    fake = from_w(
      fed_truth(frozen, *(jnp.stack([v] * 7) for v in (identity,)), motion, jnp.stack([scene] * 7))
    )
    cells.append((true, list(np.asarray(fake))))
  sweep = [cells[k][j] + cells[k + 1][j] for k in range(0, len(cells), 2) for j in (0, 1)]
  write_sheet(folder / 'heads_sweeps.png', sweep)
  # Straight lines in W between pairs of people.
  w = fed_truth(frozen, *vectors)
  t = jnp.linspace(0, 1, 10)[:, None]
  lines = [np.asarray(from_w(w[2 * k] * (1 - t) + w[2 * k + 1] * t)) for k in range(8)]
  write_sheet(folder / 'heads_interpolations.png', lines)
  return ['heads_people.png', 'heads_generated.png', 'heads_sweeps.png', 'heads_interpolations.png']


def provenance(part: str) -> dict:
  git = lambda *a: subprocess.run(  # noqa: E731
    ['git', *a], cwd=ROOT, capture_output=True, text=True
  ).stdout.strip()
  cpu = next(
    (x.split(':')[1].strip() for x in open('/proc/cpuinfo') if x.startswith('model name')), ''
  )
  return {
    'commit': git('rev-parse', '--short=12', 'HEAD')
    + ('+' if git('status', '--short', '--', ':/*.py') else ''),
    'date': datetime.date.today().isoformat(),
    'command': f'python -m experiments.world.measure --parts={part}',
    'device': f'{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores, {cpu}',
    'jax': jax.__version__,
    'python': platform.python_version(),
    'seeds': {'world': people.SEED, 'first_test_person': people.SPLITS['test']},
  }


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--output', required=True)
  parser.add_argument('--parts', default=','.join(PARTS))
  parser.add_argument('--frames', default='runs/heads/frames', help='folder of rendered shards')
  parser.add_argument('--yunet', default='', help='YuNet, .onnx')
  parser.add_argument('--landmarker', default='', help='MediaPipe face landmarker, .task')
  parser.add_argument('--count', type=int, default=1000, help='heads to detect')
  parser.add_argument('--invert', type=int, default=48, help='frames to invert')
  args = parser.parse_args()
  parts = args.parts.split(',')
  output = pathlib.Path(args.output)
  known = json.loads(output.read_text()) if output.exists() else {}
  made_with = {part: provenance(part) for part in parts}  # before anything is written
  test = {}
  if {'critics', 'limits'} & set(parts):
    test = frames.load(frames.render_shards(args.frames, 'test', 700, 3, 64))
  for part in parts:
    if part == 'speed':
      value = speed()
    elif part == 'critics':
      value = critics(test)
    elif part == 'detection':
      value = detection(args.yunet, args.landmarker, args.count)
    elif part == 'limits':
      train = frames.load(frames.render_shards(args.frames, 'train', 1024, 3, 64))
      value = limits(test, train['image'].mean(0), args.landmarker, known, args.invert)
    elif part == 'sheets':
      value = {'files': sheets(output.parent)}
    else:
      sys.exit(f'error: no part {part!r}; known are {", ".join(PARTS)}')
    known[part] = value | {'measured': made_with[part]}
    print(json.dumps({part: known[part]}, indent=1))
    with replacing(output) as temporary:
      temporary.write_text(json.dumps(known, indent=1) + '\n')


if __name__ == '__main__':
  main()
