"""Points as (x, y, z) tuples of equally shaped arrays, and distances to simple solids.

Distances are in units of 10 cm, negative inside a solid.
"""

# Tuples instead of a trailing axis of 3 let XLA compile one distance evaluation to one fused loop.

import jax.numpy as jnp


def add(a, b):
  """Returns a + b."""
  return tuple(i + j for i, j in zip(a, b, strict=True))


def sub(a, b):
  """Returns a - b."""
  return tuple(i - j for i, j in zip(a, b, strict=True))


def scale(a, s):
  """Returns s a."""
  return tuple(i * s for i in a)


def dot(a, b):
  """Returns the scalar product of a and b."""
  return sum(i * j for i, j in zip(a, b, strict=True))


def norm(*v):
  """Returns the length of the vector of these components."""
  # The epsilon keeps the gradient finite at zero; it adds 1e-4 to the length there.
  return jnp.sqrt(sum(i * i for i in v) + 1e-8)


def unit(a):
  """Returns a scaled to length 1."""
  return scale(a, 1 / norm(*a))


def rotate(matrix, p):
  """Returns the product of a matrix (3, 3) and p."""
  return tuple(dot(matrix[i], p) for i in range(3))


def mix(a, b, t):
  """Returns a where t is 0, b where t is 1, linear between."""
  return tuple(i + (j - i) * t for i, j in zip(a, b, strict=True))


def clip01(x):
  """Clips x to [0, 1]."""
  return jnp.clip(x, 0, 1)


def smoothstep(a, b, x):
  """Returns 0 at a, 1 at b, smooth between; a may be larger than b."""
  t = clip01((x - a) / (b - a))
  return t * t * (3 - 2 * t)


def sine(x):
  """Returns sin(x) to 6 %, by a parabola."""
  # jnp.sin would break the one fused loop that a distance evaluation compiles to.
  t = x * 0.15915494  # 1 / (2 pi)
  t = t - jnp.round(t)
  return t * (8 - 16 * jnp.abs(t))


def bump(x, width):
  """Returns exp(-(x / width)^2)."""
  return jnp.exp(-jnp.square(x / width))


def wobble(p, frequency, seed=0.0):
  """Returns smooth noise at p in about [-1, 1], from warped products of sines."""
  x, y, z = scale(p, frequency)
  one = sine(x + 1.7 * sine(1.3 * y + seed)) * sine(y + 1.3 * sine(1.1 * z - seed))
  two = sine(2.3 * z + 1.9 * sine(1.7 * x + seed)) * sine(1.9 * x - 2.1 * y)
  return (one + 0.6 * two) / 1.3


def union(a, b, k):
  """Returns the smooth minimum of two distances: the solids blend where they differ by < k."""
  h = jnp.maximum(k - jnp.abs(a - b), 0)
  return jnp.minimum(a, b) - h * h / (4 * k)


def intersection(a, b, k):
  """Returns the smooth maximum of two distances, see `union`."""
  return -union(-a, -b, k)


def ball(p, centre, radius):
  """Returns the distance from p to a ball."""
  return norm(*sub(p, centre)) - radius


def ellipsoid(p, centre, radii):
  """Returns a distance from p to an ellipsoid that is exact to first order at its surface."""
  q = tuple(i / r for i, r in zip(sub(p, centre), radii, strict=True))
  k = norm(*q)
  return k * (k - 1) / norm(*(i / r for i, r in zip(q, radii, strict=True)))


def capsule(p, a, b, radius_a, radius_b):
  """Returns the distance from p to a rounded cone around the segment from a to b."""
  d, q = sub(b, a), sub(p, a)
  h = clip01(dot(q, d) / dot(d, d))
  return norm(*sub(q, scale(d, h))) - (radius_a + (radius_b - radius_a) * h)
