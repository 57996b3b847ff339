"""Stage 3: pictures from latents (eqs. 3 and 4), arranged and written in segments.

A killed run resumes after its last finished segment, with the same frames bit for bit.
"""

import array
import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.media import align
from hybrid_jax.media.composite import Paste, fit
from hybrid_jax.media.prefetch import prefetch
from hybrid_jax.media.segments import PictureTarget, VideoTarget
from hybrid_jax.progress import Progress
from hybrid_jax.reenactment import edits
from hybrid_jax.reenactment.in_plane import InPlane
from hybrid_jax.reenactment.inputs import Inputs
from hybrid_jax.reenactment.model import Model
from hybrid_jax.reenactment.motion import Plan
from hybrid_jax.reenactment.quality import Watch

# Frames per segment, rounded up to whole batches. A killed run loses at most 10 s of a clip, and
# each segment costs a key frame: shorter ones would make larger files.
SEGMENT = 256
WRITE_AHEAD = 8  # pictures that wait to be encoded


class Layout:
  """Arranges each result with its source and driver.

  Args:
    layout: one of `options.LAYOUTS`.
    size: side of the results, px.
    in_plane: where the head of each row goes; None if it stays.

  Attributes:
    shape: (h, w) of the pictures.
    seams: of each pasted picture, the mean step across the border in grey levels.

  Raises:
    InputError: the layout shows the driver, and a motion file has no pictures.
  """

  def __init__(self, layout: str, inputs: Inputs, size: int, in_plane: InPlane | None = None):
    if inputs.driving is None and layout in ('side-by-side', 'grid'):
      raise InputError(
        f'--layout={layout}: shows the driving clip, and a motion file has no pictures'
      )
    self.layout, self.source, self.driving = layout, inputs.source, inputs.driving
    self.size, self.in_plane = size, in_plane
    # Not a list: between the frames its numbers would leave holes in the heap, 40 kB each.
    self.seams = array.array('d')
    self._paste: tuple[np.ndarray, Paste] | None = None
    self.shape = {
      'result': (size, size),
      'pasted': self.source.track.size,
      'side-by-side': (size, 2 * size),
      'grid': (2 * size, 2 * size),
    }[layout]

  def _pasted(self, rgb: np.ndarray, image: np.ndarray, number: int, row: int) -> np.ndarray:
    """Returns the whole source frame of a `number`, with the result of a row at its place."""
    own = place = self.source.squares[number]
    if self.in_plane:
      place = self.in_plane.moved(self.in_plane.base(own), row)
    squares = np.stack((place, own))
    # The mask and the maps are kept: a still may have one place for the whole run.
    if self._paste is None or not np.array_equal(self._paste[0], squares):
      self._paste = squares, Paste(place, rgb.shape[:2], own)
    picture, seam = self._paste[1](rgb, image)
    self.seams.append(seam)
    return picture

  def _result(self, image: np.ndarray, row: int) -> np.ndarray:
    """Returns the result of a row alone, moved, its border repeated where it leaves a gap."""
    if not self.in_plane:
      return image
    own = align.upright((0, 0, self.size, self.size))
    return align.cut(image, self.in_plane.still(own, row), self.size)

  def _drivers(self, rows: np.ndarray, frames: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the driver's head of each row, which moves as that of the result does."""
    if not self.in_plane:
      yield from self.driving.crops(frames, self.size)
      return
    for row, frame, rgb in zip(rows, frames, self.driving.pictures(frames), strict=True):
      yield align.cut(rgb, self.in_plane.still(self.driving.squares[frame], row), self.size)

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
    pasted, beside = self.layout in ('pasted', 'grid'), self.layout in ('side-by-side', 'grid')
    backgrounds = self.source.pictures(numbers) if pasted else nothing
    drivers = self._drivers(rows, frames) if beside else nothing
    for image, row, number, background, driver in zip(
      images,
      rows,
      numbers,
      backgrounds,
      drivers,
      strict=False,  # `nothing` has no end
    ):
      if self.layout == 'pasted':
        yield self._pasted(background, image, number, row)
      elif self.layout == 'side-by-side':
        yield np.hstack((driver, self._result(image, row)))
      else:
        head = align.cut(background, self.source.squares[number], self.size)
        whole = fit(self._pasted(background, image, number, row), (self.size, self.size))
        yield np.vstack((np.hstack((head, driver)), np.hstack((self._result(image, row), whole))))


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
