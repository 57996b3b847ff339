"""Seeded talking motion as a function of continuous time."""

import zlib

import jax
import jax.numpy as jnp

from hybrid_jax.world.algebra import bump, clip01, smoothstep
from hybrid_jax.world.parameters import MOTION, Table


def _noise(key: jax.Array, name: str, rate: float, t: jax.Array) -> jax.Array:
  """Returns band-limited noise of about unit variance: five sines below `rate` Hz."""
  # Keyed by name and not by position, so that a new channel leaves the others unchanged. hash()
  # differs between processes, crc32 does not.
  key = jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)
  key_f, key_phase = jax.random.split(key)
  frequency = rate * jax.random.uniform(key_f, (5, 1), minval=0.35)
  phase = jax.random.uniform(key_phase, (5, 1))
  # A sine has variance 1/2, so five of them need sqrt(2 / 5) = 0.63.
  return 0.63 * jnp.sin(2 * jnp.pi * (frequency * t + phase)).sum(0)


def act(key: jax.Array, t: jax.Array) -> jax.Array:
  """Returns motion vectors (n, 16) in [0, 1] at times `t` (n,), seconds; a clip is a `key`.

  Pose below 0.35 Hz, smile and brows below 0.5 Hz, speech at 1 to 3.5 Hz under a slow envelope,
  a blink about every three seconds, winks rare.
  """

  def noise(name, rate):
    return _noise(key, name, rate, t)

  key_blink = jax.random.fold_in(key, 1)
  # Speech comes in phrases: an envelope opens and closes all channels of the mouth together.
  talk = smoothstep(-0.4, 0.3, noise('talk', 0.25))
  # Both eyes share the blink; each has winks of its own.
  blink = bump((t / 2.9 + jax.random.uniform(key_blink)) % 1 - 0.5, 0.035)
  yawn = 0.5 * clip01(noise('yawn', 0.1) - 1.3)
  values = {
    'yaw': 0.24 * noise('yaw', 0.3),
    'pitch': 0.11 * noise('pitch', 0.35),
    'roll': 0.07 * noise('roll', 0.3),
    'jaw_open': clip01(talk * (0.35 + 0.35 * noise('jaw_open', 3.5)) + yawn),
    'smile': 0.22 + 0.42 * noise('smile', 0.25),
    'pucker': clip01(talk * (0.1 + 0.45 * noise('pucker', 1.6))),
    'lip_raise': clip01(talk * 0.4 * noise('lip_raise', 1.2) + 0.1),
    'mouth_shift': 0.4 * noise('mouth_shift', 0.4),
    'tongue_out': clip01(talk * noise('tongue_out', 2.0)),
    'brow_raise': 0.15 + 0.4 * noise('brow_raise', 0.5),
    'brow_frown': clip01(0.5 * noise('brow_frown', 0.3) - 0.1),
    'blink_left': clip01(blink + smoothstep(1.6, 2.1, noise('blink_left', 0.3))),
    'blink_right': clip01(blink + smoothstep(1.6, 2.1, noise('blink_right', 0.3))),
    'squint': clip01(0.4 * noise('squint', 0.3)),
    'gaze_yaw': 0.2 * noise('gaze_yaw', 0.5),
    'gaze_pitch': 0.1 * noise('gaze_pitch', 0.4),
  }
  return _to_vector(MOTION, values)


def _to_vector(table: Table, values: dict[str, jax.Array]) -> jax.Array:
  columns = [(values[name] - lo) / (hi - lo) for name, (lo, hi) in table.items()]
  return clip01(jnp.stack(columns, -1))
