"""The people of the rendered world by number, their clips, and the splits.

Person n and their clip k follow from (n, k) alone, so a split is a range of numbers.
"""

import jax

from hybrid_jax.world import motion, parameters

# Fixed for good: another seed gives other people than those of training and of all results.
SEED = 2023
# Number of the first person of each split; a split holds up to a million people.
SPLITS = {'train': 0, 'validation': 1_000_000, 'test': 2_000_000}
CLIP_SECONDS = 60.0  # draws of a single moment come from this much of a clip


def _person(number: jax.Array | int) -> jax.Array:
  return jax.random.fold_in(jax.random.key(SEED), number)


def _clip(number: jax.Array | int, clip: jax.Array | int) -> jax.Array:
  return jax.random.fold_in(jax.random.fold_in(_person(number), 1), clip)


def identity(number: jax.Array | int) -> jax.Array:
  """Returns the identity vector (47,) of person `number`."""
  return parameters.sample_identity(jax.random.fold_in(_person(number), 0))


def scene(number: jax.Array | int, clip: jax.Array | int) -> jax.Array:
  """Returns the scene vector (13,) of a clip."""
  return parameters.sample_scene(jax.random.fold_in(_clip(number, clip), 0))


def act(number: jax.Array | int, clip: jax.Array | int, t: jax.Array) -> jax.Array:
  """Returns the motion vectors (n, 16) of a clip at times `t` (n,), seconds."""
  return motion.act(jax.random.fold_in(_clip(number, clip), 1), t)


def moment(
  number: jax.Array | int, clip: jax.Array | int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns (identity, motion, scene) of one random moment of a clip."""
  t = jax.random.uniform(jax.random.fold_in(_clip(number, clip), 2), (1,), maxval=CLIP_SECONDS)
  return identity(number), act(number, clip, t)[0], scene(number, clip)
