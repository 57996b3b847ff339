"""Rendered clips in memory, and the triplets drawn from them: no TensorFlow, no files.

`render_clips` feeds the same `hybrid_jax.training.triplets` that reads folders of videos.
"""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from hybrid_jax.world import landmarks, people, render


@dataclasses.dataclass(frozen=True)
class RenderedClip:
  """One shot of one rendered person, with everything that is known about it.

  Attributes:
    identity, name: as of any clip; here the numbers of person and clip.
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
  """Compiled rendering at one size; the compile of some seconds is paid at the first frame."""

  def __init__(self, size: int):
    def draw(identity, motion, scene, outfit):
      image, masks = render.render_regions(identity, motion, scene, size, outfit)
      return to_byte(image), to_byte(masks), landmarks.landmarks(identity, motion)

    self._draw = jax.jit(draw)

  def __call__(
    self, identity, motion, scene, outfit=None
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors in [0, 1] -> image and masks (uint8), and landmarks, of one frame."""
    return jax.device_get(self._draw(identity, motion, scene, outfit))

  def clip(self, person: int, clip: int, times: np.ndarray) -> RenderedClip:
    """Clip `clip` of person number `person` at the given times, seconds."""
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


def to_byte(x: jax.Array) -> jax.Array:
  """[0, 1] -> uint8."""
  return jnp.round(x * 255).astype(jnp.uint8)


def vectors(person: int, clip: int, times: np.ndarray) -> tuple[np.ndarray, ...]:
  """True identity (47,), motion (t, 16) and scene (13,) of a clip at `times` (t,), seconds."""
  return jax.device_get(_vectors(person, clip, jnp.asarray(times, jnp.float32)))


@jax.jit
def _vectors(person, clip, times):
  return people.identity(person), people.act(person, clip, times), people.scene(person, clip)


def spread_times(frames: int) -> np.ndarray:
  """Moments that many, evenly over a clip: triplets want frames that differ."""
  return (np.arange(frames) + 0.5) / frames * people.CLIP_SECONDS


def iterate(
  split: str, *, persons: int, clips: int, frames: int, size: int
) -> Iterator[RenderedClip]:
  """Clips of the first `persons` people of a split, one at a time (see `people.SPLITS`)."""
  renderer = Renderer(size)
  with tqdm(total=persons * clips, desc=f'rendering {split}', unit='clip') as bar:
    for person in range(persons):
      for clip in range(clips):
        yield renderer.clip(people.SPLITS[split] + person, clip, spread_times(frames))
        bar.update()
