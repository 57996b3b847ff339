"""Stage 3: latents to pictures, arranged, written in segments from which a killed run goes on."""

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
from hybrid_jax.reenactment.inputs import Inputs
from hybrid_jax.reenactment.model import Model
from hybrid_jax.reenactment.motion import Plan
from hybrid_jax.reenactment.quality import Watch

SEGMENT = 256  # frames per segment, rounded up to whole batches
WRITE_AHEAD = 8  # pictures that wait to be encoded


class Layout:
  """Arranges each result with its source and driver.

  Args:
    layout: one of `options.LAYOUTS`.
    size: side of the results, px.

  Attributes:
    shape: (h, w) of the pictures.
    seams: of each pasted picture, the mean step across the border in grey levels.

  Raises:
    InputError: the layout shows the driver, and a motion file has no pictures.
  """

  def __init__(self, layout: str, inputs: Inputs, size: int):
    if inputs.driving is None and layout in ('side-by-side', 'grid'):
      raise InputError(
        f'--layout={layout}: shows the driving clip, and a motion file has no pictures'
      )
    self.layout, self.source, self.driving = layout, inputs.source, inputs.driving
    self.size = size
    # Not a list: between the frames its numbers would leave holes in the heap, 40 kB each.
    self.seams = array.array('d')
    self._paste: tuple[int, Paste] | None = None
    self.shape = {
      'result': (size, size),
      'pasted': self.source.track.size,
      'side-by-side': (size, 2 * size),
      'grid': (2 * size, 2 * size),
    }[layout]

  def _pasted(self, rgb: np.ndarray, image: np.ndarray, number: int) -> np.ndarray:
    """The whole source frame of a `number` with the result in the place of its head."""
    if self._paste is None or self._paste[0] != number:
      self._paste = number, Paste(self.source.squares[number], rgb.shape[:2])
    picture, seam = self._paste[1](rgb, image)
    self.seams.append(seam)
    return picture

  def __call__(
    self, images: Iterable[np.ndarray], frames: np.ndarray, seconds: np.ndarray
  ) -> Iterator[np.ndarray]:
    """Pictures (*shape, 3) of n results (size, size, 3), their driving frames and times (n,)."""
    if self.layout == 'result':
      yield from images
      return
    track = self.source.track
    # A moving source runs on the clock of the result, and stands still after its end.
    shown = np.searchsorted(track.seconds - track.seconds[0], seconds + 1e-9, 'right') - 1
    numbers = np.maximum(shown, 0)
    nothing = itertools.repeat(None)
    pasted, beside = self.layout in ('pasted', 'grid'), self.layout in ('side-by-side', 'grid')
    backgrounds = self.source.pictures(numbers) if pasted else nothing
    drivers = self.driving.crops(frames, self.size) if beside else nothing
    for image, number, background, driver in zip(
      images, numbers, backgrounds, drivers, strict=False
    ):
      if self.layout == 'pasted':
        yield self._pasted(background, image, number)
      elif self.layout == 'side-by-side':
        yield np.hstack((driver, image))
      else:
        head = align.cut(background, self.source.squares[number], self.size)
        whole = fit(self._pasted(background, image, number), (self.size, self.size))
        yield np.vstack((np.hstack((head, driver)), np.hstack((image, whole))))


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
  """Everything that the pictures follow from.

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
    """Results (size, size, 3) uint8 from the picture of number `start` on."""
    latents = itertools.islice(self._latents(), start, None)
    return edits.images(
      self.model, self.W_S, latents, self.batch_size, self.edits, self.seconds(start)
    )

  def seconds(self, start: int) -> np.ndarray:
    """Times since the first picture, from the picture of number `start` on."""
    return (self.plan.ticks[start:] - self.plan.ticks[0]) * float(self.plan.time_base)

  def _latents(self) -> Iterator[np.ndarray]:
    """The row of each picture; a row is repeated or left out as the plan has it."""
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
    sound: what was done to the sound if it was not copied; ''.
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
  done = min(target.done(folder), count)
  start = min(done * length, len(plan))
  images = scene.images(start)
  if watch:
    images = watch.frames(images, start)
  shown = layout(images, scene.frames[plan.rows[start:]], scene.seconds(start))
  pictures = iter(progress(prefetch(shown, WRITE_AHEAD), 're-enacting', len(plan) - start))
  for k in range(done, count):
    numbers = range(k * length, min((k + 1) * length, len(plan)))
    with target.segment(folder, k, layout.shape) as write:
      for number, picture in zip(numbers, pictures, strict=False):
        write(picture, plan.time(number))
  for _ in pictures:  # ends the progress bar and the thread
    pass
  for _ in scene.rows:  # to the end, for the figures measured on the rows
    pass
  return Rendered(start, target.finish(folder, count))
