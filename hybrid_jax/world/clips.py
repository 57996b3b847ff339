"""Rendered clips in memory: frames, masks and landmarks with the vectors that they were drawn from.

No TensorFlow and no files. `iterate` feeds the same `hybrid_jax.training.triplets` that reads
folders of videos.
"""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from hybrid_jax.world import landmarks, people, render


@dataclasses.dataclass(frozen=True)
class RenderedClip:
  """One shot of one rendered person, with its ground truth.

  Attributes:
    identity, name: the number of the person, and of person and clip, as strings.
    frames: (t, size, size, 3) uint8 RGB.
    times: (t,) seconds.
    identity_vector (47,), motion (t, 16), scene (13,): true parameters, each in [0, 1].
    points: (t, 68, 2) landmarks, x right and y down, in [0, 1] inside the image.
    masks: (t, size, size, 4) uint8, 255 on mouth, eyes, brows and face (`render.REGIONS`).
  """

  identity: str
  name: str
  frames: np.ndarray
  times: np.ndarray
  identity_vector: np.ndarray
  motion: np.ndarray
  scene: np.ndarray
  points: np.ndarray
  masks: np.ndarray


class Renderer:
  """Renders single frames of one size in px; the first one takes seconds, to compile."""

  def __init__(self, size: int):
    self.size = size

  def __call__(
    self, identity, motion, scene, outfit=None
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Renders one frame.

    Args:
      identity: (47,), motion: (16,), scene: (13,), outfit: (8,) or None; each in [0, 1].

    Returns:
      image (size, size, 3) and masks (size, size, 4), uint8, and landmarks (68, 2) as in
      `RenderedClip.points`.
    """
    # None and an outfit are two programs, each compiled when it is first needed.
    return jax.device_get(_draw(identity, motion, scene, outfit, self.size))

  def clip(self, person: int, clip: int, times: np.ndarray) -> RenderedClip:
    """Renders clip number `clip` of person number `person` at `times` (t,), seconds."""
    identity, motion, scene = vectors(person, clip, times)
    drawn = [self(identity, m, scene) for m in motion]
    frames, masks, points = (np.stack(part) for part in zip(*drawn, strict=True))
    return RenderedClip(
      identity=f'{person:07d}',
      name=f'{person:07d}-{clip}',
      frames=frames,
      times=np.asarray(times, np.float32),
      identity_vector=identity,
      motion=motion,
      scene=scene,
      points=points,
      masks=masks,
    )


# One function of the module, so that all renderers of a size share its compiled program.
@functools.partial(jax.jit, static_argnums=4)
def _draw(identity, motion, scene, outfit, size):
  image, masks = render.render_regions(identity, motion, scene, size, outfit)
  # Rounded on the device: a quarter of the bytes are copied to the host.
  return to_byte(image), to_byte(masks), landmarks.landmarks(identity, motion)


def to_byte(x: jax.Array) -> jax.Array:
  """Rounds an image in [0, 1] to uint8."""
  return jnp.round(x * 255).astype(jnp.uint8)


def vectors(person: int, clip: int, times: np.ndarray) -> tuple[np.ndarray, ...]:
  """Returns identity (47,), motion (t, 16) and scene (13,) of a clip at `times` (t,), seconds."""
  return jax.device_get(_vectors(person, clip, jnp.asarray(times, jnp.float32)))


# Person and clip are traced, so that one program serves all of them.
@jax.jit
def _vectors(person, clip, times):
  return people.identity(person), people.act(person, clip, times), people.scene(person, clip)


def spread_times(frames: int) -> np.ndarray:
  """Returns (frames,) times in seconds, spread evenly over a clip."""
  # Triplets need frames of one clip that differ, and neighbours in time hardly do.
  return (np.arange(frames) + 0.5) / frames * people.CLIP_SECONDS


def iterate(
  split: str, *, persons: int, clips: int, frames: int, size: int
) -> Iterator[RenderedClip]:
  """Renders `clips` clips of each of the first `persons` people of a split of `people.SPLITS`."""
  renderer = Renderer(size)
  for person in range(persons):
    for clip in range(clips):
      yield renderer.clip(people.SPLITS[split] + person, clip, spread_times(frames))
