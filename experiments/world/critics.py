"""Trains the frozen critics and the judges of the rendered world, each resumable by its file.

  python -m experiments.world.critics WORKDIR                          # all four
  python -m experiments.world.critics WORKDIR --only identity --steps 4000
  python -m experiments.world.critics WORKDIR --export                 # into the package

perceptual  VGG layout, narrow, for LPIPS: regresses all true parameters and landmarks (a loss)
identity    ArcFace layout, small: frames of one person against other people (a loss)
judge_motion, judge_identity  the same tasks, another architecture and seed (judges, never a loss)

A network whose WORKDIR/NAME.npz exists is not trained again. Figures on held-out people are printed
and appended to WORKDIR/critics.jsonl.
"""

import json
import pathlib
import time

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from experiments import script
from experiments.world import frame_shards
from hybrid_jax.evaluation import judges
from hybrid_jax.media import replacing
from hybrid_jax.models.ops import from_uint8
from hybrid_jax.models.perceptual import LPIPS, ArcFace
from hybrid_jax.weights import shipped
from hybrid_jax.world import landmarks, parameters

CLIPS = 3  # frames of each person, one after another in the shards
STEPS = {'perceptual': 4000, 'identity': 2500, 'judge_motion': 6000, 'judge_identity': 2500}
BATCH = {'perceptual': 32, 'identity': 64, 'judge_motion': 32, 'judge_identity': 64}
TEMPERATURE = 0.07


class Perceptual(nn.Module):
  """The LPIPS backbone with a head that is used in training only."""

  outputs: int

  @nn.compact
  def __call__(self, image, train=False):
    x = LPIPS(**shipped.LPIPS, name='net').taps(image)[-1]  # n 4 4 c
    x = jax.nn.relu(nn.Dense(256, name='hidden')(x.reshape(x.shape[0], -1)))
    return nn.Dense(self.outputs, name='out')(x)


class JudgeIdentity(nn.Module):
  """Image (n, h, w, 3) in [-1, 1] -> embeddings of length 1."""

  @nn.compact
  def __call__(self, image, train=False):
    return judges.unit(judges.Judge(shipped.JUDGE_EMBEDDING, name='net')(image))


class JudgeMotion(nn.Module):
  """Image (n, h, w, 3) in [-1, 1] -> (n, 16) motion parameters."""

  @nn.compact
  def __call__(self, image, train=False):
    return judges.Judge(len(parameters.MOTION), name='net')(image)


def contrast(embedding: jax.Array) -> jax.Array:
  """Returns the cross-entropy of finding each image's partner: rows 2k and 2k+1 are one person."""
  n = len(embedding)
  # An image must not find itself.
  scores = embedding @ embedding.T / TEMPERATURE - 1e9 * jnp.eye(n)
  partner = jnp.arange(n) ^ 1
  return optax.softmax_cross_entropy_with_integer_labels(scores, partner).mean()


def augment(key, image):
  """Changes brightness and position and adds noise, so that critics tolerate generated images."""
  key_gain, key_shift, key_noise = jax.random.split(key, 3)
  gain = 1 + 0.1 * jax.random.normal(key_gain, (len(image), 1, 1, 1))
  shift = jax.random.randint(key_shift, (len(image), 2), -2, 3)
  image = jax.vmap(lambda x, s: jnp.roll(x, s, (0, 1)))(image, shift)
  return image * gain + 0.03 * jax.random.normal(key_noise, image.shape)


def targets(data: dict) -> np.ndarray:
  """Returns (n, 76 + 136): true parameters and landmarks, of about unit variance."""
  points = jax.jit(lambda i, m: jax.lax.map(lambda a: landmarks.landmarks(*a), (i, m)))
  position = np.asarray(points(data['identity'], data['motion'])).reshape(len(data['image']), -1)
  vectors = [data[name] - 0.5 for name in ('identity', 'motion', 'scene')]
  return np.concatenate((*(4 * v for v in vectors), 8 * (position - 0.5)), 1).astype(np.float32)


