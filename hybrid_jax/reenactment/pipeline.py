"""Re-enactment in three stages, each from files to files: track the face, read its motion, render.

Every stage leaves a finished file in the work folder, from which a killed run goes on.
"""

import array
import dataclasses
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction

import numpy as np

from hybrid_jax import cli
from hybrid_jax.errors import InputError
from hybrid_jax.media import align, replacing, stills, tracking, video
from hybrid_jax.media.composite import Paste, fit
from hybrid_jax.media.landmarkers import Landmarker, open_landmarker, read_landmarks
from hybrid_jax.media.prefetch import prefetch
from hybrid_jax.provenance.sidecar import sha256
from hybrid_jax.reenactment import edits, motion_file
from hybrid_jax.reenactment.edits import Edit
from hybrid_jax.reenactment.model import Model
from hybrid_jax.reenactment.quality import Watch

LAYOUTS = ('result', 'pasted', 'side-by-side', 'grid')
MOVING_SUFFIXES = ('.mp4', '.m4v', '.mov', '.mkv', '.webm', '.avi', '.mpg', '.ts')
SEGMENT = 256  # frames, about
TIDY = 32  # frames, after which free memory goes back to the system
AHEAD = 8  # frames that are read, and that wait to be written
SHEET = 6  # pictures in a row and in a column of a sheet of crops

Progress = Callable[[Iterable, str, int | None], Iterable]


@dataclasses.dataclass(frozen=True)
class Cropping:
  """How heads are found and cut out of one input.

  Attributes:
    detector: a YuNet .onnx or a FaceLandmarker .task file; '' for none.
    landmarks: a file of landmarks (see `landmarkers.read_landmarks`); '' for none.
    face: which one: largest, left, right, a number from 0 on, or like=PICTURE.
    crop: 'ffhq', 'square' or 'whole' (see `tracking.squares`), '' is as the model was trained;
      without landmarks it is 'whole' always.
    smooth: of the crop over time, seconds.
  """

  detector: str = ''
  landmarks: str = ''
  face: str = 'largest'
  crop: str = ''
  smooth: float = 0.1

  def kind(self, model: Model) -> str:
    return (self.crop or model.crop) if self.sought else 'whole'

  @property
  def sought(self) -> bool:
    """Whether anything says where the face is."""
    return bool(self.detector or self.landmarks)


@dataclasses.dataclass(frozen=True, eq=False)
class Input:
  """A picture or clip and the squares of its heads.

  clip: its track; a picture has one frame. squares: (t, 4).
  """

  path: str
  clip: tracking.Track
  squares: np.ndarray
  moving: bool


def is_moving(path: str) -> bool:
  """Whether a path is a clip, by its suffix; a GIF is a picture here."""
  return pathlib.Path(path).suffix.lower() in MOVING_SUFFIXES


def work_folder(output: str, inputs: Sequence[str], options: object, model: str) -> pathlib.Path:
  """The folder beside `output` in which its parts grow, empty unless it holds this very job's."""
  path = pathlib.Path(output)
  folder = path.with_name(f'.{path.name}.parts')
  job = json.dumps([repr(options), model, [sha256(name) for name in inputs if name]])
  note = folder / 'job.json'
  if not note.is_file() or note.read_text() != job:
    if folder.exists():
      shutil.rmtree(folder)
    try:
      folder.mkdir()
    except OSError as error:
      raise InputError(f'{folder}: cannot be made ({error.strerror})') from error
    with replacing(note) as part:
      part.write_text(job)
  return folder


# --- Stage 1: the face ---------------------------------------------------------------------------


def _choice(how: Cropping, model: Model, landmarker: Landmarker | None) -> tracking.Choice:
  if not how.face.startswith('like='):
    return tracking.chooser(how.face)
  path = how.face.removeprefix('like=')
  if landmarker is None:
    raise InputError(f'--face={how.face}: needs --face-detector')
  rgb, embed = stills.read_image(path), model.embedder()
  found = landmarker.detect(rgb)
  if not found:
    raise InputError(f'{path}: no face found; give another picture to look like')
  wanted = embed(align.cut(rgb, align.ffhq(found[0].landmarks), model.size))
  return tracking.likeness(wanted, embed, model.size)


def open_picture(path: str, how: Cropping, model: Model) -> Input:
  """A still and the head in it.

  Raises:
    InputError: unreadable, no face, or not square where nothing says where the face is.
  """
  rgb = stills.read_image(path)
  size, face = rgb.shape[:2], None
  if how.landmarks:
    points = read_landmarks(how.landmarks, size, 1)
  elif how.detector:
    landmarker = open_landmarker(how.detector)
    found = landmarker.detect(rgb)
    if not found:
      raise InputError(
        f'{path}: no face found; give another picture, or a square crop without --face-detector'
      )
    face = _choice(how, model, landmarker)(rgb, found)
    points = face.landmarks[None]
  else:
    points = np.full((1, 5, 2), np.nan)
  boxes = np.full((1, 4), np.nan)
  clip = tracking.Track(np.zeros(1, np.int64), Fraction(1), points, boxes, (0,), size, '')
  clip = tracking.with_landmarks(clip, points)
  if face is not None:
    clip = dataclasses.replace(clip, boxes=np.array([face.box]))
  return Input(path, clip, _squares(path, clip, how, model), False)


