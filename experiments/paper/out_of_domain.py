"""Defines sources outside the training data, and draws some of them.

  python -m experiments.paper.out_of_domain --output experiments/results/out_of_domain.png

This file was committed before anything was measured on it. There are three kinds, besides 'inside'
(ordinary people, for comparison):

  beyond     TRAITS of a person pushed out of the training range by 0.25 to 0.5 of its width
  accessory  a cap, an eye patch or a red nose (hybrid_jax/world/outfits.py), in turn
  paint      bars on the cheeks, half of the face, or a clown's white (the same), in turn

An episode follows from split, kind and number. Its traits, accessories and paint follow from kind
and number alone: the same number has the same ones in both splits, on other people. The driver is
an ordinary person of the same split. An episode has the input of a tuning (the source, and POOL
moments of WINDOW seconds of the driver's clip) and the frames that it is judged on: TARGETS other
moments of those seconds, with the true answer, one more render. The motion of sources and drivers
is ordinary.
"""

import dataclasses
import functools
import zlib

import numpy as np
from tqdm import tqdm

from experiments import script
from hybrid_jax.media import stills
from hybrid_jax.world import clips, people
from hybrid_jax.world.outfits import OUTFIT
from hybrid_jax.world.parameters import IDENTITY, pack

KINDS = ('beyond', 'accessory', 'paint')
# Geometry only: a colour outside its range would not be a colour.
TRAITS = (
  'head_width', 'cranium', 'face_length', 'jaw_width', 'chin', 'cheekbone', 'cheek_fat', 'ear',
  'eye_spacing', 'eye_size', 'eye_tilt', 'nose_width', 'nose_length', 'nose_bridge', 'mouth_width',
  'lip_upper', 'lip_lower', 'brow_thick', 'brow_height',
)  # fmt: skip
PUSHED, BY = 6, (0.25, 0.5)  # traits of a person, and how far
WORN = {'accessory': ('cap', 'patch', 'nose'), 'paint': ('bars', 'half', 'clown')}
# First person of both splits: other experiments use the numbers below.
FIRST = 500_000
WINDOW, POOL, TARGETS = 12.0, 32, 6  # s, frames, frames


@dataclasses.dataclass(frozen=True)
class Episode:
  """A source, its driver and the true answers. Frames are (64, 64, 3) uint8.

  Attributes:
    name: kind and number. source: the portrait. pool (POOL, ...): frames of the driver.
    data: TARGETS rows of the fields of `evaluation.rendered.pairs`.
  """

  name: str
  source: np.ndarray
  pool: np.ndarray
  data: dict[str, np.ndarray]


@functools.cache
def renderer() -> clips.Renderer:
  """Returns the renderer of 64 px, compiled once."""
  return clips.Renderer(64)


def appearance(kind: str, number: int, identity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns identity (47,) and outfit (8,) of the source that a person `identity` becomes."""
  rng = np.random.default_rng((zlib.crc32(kind.encode()), number))
  identity, nothing = identity.copy(), {name: -1.0 for name, (low, _) in OUTFIT.items() if low < 0}
  if kind == 'beyond':
    for name in rng.choice(TRAITS, PUSHED, replace=False):
      far = rng.uniform(*BY)
      identity[list(IDENTITY).index(name)] = 1 + far if rng.random() < 0.5 else -far
  colours = {'colour': rng.random(), 'paint': rng.random()}
  worn = {name: 1.0 for name in WORN.get(kind, ())[number % 3 :][:1]}
  return identity, pack(OUTFIT, **nothing | colours | worn)


def episode(split: str, kind: str, number: int) -> Episode:
  """Renders an episode; `split` is 'validation' or 'test', `kind` of KINDS or 'inside'."""
  which = ('inside', *KINDS).index(kind)
  person = people.SPLITS[split] + FIRST + 10_000 * which + 2 * number
  rng = np.random.default_rng((people.SPLITS[split], which, number))
  start = rng.uniform(0, people.CLIP_SECONDS - WINDOW)
  seen = start + (np.arange(POOL) + 0.5) / POOL * WINDOW
  asked = start + np.sort(rng.uniform(0, WINDOW, TARGETS))
  draw, times = renderer(), np.concatenate((seen, asked))
  plain, own, scene = clips.vectors(person, 0, np.array([start]))
  driver, motion, driver_scene = clips.vectors(person + 1, 0, times)
  identity, outfit = appearance(kind, number, plain)
  # The driver wears an empty outfit, since a call without one would be a second program.
  _, plain_outfit = appearance('inside', number, plain)
  source = draw(identity, own[0], scene, outfit)[0]
  driving = np.stack([draw(driver, m, driver_scene, plain_outfit)[0] for m in motion])
  truth, masks, _ = zip(*(draw(identity, m, scene, outfit) for m in motion[POOL:]), strict=True)
  repeat = lambda x: np.repeat(np.asarray(x)[None], TARGETS, 0)  # noqa: E731
  return Episode(
    f'{kind} {number}',
    source,
    driving[:POOL],
    {
      'person': repeat(person),
      'source': repeat(source),
      'driving': driving[POOL:],
      'truth': np.stack(truth),
      'face': np.stack(masks)[..., 3],
      'identity': repeat(identity),
      'motion': motion[POOL:],
      'scene': repeat(scene),
    },
  )


def episodes(split: str, kinds: tuple[str, ...], count: int, first: int = 0) -> list[Episode]:
  """Renders `count` episodes of each kind, from number `first` on."""
  wanted = [(kind, first + k) for kind in kinds for k in range(count)]
  return [episode(split, *each) for each in tqdm(wanted, 'rendering episodes', leave=False)]


def joined(some: list[Episode]) -> dict[str, np.ndarray]:
  """Returns the data of several episodes, one after another."""
  return {name: np.concatenate([e.data[name] for e in some]) for name in some[0].data}


def main() -> None:
  parser = script.parser(__doc__)
  parser.add_argument('--output', required=True, help='picture: a row of sources for each kind')
  parser.add_argument('--count', type=int, default=9, help='sources of a kind (%(default)s)')
  args = parser.parse_args()
  rows = [
    [e.source for e in episodes('validation', (kind,), args.count)] for kind in ('inside', *KINDS)
  ]
  stills.write_image(args.output, stills.grid(rows))


if __name__ == '__main__':
  main()
