"""Trains the judge of the looks of rendered people, which measures edits.

  python -m experiments.world.traits WORKDIR --frames=FRAMES

It regresses the true parameters of an image, each as it shows, from features of the two bundled
judges; like them it is in no loss. WORKDIR/judge_traits.npz keeps its weights, and a second call
reads them. Figures on unseen people are printed.
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
from experiments.world import critics, frame_shards
from hybrid_jax.evaluation import judges, rendered
from hybrid_jax.media import replacing
from hybrid_jax.models.ops import adaptive_avg_pool, from_uint8
from hybrid_jax.weights import shipped
from hybrid_jax.world.parameters import IDENTITY, MOTION, SCENE

NAMES = (*IDENTITY, *MOTION, *SCENE)
PEOPLE, CLIPS = 4666, 3  # of each kind of training frames
STEPS, BATCH, RATE, SEED = 2000, 256, 1e-3, 11
TRUST = 0.8  # R2 on unseen people; a reading below it is no evidence
ALL_OR_NOTHING = 'glasses'


def shown(identity: np.ndarray) -> np.ndarray:
  """Returns identity vectors (..., 47) in physical values as they show: rare traits from 0 on."""
  low, high = np.array(list(IDENTITY.values())).T
  value = low + (high - low) * np.asarray(identity)
  rare = np.array([name in RARE for name in IDENTITY])
  value = np.where(rare, np.maximum(value, 0), value)
  k = list(IDENTITY).index(ALL_OR_NOTHING)
  value[..., k] = value[..., k] > 0
  return value


RARE = {
  'freckles', 'makeup', 'age', 'grey', 'hair_length', 'fringe', 'bald', 'beard', 'moustache',
  'glasses',
}  # fmt: skip


def truth(data: dict[str, np.ndarray]) -> np.ndarray:
  """Returns the judge's targets (n, 76): identity in the units of `shown`, the rest in [0, 1]."""
  return np.concatenate((shown(data['identity']), data['motion'], data['scene']), -1)


class TraitJudge:
  """Images (n, 64, 64, 3) in [-1, 1] -> (n, 76) in the units of `truth`.

  Attributes:
    r2: of each name on unseen people.
    trusted: names with an R2 of at least TRUST.
    spread: (76,) deviation of each over people.
  """

  def __init__(self, workdir: pathlib.Path, frames: str):
    path = workdir / 'judge_traits.npz'
    self.features = features()
    if not path.is_file():
      train(path, frames, self.features)
    with np.load(path) as file:
      flat = {key: file[key] for key in file.files}
    head = {key: flat.pop(key) for key in ('centre', 'scale', 'mean', 'spread')}
    self.spread, r2 = head['spread'], flat.pop('r2')
    self.r2 = dict(zip(NAMES, r2.tolist(), strict=True))
    self.trusted = [name for name in NAMES if self.r2[name] >= TRUST]
    params = flax.traverse_util.unflatten_dict(flat, sep='/')
    self._read = jax.jit(lambda x: read(params, head, self.features(x)))

  def __call__(self, image: np.ndarray) -> np.ndarray:
    """Returns the readings (n, 76)."""
    return rendered.in_batches(self._read, image)