def open_clip(path: str, how: Cropping, model: Model, store: pathlib.Path, bar: Progress) -> Input:
  """A clip, tracked; the track is kept at `store` (.npz) and read from there if it exists.

  Raises:
    InputError: unreadable, no face in any frame, or not square where nothing says where it is.
  """
  if store.is_file():
    clip = tracking.Track.load(store)
  else:
    landmarker = open_landmarker(how.detector) if how.detector and not how.landmarks else None
    choose, total = _choice(how, model, landmarker), video.probe(path).frames
    if how.kind(model) == 'whole':
      tracking.squares(_first(path), 'whole', 1, 0)  # told before the whole clip is read
    clip = tracking.track(path, landmarker, choose, progress=lambda x: bar(x, 'tracking', total))
    if how.landmarks:
      clip = tracking.with_landmarks(clip, read_landmarks(how.landmarks, clip.size, len(clip)))
    clip.save(store)
  return Input(path, clip, _squares(path, clip, how, model), True)


def _first(path: str) -> tracking.Track:
  info, none = video.probe(path), np.full((1, 5, 2), np.nan)
  size = info.height, info.width
  return tracking.Track(np.zeros(1, np.int64), info.time_base, none, none[:, :4, 0], (0,), size, '')


def _squares(path: str, clip: tracking.Track, how: Cropping, model: Model) -> np.ndarray:
  try:
    return tracking.squares(clip, how.kind(model), model.config.data.crop_scale, how.smooth)
  except InputError as error:
    raise InputError(f'{path}: {error}') from None


def pick(source: Input, numbers: Iterable[int]) -> Iterator[np.ndarray]:
  """Pictures of the frames numbered, which must not decrease; the last goes on after the end."""
  if not source.moving:
    rgb = stills.read_image(source.path)
    yield from (rgb for _ in numbers)
    return
  frames = itertools.islice(video.read_frames(source.path), len(source.clip))
  at, rgb = -1, None
  for number in numbers:
    while at < min(number, len(source.clip) - 1):
      at, rgb = at + 1, next(frames).rgb
    yield rgb


def crops(source: Input, numbers: Sequence[int], size: int) -> Iterator[np.ndarray]:
  """(size, size, 3) uint8 heads of the frames numbered."""
  for number, rgb in zip(numbers, pick(source, numbers), strict=True):
    yield align.cut(rgb, source.squares[min(number, len(source.clip) - 1)], size)


def sheet(source: Input, size: int) -> list[list[np.ndarray]]:
  """Rows of what the model sees of a clip, evenly over its length."""
  count = min(len(source.clip), SHEET * SHEET)
  numbers = np.linspace(0, len(source.clip) - 1, count).round().astype(int).tolist()
  cells = list(crops(source, numbers, size))
  return [cells[k : k + SHEET] for k in range(0, len(cells), SHEET)]


# --- Stage 2: its motion -------------------------------------------------------------------------


def missing(driving: Input, how: Cropping) -> np.ndarray:
  """(t,) bool: frames whose face was sought and not found."""
  return driving.clip.missing if how.sought else np.zeros(len(driving.clip), bool)


def extract(
  model: Model,
  driving: Input,
  how: Cropping,
  on_missing: str,
  store: str | os.PathLike,
  batch: int,
  bar: Progress,
) -> None:
  """Writes the motion of a tracked clip to `store`.

  Raises:
    InputError: a face is missing and `on_missing` is 'fail'.
  """
  clip, gone = driving.clip, missing(driving, how)
  if on_missing == 'fail' and gone.any():
    k = int(gone.argmax())
    raise InputError(
      f'{driving.path}: no face in frame {k} ({float(clip.time(k)):.2f} s) and {gone.sum() - 1} '
      'more; --on-missing=hold, interpolate or skip goes on'
    )
  found = np.flatnonzero(~gone)
  heads = prefetch(crops(driving, found.tolist(), model.size), AHEAD)
  rows = model.deformations(bar(heads, 'reading motion', len(found)), batch)
  kept = found if on_missing == 'skip' else np.arange(len(clip))
  motion_file.write(
    store,
    motion_file.fill(rows, gone, on_missing, clip.seconds),
    clip.ticks[kept],
    time_base=clip.time_base,
    widths=model.widths,
    starts=sorted({int(np.searchsorted(kept, cut)) for cut in clip.cuts} - {len(kept)}),
    model=model.digest(),
    driving=sha256(driving.path),
  )


