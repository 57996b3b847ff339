"""Exact landmarks: the 68 points of iBUG's 300-W scheme, from the curves that draw the face.

The private functions return coordinates of the head frame of `geometry`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hybrid_jax.world import geometry
from hybrid_jax.world.algebra import add, scale, unit
from hybrid_jax.world.parameters import IDENTITY, MOTION, unpack
from hybrid_jax.world.render import framing, project

STEPS = 40
JAW, BROWS, NOSE = slice(0, 17), slice(17, 27), slice(27, 36)
RIGHT_EYE, LEFT_EYE, MOUTH = slice(36, 42), slice(42, 48), slice(48, 68)


def _surface(start, direction, i, m, r):
  """Returns where rays of the head frame meet skin or eyeball, without hair and glasses."""

  def distance(p):
    d = geometry.parts(geometry.to_world(p, r), i, m, r)
    return jnp.minimum(d.skin, d.eyes)

  def march(_, t):
    # Blended solids overestimate the distance; full steps would end inside the skin.
    return t + 0.9 * distance(add(start, scale(direction, t)))

  t = jax.lax.fori_loop(0, STEPS, march, jnp.zeros_like(start[0]))
  return add(start, scale(direction, t))


def _eyes(i, m, r):
  """Returns 6 + 6 points, the image's left eye first, each from its left corner over the top."""
  u = np.array([1, 0.4, -0.4, -1, -0.4, 0.4])
  lid = np.array([0, 1, 1, 0, -1, -1])
  # u grows outward on both sides, so the order along the other eye is reversed.
  u, lid = np.concatenate((u, u[[3, 2, 1, 0, 5, 4]])), np.tile(lid, 2)
  side = np.repeat([-1.0, 1.0], 6)
  x = side * (r.eye[0] + 0.175 * i.eye_size * u)
  _, height, half = geometry.eye_frame((x, 0.0, 0.0), i, m, r)
  # At y = 0 the height over the eye's line is the line's own y with its sign changed.
  return x, -height + lid * jnp.maximum(half, 0)


def _brows(i, m):
  t = np.array([1, 0.75, 0.5, 0.25, 0.0])
  side = np.repeat([-1.0, 1.0], 5)
  x = side * (0.12 + 0.40 * i.eye_spacing * np.concatenate((t, t[::-1])))
  return x, -geometry.brow_frame((x, 0.0, 0.0), i, m)[1]


def _mouth(i, m, r):
  outer = np.array([-1, -0.66, -0.33, 0, 0.33, 0.66, 1, 0.66, 0.33, 0, -0.33, -0.66])
  inner = np.array([-0.92, -0.4, 0, 0.4, 0.92, 0.4, 0, -0.4])
  u = np.concatenate((outer, inner))
  x = u * r.mouth_half + 0.05 * m.mouth_shift
  _, arch, height, _ = geometry.mouth_frame((x, 0.0, 0.0), i, m, r)
  taper = jnp.sqrt(arch)
  upper = r.lift * arch + (0.033 * i.lip_upper + 0.05 * i.lip_upper**0.5) * taper
  lower = -r.drop * arch - (0.105 * i.lip_lower**0.5) * taper
  # 0 outer corner, 1 and -1 outer rims, 2 inner corner, 3 and 4 inner rims of upper and lower lip.
  rim = np.array([0] + [1] * 5 + [0] + [-1] * 5 + [2] + [3] * 3 + [2] + [4] * 3)
  offset = jnp.select(
    [rim == 1, rim == -1, rim == 3, rim == 4], [upper, lower, r.lift * arch, -r.drop * arch], 0.0
  )
  return x, -height + offset


def _nose(i, r):
  y = r.nose[1]
  bridge = 0.05 + (y - 0.05) * np.array([0, 1 / 3, 2 / 3, 1])
  base = 0.13 * i.nose_width * np.array([-1, -0.5, 0, 0.5, 1])
  below = y - np.array([0.06, 0.085, 0.095, 0.085, 0.06])
  return jnp.concatenate((jnp.zeros(4), base)), jnp.concatenate((bridge, below))


def _jaw(i, m, r):
  """Returns (x, y, z) of 17 points, ear to ear, where rays towards the head's inside meet skin."""
  a = np.pi * (1 + np.arange(17) / 16)
  direction = unit((np.cos(a), np.sin(a) - 0.05, -0.5 * np.sin(a) - 0.15))
  # The rays come from outside: from inside the head they would stop at the open mouth.
  inside = (0.0, -0.15, 0.12)
  start = add(inside, scale(direction, 1.7))
  return _surface(start, scale(direction, -1.0), i, m, r)


def landmarks(identity: jax.Array, motion: jax.Array) -> jax.Array:
  """Returns (68, 2) positions in the rendered image, x right and y down, in [0, 1] inside it.

  Order as in 300-W, from the image's left: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, outer
  lips 48-59, inner lips 60-67. Points on the far side of a turned head are behind it.
  """
  i, m = unpack(IDENTITY, identity), unpack(MOTION, motion)
  r = geometry.rig(i, m)
  parts = (_brows(i, m), _nose(i, r), _eyes(i, m, r), _mouth(i, m, r))
  # The order of the parts is that of 300-W.
  x, y = (jnp.concatenate([part[k] for part in parts]) for k in (0, 1))
  # The curves give x and y; the depth is where a ray from the front meets the face.
  front = _surface((x, y, jnp.full_like(x, 1.5)), (0.0, 0.0, -1.0), i, m, r)
  points = tuple(jnp.concatenate(pair) for pair in zip(_jaw(i, m, r), front, strict=True))
  return project(points, r, *framing(i, r))


def five_points(points: jax.Array) -> jax.Array:
  """Reduces 68 points (..., 68, 2) to the five of FFHQ's alignment and YuNet, (..., 5, 2).

  They are both eyes' centres, the nose tip and both mouth corners, the image's left first.
  """
  eyes = [points[..., part, :].mean(-2) for part in (RIGHT_EYE, LEFT_EYE)]
  return jnp.stack((*eyes, points[..., 30, :], points[..., 48, :], points[..., 54, :]), -2)