class Head(nn.Module):
  """Features (n, d) -> standardised targets (n, 76)."""

  @nn.compact
  def __call__(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
    if key is not None:
      x = x * jax.random.bernoulli(key, 0.7, x.shape) / 0.7  # dropout
    return nn.Dense(len(NAMES))(x) + nn.Dense(len(NAMES))(jax.nn.silu(nn.Dense(384)(x)))


def read(params: dict, head: dict, x: jax.Array) -> jax.Array:
  """Returns the readings (n, 76) of features (n, d)."""
  y = Head().apply(params, (x - head['centre']) / head['scale'])
  return y * head['spread'] + head['mean']


def features():
  """Returns a function from images (n, 64, 64, 3) to (n, d): both judges' features, and colours."""
  nets = [
    (judges.motion(), shipped.load('judge_motion')),
    (judges.identity(), shipped.load('judge_identity')),
  ]
  last = lambda module, _: module.name in ('GroupNorm_5', 'GroupNorm_7')  # noqa: E731

  def see(image):
    parts = [adaptive_avg_pool(image, 16)]
    for net, tree in nets:
      _, state = net.apply(tree, image, capture_intermediates=last)
      near, far = (state['intermediates'][n]['__call__'][0] for n in ('GroupNorm_5', 'GroupNorm_7'))
      parts += [jax.nn.silu(far), adaptive_avg_pool(jax.nn.silu(near), 4)]
    return jnp.concatenate([part.reshape(len(image), -1) for part in parts], -1)

  return see


def train(path: pathlib.Path, frames: str, see) -> None:
  """Trains the judge on ordinary people and on people with rare traits by even odds; writes it."""
  path.parent.mkdir(parents=True, exist_ok=True)
  began = time.time()
  run = jax.jit(lambda x: see(from_uint8(x.astype(jnp.float32))))

  def seen(split, people, kinds):
    parts = [frame_shards.rendered(frames, split, people, CLIPS, 64, kind) for kind in kinds]
    images = np.concatenate([part['image'] for part in parts])
    x = [np.asarray(run(images[k : k + 128])) for k in tqdm(range(0, len(images), 128), desc=split)]
    return np.concatenate(x), np.concatenate([truth(part) for part in parts])

  x, target = seen('train', PEOPLE, ('', 'traits'))
  head = {'centre': x.mean(0), 'scale': x.std(0) + 1e-3}
  head |= {'mean': target.mean(0), 'spread': target.std(0)}
  wanted = ((target - head['mean']) / head['spread']).astype(np.float32)
  net, x = Head(), ((x - head['centre']) / head['scale']).astype(np.float32)
  params = net.init(jax.random.key(SEED), jnp.asarray(x[:2]))
  optimizer = optax.adamw(
    optax.warmup_cosine_decay_schedule(0, RATE, 200, STEPS, 1e-5), weight_decay=1e-2
  )

  @jax.jit
  def step(params, opt, x, wanted, key):
    loss = lambda params: jnp.square(net.apply(params, x, key) - wanted).mean()  # noqa: E731
    value, grads = jax.value_and_grad(loss)(params)
    updates, opt = optimizer.update(grads, opt, params)
    return optax.apply_updates(params, updates), opt, value

  opt, rng = optimizer.init(params), np.random.default_rng(SEED)
  bar = tqdm(range(STEPS), desc='judge of traits', mininterval=10)
  for k in bar:
    rows = rng.integers(len(x), size=BATCH)
    params, opt, value = step(
      params, opt, x[rows], wanted[rows], jax.random.fold_in(jax.random.key(SEED), k)
    )
    if k % 100 == 0:
      bar.set_postfix(loss=f'{float(value):.4f}')
  unseen, true = seen('validation', 700, ('',))
  readings = np.concatenate(
    [np.asarray(read(params, head, unseen[k : k + 500])) for k in range(0, len(unseen), 500)]
  )
  r2 = critics.r2(readings, true)
  flat = flax.traverse_util.flatten_dict(jax.device_get(params), sep='/')
  with replacing(path) as part, open(part, 'wb') as file:
    np.savez(file, r2=r2, **head, **flat)
  figures = dict(zip(NAMES, r2.round(3).tolist(), strict=True))
  print(json.dumps({'seconds': time.time() - began, 'frames': len(x), 'r2': figures}))


def main() -> None:
  parser = script.parser(__doc__)
  parser.add_argument('workdir', type=pathlib.Path, help='folder of the judge')
  parser.add_argument('--frames', help='folder of rendered shards (WORKDIR/frames)')
  args = parser.parse_args()
  judge = TraitJudge(args.workdir, args.frames or str(args.workdir / 'frames'))
  print('trusted:', ', '.join(judge.trusted))


if __name__ == '__main__':
  main()
