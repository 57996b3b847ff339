"""Points as (x, y, z) tuples of equally shaped arrays, and distances to simple solids.

Tuples instead of a trailing axis of 3 let XLA compile one distance evaluation to one fused loop.
Distances are in units of 10 cm, negative inside.
"""

import jax.numpy as jnp


def add(a, b):
  return tuple(i + j for i, j in zip(a, b, strict=True))


def sub(a, b):
  return tuple(i - j for i, j in zip(a, b, strict=True))


def scale(a, s):
  return tuple(i * s for i in a)


def dot(a, b):
  return sum(i * j for i, j in zip(a, b, strict=True))


def norm(*v):
  return jnp.sqrt(sum(i * i for i in v) + 1e-8)


def unit(a):
  return scale(a, 1 / norm(*a))


def rotate(matrix, p):
  return tuple(dot(matrix[i], p) for i in range(3))


def mix(a, b, t):
  return tuple(i + (j - i) * t for i, j in zip(a, b, strict=True))


def clip01(x):
  return jnp.clip(x, 0, 1)


def smoothstep(a, b, x):
  """0 at a, 1 at b, smooth between; a may be the larger."""
  t = clip01((x - a) / (b - a))
  return t * t * (3 - 2 * t)


def sine(x):
  """sin(x) to 6 %, by a parabola: a true sine would break the fused loop."""
  t = x * 0.15915494
  t = t - jnp.round(t)
  return t * (8 - 16 * jnp.abs(t))


def bump(x, width):
  """exp(-(x / width)^2)."""
  return jnp.exp(-jnp.square(x / width))


def wobble(p, frequency, seed=0.0):
  """Smooth noise in about [-1, 1] from warped sine products."""
  x, y, z = scale(p, frequency)
  one = sine(x + 1.7 * sine(1.3 * y + seed)) * sine(y + 1.3 * sine(1.1 * z - seed))
  two = sine(2.3 * z + 1.9 * sine(1.7 * x + seed)) * sine(1.9 * x - 2.1 * y)
  return (one + 0.6 * two) / 1.3


def union(a, b, k):
  """Smooth minimum: the two solids melt together within `k`."""
  h = jnp.maximum(k - jnp.abs(a - b), 0)
  return jnp.minimum(a, b) - h * h / (4 * k)


def intersection(a, b, k):
  return -union(-a, -b, k)


def ball(p, centre, radius):
  return norm(*sub(p, centre)) - radius


def ellipsoid(p, centre, radii):
  q = tuple(i / r for i, r in zip(sub(p, centre), radii, strict=True))
  k = norm(*q)
  return k * (k - 1) / norm(*(i / r for i, r in zip(q, radii, strict=True)))


def capsule(p, a, b, radius_a, radius_b):
  d, q = sub(b, a), sub(p, a)
  h = clip01(dot(q, d) / dot(d, d))
  return norm(*sub(q, scale(d, h))) - (radius_a + (radius_b - radius_a) * h)
