"""Colour of the nearest solid: ordered layers of (mask, colour) tied to the geometry's frames.

Colours are tuples of linear RGB in [0, 1], masks arrays of about [0, 1]. Letters as in `geometry`;
`d` are the distances and the point that `geometry.parts` returns.
"""

import jax.numpy as jnp

from hybrid_jax.world import geometry, outfits
from hybrid_jax.world.algebra import (
  bump,
  clip01,
  mix,
  norm,
  scale,
  sine,
  smoothstep,
  sub,
  unit,
  wobble,
)


def hsv(hue, saturation, value):
  """Returns HSV in [0, 1] as an RGB tuple."""
  return tuple(
    value * (1 - saturation + saturation * clip01(jnp.abs((hue * 6 + offset) % 6 - 3) - 1))
    for offset in (0.0, 4.0, 2.0)
  )


def complexion(i):
  """Returns the colours of skin, hair, brows and lips of a person."""
  skin = mix((0.80, 0.52, 0.40), (0.115, 0.055, 0.032), i.skin**0.8)
  skin = mix(skin, (skin[0] * 1.05, skin[1] * 0.80, skin[2] * 0.74), i.redness * 0.7)
  dark = i.hair_dark**0.6
  hair = mix((0.46, 0.28, 0.11), (0.018, 0.011, 0.008), dark)
  hair = mix(hair, (0.22, 0.055, 0.016), i.hair_red**4 * (1 - dark))
  hair = mix(hair, (0.46, 0.46, 0.47), clip01(i.grey * 0.9 + 0.5 * clip01(i.age) - 0.25) * 0.9)
  brow = mix(scale(hair, 0.45), (0.03, 0.02, 0.015), 0.35)
  rouge = jnp.maximum(i.lip_tint**3, clip01(i.makeup) * 0.5) * 0.8
  lip = mix((skin[0] * 0.78, skin[1] * 0.46, skin[2] * 0.50), (0.45, 0.035, 0.06), rouge)
  return skin, hair, brow, lip


def brow_mask(p, i, m):
  """Returns the mask of the brows at p."""
  t, height = geometry.brow_frame(p, i, m)
  width = 0.036 * i.brow_thick * (1.05 - 0.55 * clip01(t))
  return bump(height, width) * smoothstep(-0.08, 0.10, t) * smoothstep(1.08, 0.8, t)


def lip_mask(d, u):
  """Returns the mask of the lips; `u` runs between the corners, see `geometry.mouth_frame`."""
  return smoothstep(0.016, -0.004, d.lips) * smoothstep(1.12, 0.96, jnp.abs(u))


def skin_layers(d, i, m, r):
  """Returns (mask, colour) of everything painted on skin, in order."""
  x, y, z = d.point
  ax = jnp.abs(x)
  age, makeup = clip01(i.age), clip01(i.makeup)
  skin, hair, brow_colour, lip_colour = complexion(i)
  front = smoothstep(0.25, 0.5, z)
  eye = geometry.eye_frame(d.point, i, m, r)
  v, arch, mouth_y, _ = geometry.mouth_frame(d.point, i, m, r)
  au, ex = jnp.abs(eye[0]), ax - r.eye[0]

  flush = bump(norm(ax - 0.38, y + 0.30), 0.22) + 0.7 * bump(norm(x, y - r.nose[1]), 0.14)
  flush = flush + 0.5 * smoothstep(0.70, 0.78, ax)
  spots = smoothstep(0.3, 0.7, wobble(d.point, 24.0, 5.0)) * bump(norm(ax - 0.22, y + 0.24), 0.30)
  socket, shadow, lid, lash = _around_eyes(eye, au, ex, y, front, age, i)
  crease = _creases(ax, ex, d.point, age, m, r)
  fuzz, stubble = _beard(d.point, ax, mouth_y, i, r)
  opening = jnp.abs(mouth_y + (r.drop - r.lift) * 0.5 * arch)
  seam = jnp.exp(-jnp.square(opening / (0.011 + 0.5 * (r.drop + r.lift) * arch)))
  seam = seam * smoothstep(1.1, 0.95, jnp.abs(v)) * front
  # Scalp showing through thin hair, and the shade that hair throws on the skin beside it.
  line = geometry.hair_line(d.point, i)
  root = smoothstep(-0.10, 0.03, line) * smoothstep(-0.55, -0.2, y)
  dim = (0.4 + 0.6 * (1 - i.skin),) * 3
  return (
    (flush * (0.13 + 0.20 * i.redness + 0.24 * makeup), scale((1.0, 0.62, 0.58), skin[0] / 0.85)),
    (spots * clip01(i.freckles) * 0.7, scale(skin, 0.55)),
    (socket * 0.40, scale(skin, 0.66)),
    (
      shadow * makeup * 0.55 * front,
      tuple(a * b for a, b in zip((0.16, 0.09, 0.13), dim, strict=True)),
    ),
    (crease * front, scale(skin, 0.48)),
    (lid * 0.5 * front, scale(skin, 0.45)),
    (lash * (0.8 + 0.3 * makeup) * front, (0.02, 0.013, 0.01)),
    (brow_mask(d.point, i, m) * 1.15 * front, brow_colour),
    (root * 0.55, scale(hair, 0.9)),
    (stubble, scale(skin, 0.55)),
    (fuzz, scale(hair, 0.8)),
    (lip_mask(d, v) * front * 0.92, lip_colour),
    (seam * 0.85, (0.055, 0.012, 0.012)),
  )


