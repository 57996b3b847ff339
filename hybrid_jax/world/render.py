"""`render(identity, motion, scene, size)`: sphere tracing, light and the FFHQ camera.

Images are float32 in [0, 1], gamma-encoded; light is computed in linear RGB.
"""

# Every stage is one fused loop over the image's rays with one output: XLA computes a loop with
# three outputs three times. So offsets are mapped over with lax.map, and colours are stacked last.

from types import SimpleNamespace

import jax
import jax.numpy as jnp

from hybrid_jax.world import geometry, paint
from hybrid_jax.world.algebra import add, clip01, dot, mix, scale, smoothstep, sub, unit
from hybrid_jax.world.outfits import OUTFIT
from hybrid_jax.world.parameters import IDENTITY, MOTION, SCENE, unpack

CAMERA = 9.2  # z of the camera, units of 10 cm
NEAR, FAR = 7.95, 11.2  # along a ray: just before the nose, and behind the hair
REGIONS = ('mouth', 'eyes', 'brows', 'face')
# Blocks of 4 x 4 rays share the first steps, which are most of the way to the head.
COARSE, COARSE_STEPS, FINE_STEPS = 4, 12, 12
SUPERSAMPLING = 2  # rays of a pixel, along each side
SHADOW_TAPS = 6
# A gradient from four evaluations, where differences along the axes would need six.
TETRAHEDRON = ((1.0, -1.0, -1.0), (-1.0, -1.0, 1.0), (-1.0, 1.0, -1.0), (1.0, 1.0, 1.0))


def framing(i, r):
  """Returns centre (2,) and side, in world units, of the square of FFHQ's crop rule.

  Unlike FFHQ's, the square is not rotated with the head: roll is a motion parameter and must show.
  """
  # The mouth point at rest, so that talking does not move the crop.
  x, _, _ = r.eye
  left, right = geometry.to_world((x, 0.0, 0.72), r), geometry.to_world((-x, 0.0, 0.72), r)
  mouth = geometry.to_world((0.0, -0.68 * i.face_length, 0.75), r)
  left, right, mouth = (jnp.stack(jnp.broadcast_arrays(*p))[:2] for p in (left, right, mouth))
  middle = (left + right) / 2
  eye_to_mouth = middle - mouth
  side = jnp.maximum(4.0 * jnp.linalg.norm(left - right), 3.6 * jnp.linalg.norm(eye_to_mouth))
  return middle - 0.1 * eye_to_mouth, side


def _rays(centre, side, size):
  """Returns the camera position and unit directions of (size, size) rays, from the top row."""
  g = (jnp.arange(size) + 0.5) / size * 2 - 1
  gx, gy = jnp.meshgrid(g, -g)
  ray = unit((gx * side / 2, gy * side / 2, jnp.full_like(gx, -9.0)))
  return (centre[0], centre[1], CAMERA), ray


def _trace(field, centre, side, size):
  """Returns camera, directions and depths of (size, size) rays: a coarse march, then a fine one."""
  eye, ray = _rays(centre, side, size // COARSE)
  # Half the diagonal of a block, at the head: a coarse ray must stop that far from the surface, or
  # it passes what another ray of its block hits.
  clear = 0.75 * COARSE * side / size

  def coarse(_, t):
    return t + jnp.maximum(field(add(eye, scale(ray, t))) - clear, 0)

  t = jax.lax.fori_loop(0, COARSE_STEPS, coarse, jnp.full_like(ray[0], NEAR))
  t = jnp.repeat(jnp.repeat(t, COARSE, 0), COARSE, 1)
  eye, ray = _rays(centre, side, size)
  t = jax.lax.fori_loop(0, FINE_STEPS, lambda _, t: t + field(add(eye, scale(ray, t))), t)
  return eye, ray, t


def _scene(identity, motion, scene, outfit):
  i, m, s = unpack(IDENTITY, identity), unpack(MOTION, motion), unpack(SCENE, scene)
  r = geometry.rig(i, m, None if outfit is None else unpack(OUTFIT, outfit))
  return i, m, s, r, *framing(i, r)


def _pool(channel, size):
  return channel.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING).mean((1, 3))


def _hit(d, t):
  # Grazing rays do not converge: a loose distance is accepted, or fringes appear at the jaw.
  return smoothstep(0.12, 0.06, geometry.closest(d)) * (t < FAR)


