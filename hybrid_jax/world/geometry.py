"""The head as signed distances, one per solid, at points of the world, posed by a rig.

Head frame: origin at eye height on the axis through the ears, x to the image's right, y up, z to
the camera, in units of 10 cm. Letters: `q` a world point, `p` the same in the head frame, `s` that
mirrored to x > 0, `j` that moved with the jaw; `i` and `m` unpacked identity and motion, `r` the
rig. Points are tuples as in `algebra`.
"""

from types import SimpleNamespace

import jax.numpy as jnp

from hybrid_jax.world import outfits
from hybrid_jax.world.algebra import (
  add,
  ball,
  bump,
  capsule,
  clip01,
  ellipsoid,
  intersection,
  norm,
  rotate,
  sine,
  smoothstep,
  sub,
  union,
  unit,
  wobble,
)

PIVOT = (0.0, -0.75, -0.25)  # where the head turns on the neck
HINGE = (0.0, -0.2, 0.05)  # where the jaw swings
SOLIDS = ('skin', 'hair', 'eyes', 'teeth', 'tongue', 'frame', 'cloth')
# Distance of a solid that a person does not have. Identities are traced, so that no solid can be
# left out of the program.
ABSENT = 3.0


def rotation(yaw, pitch, roll):
  """Returns the matrix (3, 3) from head to world for angles in radians, see `MOTION`."""
  # Pitch is positive upward, which is a negative rotation about x.
  (cy, sy), (cp, sp), (cr, sr) = ((jnp.cos(a), jnp.sin(a)) for a in (yaw, -pitch, roll))
  turn = jnp.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
  nod = jnp.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
  tilt = jnp.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
  return tilt @ turn @ nod  # applied from the right: pitch, then yaw, then roll


def rig(i, m, outfit=None):
  """Returns what geometry and paint share and no point changes: pose, sizes, places of features.

  Args:
    i, m: unpacked identity and motion.
    outfit: unpacked outfit, or None.
  """
  smile = jnp.maximum(m.smile, 0)
  jaw = 0.24 * m.jaw_open
  return SimpleNamespace(
    outfit=outfit,
    rotation=rotation(m.yaw, m.pitch, m.roll),
    smile=smile,
    mouth_y=-0.68 * i.face_length - 0.02 * m.lip_raise,
    mouth_z=0.835 + 0.05 * m.pucker,
    mouth_half=0.25 * i.mouth_width * (1 + 0.22 * m.smile - 0.38 * m.pucker),
    # How far the lower lip falls and the upper one lifts.
    drop=0.20 * m.jaw_open + 0.015 * m.lip_raise,
    lift=0.03 * m.jaw_open * (1 - m.pucker) + 0.05 * m.lip_raise + 0.03 * smile,
    eye=(0.315 * i.eye_spacing, 0.0, 0.60),
    eye_radius=0.150 * i.eye_size,
    jaw=(jnp.cos(jaw), jnp.sin(jaw)),
    nose=(0.0, -0.37 * i.nose_length * i.face_length**0.5, 0.90 + 0.06 * i.nose_bridge),
    gaze=unit((jnp.sin(m.gaze_yaw), jnp.sin(m.gaze_pitch), jnp.cos(m.gaze_yaw))),
  )


def to_head(q, r):
  """Returns world point q in the head frame."""
  return add(rotate(r.rotation.T, sub(q, PIVOT)), PIVOT)


def to_world(p, r):
  """Returns head-frame point p in the world; the jaw's opening is not applied."""
  return add(rotate(r.rotation, sub(p, PIVOT)), PIVOT)


