"""Stage 3: pictures from latents (eqs. 3 and 4), arranged and written in segments.

A killed run resumes after its last finished segment, with the same frames bit for bit.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.media.prefetch import prefetch
from hybrid_jax.media.segments import PictureTarget, VideoTarget
from hybrid_jax.progress import Progress
from hybrid_jax.reenactment import edits
from hybrid_jax.reenactment.arrangement import Arrangement
from hybrid_jax.reenactment.in_plane import InPlane
from hybrid_jax.reenactment.inputs import Inputs
from hybrid_jax.reenactment.model import Model
from hybrid_jax.reenactment.motion import Plan
from hybrid_jax.reenactment.quality import Watch

# Frames per segment, rounded up to whole batches. A killed run loses at most 10 s of a clip, and
# each segment costs a key frame: shorter ones would make larger files.
SEGMENT = 256
WRITE_AHEAD = 8  # pictures that wait to be encoded


class Layout(Arrangement):
  """Arranges the results of a clip, see `Arrangement`, whose pictures it decodes.

  Raises:
    InputError: the layout shows the driver, and a motion file has no pictures.
  """

  def __init__(self, layout: str, inputs: Inputs, size: int, in_plane: InPlane | None = None):
    super().__init__(layout, inputs.source, size, in_plane)
    if inputs.driving is None and self.shows_driver:
      raise InputError(
        f'--layout={layout}: shows the driving clip, and a motion file has no pictures'
      )
    self.driving = inputs.driving

  def _drivers(self, rows: np.ndarray, frames: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the driver's head of each row, which moves as that of the result does."""
    for row, frame, rgb in zip(rows, frames, self.driving.pictures(frames), strict=True):
      yield self.driver(rgb, self.driving.squares[frame], row)

  def __call__(
    self, images: Iterable[np.ndarray], rows: np.ndarray, frames: np.ndarray, seconds: np.ndarray
  ) -> Iterator[np.ndarray]:
    """Yields a picture (*shape, 3) uint8 for each of n results.

    Args:
      images: the results (size, size, 3) uint8.
      rows: (n,) number of the row of each.
      frames: (n,) number of the driving frame of each.
      seconds: (n,) time of each since the first picture of the whole run.
    """
    if self.layout == 'result':
      yield from map(self._result, images, rows)
      return
    track = self.source.track
    # A moving source runs on the clock of the result, and stands still after its end. 1 ns, since
    # equal times of both clocks may differ in their last bit as floats.
    shown = np.searchsorted(track.seconds - track.seconds[0], seconds + 1e-9, 'right') - 1
    numbers = np.maximum(shown, 0)
    # Only the inputs that the layout shows are decoded.
    nothing = itertools.repeat(None)
    backgrounds = self.source.pictures(numbers) if self.shows_source else nothing
    drivers = self._drivers(rows, frames) if self.shows_driver else nothing
    for image, row, number, background, driver in zip(
      images,
      rows,
      numbers,
      backgrounds,
      drivers,
      strict=False,  # `nothing` has no end
    ):
      yield self.picture(image, row, number, background, driver)


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
  """Everything that determines the pictures.

  Attributes:
    model: whose generator draws. W_S: (1, l, d), the identity latent w_id of the source.
    rows: the motion, s_f (d,) of every row in order.
    plan: which row each picture shows, and when.
    frames: (n,) the driving frame of each row.
    layout: how the pictures are arranged.
    edits: of the person, over the seconds since the first picture.
    batch_size: frames drawn together.
  """

  model: Model
  W_S: jax.Array
  rows: Iterator[np.ndarray]
  plan: Plan
  frames: np.ndarray
  layout: Layout
  edits: Sequence[edits.Edit]
  batch_size: int

  def images(self, start: int) -> Iterator[np.ndarray]:
    """Yields results (size, size, 3) uint8 from the picture of number `start` on."""
    # The rows before `start` are read and dropped: smoothing and jitter need all of them, and a row
    # costs nothing beside a picture.
    latents = itertools.islice(self._latents(), start, None)
    return edits.images(
      self.model, self.W_S, latents, self.batch_size, self.edits, self.seconds(start)
    )

  def seconds(self, start: int) -> np.ndarray:
    """Returns seconds since the first picture, from the picture of number `start` on."""
    # Since picture 0 and not since `start`: the curve of an edit goes on where the killed run was.
    return (self.plan.ticks[start:] - self.plan.ticks[0]) * float(self.plan.time_base)

  def _latents(self) -> Iterator[np.ndarray]:
    """Yields the row of each picture; the plan may repeat rows or leave them out."""
    at, row = -1, None
    for wanted in self.plan.rows:
      while at < wanted:
        at, row = at + 1, next(self.rows)
      yield row


@dataclasses.dataclass(frozen=True)
class Rendered:
  """What stage 3 reports.

  Attributes:
    reused: pictures that an earlier run had rendered.
    sound: a note if the sound was transcoded or left out; ''.
  """

  reused: int
  sound: str


def render(
  scene: Scene,
  target: VideoTarget | PictureTarget,
  folder: pathlib.Path,
  progress: Progress,
  watch: Watch | None = None,
) -> Rendered:
  """Renders the segments that are not in `folder` yet, and joins all of them into the target.

  Args:
    watch: measures the results; None measures nothing.

  Raises:
    FloatingPointError: a result is not finite.
  """
  plan, layout, batch = scene.plan, scene.layout, scene.batch_size
  # Whole batches: a resumed run then computes the same batches, so the same frames bit for bit.
  length = -(-SEGMENT // batch) * batch
  count = -(-len(plan) // length)
  # A run that was killed while joining has all segments, and renders nothing again.
  done = min(target.done(folder), count)
  start = min(done * length, len(plan))
  images = scene.images(start)
  # Measured before they are arranged: the quality is that of the result, not of the layout.
  if watch:
    images = watch.frames(images, start)
  rows = plan.rows[start:]
  shown = layout(images, rows, scene.frames[rows], scene.seconds(start))
  # Drawing and arranging run in a thread, so that the device works while this one encodes.
  pictures = iter(progress(prefetch(shown, WRITE_AHEAD), 're-enacting', len(plan) - start))
  for k in range(done, count):
    numbers = range(k * length, min((k + 1) * length, len(plan)))
    with target.segment(folder, k, layout.shape) as write:
      for number, picture in zip(numbers, pictures, strict=False):
        write(picture, plan.time(number))
  # To their ends: `zip` stops on its first argument, before the progress bar and the thread have
  # ended; and the jitter is that of all rows, of which a constant frame rate may show only some.
  for _ in pictures:
    pass
  for _ in scene.rows:
    pass
  return Rendered(start, target.finish(folder, count))