def _around_eyes(eye, au, ex, y, front, age, i):
  """Returns masks of the shaded socket, eye shadow, the lid's fold and the lashes."""
  u, eye_y, half = eye
  socket = bump(norm(ex, (y + 0.005) * 1.4), 0.20)
  socket = (socket + 0.7 * age * bump(norm(ex * 0.8, y + 0.15), 0.07)) * front
  shadow = bump(norm(u * 0.12, eye_y - 0.09), 0.10) * smoothstep(1.7, 1.4, au)
  lid = bump(eye_y - jnp.maximum(half, 0) - 0.055 * i.eye_size, 0.012)
  lid = lid * smoothstep(1.25, 0.8, au) * (1 - 0.7 * i.hooded)
  lash = bump(eye_y - jnp.maximum(half, 0) - 0.006, 0.018) * smoothstep(1.18, 0.9, au)
  return socket, shadow, lid, lash


def _creases(ax, ex, p, age, m, r):
  """Returns the mask of folds beside the nose, forehead lines, frown lines and crow's feet."""
  x, y, _ = p
  sag = 0.16 + 0.17 * clip01((r.nose[1] - y) * 2.6) * (1 + 0.25 * m.smile)
  fold = bump(ax - sag, 0.03) * smoothstep(r.nose[1] + 0.05, r.nose[1] - 0.08, y)
  fold = fold * smoothstep(r.mouth_y - 0.12, r.mouth_y + 0.05, y)
  ripple = bump(sine(38 * (y - 0.04 * m.brow_raise) + 1.5 * sine(2.5 * x + 1.57)), 0.45)
  lines = ripple * bump(norm(x * 0.55, y - 0.46), 0.20)
  knit = bump(ax - 0.045, 0.018) * bump(y - 0.2, 0.10)
  crow = bump(sine(40 * y + 25 * ex * y), 0.4) * bump(norm(ex - 0.25, y), 0.08)
  crease = fold * (0.16 + 0.45 * age + 0.30 * r.smile) + knit * 0.7 * (m.brow_frown + 0.4 * age)
  crease = crease + lines * (0.5 * age + 0.25 * clip01(m.brow_raise))
  return crease + crow * 0.45 * (age + 0.3 * r.smile)


def _beard(p, ax, mouth_y, i, r):
  """Returns masks of beard and moustache, and of the stubble that precedes both."""
  _, y, z = p
  jawline = -0.32 - 0.30 * smoothstep(0.62, 0.2, ax) + 0.22 * smoothstep(0.45, 0.7, ax)
  zone = smoothstep(0.0, -0.20, y - jawline) * smoothstep(-0.1, 0.25, z)
  zone = zone * smoothstep(-1.45, -1.2, y)
  above = mouth_y - 0.135 - r.lift
  tash = bump(norm(jnp.maximum(ax - 0.20, 0), above), 0.055) * smoothstep(-0.15, -0.05, above)
  beard, moustache = clip01(i.beard * 1.4), clip01(jnp.maximum(i.moustache, i.beard) * 1.5)
  grain = 0.9 + 0.1 * wobble(p, 26.0, 1.0)
  fuzz = (zone * beard + tash * moustache) * grain
  # Stubble grows while the trait is still below zero, so that a beard does not appear at once.
  stubble = (zone + tash) * smoothstep(-0.4, 0.1, i.beard) * 0.3 * (1 - 0.3 * i.skin)
  return fuzz, stubble


def eye_colour(d, i, m, r):
  """Returns the colour of the eyeball: white, iris and pupil at the gaze, shaded by the lids."""
  x, y, z = d.point
  u, eye_y, half = geometry.eye_frame(d.point, i, m, r)
  e = unit(sub((jnp.abs(x), y, z), r.eye))
  # The point is mirrored to x > 0, so the gaze is too: otherwise the eyes would look apart.
  g = (jnp.where(x > 0, r.gaze[0], -r.gaze[0]), r.gaze[1], r.gaze[2])
  off = norm(*sub(e, g))  # the chord, nearly the angle in radians
  iris = hsv(
    0.07 + 0.5 * smoothstep(0.55, 0.95, i.eye_hue),
    0.50 + 0.35 * (1 - i.eye_light),
    0.03 + 0.24 * i.eye_light,
  )
  colour = mix((0.80, 0.75, 0.72), (0.62, 0.36, 0.32), smoothstep(0.6, 1.0, jnp.abs(u)) * 0.5)
  colour = mix(colour, scale(iris, 0.15), smoothstep(0.56, 0.50, off))
  colour = mix(colour, iris, smoothstep(0.50, 0.38, off))
  colour = mix(colour, (0.008, 0.008, 0.009), smoothstep(0.23, 0.16, off))
  shade = 0.45 * smoothstep(0.02, -0.02, half - jnp.abs(eye_y) - 0.01)
  shade = shade + 0.28 * smoothstep(-0.02, 0.05, eye_y - half + 0.03)
  return scale(colour, 1 - shade)