def eye_frame(p, i, m, r):
  """Returns coordinates of p in the lens-shaped opening of its eye.

  They are u along the eye (-1 and 1 at the corners), the height of p over the eye's line, and half
  the height of the opening at u, below zero outside it.
  """
  x = jnp.abs(p[0])
  u = (x - r.eye[0]) / (0.175 * i.eye_size)
  # The person's left eye is at the image's right.
  shut = jnp.where(p[0] > 0, m.blink_left, m.blink_right)
  wide = 1 + 0.25 * m.brow_raise - 0.4 * m.squint - 0.2 * r.smile
  wide = 0.080 * i.eye_size * (1 - 0.3 * i.hooded) * wide * (1 - shut)
  line = i.eye_tilt * (x - r.eye[0]) - 0.03 * shut - 0.01 + 0.036 * m.gaze_pitch * (1 - shut)
  # A shut eye's opening goes below zero, so that blending leaves no slit.
  return u, p[1] - line, wide * (1 - u * u) - 0.012 * shut


def mouth_frame(p, i, m, r):
  """Returns coordinates of p at the mouth: u, arch, height, depth.

  u is -1 and 1 at the corners, the arch is 1 - u^2, height is over the line where the lips meet,
  depth is before the front of the lips.
  """
  x = p[0] - 0.05 * m.mouth_shift
  u = x / r.mouth_half
  arch = clip01(1 - u * u)
  # The curve of the smile ends near the corners: the parabola would go on into the cheeks.
  near = smoothstep(1.8, 0.9, jnp.abs(u))
  y = p[1] - r.mouth_y - (0.014 + 0.11 * m.smile) * (u * u - 0.35) * near
  y = y - 0.03 * m.mouth_shift * u
  return u, arch, y, p[2] - r.mouth_z + 1.44 * x * x - 0.05 * m.pucker * arch


def brow_frame(p, i, m):
  """Returns coordinates of p at its brow: t in [0, 1] outward, and the height over its line."""
  t = (jnp.abs(p[0]) - 0.12) / (0.40 * i.eye_spacing)
  arch = (0.20 + 0.10 * i.brow_arch) * t * (1 - t) - 0.05 * t - 0.045 * m.brow_frown * (1 - t)
  return t, p[1] - (0.19 + i.brow_height + 0.06 * m.brow_raise + arch)


def lips(p, i, m, r):
  """Returns distances to the upper lip, to the lower lip, and to the opening between them."""
  u, arch, y, z = mouth_frame(p, i, m, r)
  past = jnp.maximum(jnp.abs(u) - 1, 0) * r.mouth_half
  taper = jnp.sqrt(arch + 0.03)
  # Cupid's bow: the upper rim dips in the middle.
  bow = 0.012 * sine(8 * u + 1.5708) * arch
  upper = norm(past, y - 0.033 * i.lip_upper - r.lift * arch + bow, z + 0.035)
  lower = norm(past, y + 0.045 * i.lip_lower**0.5 + r.drop * arch, z + 0.05)
  upper, lower = (
    upper - 0.058 * i.lip_upper**0.5 * taper,
    lower - 0.066 * i.lip_lower**0.5 * taper,
  )
  middle = jnp.abs(y + (r.drop - r.lift) * 0.5 * arch) - (r.drop + r.lift) * 0.5 * arch + 0.004
  gap = jnp.maximum(middle, jnp.abs(z + 0.12) - 0.22)
  gap = jnp.maximum(gap, (jnp.abs(u) - 0.97) * r.mouth_half) * 0.75
  return upper, lower, gap


def hair_line(p, i):
  """Returns how far p is inside the hairline; negative on the face and on bald scalp."""
  x, y, z = p
  side = jnp.sqrt(x * x + 4e-4)
  fringe = jnp.maximum(i.fringe, 0) * bump(x - 0.25 * i.parting, 0.55)
  height = 0.66 + 0.08 * i.hairline - 0.36 * fringe + 0.022 * sine(7 * x + 3 * i.curl)
  # A plane that falls to the nape, higher at the temples, with sideburns before the ears.
  line = (y - height) * 0.56 - (z - 0.70) * 0.83 + 0.09 * bump(side - 0.48, 0.16)
  line = line + 0.10 * bump(norm(side - 0.72, y + 0.10), 0.20)
  # Baldness clears the crown from the forehead backward.
  bald = jnp.maximum(i.bald, 0)
  crown = 0.20 - 0.15 * bald - (y - 0.30) * 0.6 - 0.4 * (z + 0.30)
  # At bald = 0 the union would still smooth the hairline of everyone.
  return jnp.where(bald > 0, union(line, crown, 0.10), line)


