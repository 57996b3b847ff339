"""Renders the frames that the networks of the rendered world are trained on, in resumable shards.

  python -m experiments.world.frame_shards FRAMES --people 14000 --clips 3 --size 64

A shard holds `identity`, `motion`, `scene`, `image` (uint8) and `region` (uint8: mouth, eyes and
brows), one random moment of each clip, person after person. A twin is the same moment with another
expression and gaze ('twins'), or with rare traits of the person changed ('traits').
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments import script
from hybrid_jax.media import replacing
from hybrid_jax.world import latent, people, render
from hybrid_jax.world.clips import to_byte
from hybrid_jax.world.parameters import IDENTITY

SHARD = 1024  # frames
POSE = 3  # yaw, pitch and roll are the first entries of the motion vector
TRAITS_SEED = 7


def twin(number, clip):
  """Returns a moment with the expression of the same moment of clip + 1000."""
  i, m, s = people.moment(number, clip)
  other = people.moment(number, clip + 1000)[1]
  return i, jnp.concatenate((m[:POSE], other[POSE:])), s


def other_traits(number, clip):
  """Returns a moment of the person with each rare trait present or absent by even odds."""
  i, m, s = people.moment(number, clip)
  key = jax.random.fold_in(jax.random.fold_in(jax.random.key(TRAITS_SEED), number), clip)
  u = jax.random.uniform(key, (2, len(IDENTITY)))
  for k, zero in latent.THRESHOLDS:
    i = i.at[k].set(jnp.where(u[0, k] < 0.5, zero * u[1, k], zero + (1 - zero) * u[1, k]))
  for k in map(list(IDENTITY).index, ('glasses_round', 'glasses_dark', 'curl', 'hairline')):
    i = i.at[k].set(u[1, k])
  return i, m, s


MOMENTS = {'': people.moment, 'twins': twin, 'traits': other_traits}


def render_shards(
  folder: str, split: str, persons: int, clips: int, size: int, kind: str = ''
) -> list[str]:
  """Renders the missing shards of a kind of `MOMENTS`; returns the paths of all."""
  moment, kind = MOMENTS[kind], f'{split}-{kind}' if kind else split
  root = pathlib.Path(folder)
  root.mkdir(parents=True, exist_ok=True)

  @jax.jit
  def draw(number, clip):
    i, m, s = moment(number, clip)
    image, masks = render.render_regions(i, m, s, size)
    region = masks[..., :3].max(-1)
    vectors = {'identity': i, 'motion': m, 'scene': s}
    return vectors | {'image': to_byte(image), 'region': to_byte(region)}

  total, paths = persons * clips, []
  for start in tqdm(range(0, total, SHARD), desc=f'rendering {kind}', unit='shard'):
    path = root / f'{kind}-{size}-{start // SHARD:04d}.npz'
    paths.append(str(path))
    if path.exists():
      continue
    first = people.SPLITS[split]
    frames = [
      jax.device_get(draw(first + k // clips, k % clips))
      for k in range(start, min(start + SHARD, total))
    ]
    with replacing(path) as temporary, open(temporary, 'wb') as file:
      np.savez(file, **{name: np.stack([f[name] for f in frames]) for name in frames[0]})
  return paths


def load(paths: list[str]) -> dict[str, np.ndarray]:
  """Returns all frames of the shards, by field."""
  shards = [np.load(path) for path in paths]
  return {name: np.concatenate([s[name] for s in shards]) for name in shards[0].files}


def rendered(
  folder: str, split: str, persons: int, clips: int, size: int, kind: str = ''
) -> dict[str, np.ndarray]:
  """Returns the frames of a kind of `MOMENTS` by field, rendering what is missing."""
  return load(render_shards(folder, split, persons, clips, size, kind))


def main() -> None:
  parser = script.parser(__doc__)
  parser.add_argument('frames', help='folder of the shards')
  parser.add_argument('--people', type=int, default=14_000, help='of training (%(default)s)')
  parser.add_argument('--clips', type=int, default=3, help='frames of each person (%(default)s)')
  parser.add_argument(
    '--held_out', type=int, default=2_000, help='people of each other split (%(default)s)'
  )
  parser.add_argument('--size', type=int, default=64, help='px (%(default)s)')
  args = parser.parse_args()
  sizes = {'validation': args.held_out, 'test': args.held_out, 'train': args.people}
  for split, count in sizes.items():
    render_shards(args.frames, split, count, args.clips, args.size)
  render_shards(args.frames, 'train', args.people, args.clips, args.size, 'twins')
  render_shards(args.frames, 'train', args.people // 3, args.clips, args.size, 'traits')


if __name__ == '__main__':
  main()
