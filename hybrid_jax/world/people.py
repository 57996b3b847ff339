"""Who lives in the rendered world: numbered people, their clips, and which are held out.

Everything about person n and their clip k follows from (n, k) alone, so held-out people and their
motions are key ranges, fixed here.
"""

import jax

from hybrid_jax.world import motion, parameters

SEED = 2023
# Number of the first person of each split; a split holds up to a million people.
SPLITS = {'train': 0, 'validation': 1_000_000, 'test': 2_000_000}
CLIP_SECONDS = 60.0  # draws of a single moment come from this much of a clip


def _person(number: jax.Array | int) -> jax.Array:
  return jax.random.fold_in(jax.random.key(SEED), number)


def _clip(number: jax.Array | int, clip: jax.Array | int) -> jax.Array:
  return jax.random.fold_in(jax.random.fold_in(_person(number), 1), clip)


def identity(number: jax.Array | int) -> jax.Array:
  """Identity vector (47,) of person `number`."""
  return parameters.sample_identity(jax.random.fold_in(_person(number), 0))


def scene(number: jax.Array | int, clip: jax.Array | int) -> jax.Array:
  """Scene vector (13,) of a clip."""
  return parameters.sample_scene(jax.random.fold_in(_clip(number, clip), 0))


def act(number: jax.Array | int, clip: jax.Array | int, t: jax.Array) -> jax.Array:
  """Motion vectors (n, 16) of a clip at times `t` (n,), seconds."""
  return motion.act(jax.random.fold_in(_clip(number, clip), 1), t)


def moment(
  number: jax.Array | int, clip: jax.Array | int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """(identity, motion, scene) of one random moment of a clip."""
  t = jax.random.uniform(jax.random.fold_in(_clip(number, clip), 2), (1,), maxval=CLIP_SECONDS)
  return identity(number), act(number, clip, t)[0], scene(number, clip)