def strands(p, i):
  """Returns waves in [-1, 1] across the hair's direction, which is from the crown outward."""
  x, y, z = p
  a, b = x - 0.2 * i.parting, z + 0.40
  across = a / (jnp.abs(a) + jnp.abs(b) + 0.1) * jnp.where(b > 0, 1.0, 0.7)  # turns about the crown
  sway = (0.25 + 1.1 * i.curl) * sine(5 * y + 3 * across + 2 * z)
  lock = sine(16 * across + sway) + 0.6 * sine(37 * across + 2.1 * sway + 2 * y)
  return lock / 1.6


def hair(p, s, skull, i):
  """Returns the distance to the hair: a swollen skull inside the hairline, plus long hair."""
  x, y, z = p
  line = hair_line(p, i)
  lock = strands(p, i)
  curly = wobble(p, 9.0, 1.0) * smoothstep(0.45, 1.0, i.curl)
  full = 0.075 + (0.10 + 0.12 * smoothstep(0.4, 1.0, i.curl)) * i.hair_volume
  full = full * (0.75 + 0.5 * smoothstep(0.1, 1.0, y)) * jnp.where(i.bald > 0, 0.45, 1.0)
  full = full + 0.03 * i.parting * x
  groove = bump(x - 0.26 * i.parting, 0.035) * smoothstep(0.55, 0.9, y) * (1 - clip01(i.fringe))
  thick = full * smoothstep(-0.02, 0.26, line) * (1 - 0.3 * groove)
  # Outside the hairline the surface sinks below the skin, deeper than eye sockets and mouth.
  thick = thick - 0.05 * smoothstep(0.04, -0.06, line) - 0.5 * smoothstep(-0.04, -0.6, line)
  cap = skull - thick - (0.012 * lock + 0.035 * curly) * smoothstep(0.0, 0.15, line)
  # Long hair is an elliptic tube round head and neck, open before the face.
  long = jnp.maximum(i.hair_length, 0)
  low = -0.25 - 1.35 * long + 0.05 * lock
  swell = 0.10 * i.hair_volume + 0.05 * smoothstep(-0.2, -1.0, y)
  wide, deep = 0.80 * i.head_width + swell, 0.66 + 0.5 * swell
  ring = norm(s[0] / wide, (z + 0.22) / deep)
  tube = (ring - 1) * 0.6 - 0.02 * lock - 0.04 * curly
  tube = intersection(tube, y - 0.62, 0.45)
  tube = intersection(tube, low - y, 0.12)
  tube = intersection(tube, z - 0.16 - 0.55 * (s[0] - 0.62), 0.10)
  tube = tube + jnp.where(i.hair_length > 0, 0.0, ABSENT)
  # Displaced surfaces overestimate the distance; the factor keeps rays from stepping through.
  return union(cap, tube, 0.12) * 0.75


def glasses(s, i, r):
  """Returns the distance to rims, bridge and temple arms, or ABSENT without glasses."""
  x, y, z = s
  corner = 0.10 + 0.06 * i.glasses_round
  over = jnp.maximum(jnp.abs(x - r.eye[0] - 0.01) - 0.205 + corner, 0)
  rim = norm(over, jnp.maximum(jnp.abs(y + 0.03) - 0.165 + corner, 0)) - corner
  rim = norm(rim, z - 0.84 + 0.12 * x) - 0.016
  bridge = capsule(s, (0.0, 0.03, 0.88), (0.12, 0.0, 0.83), 0.016, 0.016)
  arm = capsule(s, (0.53, 0.03, 0.77), (0.76 * i.head_width, 0.05, 0.0), 0.016, 0.016)
  shown = jnp.where(i.glasses > 0, 0.0, ABSENT)
  return jnp.minimum(jnp.minimum(rim, bridge), arm) + shown


