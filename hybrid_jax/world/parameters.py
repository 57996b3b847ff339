"""The three vectors of the rendered world: identity, motion and scene, each in [0, 1]^K.

A table gives `name: (low, high)` in physical units (radians, or shares of a trait), in the order of
the vector. Where a comment says "rare", the range starts below zero: the trait is absent up to zero
and then grows, so that vectors stay continuous.
Left and right are the person's own: `blink_left` is the eye at the image's right.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

IDENTITY = {
  # Skull and face, as factors.
  'head_width': (0.90, 1.10),
  'cranium': (0.93, 1.08),
  'face_length': (0.90, 1.12),
  'jaw_width': (0.78, 1.18),
  'chin': (0.75, 1.30),
  'cheekbone': (0.6, 1.4),
  'cheek_fat': (-0.5, 1.0),
  'brow_ridge': (0.3, 1.4),
  'ear': (0.75, 1.3),
  # Eyes; tilt in radians.
  'eye_spacing': (0.92, 1.09),
  'eye_size': (0.86, 1.22),
  'eye_tilt': (-0.12, 0.28),
  'hooded': (0.0, 1.0),
  'eye_hue': (0.0, 1.0),
  'eye_light': (0.0, 1.0),
  # Nose and mouth.
  'nose_width': (0.68, 1.32),
  'nose_length': (0.80, 1.12),
  'nose_bridge': (0.6, 1.25),
  'nose_tip': (-0.06, 0.07),
  'mouth_width': (0.86, 1.2),
  'lip_upper': (0.5, 1.5),
  'lip_lower': (0.6, 1.5),
  'lip_tint': (0.0, 1.0),
  # Skin: melanin, redness, specular gloss; freckles, make-up and age are rare.
  'skin': (0.0, 1.0),
  'redness': (0.0, 1.0),
  'gloss': (0.3, 1.0),
  'freckles': (-1.0, 1.0),
  'makeup': (-1.0, 1.0),
  'age': (-0.6, 1.0),
  # Brows; height in units of 10 cm.
  'brow_thick': (0.5, 1.6),
  'brow_arch': (-0.5, 1.0),
  'brow_height': (-0.03, 0.04),
  # Hair. Grey, long hair, fringe and baldness are rare.
  'hair_dark': (0.0, 1.0),
  'hair_red': (0.0, 1.0),
  'grey': (-2.5, 1.0),
  'hair_volume': (0.0, 1.0),
  'hair_length': (-1.0, 1.0),
  'hairline': (-1.0, 1.0),
  'fringe': (-1.0, 1.0),
  'parting': (-1.0, 1.0),
  'curl': (0.0, 1.0),
  'bald': (-7.0, 1.0),
  'beard': (-0.9, 1.0),
  'moustache': (-1.2, 1.0),
  # Glasses are rare.
  'glasses': (-1.6, 1.0),
  'glasses_round': (0.0, 1.0),
  'glasses_dark': (0.0, 1.0),
}

MOTION = {
  # Head pose, radians. Positive: to the image's right, up, counter-clockwise.
  'yaw': (-0.6, 0.6),
  'pitch': (-0.32, 0.32),
  'roll': (-0.2, 0.2),
  # Expression, as shares of the full movement; a negative smile is a frown of the mouth.
  'jaw_open': (0.0, 1.0),
  'smile': (-0.6, 1.0),
  'pucker': (0.0, 1.0),
  'lip_raise': (0.0, 1.0),
  'mouth_shift': (-1.0, 1.0),
  'tongue_out': (0.0, 1.0),
  'brow_raise': (-0.6, 1.0),
  'brow_frown': (0.0, 1.0),
  'blink_left': (0.0, 1.0),
  'blink_right': (0.0, 1.0),
  'squint': (0.0, 1.0),
  # Gaze against the head, radians. Positive: to the image's right, up.
  'gaze_yaw': (-0.45, 0.45),
  'gaze_pitch': (-0.3, 0.3),
}

SCENE = {
  # Direction of the key light, its colour and strength, and the fill light.
  'light_x': (-1.0, 1.0),
  'light_y': (-0.1, 0.9),
  'light_warm': (0.0, 1.0),
  'key': (0.75, 1.15),
  'fill': (0.28, 0.6),
  # Background: colour, and how it changes upward and to the right.
  'background_hue': (0.0, 0.83),
  'background_saturation': (0.0, 0.55),
  'background_value': (0.15, 0.85),
  'background_rise': (-1.0, 1.0),
  'background_slant': (-1.0, 1.0),
  'cloth_hue': (0.0, 0.83),
  'cloth_saturation': (0.0, 0.7),
  'cloth_value': (0.08, 0.85),
}

Table = dict[str, tuple[float, float]]


def unpack(table: Table, vector: jax.Array) -> SimpleNamespace:
  """Returns the entries of a vector in [0, 1]^K by name, in physical units."""
  return SimpleNamespace(
    **{name: lo + (hi - lo) * vector[k] for k, (name, (lo, hi)) in enumerate(table.items())}
  )


def pack(table: Table, **values: float) -> np.ndarray:
  """Returns the vector (K,) in [0, 1] of the named physical values.

  A parameter without a value is zero in MOTION and mid-range in the other tables, so `pack(MOTION)`
  is the neutral face.

  Raises:
    KeyError: the table has no parameter of that name.
  """
  if unknown := set(values) - set(table):
    raise KeyError(f'no parameter {", ".join(sorted(unknown))}; choose from {", ".join(table)}')
  vector = []
  for name, (lo, hi) in table.items():
    rest = 0.0 if table is MOTION else (lo + hi) / 2
    vector.append((values.get(name, rest) - lo) / (hi - lo))
  return np.array(vector, np.float32)


def _index(name: str) -> int:
  return list(IDENTITY).index(name)


def _ramp(low: float, high: float, x: jax.Array) -> jax.Array:
  return jnp.clip((x - low) / (high - low), 0, 1)


def sample_identity(key: jax.Array) -> jax.Array:
  """Draws a person, (47,): Beta(1.5, 1.5) entries, correlated by sex, complexion and age."""
  # Any change here changes every person, and with them the training data of the bundled networks.
  key_u, key_sex = jax.random.split(key)
  u = jax.random.beta(key_u, 1.5, 1.5, (len(IDENTITY),))
  female = _ramp(0.4, 0.6, jax.random.uniform(key_sex))

  def pull(u, target, weight, *names):
    for k in map(_index, names):
      u = u.at[k].set(u[k] * (1 - weight) + target * weight)
    return u

  # In this order: a later line acts on the result of an earlier one.
  u = pull(u, 0.0, 0.35 * female, 'jaw_width', 'chin', 'brow_ridge', 'brow_thick', 'nose_width')
  u = pull(u, 0.0, 0.98 * female, 'beard', 'moustache', 'bald')
  u = pull(u, female, 0.35, 'lip_upper', 'lip_lower', 'eye_size', 'makeup')
  u = pull(u, 0.15 + 0.75 * female, 0.55, 'hair_length')
  skin, age = u[_index('skin')], u[_index('age')]
  # Dark skin comes with dark hair and dark eyes.
  dark = _index('hair_dark')
  u = u.at[dark].set(jnp.maximum(u[dark], _ramp(0.25, 0.6, skin)))
  u = u.at[_index('eye_light')].multiply(1 - 0.8 * _ramp(0.3, 0.65, skin))
  return pull(u, age, 0.35, 'grey')


def sample_scene(key: jax.Array) -> jax.Array:
  """Draws a scene, (13,), uniformly."""
  return jax.random.uniform(key, (len(SCENE),))
