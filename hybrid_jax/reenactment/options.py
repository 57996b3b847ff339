"""The options of a re-enactment, declared once for the command, the Python API and job tables.

`Options` is the only list. The metadata of a field holds the arguments of `add_argument`, for
`build_parser`, `parse` and the other commands that share options.
"""

import argparse
import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from hybrid_jax.errors import InputError
from hybrid_jax.media import framing
from hybrid_jax.method import cma

LAYOUTS = ('result', 'pasted', 'side-by-side', 'grid')
CROPS = ('', *framing.KINDS, 'whole')
ON_MISSING = ('hold', 'interpolate', 'skip', 'fail')
# Codec: FFmpeg's encoder, and the containers that hold its streams.
CODECS = {
  'h264': ('libx264', ('.mp4', '.m4v', '.mov', '.mkv')),
  'ffv1': ('ffv1', ('.mp4', '.mkv')),
  'vp9': ('libvpx-vp9', ('.webm', '.mkv', '.mp4')),
}
_TUNING = cma.Options()  # its defaults are the command's


@dataclasses.dataclass(frozen=True)
class CropOptions:
  """Options of finding and cropping the head in one input.

  Attributes:
    detector: YuNet .onnx or MediaPipe FaceLandmarker .task file; '' for none.
    landmarks: file of landmarks (see `landmarkers.read_landmarks`); '' for none.
    face: which face: largest, left, right, a number from 0 on, or like=PICTURE.
    crop: one of `framing.KINDS`, or 'whole'; '' is the kind that the model was trained on. Without
      detector and landmarks the crop is always 'whole'.
    smooth: time constant of smoothing an 'ffhq' crop over time, seconds.
  """

  detector: str = ''
  landmarks: str = ''
  face: str = 'largest'
  crop: str = ''
  smooth: float = framing.SMOOTHING

  @property
  def locates(self) -> bool:
    """Whether a detector or a file of landmarks locates the face."""
    return bool(self.detector or self.landmarks)

  def kind(self, model: Any) -> str:
    """The kind of crop for a `Model`, by default that of its training frames.

    Raises:
      InputError: the model has none, see `Model.crop`.
    """
    return (self.crop or model.crop) if self.locates else 'whole'


# --- Value types of the command line -------------------------------------------------------------


def at_least(kind: Callable[[str], Any], least: float) -> Callable[[str], Any]:
  """A parser of finite numbers of at least `least`."""

  def number(text: str):
    value = kind(text)
    # float() accepts 'nan' and 'inf', and a comparison with NaN never fails.
    if not math.isfinite(value):
      raise argparse.ArgumentTypeError(f'must be a finite number, not {text}')
    if value < least:
      raise argparse.ArgumentTypeError(f'must be at least {least}, not {text}')
    return value

  # argparse names the type in "invalid float value: 'x'".
  number.__name__ = kind.__name__
  return number


def _rate(text: str) -> Fraction:
  # A fraction and no float: 30000/1001 must give exact presentation times.
  try:
    rate = Fraction(text)
  except (ValueError, ZeroDivisionError):
    raise argparse.ArgumentTypeError(f'{text}: give a number or a fraction, 30000/1001') from None
  if not 0 < rate <= 1000:
    raise argparse.ArgumentTypeError(f'{text}: must be above 0 and at most 1000')
  return rate


def option(default: Any, help: str, **spelling: Any) -> Any:
  """A field of `Checked`; `spelling` are further arguments of `add_argument`."""
  return dataclasses.field(default=default, metadata={'help': help, **spelling})


def _required(help: str) -> Any:
  return dataclasses.field(metadata={'help': help, 'required': True})


# --- The options ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Checked:
  """Options whose values are checked when they are set; the fields are made by `option`."""

  def __post_init__(self):
    """Raises InputError for a value of another type, or outside its choices or range."""
    for field in dataclasses.fields(self):
      value, choices = getattr(self, field.name), field.metadata.get('choices')
      # A default may lie outside of its type: None means that the option is off.
      if value is field.default:
        continue
      if field.type is str:
        if not isinstance(value, str | os.PathLike):
          raise InputError(f'{field.name}={value!r}: give text or a path')
        value = os.fspath(value)
        object.__setattr__(self, field.name, value)  # the dataclass is frozen
      if field.type is bool and not isinstance(value, bool):
        raise InputError(f'{field.name}={value!r}: give True or False')
      if choices and value not in choices:
        allowed = ', '.join(repr(choice) for choice in choices if choice)
        raise InputError(f'{field.name}={value!r}: choose from {allowed}')
      # The parser of the command line serves here too, so that both refuse the same values.
      if kind := field.metadata.get('type'):
        try:
          checked = kind(str(value))
        except (argparse.ArgumentTypeError, ValueError) as error:
          raise InputError(f'{field.name}={value!r}: {error}') from None
        # As from the command line: fps=25 becomes a fraction, which the clock needs.
        object.__setattr__(self, field.name, checked)