def nose(s, i, r):
  """Returns the distance to bridge, tip and wings, with the nostrils cut out."""
  _, y, z = r.nose
  bridge_end = (0.0, y + 0.06, z - 0.05)
  width = i.nose_width
  bridge = capsule(
    s, (0.0, 0.12, 0.73), bridge_end, 0.035 + 0.03 * i.nose_bridge, 0.06 + 0.012 * width
  )
  tip = ball(s, (0.0, y + i.nose_tip * 0.3, z), 0.068 + 0.022 * width)
  d = union(bridge, tip, 0.07)
  d = union(d, ball(s, (0.10 * width, y - 0.035, z - 0.09), 0.062), 0.06)
  nostril = ball(s, (0.052 * width, y - 0.105 + i.nose_tip * 0.5, z - 0.03), 0.036)
  return intersection(d, -nostril, 0.03)


def parts(q, i, m, r):
  """Returns distances at world point q: one attribute for each of SOLIDS, 'lips' and 'worn'.

  'worn' exists only with an outfit. 'point' is q in the head frame.
  """
  p = to_head(q, r)
  x, y, z = p
  # A rounded |x|: the mirrored halves meet without a crease.
  s = (jnp.sqrt(x * x + 4e-4), y, z)
  # Jaw, lower teeth and tongue are modelled shut, and seen from a point turned back by the opening.
  cos, sin = r.jaw
  a, b = y - HINGE[1], z - HINGE[2]
  j = (s[0], HINGE[1] + cos * a + sin * b, HINGE[2] + cos * b - sin * a)

  skull, skin = _head(s, j, i, m, r)
  skin, eyes = _eyelids(skin, p, s, i, m, r)
  upper, lower, gap = lips(p, i, m, r)
  skin = union(skin, union(upper, lower, 0.012), 0.045)
  skin = intersection(skin, -gap, 0.02)
  skin = _ears(skin, s, i)
  # The neck and the clothes do not turn with the head: they take the world point.
  torso = (jnp.abs(q[0]), q[1], q[2])
  skin = _neck(skin, torso, i)
  teeth, tongue = _inside_mouth(s, j, m, r)
  cloth = _clothes(torso)
  solids = SimpleNamespace(
    skin=skin,
    hair=hair(p, s, skull, i),
    eyes=eyes,
    teeth=teeth,
    tongue=tongue,
    frame=glasses(s, i, r),
    cloth=cloth,
    lips=jnp.minimum(upper, lower),
    point=p,
  )
  if r.outfit is not None:
    solids.worn = outfits.solids(p, s, skull, r.outfit, r)
  return solids


def _head(s, j, i, m, r):
  """Returns distances to the skull alone, and to the head with jaw, cheeks, brow and nose."""
  length, width = i.face_length, i.head_width
  cranium = ellipsoid(s, (0.0, 0.30, -0.10), (0.73 * width, 0.83 * i.cranium, 0.92))
  face = ellipsoid(s, (0.0, -0.26, 0.20), (0.57 * width, 0.80 * length, 0.565))
  skull = union(cranium, face, 0.22)
  bone = capsule(
    j,
    (0.47 * width * i.jaw_width, -0.50 * length, 0.06),
    (0.13 * i.chin, -0.98 * length, 0.55),
    0.15,
    0.15,
  )
  # The chin is on the jaw, and its blend with the skull is wide, so that an open mouth stretches
  # the cheeks.
  jaw = union(bone, ball(j, (0.0, -1.00 * length, 0.60), 0.155 * i.chin), 0.14)
  skin = union(skull, jaw, 0.28)
  cheek = (0.40 * width, -0.27 + 0.05 * r.smile, 0.47)
  skin = union(skin, ball(s, cheek, 0.17 + 0.035 * i.cheekbone + 0.02 * r.smile), 0.20)
  fat = ball(s, (0.36 * width, -0.58 * length, 0.38), 0.17 + 0.06 * i.cheek_fat)
  skin = union(skin, fat, 0.22)
  muzzle = ellipsoid(s, (0.0, r.mouth_y + 0.02, 0.48), (0.30 * width, 0.27, 0.33))
  skin = union(skin, muzzle, 0.16)
  lift = 0.02 * m.brow_raise
  ridge = capsule(
    s, (0.10, 0.17 + lift, 0.745), (0.47, 0.19 + lift, 0.56), 0.05 + 0.035 * i.brow_ridge, 0.06
  )
  skin = union(skin, ridge, 0.16)
  skin = intersection(skin, -ball(s, (r.eye[0], -0.01, 0.96), 0.235), 0.12)  # sockets
  return skull, union(skin, nose(s, i, r), 0.10)


