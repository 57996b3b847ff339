"""Renders the frames that the networks of the rendered world are trained on, in resumable shards.

  python experiments/heads_frames.py FRAMES --people 14000 --clips 3 --size 64

A shard holds `identity`, `motion`, `scene`, `image` (uint8) and `region` (uint8, mouth, eyes and
brows), one random moment of each clip, person after person. A twin is that moment again (person,
scene and pose) with the expression and gaze of another moment.
"""

import argparse
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from hybrid_jax.heads import people, render  # noqa: E402
from hybrid_jax.heads.clips import to_byte  # noqa: E402
from hybrid_jax.media import replacing  # noqa: E402

SHARD = 1024
POSE = 3  # yaw, pitch and roll head the motion vector


def twin(number, clip):
  """(identity, motion, scene) of a moment with the expression of the same moment of clip + 1000."""
  i, m, s = people.moment(number, clip)
  other = people.moment(number, clip + 1000)[1]
  return i, jnp.concatenate((m[:POSE], other[POSE:])), s


def render_shards(
  folder: str, split: str, persons: int, clips: int, size: int, twins: bool = False
) -> list[str]:
  """Paths of the shards, rendering those that are not there yet."""
  kind = f'{split}-twins' if twins else split
  root = pathlib.Path(folder)
  root.mkdir(parents=True, exist_ok=True)

  @jax.jit
  def draw(number, clip):
    i, m, s = (twin if twins else people.moment)(number, clip)
    image, masks = render.render_regions(i, m, s, size)
    region = masks[..., :3].max(-1)
    return {
      'identity': i,
      'motion': m,
      'scene': s,
      'image': to_byte(image),
      'region': to_byte(region),
    }

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
    with replacing(path) as temporary:
      with open(temporary, 'wb') as file:
        np.savez(file, **{name: np.stack([f[name] for f in frames]) for name in frames[0]})
  return paths


def load(paths: list[str]) -> dict[str, np.ndarray]:
  """All frames of the shards, by field."""
  shards = [np.load(path) for path in paths]
  return {name: np.concatenate([s[name] for s in shards]) for name in shards[0].files}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('frames', help='folder of the shards')
  parser.add_argument('--people', type=int, default=14_000)
  parser.add_argument('--clips', type=int, default=3, help='frames of each person')
  parser.add_argument('--held_out', type=int, default=2_000, help='people of each other split')
  parser.add_argument('--size', type=int, default=64, help='px')
  args = parser.parse_args()
  for split, count in (
    ('validation', args.held_out),
    ('test', args.held_out),
    ('train', args.people),
  ):
    render_shards(args.frames, split, count, args.clips, args.size)
  render_shards(args.frames, 'train', args.people, args.clips, args.size, twins=True)


if __name__ == '__main__':
  main()
