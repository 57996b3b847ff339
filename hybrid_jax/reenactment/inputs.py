"""Stage 1: the source and the driving clip, with the square of the head in every frame.

Squares are (cx, cy, ax, ay) in px, as `media.align` defines them.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction

import imageio.v3 as imageio
import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.media import align, stills, tracking, turns, video
from hybrid_jax.media.identity import Embed
from hybrid_jax.media.landmarkers import Landmarker, open_landmarker, read_landmarks
from hybrid_jax.progress import Progress
from hybrid_jax.reenactment import in_plane
from hybrid_jax.reenactment.model import Model
from hybrid_jax.reenactment.options import CropOptions

SHEET = 6  # pictures per row and per column of a sheet of crops


@dataclasses.dataclass(frozen=True, eq=False)
class Input:
  """A still or a clip, and the squares of its head.

  Attributes:
    path: the file, or a name for a picture given as an array.
    track: times and landmarks; a still has one frame.
    squares: (t, 4), one for each frame.
    picture: (h, w, 3) uint8 of a still; None for a clip, whose frames are decoded when needed.
    kind: of the crop, see `tracking.squares`; '' is 'ffhq' until a model is chosen, see `recrop`.
    located: whether the face was located by a detector or by landmarks.
  """

  path: str
  track: tracking.Track
  squares: np.ndarray
  picture: np.ndarray | None
  kind: str
  located: bool

  @property
  def moving(self) -> bool:
    """Whether it is a clip."""
    # A clip is never held: an hour of 1080p would be 560 GB.
    return self.picture is None

  @property
  def missing(self) -> np.ndarray:
    """(t,) bool: frames in which a face was looked for and not found."""
    return self.track.missing if self.located else np.zeros(len(self.track), bool)

  @property
  def aligned(self) -> bool:
    """Whether each frame has a square of its own, which follows roll, shift and size."""
    return self.kind == 'ffhq' and not in_plane.is_fixed(self.squares)

  @property
  def sides(self) -> np.ndarray:
    """(t,) sides of the squares, px."""
    return 2 * np.hypot(*self.squares[:, 2:].T)

  @property
  def first_face(self) -> int:
    """The number of the first frame with a face, which gives the identity."""
    return int(self.missing.argmin())  # of False before True; tracking refuses a clip without faces

  def pictures(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
    """Whole frames (h, w, 3) uint8 of these numbers, which must not decrease.

    Beyond the end the last frame is repeated.
    """
    if not self.moving:
      yield from (self.picture for _ in numbers)
      return
    # Up to the length of the track: a damaged clip may decode further in another attempt, but those
    # frames would have no square.
    frames = itertools.islice(video.read_frames(self.path), len(self.track))
    at, rgb = -1, None
    for number in numbers:
      # Decoded in order and never sought: seeking lands on other frames in clips with bad indices.
      while at < min(number, len(self.track) - 1):
        at, rgb = at + 1, next(frames).rgb
      yield rgb

  def crops(self, numbers: Sequence[int], size: int) -> Iterator[np.ndarray]:
    """The heads (size, size, 3) uint8 in the frames of these numbers."""
    for number, rgb in zip(numbers, self.pictures(numbers), strict=True):
      yield align.cut(rgb, self.squares[min(number, len(self.track) - 1)], size)

  def head(self, size: int) -> np.ndarray:
    """The head (size, size, 3) uint8 that gives the identity."""
    return next(self.crops([self.first_face], size))

  def sheet(self, size: int) -> list[list[np.ndarray]]:
    """Rows of crops evenly spaced over the clip, as the model sees them."""
    count = min(len(self.track), SHEET * SHEET)
    numbers = np.linspace(0, len(self.track) - 1, count).round().astype(int).tolist()
    cells = list(self.crops(numbers, size))
    return [cells[k : k + SHEET] for k in range(0, len(cells), SHEET)]

  def describe(self, role: str, size: int) -> str:
    """One line about the input for a model that sees `size` px."""
    h, w = self.track.size
    # 9 columns: 'driving' and two spaces, so that the lines of a run align.
    line = f'{role:<9}{self.path}: {w}x{h}'
    if self.moving:
      duration = self.track.seconds[-1] - self.track.seconds[0]
      shots = f', {len(self.track.cuts)} shots' if len(self.track.cuts) > 1 else ''
      line += f', {len(self.track)} frames in {duration:.2f} s{shots}'
    sides = self.sides
    upper = f' to {sides.max():.0f}' if self.moving else ''
    cut = f'crop {self.kind} of {sides.min():.0f}{upper} px'
    line += ', taken whole' if self.kind == 'whole' else f', {cut}'
    line += self._turn()
    # Below half the size, more than three of four pixels are interpolated.
    return line + f' (small for a model that sees {size} px)' * bool(sides.min() < size / 2)

  def _turn(self) -> str:
    """How a head is turned that does not look upright, and whether its crop follows; ''."""
    seen = self.track.points[~self.missing]
    if not self.located or turns.turn_of(seen[0]) == 0:
      return ''
    follows = 'the crop turns with it' if self.kind == 'ffhq' else '--crop=ffhq turns with it'
    return f', head turned by {turns.roll(seen[0]):.0f} degrees: {follows}'

  def _repr_png_(self) -> bytes:
    """What a notebook shows: the crop that gives the identity."""
    return imageio.imwrite('<bytes>', self.head(256), extension='.png')


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
  """Both inputs of a re-enactment; `driving` is None if a motion file takes its place."""

  source: Input
  driving: Input | None


def open_input(
  path: str, options: CropOptions, model: Model, store: pathlib.Path, progress: Progress
) -> Input:
  """Opens a picture or a clip, by the content; see `open_picture` and `open_clip`."""
  if video.is_clip(path):
    return open_clip(path, options, model, store, progress)
  return open_picture(path, options, model)


def open_picture(picture: str | np.ndarray, options: CropOptions, model: Model) -> Input:
  """A still, a file or (h, w, 3) uint8, and its head.

  It is cropped in the way the model was trained unless the options say otherwise.

  Raises:
    InputError: unreadable, no face, or not square where nothing locates the face.
  """
  given = isinstance(picture, np.ndarray)
  return crop_picture(
    picture if given else stills.read_image(picture),
    'array' if given else picture,
    dataclasses.replace(options, crop=options.kind(model)),
    # A function, since like=PICTURE runs the detector that is opened only inside.
    lambda landmarker: _choice(options, model, landmarker),
  )


def crop_picture(
  rgb: np.ndarray,
  name: str,
  options: CropOptions,
  choice: Callable[[Landmarker], tracking.Choice] | None = None,
) -> Input:
  """The head of a picture (h, w, 3) uint8; `name` is what messages call it.

  Args:
    choice: gives the rule that picks one of several faces; by default the one of `options.face`.

  Raises:
    InputError: no face, or not square where nothing locates the face.
  """
  size, face = rgb.shape[:2], None
  points = np.full((1, 5, 2), np.nan)
  if options.landmarks:
    points = read_landmarks(options.landmarks, size, 1)
  elif options.detector:
    landmarker = open_landmarker(options.detector)
    pick = choice(landmarker) if choice else tracking.chooser(options.face)
    found = landmarker.detect(rgb)
    if not found:
      raise InputError(
        f'{name}: no face found in its {size[1]}x{size[0]} px; give another picture, cut a small '
        'face out of it, or give a square crop without --face-detector'
      )
    face = pick(rgb, found)
    if face is None:
      raise InputError(f'{name}: none of its {len(found)} faces is --face={options.face}')
    points = face.landmarks[None]
  # A picture is a track of one frame, so that its square has the same definition as a clip's.
  no_box = np.full((1, 4), np.nan)
  track = tracking.Track(np.zeros(1, np.int64), Fraction(1), points, no_box, (0,), size, '')
  track = tracking.with_landmarks(track, points)
  if face is not None:
    track = dataclasses.replace(track, boxes=np.array([face.box]))
  kind = options.crop if options.locates else 'whole'
  squares = _squares(name, track, kind or 'ffhq', options.smooth)
  return Input(name, track, squares, rgb, kind, options.locates)


def recrop(picture: Input, kind: str) -> Input:
  """The same picture with another `kind` of crop around the face that was found."""
  squares = _squares(picture.path, picture.track, kind, 0)
  return dataclasses.replace(picture, kind=kind, squares=squares)


def open_clip(
  path: str, options: CropOptions, model: Model, store: pathlib.Path, progress: Progress
) -> Input:
  """Opens and tracks a clip; the track is saved in `store` (.npz), and read from it if it exists.

  Raises:
    InputError: unreadable, no face in any frame, or not square where nothing locates the face.
  """
  kind = options.kind(model)
  # The store is trusted: it lies in the folder of this job, which is emptied for any other job.
  if store.is_file():
    track = tracking.Track.load(store)
  else:
    detects = options.detector and not options.landmarks
    landmarker = open_landmarker(options.detector) if detects else None
    choose, total = _choice(options, model, landmarker), video.probe(path).frames
    if kind == 'whole':  # refused before the whole clip is read
      _squares(path, _first_frame(path), kind, 0)
    track = tracking.track(
      path,
      landmarker,
      choose,
      embed=_embed(model),
      progress=lambda frames: progress(frames, 'tracking', total),
    )
    if options.landmarks:
      # After tracking: only then the number of frames is certain (containers often misstate it).
      points = read_landmarks(options.landmarks, track.size, len(track))
      track = tracking.with_landmarks(track, points)
    track.save(store)
  squares = _squares(path, track, kind, options.smooth)
  return Input(path, track, squares, None, kind, options.locates)


def open_tracker(options: CropOptions, model: Model) -> tracking.Tracker:
  """Returns what follows the face of `options` frame by frame.

  Raises:
    InputError: the detector or the picture of --face=like=PICTURE cannot be used.
  """
  landmarker, embed = open_landmarker(options.detector), _embed(model)
  if embed:
    # Read and compiled now: frames do not wait for it when it is needed.
    embed[0](np.zeros((model.size, model.size, 3), np.uint8))
  return tracking.Tracker(landmarker, _choice(options, model, landmarker), embed)


def _choice(options: CropOptions, model: Model, landmarker: Landmarker | None) -> tracking.Choice:
  """Returns the rule that picks one of several faces in a frame."""
  if not options.face.startswith('like='):
    return tracking.chooser(options.face)
  path = options.face.removeprefix('like=')
  if landmarker is None:
    raise InputError(f'--face={options.face}: needs --face-detector')
  rgb, embed = stills.read_image(path), model.embedder()
  found = landmarker.detect(rgb)
  if not found:
    raise InputError(f'{path}: no face found; give another picture to look like')
  # FFHQ's alignment for any model: ArcFace was trained on aligned faces, and both sides of the
  # comparison are cut in the same way.
  wanted = embed(align.cut(rgb, align.ffhq(found[0].landmarks), model.size))
  return tracking.likeness(wanted, embed, model.size)


def _embed(model: Model) -> tuple[Embed, int] | None:
  """Returns the model's ArcFace and the side of its crops; None if it is random or missing."""
  weights = model.config.weights.arcface
  if weights != 'shipped' and not pathlib.Path(weights).is_file():
    return None
  # Read where it is first needed: most clips show one person, whom colours and place identify.
  embedder = functools.cache(model.embedder)
  return lambda crop: embedder()(crop), model.size


def _first_frame(path: str) -> tracking.Track:
  """Returns a track of one frame with the size of the clip and no face."""
  info, nowhere = video.probe(path), np.full((1, 5, 2), np.nan)
  size, boxes = (info.height, info.width), nowhere[:, :4, 0]
  return tracking.Track(np.zeros(1, np.int64), info.time_base, nowhere, boxes, (0,), size, '')


def _squares(name: str, track: tracking.Track, kind: str, smooth: float) -> np.ndarray:
  try:
    return tracking.squares(track, kind, smooth)
  # Tracking works on arrays and has no name to report.
  except InputError as error:
    raise InputError(f'{name}: {error}') from None
