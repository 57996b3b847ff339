"""Renders the frames that the 256 px networks are trained on, in small resumable shards.

  python -m experiments.world.large_frames FRAMES --people 5120

A row of a shard is one person's random moment, its twin (the same moment with another expression)
and its double (the same moment with other rare traits): see `frame_shards`. A shard is two files:
NAME.pixels.npy (n, 3, 256, 256, 4) uint8, RGB and the mask of mouth, eyes and brows, read by memory
mapping; and NAME.npz with `identity`, `motion` and `scene`, each (n, 3, k). The second is written
last, so a shard without it is rendered again. Smaller pictures are these pooled.
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments.world import frame_shards
from hybrid_jax.media import replacing
from hybrid_jax.world import people, render
from hybrid_jax.world.clips import to_byte

SIZE = 256  # px
SHARD = 64  # people: 192 frames, a minute of one core
KINDS = ('', 'twins', 'traits')  # of `frame_shards.MOMENTS`
CLIP = 0
VECTORS = ('identity', 'motion', 'scene')


class Shards:
  """The shards of a split in a folder.

  Attributes:
    pixels: memory maps (n, 3, 256, 256, 4) of the shards that exist, in order.
    vectors: `VECTORS` of the same rows, each (people, 3, k).
  """

  def __init__(self, folder: str, split: str, persons: int):
    self.root = pathlib.Path(folder)
    self.root.mkdir(parents=True, exist_ok=True)
    self.split, self.persons = split, persons
    self.pixels: list[np.ndarray] = []
    self.vectors: dict[str, np.ndarray] = {}
    self._moments, self._draw = jax.jit(_moments), jax.jit(_draw)
    self._scan()

  def __len__(self) -> int:
    """People whose frames exist."""
    return sum(map(len, self.pixels))

  def _path(self, shard: int) -> pathlib.Path:
    return self.root / f'{self.split}-{SIZE}-{shard:04d}.npz'

  def _scan(self) -> None:
    count = -(-self.persons // SHARD)
    while len(self.pixels) < count and self._path(len(self.pixels)).exists():
      path = self._path(len(self.pixels))
      self.pixels.append(np.load(path.with_suffix('.pixels.npy'), mmap_mode='r'))
      with np.load(path) as file:
        new = {name: file[name] for name in VECTORS}
      old = self.vectors
      self.vectors = {n: np.concatenate((old[n], new[n])) if old else new[n] for n in VECTORS}

  def render(self, persons: int, progress=lambda shards: shards) -> None:
    """Renders until at least `persons` people exist, never more than the split's own number."""
    wanted = -(-min(persons, self.persons) // SHARD)
    for shard in progress(range(len(self.pixels), wanted)):
      first, last = SHARD * shard, min(SHARD * (shard + 1), self.persons)
      numbers = people.SPLITS[self.split] + np.arange(first, last)
      vectors = dict(zip(VECTORS, map(np.asarray, self._moments(numbers)), strict=True))
      rows = zip(*(x.reshape(-1, x.shape[-1]) for x in vectors.values()), strict=True)
      pixels = np.stack([np.asarray(self._draw(*row)) for row in rows])
      path = self._path(shard)
      with replacing(path.with_suffix('.pixels.npy')) as part, open(part, 'wb') as file:
        np.save(file, pixels.reshape(len(numbers), len(KINDS), *pixels.shape[1:]))
      with replacing(path) as part, open(part, 'wb') as file:
        np.savez(file, **vectors)
      self._scan()

  def rows(self, people_: np.ndarray, kinds: np.ndarray) -> dict[str, np.ndarray]:
    """Frames of the given people and kinds: `image` (n, 256, 256, 3), `region` and the vectors."""
    pixels = [self.pixels[p // SHARD][p % SHARD, k] for p, k in zip(people_, kinds, strict=True)]
    pixels = np.stack(pixels)
    vectors = {name: x[people_, kinds] for name, x in self.vectors.items()}
    return {'image': pixels[..., :3], 'region': pixels[..., 3], **vectors}


def _moments(numbers):
  """`VECTORS` of people, each (n, 3, k)."""
  kinds = [jax.vmap(frame_shards.MOMENTS[kind], (0, None))(numbers, CLIP) for kind in KINDS]
  return tuple(jnp.stack(x, 1) for x in zip(*kinds, strict=True))


def _draw(identity, motion, scene):
  image, masks = render.render_regions(identity, motion, scene, SIZE)
  return to_byte(jnp.concatenate((image, masks[..., :3].max(-1, keepdims=True)), -1))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('frames', help='folder of the shards')
  parser.add_argument('--people', type=int, default=5120)
  parser.add_argument('--held_out', type=int, default=256, help='people of the validation split')
  args = parser.parse_args()
  progress = lambda shards: tqdm(shards, unit='shard')  # noqa: E731
  for split, count in (('validation', args.held_out), ('train', args.people)):
    Shards(args.frames, split, count).render(count, progress)


if __name__ == '__main__':
  main()