def _eyelids(skin, p, s, i, m, r):
  """Returns the skin with eyelids, a shell round each eyeball with a slot, and the eyeballs."""
  skin = union(skin, ball(s, r.eye, r.eye_radius + 0.028), 0.06)
  u, height, half = eye_frame(p, i, m, r)
  slot = jnp.maximum(jnp.abs(height) - half, r.eye[2] + 0.02 - p[2])
  # As for hair, a factor below 1 keeps rays from stepping through the thin lids.
  slot = jnp.maximum(slot, (jnp.abs(u) - 1) * 0.12) * 0.8
  skin = intersection(skin, -slot, 0.018)
  return skin, ball(s, r.eye, r.eye_radius)


def _ears(skin, s, i):
  width = i.head_width
  ear = ellipsoid(s, (0.76 * width, -0.10, -0.06), (0.07, 0.20 * i.ear, 0.125 * i.ear))
  hollow = ellipsoid(s, (0.83 * width, -0.08, 0.0), (0.06, 0.12 * i.ear, 0.06))
  return union(skin, intersection(ear, -hollow, 0.05), 0.05)


def _neck(skin, torso, i):
  throat = 0.31 + 0.06 * i.jaw_width
  neck = capsule(torso, (0.06, -0.75, -0.28), (0.08, -1.7, -0.36), throat, throat + 0.08)
  return union(skin, neck, 0.12)


def _inside_mouth(s, j, m, r):
  """Returns distances to the teeth, two arcs of which the lower moves with the jaw, and tongue."""
  bite = jnp.abs(norm(s[0], s[2] - 0.38) - 0.32) - 0.03
  below = jnp.abs(norm(j[0], j[2] - 0.38) - 0.31) - 0.03
  teeth = jnp.minimum(
    jnp.maximum(bite, jnp.abs(s[1] - r.mouth_y - 0.025) - 0.08),
    jnp.maximum(below, jnp.abs(j[1] - r.mouth_y + 0.075) - 0.035),
  )
  out = m.tongue_out
  tongue = ellipsoid(j, (0.0, r.mouth_y - 0.10 + 0.04 * out, 0.52 + 0.12 * out), (0.17, 0.07, 0.26))
  return teeth, tongue


def _clothes(torso):
  shoulders = capsule(torso, (0.35, -1.62, -0.40), (1.20, -1.92, -0.42), 0.40, 0.36)
  cloth = union(shoulders, ellipsoid(torso, (0.0, -2.4, -0.3), (1.0, 1.0, 0.55)), 0.2)
  collar = capsule(torso, (0.0, -1.1, -0.36), (0.0, -1.7, -0.36), 0.46, 0.52)
  return union(cloth, intersection(collar, torso[1] + 1.42, 0.05), 0.08)


def closest(d):
  """Returns the distance to the nearest of the solids in `d`."""
  distance = d.skin
  for name in SOLIDS[1:] + (('worn',) if hasattr(d, 'worn') else ()):
    distance = jnp.minimum(distance, getattr(d, name))
  return distance


def is_nearest(d, *names):
  """Returns where one of the named solids is the nearest one."""
  distance = getattr(d, names[0])
  for name in names[1:]:
    distance = jnp.minimum(distance, getattr(d, name))
  # XLA may compute `d` twice and round differently, so equality would leave holes.
  return distance <= closest(d) + 1e-5


def nearest(q, i, m, r):
  """Returns the distance from world point q to the nearest solid."""
  return closest(parts(q, i, m, r))
