"""The true parameters as the z of the mapping network, the input of a generator of this world."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hybrid_jax.world import geometry, paint
from hybrid_jax.world.parameters import IDENTITY, MOTION, SCENE, pack, unpack
from hybrid_jax.world.render import framing, project

# Reciprocals of standard deviations: Beta(1.5, 1.5) has 0.25, a uniform 0.29; motion as drawn.
_MOTION_SCALE = {'yaw': 5.0, 'pitch': 5.5, 'roll': 5.5, 'gaze_yaw': 4.5, 'gaze_pitch': 6.0}
_SCALE = tuple(
  [4.0] * len(IDENTITY) + [_MOTION_SCALE.get(name, 4.0) for name in MOTION] + [3.5] * len(SCENE)
)
_ONSETS = ('glasses', 'bald', 'hair_length', 'fringe', 'beard', 'moustache', 'grey', 'makeup')
# (index, value at which it begins to show) of rare traits of an identity vector.
THRESHOLDS = tuple(
  (k, -lo / (hi - lo)) for k, (name, (lo, hi)) in enumerate(IDENTITY.items()) if name in _ONSETS
)
# Mean places, in the image, of eyes, nose tip, mouth corners, upper and lower lip, and chin.
_PLACES = np.array(
  [[0.628, 0.472], [0.372, 0.472], [0.5, 0.622], [0.604, 0.746], [0.396, 0.746]]
  + [[0.5, 0.751], [0.5, 0.779], [0.5, 0.926]]
)


def _consequences(identity, motion, scene):
  """Returns (31,) colours of the parts (gamma-encoded) and places of the features."""
  i, m, s = unpack(IDENTITY, identity), unpack(MOTION, motion), unpack(SCENE, scene)
  r = geometry.rig(i, m)
  skin, hair, _, lip = paint.complexion(i)
  background = paint.hsv(s.background_hue, s.background_saturation, s.background_value**2)
  cloth = paint.hsv(s.cloth_hue, s.cloth_saturation, s.cloth_value**2)
  colours = jnp.sqrt(jnp.stack((*skin, *hair, *lip, *background, *cloth)))
  corner, shift = r.mouth_half, 0.05 * m.mouth_shift
  raised = r.mouth_y + (0.014 + 0.11 * m.smile) * 0.65
  x = jnp.stack((r.eye[0], -r.eye[0], 0, shift + corner, shift - corner, shift, shift, 0))
  y = jnp.stack(
    (0, 0, r.nose[1], raised, raised, r.mouth_y + r.lift, r.mouth_y - r.drop, -1.1 * i.face_length)
  )
  z = jnp.stack((0.72, 0.72, r.nose[2], 0.7, 0.7, r.mouth_z, r.mouth_z, 0.6))
  places = project((x, y, z), r, *framing(i, r))
  return jnp.concatenate((6 * (colours - 0.45), 40 * (places - _PLACES).ravel()))


@functools.partial(jnp.vectorize, excluded=(3,), signature='(i),(m),(s)->(z)')
def z(identity: jax.Array, motion: jax.Array, scene: jax.Array, width: int) -> jax.Array:
  """Maps identity (..., 47), motion (..., 16), scene (..., 13) to z (..., width).

  The entries have about unit variance: the centred vectors; rare traits as they show (0 below their
  threshold) and whether they show; resulting colours and places of features; constants.
  """
  rest = jnp.array(pack(MOTION))  # not mid-range: a resting face has a motion of zero
  vectors = jnp.concatenate((identity - 0.5, motion - rest, scene - 0.5)) * jnp.array(_SCALE)
  shown = jnp.stack([jnp.maximum(identity[k] - zero, 0) for k, zero in THRESHOLDS])
  # Nearly a step, since glasses and baldness appear at once while their parameter passes zero.
  onset = jnp.clip(shown * 200, 0, 1)
  features = (vectors, 4 * shown, onset, _consequences(identity, motion, scene))
  count = sum(map(len, features))
  # The mapping network starts with a pixel norm, which divides by the length of z. The constants
  # keep that length nearly fixed, so that the parameters' magnitude survives.
  return jnp.concatenate((*features, jnp.full(width - count, 2.0)))
