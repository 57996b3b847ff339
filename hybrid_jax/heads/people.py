"""Who lives in the rendered world: numbered people, their clips, and which are held out.

Everything about person n and their clip k follows from (n, k) alone, so held-out people and their
motions are key ranges, fixed here.
"""

import jax
import jax.numpy as jnp

from hybrid_jax.heads import motion, parameters

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


def z(identity: jax.Array, motion: jax.Array, scene: jax.Array, width: int) -> jax.Array:
  """True parameters (..., K) -> (..., width), what the mapping network of this world reads.

  Centred and scaled to about unit variance, then traits that set in at a threshold as they show
  (0 below it), then ones: they keep the mapping's pixel norm from discarding the length.
  """
  vectors = jnp.concatenate((identity - 0.5, motion - _REST, scene - 0.5), -1)
  shown = jnp.stack([jnp.maximum(identity[..., k] - zero, 0) for k, zero in _THRESHOLDS], -1)
  onset = jnp.clip(shown * 200, 0, 1)
  features = jnp.concatenate((vectors * _SCALE, 4 * shown, onset), -1)
  ones = jnp.ones((*features.shape[:-1], width - features.shape[-1]))
  return jnp.concatenate((features, ones), -1)


_REST = jnp.array(parameters.pack(parameters.MOTION))
# Reciprocals of standard deviations: Beta(1.5, 1.5) has 0.25, a uniform 0.29; motion as drawn.
_MOTION_SCALE = {'yaw': 5.0, 'pitch': 5.5, 'roll': 5.5, 'gaze_yaw': 4.5, 'gaze_pitch': 6.0}
_SCALE = jnp.array(
  [4.0] * len(parameters.IDENTITY)
  + [_MOTION_SCALE.get(name, 4.0) for name in parameters.MOTION]
  + [3.5] * len(parameters.SCENE)
)
_THRESHOLDS = tuple(
  (k, -lo / (hi - lo))
  for k, (name, (lo, hi)) in enumerate(parameters.IDENTITY.items())
  if name in ('glasses', 'bald', 'hair_length', 'fringe', 'beard', 'moustache', 'grey', 'makeup')
)