def outputs_of(apply, variables, images: np.ndarray, chunk: int = 100) -> np.ndarray:
  """Returns the outputs of a network for images (n, s, s, 3) uint8."""
  run = jax.jit(lambda v, x: apply(v, from_uint8(x.astype(jnp.float32))))
  return np.concatenate(
    [np.asarray(run(variables, images[k : k + chunk])) for k in range(0, len(images), chunk)]
  )


def equal_error_rate(embedding: np.ndarray, persons: np.ndarray) -> float:
  """Returns the share of misses where it equals that of false matches, over all pairs of frames."""
  scores = embedding @ embedding.T
  upper = np.triu_indices(len(scores), 1)
  same = (persons[:, None] == persons[None])[upper]
  order = np.argsort(-scores[upper])
  same = same[order]
  miss = 1 - np.cumsum(same) / same.sum()
  false = np.cumsum(~same) / (~same).sum()
  k = np.argmin(np.abs(miss - false))
  return float((miss[k] + false[k]) / 2)


def r2(estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """Returns R2 of each column of (n, k) estimates."""
  return 1 - np.square(estimate - truth).mean(0) / truth.var(0)


def train(name: str, data: dict, steps: int, batch: int, seed: int):
  """Trains one network of STEPS; returns its variables."""
  by_identity = name in ('identity', 'judge_identity')
  # The absolute error is least at the median, which of a rare movement is its absence. The judge's
  # readings are averaged, so it must estimate the mean.
  difference = jnp.square if name == 'judge_motion' else jnp.abs
  net = network(name)
  variables = net.init(jax.random.key(seed), jnp.zeros((2, 64, 64, 3)))
  stats = {k: v for k, v in variables.items() if k != 'params'}
  optimizer = optax.chain(
    optax.clip_by_global_norm(5.0),
    optax.adamw(optax.warmup_cosine_decay_schedule(0, 2e-3, 200, steps, 2e-5), weight_decay=1e-4),
  )
  if name == 'perceptual':
    data = data | {'target': targets(data)}
  elif name == 'judge_motion':
    data = data | {'target': data['motion']}

  @jax.jit
  def step(params, stats, opt, image, target, key):
    def loss(params):
      x = augment(key, from_uint8(image.astype(jnp.float32)))
      out, new = net.apply({'params': params, **stats}, x, train=True, mutable=list(stats))
      value = contrast(out) if by_identity else difference(out - target).mean()
      return value, new

    (value, new), grads = jax.value_and_grad(loss, has_aux=True)(params)
    updates, opt = optimizer.update(grads, opt, params)
    return optax.apply_updates(params, updates), new, opt, value

  params, opt = variables['params'], optimizer.init(variables['params'])
  rng = np.random.default_rng(seed)
  people = len(data['image']) // CLIPS
  bar = tqdm(range(steps), desc=name, mininterval=10)
  for k in bar:
    if by_identity:
      person = rng.choice(people, batch // 2, replace=False)
      # Two different frames of each person, as neighbours: see `contrast`.
      pair = np.argsort(rng.random((len(person), CLIPS)), axis=1)[:, :2]
      rows = (person[:, None] * CLIPS + pair).reshape(-1)
    else:
      rows = rng.integers(len(data['image']), size=batch)
    target = data['target'][rows] if 'target' in data else np.zeros(1)
    key = jax.random.fold_in(jax.random.key(seed), k)
    params, stats, opt, value = step(params, stats, opt, data['image'][rows], target, key)
    if k % 100 == 0:
      bar.set_postfix(loss=f'{float(value):.4f}')
  return {'params': params, **stats}


def network(name: str) -> nn.Module:
  """Returns the network of a name of STEPS, as it is trained."""
  return {
    'perceptual': Perceptual(
      sum(map(len, (parameters.IDENTITY, parameters.MOTION, parameters.SCENE))) + 136
    ),
    'identity': ArcFace(**shipped.ARCFACE),
    'judge_motion': JudgeMotion(),
    'judge_identity': JudgeIdentity(),
  }[name]


def shipped_variables(name: str) -> dict:
  """Returns the bundled variables of a network, as `network(name)` takes them."""
  tree = shipped.load(name)
  return tree if name == 'identity' else {'params': {'net': tree['params']}}


def export(workdir: pathlib.Path, data: dict) -> None:
  """Writes the bundled files: float16, no training heads, balanced perceptual layers."""
  for name in STEPS:
    with np.load(workdir / f'{name}.npz') as file:
      tree = flax.traverse_util.unflatten_dict({k: file[k] for k in file.files}, sep='/')
    if name != 'identity':
      tree = {'params': tree['params']['net']}
    if name == 'perceptual':
      tree = balanced(tree, from_uint8(data['image'][:256].astype(np.float32)))
    path = shipped.FOLDER / f'{name}.npz'
    with replacing(path) as temporary:
      shipped.save(temporary, tree)
    print(f'{path.name}: {path.stat().st_size / 1e3:.0f} kB')


def balanced(tree: dict, images: jax.Array) -> dict:
  """Scales LPIPS's linear layers: each gives 0.1 between two people on average, their sum 0.5."""
  # The network was not trained on human judgements of similarity, which fix these weights in LPIPS.
  net = LPIPS(**shipped.LPIPS)
  terms = net.apply(tree, images[0::6], images[3::6], method='layer_distances')
  params = dict(tree['params'])
  for k, term in enumerate(terms):
    params[f'lin{k}'] = params[f'lin{k}'] * 0.1 / float(term.mean())
  return {'params': params}


def figures(name: str, variables, held_out: dict) -> dict:
  """Returns a network's error rate or R2 on people that it has not seen."""
  out = outputs_of(network(name).apply, variables, held_out['image'])
  if name in ('identity', 'judge_identity'):
    persons = np.arange(len(out)) // CLIPS
    return {'equal_error_rate': equal_error_rate(out, persons), 'people': int(persons[-1]) + 1}
  if name == 'judge_motion':
    return {'r2': dict(zip(parameters.MOTION, r2(out, held_out['motion']).tolist(), strict=True))}
  return {'mean_r2': float(r2(out, targets(held_out)).mean())}


def main() -> None:
  parser = script.parser(__doc__)
  parser.add_argument('workdir', help='folder of the networks')
  parser.add_argument('--frames', help='folder of rendered shards (WORKDIR/frames)')
  parser.add_argument('--people', type=int, default=14_000, help='of training (%(default)s)')
  parser.add_argument('--only', choices=list(STEPS), help='train this network only')
  parser.add_argument('--steps', type=int, help='instead of those of the network')
  parser.add_argument('--batch', type=int, help='instead of that of the network')
  parser.add_argument('--export', action='store_true', help='write the bundled files and stop')
  args = parser.parse_args()
  workdir = pathlib.Path(args.workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  frames = args.frames or str(workdir / 'frames')
  data = frame_shards.rendered(frames, 'train', args.people, CLIPS, 64)
  held_out = frame_shards.rendered(frames, 'validation', 700, CLIPS, 64)
  if args.export:
    export(workdir, data)
    return
  for seed, name in enumerate(STEPS):
    path = workdir / f'{name}.npz'
    if path.exists() or (args.only and name != args.only):
      continue
    steps, batch = args.steps or STEPS[name], args.batch or BATCH[name]
    began = time.time()
    variables = jax.device_get(train(name, data, steps, batch, seed))
    row = {'name': name, 'steps': steps, 'batch': batch, 'seconds': time.time() - began}
    row |= figures(name, variables, held_out)
    print(json.dumps(row))
    with open(workdir / 'critics.jsonl', 'a') as file:
      file.write(json.dumps(row) + '\n')
    with replacing(path) as temporary, open(temporary, 'wb') as file:
      np.savez(file, **flax.traverse_util.flatten_dict(variables, sep='/'))


if __name__ == '__main__':
  main()