@dataclasses.dataclass(frozen=True)
class Options(Checked):
  """The options of one re-enactment; field `x_y` is the option `--x-y` of the command."""

  source: str = _required('portrait, or a clip of the person')
  driving: str = _required('clip whose motion is used, or a motion file')
  output: str = _required('.mp4, .mov, .mkv or .webm; no suffix: a folder of PNG files')
  workdir: str = option('', 'training run or exported model (default: the bundled model)')
  face_detector: str = option('', 'YuNet (.onnx) or MediaPipe FaceLandmarker (.task) file')
  driving_landmarks: str = option('', '.npz, .json or .csv file of landmarks instead')
  face: str = option(
    'largest', 'driving face: largest, left, right, NUMBER from the left or like=PICTURE'
  )
  crop: str = option('', 'kind of crop (default: as the model was trained)', choices=CROPS)
  smooth: float = option(
    framing.SMOOTHING, 'smoothing of an ffhq crop over time, s', type=at_least(float, 0)
  )
  in_plane: bool = option(
    True,
    "leave out the driver's roll, shift and size (put back where --crop=ffhq removes them)",
    flag='--no-in-plane',
    action='store_false',
  )
  on_missing: str = option('hold', 'what to do in frames without a face', choices=ON_MISSING)
  batch_size: int = option(8, 'frames per batch', type=at_least(int, 1))
  source_landmarks: str = option('', 'as --driving-landmarks')
  source_face: str = option('largest', 'as --face')
  motion: str = option(
    'absolute', "relative: change the source's own expression", choices=('absolute', 'relative')
  )
  reference: int | None = option(
    None, 'driving frame that relative motion starts from (default: the most neutral)', type=int
  )
  gain: float = option(1.0, 'gain of relative motion', type=at_least(float, -math.inf))
  smooth_motion: float = option(
    0.0, 'smoothing of the motion over time, s (0: off)', type=at_least(float, 0)
  )
  edit: str = option('', 'edit of the person: glasses=1,skin=0@0s,0.3@2s (see edit_sheet)')
  directions: str = option('', "folder of edit directions (default: the bundled model's)")
  layout: str = option('result', 'arrangement of the pictures', choices=LAYOUTS)
  save_crops: str = option('', 'picture to write: the crops that the model sees')
  cma: str = option(
    '',
    'tune the generator first: cyclic manifold adjustment, or =pti on the source alone',
    nargs='?',
    const='cma',
    choices=('cma', 'pti'),
  )
  cma_steps: int = option(_TUNING.steps, 'maximum number of steps', type=at_least(int, 1))
  cma_rate: float = option(_TUNING.rate, 'learning rate of Adam', type=at_least(float, 0))
  cma_lambda: float = option(
    _TUNING.driver_weight,
    "weight of the driver's cycle against the source's",
    type=at_least(float, 0),
  )
  audio: bool = option(True, 'leave the sound out', flag='--no-audio', action='store_false')
  fps: Fraction | None = option(
    None, 'constant frame rate, 25 or 30000/1001 (default: the times of the driver)', type=_rate
  )
  codec: str = option('h264', 'ffv1 is lossless, vp9 for .webm', choices=tuple(CODECS))
  crf: float = option(18, 'quality of H.264 and VP9, lower is better', type=at_least(float, 0))
  quality: bool = option(
    False, 'measure each frame: OUTPUT.quality.csv and .png', action='store_true'
  )
  min_identity: float | None = option(
    None, 'exit code 3 if a frame has a lower identity similarity', type=at_least(float, -1)
  )
  certificate: str = option(
    '', "PEM chain for content credentials; 'test': a certificate made for this run"
  )
  key: str = option('', 'private key of the certificate, PEM')

  def crop_options(self, role: str) -> CropOptions:
    """The crop options of the input of a `role`, 'source' or 'driving'."""
    if role == 'source':
      landmarks, face = self.source_landmarks, self.source_face
    else:
      landmarks, face = self.driving_landmarks, self.face
    # A file of landmarks replaces the detector for its input only.
    detector = '' if landmarks else self.face_detector
    return CropOptions(detector, landmarks, face, self.crop, self.smooth)


def add_arguments(
  parser: argparse.ArgumentParser, names: Sequence[str], kind: type[Checked] = Options
) -> None:
  """Adds the options of these field names of a `kind` to a parser."""
  # The default is appended to each help text here, so that no text can state an outdated one.
  fields = {field.name: field for field in dataclasses.fields(kind)}
  for name in names:
    field, spelling = fields[name], dict(fields[name].metadata)
    if not spelling.get('required'):
      spelling['default'] = field.default
      if field.default not in ('', None, True, False):
        spelling['help'] += f' ({field.default:g})' if _is_number(field) else f' ({field.default})'
    flag = spelling.pop('flag', '--' + name.replace('_', '-'))
    parser.add_argument(flag, dest=name, **spelling)


def _is_number(field: dataclasses.Field) -> bool:
  return isinstance(field.default, int | float)


def build_parser(
  description: str, kind: type[argparse.ArgumentParser] = argparse.ArgumentParser
) -> argparse.ArgumentParser:
  """Returns the parser of `python -m hybrid_jax.reenact`."""
  parser = kind(
    prog='python -m hybrid_jax.reenact',
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add_arguments(parser, [field.name for field in dataclasses.fields(Options)])
  return parser


class _RaisingParser(argparse.ArgumentParser):
  """Raises InputError where argparse prints the usage and exits."""

  # A bad row of a table must not end the process that runs the other rows.

  def error(self, message: str):
    """Raises InputError with the message."""
    raise InputError(message)

  def exit(self, status: int = 0, message: str | None = None):
    """Raises InputError: only --help comes here."""
    raise InputError('--help is an option of the command')

  def print_help(self, file: Any = None):
    """Prints nothing."""


def parse(arguments: Sequence[str]) -> Options:
  """Parses command-line arguments, for callers that are not the command.

  Raises:
    InputError: an argument is unknown, missing or out of its range.
  """
  return Options(**vars(build_parser('', _RaisingParser).parse_args(list(arguments))))