def _light(field, d, q, ray, i, m, r, s):
  """Returns the linear RGB of the surface at q."""
  rgb, gloss, power = paint.albedo(d, i, m, r, s, q)
  directions = jnp.array(TETRAHEDRON)
  taps = jax.lax.map(lambda v: field(add(q, scale(v, 0.004))), directions)
  normal = unit(tuple(sum(directions[k, c] * taps[k] for k in range(4)) for c in range(3)))

  def probe(direction, heights):
    start = add(q, scale(normal, 0.03))  # off the surface, or it would shade itself
    return jax.lax.map(lambda h: field(add(start, scale(direction, h))), heights)

  # Sky light with occlusion and a key light with a soft shadow. Light wraps farther around skin in
  # red than in blue: a cheap stand-in for subsurface scattering.
  near = probe(normal, jnp.array([0.04, 0.18]))
  occlusion = 1 - 0.68 * clip01(1 - near[0] / 0.07)
  occlusion = occlusion * (1 - 0.45 * clip01(1 - near[1] / 0.21))
  occlusion = jnp.maximum(occlusion, jnp.where(geometry.is_nearest(d, 'teeth', 'tongue'), 0.6, 0.0))
  light = unit((s.light_x, s.light_y, 1.1))
  far = 0.05 * 1.55 ** jnp.arange(SHADOW_TAPS)
  lit = clip01(0.5 + 3 * probe(light, far) / (far + 0.08)[:, None, None]).min(0)
  facing = dot(normal, light)
  soft = jnp.where(geometry.is_nearest(d, 'skin'), 1.0, 0.35)
  wrap = tuple(clip01((facing + w * soft) / (1 + w * soft)) for w in (0.38, 0.22, 0.16))
  shine = clip01(dot(normal, unit(sub(light, ray)))) ** power
  shine = 0.32 * gloss * shine * lit
  rim = 0.10 * (1 - clip01(-dot(normal, ray))) ** 3
  sky = s.fill * (0.65 + 0.35 * normal[1]) * occlusion
  warm = mix((1.0, 0.98, 0.98), (1.12, 0.97, 0.80), s.light_warm)
  return tuple(
    c * (w * lit * s.key * a * 1.25 + sky * b + rim) * (0.35 + 0.65 * occlusion) + shine * a
    for c, w, a, b in zip(rgb, wrap, warm, (0.95, 1.0, 1.08), strict=True)
  )


def _background(s, size):
  g = (jnp.arange(size) + 0.5) / size * 2 - 1
  gx, gy = jnp.meshgrid(g, -g)
  ramp = 1 + 0.35 * s.background_rise * gy + 0.35 * s.background_slant * gx
  return paint.hsv(s.background_hue, s.background_saturation, s.background_value**2 * ramp)


def render(identity: jax.Array, motion: jax.Array, scene: jax.Array, size: int) -> jax.Array:
  """Renders one image (size, size, 3), float32 in [0, 1].

  A pure function to be jitted with `size` static; compiling takes seconds per size.

  Args:
    identity: (47,), motion: (16,), scene: (13,); in [0, 1], see `parameters`.
    size: px, a multiple of 2.
  """
  return render_regions(identity, motion, scene, size)[0]


def render_regions(
  identity: jax.Array,
  motion: jax.Array,
  scene: jax.Array,
  size: int,
  outfit: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Renders as `render`, and returns also masks (size, size, 4) in [0, 1] of `REGIONS`.

  `outfit` (8,) in [0, 1]: see `outfits`.
  """
  i, m, s, r, centre, side = _scene(identity, motion, scene, outfit)
  field = lambda q: geometry.nearest(q, i, m, r)  # noqa: E731
  n = size * SUPERSAMPLING
  eye, ray, t = _trace(field, centre, side, n)
  q = add(eye, scale(ray, t))
  d = geometry.parts(q, i, m, r)
  hit = _hit(d, t)
  colour = mix(_background(s, n), _light(field, d, q, ray, i, m, r, s), hit)
  image = jnp.stack([_pool(c, size) for c in colour], -1)
  image = image * (1 + image * 0.15) / (1 + 0.35 * image) * 1.06  # a soft shoulder
  # The slope of the gamma curve is infinite at zero.
  image = clip01(jnp.maximum(image, 1e-5) ** (1 / 2.2))
  masks = paint.regions(d, i, m, r)
  return image, jnp.stack([_pool(masks[name] * hit, size) for name in REGIONS], -1)


def project(p: tuple, r: SimpleNamespace, centre: jax.Array, side: jax.Array) -> jax.Array:
  """Projects head-frame points (x, y, z) to (n, 2): x right, y down, in [0, 1] in the image."""
  x, y, z = jnp.broadcast_arrays(*geometry.to_world(p, r))
  scale = 9.0 / (CAMERA - z) / (side / 2)  # the square lies at distance 9
  return jnp.stack((1 + (x - centre[0]) * scale, 1 - (y - centre[1]) * scale), -1) / 2