# --- Stage 3: the pictures -----------------------------------------------------------------------


class Layout:
  """Arranges each result with its source and driver; keeps the seams of what it pasted.

  Args:
    layout: one of `LAYOUTS`. source: of the identity. driving: None for a motion file.
  """

  def __init__(self, layout: str, source: Input, driving: Input | None, size: int):
    if driving is None and layout in ('side-by-side', 'grid'):
      raise InputError(
        f'--layout={layout}: shows the driving video, not to be had of a motion file'
      )
    self.layout, self.source, self.driving, self.size = layout, source, driving, size
    self.seams = array.array('d')  # see `tracking.track`
    self._pastes: dict[int, Paste] = {}
    picture = source.clip.size
    self.shape = {
      'result': (size, size),
      'pasted': picture,
      'side-by-side': (size, 2 * size),
      'grid': (2 * size, 2 * size),
    }[layout]

  def _paste(self, rgb: np.ndarray, image: np.ndarray, number: int) -> np.ndarray:
    if number not in self._pastes:
      self._pastes = {number: Paste(self.source.squares[number], rgb.shape[:2])}  # the last alone
    picture, seam = self._pastes[number](rgb, image)
    self.seams.append(seam)
    return picture

  def __call__(
    self, images: Iterable[np.ndarray], frames: np.ndarray, times: np.ndarray
  ) -> Iterator[np.ndarray]:
    """Pictures of `shape` for n results (size, size, 3), their driving frames and seconds (n,)."""
    if self.layout == 'result':
      yield from images
      return
    clip = self.source.clip
    # A moving source runs on the clock of the result, and stands still after its end.
    shown = np.searchsorted(clip.seconds - clip.seconds[0], times + 1e-9, 'right') - 1
    numbers = np.maximum(shown, 0)
    pasted, beside = self.layout in ('pasted', 'grid'), self.layout in ('side-by-side', 'grid')
    nothing = itertools.repeat(None)
    backs = pick(self.source, numbers) if pasted else nothing
    drivers = crops(self.driving, frames, self.size) if beside else nothing
    for image, number, back, driver in zip(images, numbers, backs, drivers, strict=False):
      if self.layout == 'pasted':
        yield self._paste(back, image, number)
      elif self.layout == 'side-by-side':
        yield np.hstack((driver, image))
      else:
        head = align.cut(back, self.source.squares[number], self.size)
        whole = fit(self._paste(back, image, number), (self.size, self.size))
        yield np.vstack((np.hstack((head, driver)), np.hstack((image, whole))))


def render(
  model: Model,
  W_S: np.ndarray,
  rows: Iterator[np.ndarray],
  plan: motion_file.Plan,
  frames: np.ndarray,
  layout: Layout,
  target,
  folder: pathlib.Path,
  batch: int,
  bar: Progress,
  edit: Sequence[Edit] = (),
  watch: Watch | None = None,
) -> tuple[int, str]:
  """Renders what is not there yet, segment by segment, and joins all.

  Args:
    rows: s_f (d,) of every row of the motion, in order.
    plan: what to write.
    frames: the driving frame of each row.
    edit: of the person, over the seconds since the first picture.
    watch: measures the results on their way; None for nobody.

  Returns:
    (pictures that an earlier run had rendered, what became of the sound if it was not copied).
  """
  length = -(-SEGMENT // batch) * batch  # whole batches, so that a resumed run makes the same ones
  count = -(-len(plan) // length)
  done = min(target.done(folder), count)
  start = min(done * length, len(plan))

  def latents():
    at, row = -1, None
    for wanted in plan.rows:
      while at < wanted:
        at, row = at + 1, next(rows)
      yield row

  seconds = (plan.ticks[start:] - plan.ticks[0]) * float(plan.time_base)
  images = edits.images(model, W_S, itertools.islice(latents(), start, None), batch, edit, seconds)
  if watch:
    images = watch.frames(images, start)
  shown = layout(images, frames[plan.rows[start:]], seconds)
  pictures = iter(bar(prefetch(shown, AHEAD), 're-enacting', len(plan) - start))
  for k in range(done, count):
    numbers = range(k * length, min((k + 1) * length, len(plan)))
    with target.segment(folder, k, layout.shape) as write:
      for number, picture in zip(numbers, pictures, strict=False):
        write(picture, plan.time(number))
        if number % TIDY == 0:
          cli.trim_heap()
  for _ in pictures:  # ends the bar and the thread
    pass
  for _ in rows:  # to the end, for the figures taken on the way
    pass
  return start, target.finish(folder, count)
