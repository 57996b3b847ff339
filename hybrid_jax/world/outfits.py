"""Accessories outside the training data: a cap, an eye patch, a red nose, paint on the face.

They make people that no network has learnt. An outfit is a vector in [0, 1]^K as in `parameters`;
an item is worn if its physical value is positive. Without an outfit nothing is computed.
"""

import jax.numpy as jnp

from hybrid_jax.world import algebra
from hybrid_jax.world.algebra import ball, bump, clip01, ellipsoid, mix, norm, smoothstep

OUTFIT = {
  'cap': (-1.0, 1.0),
  'patch': (-1.0, 1.0),
  'nose': (-1.0, 1.0),
  'colour': (0.0, 1.0),
  # Paint: bars on the cheeks, one half of the face, a white face with dark eyes.
  'bars': (-1.0, 1.0),
  'half': (-1.0, 1.0),
  'clown': (-1.0, 1.0),
  'paint': (0.0, 1.0),
}
# Distance of what is not worn. The vector is traced, so an item cannot be left out of the program.
ABSENT = 3.0


def _worn(distance, share):
  return distance + jnp.where(share > 0, 0.0, ABSENT)


def solids(p, s, skull, o, r):
  """Returns the distance to everything worn, at p of the head frame; `o` is the outfit.

  s and `skull` are p mirrored to x > 0 and the distance to the skull, see `geometry`.
  """
  x, y, z = p
  cap = jnp.maximum(skull - 0.24, 0.52 - y + 0.25 * z) * 0.8
  brim = ellipsoid(s, (0.0, 0.62, 0.88), (0.50, 0.05, 0.42))
  patch = ellipsoid(p, (r.eye[0], 0.0, 0.80), (0.24, 0.20, 0.09))
  strap = norm(skull - 0.02, (y - 0.14 - 0.35 * (x - r.eye[0])) * 0.9) - 0.045
  nose = ball(s, algebra.add(r.nose, (0.0, 0.0, 0.05)), 0.17)
  # All items share one distance and one colour function: the nearest one is what shows.
  worn = _worn(jnp.minimum(cap, brim), o.cap)
  worn = jnp.minimum(worn, _worn(jnp.minimum(patch, strap * 0.8), o.patch))
  return jnp.minimum(worn, _worn(nose, o.nose))


def colour(p, o, hue):
  """Returns the linear RGB of what is worn: caps and noses in `hue` (RGB), patches black."""
  black = (o.patch > 0) * smoothstep(0.5, 0.4, p[1]) * (1 - (o.nose > 0) * bump(p[1] + 0.37, 0.2))
  return mix(hue, (0.012, 0.012, 0.014), black)


def paint_layers(p, o, r, hue):
  """Returns (mask, colour) of each layer of paint on the skin, in order; `hue` is linear RGB."""
  x, y, z = p
  ax, front = jnp.abs(x), smoothstep(0.0, 0.3, z)
  rows = bump((y + 0.30) % 0.13 - 0.065, 0.035) * smoothstep(-0.52, -0.48, y)
  bars = rows * smoothstep(-0.12, -0.16, y) * smoothstep(0.16, 0.20, ax) * smoothstep(0.66, 0.6, ax)
  half = smoothstep(-0.02, 0.02, x)
  dark = bump(norm((ax - r.eye[0]) * 0.8, y), 0.22)
  chalk = smoothstep(-1.15, -1.05, y)
  return (
    ((o.half > 0) * half * front * 0.9, hue),
    ((o.clown > 0) * chalk * front * 0.9, (0.85, 0.85, 0.83)),
    ((o.clown > 0) * clip01(1.3 * dark) * front, algebra.scale(hue, 0.35)),
    ((o.bars > 0) * bars * front * 0.95, hue),
  )