def albedo(d, i, m, r, scene, q):
  """Returns colour, gloss and gloss exponent of the nearest solid at world point q."""
  x, y, _ = d.point
  skin, hair, _, _ = complexion(i)
  v = geometry.mouth_frame(d.point, i, m, r)[0]
  mottle = 1 + 0.04 * wobble(d.point, 9.0) + 0.02 * wobble(d.point, 19.0, 2.0)
  face = scale(skin, mottle)  # a plain colour would look like plastic
  for mask, colour in skin_layers(d, i, m, r):
    face = mix(face, colour, clip01(mask))
  if r.outfit is not None:
    hue = hsv(r.outfit.paint, 0.85, 0.6)
    for mask, colour in outfits.paint_layers(d.point, r.outfit, r, hue):
      face = mix(face, colour, clip01(mask))
  lock = geometry.strands(d.point, i)
  locks = scale(hair, 1 + 0.30 * lock + 0.18 * wobble(d.point, 4.0, 3.0))
  ivory = 0.75 + 0.25 * smoothstep(0.0, 0.18, jnp.abs(sine(x * 32)))
  rim = mix((0.30, 0.22, 0.12), (0.012, 0.012, 0.014), i.glasses_dark)
  # Squared, since the parameter is a value as seen, and light is linear.
  cloth = hsv(scene.cloth_hue, scene.cloth_saturation, scene.cloth_value**2)
  wet = 0.20 * i.gloss + 0.30 * lip_mask(d, v)
  table = {
    'skin': (face, wet, 22.0),
    'hair': (locks, 0.20 + 0.10 * lock, 12.0),
    'eyes': (eye_colour(d, i, m, r), 1.1, 140.0),
    'teeth': (scale((0.80, 0.76, 0.68), ivory), 0.4, 50.0),
    'tongue': ((0.42, 0.12, 0.11), 0.2, 20.0),
    'frame': (rim, 0.6, 40.0),
    'cloth': (scale(cloth, 1 + 0.06 * wobble(q, 14.0)), 0.0, 1.0),
  }
  if r.outfit is not None:
    table['worn'] = (outfits.colour(d.point, r.outfit, hsv(r.outfit.colour, 0.8, 0.5)), 0.1, 10.0)
  # All colours are computed everywhere and one is chosen: a branch would break the fused loop.
  rgb, gloss, power = (0.0, 0.0, 0.0), 0.0, 1.0
  for name, (colour, shine, exponent) in table.items():
    here = geometry.is_nearest(d, name)
    rgb = tuple(jnp.where(here, a, b) for a, b in zip(colour, rgb, strict=True))
    gloss, power = jnp.where(here, shine, gloss), jnp.where(here, exponent, power)
  return rgb, gloss, power


def regions(d, i, m, r):
  """Returns masks in [0, 1]: 'mouth', 'eyes' and 'brows' with a margin, and the whole 'face'.

  The mouth's mask includes the opening.
  """
  # The eye mask ignores the blink: a loss weighted by it must also see that an eye should be shut.
  x, y, z = d.point
  # Hair, cloth and what is worn hide the face, so that the masks end where they begin.
  head = geometry.is_nearest(d, 'skin', 'eyes', 'teeth', 'tongue', 'frame') * 1.0
  front = smoothstep(0.2, 0.4, z) * (1 - geometry.is_nearest(d, 'cloth', 'hair'))
  u, eye_y, _ = geometry.eye_frame(d.point, i, m, r)
  v, arch, mouth_y, _ = geometry.mouth_frame(d.point, i, m, r)
  eyes = smoothstep(1.1, 1.0, norm(u / 1.3, eye_y / (0.13 * i.eye_size)))
  above = mouth_y - r.lift * arch - 0.10 * i.lip_upper
  below = -mouth_y - r.drop * arch - 0.13 * i.lip_lower
  mouth = smoothstep(0.02, -0.02, jnp.maximum(above, below)) * smoothstep(1.3, 1.2, jnp.abs(v))
  t, height = geometry.brow_frame(d.point, i, m)
  brows = smoothstep(0.09, 0.07, jnp.abs(height)) * smoothstep(-0.18, -0.1, t)
  brows = brows * smoothstep(1.18, 1.1, t)
  face = head * smoothstep(-1.25, -1.15, y) * smoothstep(-0.2, 0.0, z)
  return {'mouth': mouth * front, 'eyes': eyes * front, 'brows': brows * front, 'face': face}
