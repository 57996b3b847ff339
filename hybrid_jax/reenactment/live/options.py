"""The options of live mode, beside those that it shares with the re-enactment of clips."""

import argparse
import dataclasses

from hybrid_jax.errors import InputError
from hybrid_jax.reenactment.live.motion import Manner
from hybrid_jax.reenactment.live.one_euro import Cutoffs
from hybrid_jax.reenactment.options import Checked, Options, add_arguments, at_least, option

# Fields of `Options` that mean the same here. Smoothing, missing faces and batches do not.
SHARED = (
  'workdir', 'face_detector', 'face', 'crop', 'in_plane', 'source_landmarks', 'source_face',
  'motion', 'gain', 'edit', 'directions', 'layout', 'codec', 'crf', 'audio', 'certificate', 'key',
)  # fmt: skip
_CUTOFFS, _MANNER = Cutoffs(), Manner()


@dataclasses.dataclass(frozen=True)
class Live(Checked):
  """The options of live mode alone; field `x_y` is the option `--x-y` of the command."""

  realtime: bool | None = option(
    None,
    'the newest frame wins (default, except for a file); --no-realtime: every frame',
    action=argparse.BooleanOptionalAction,
  )
  min_cutoff: float = option(
    _CUTOFFS.least, 'filter of the head at rest, Hz (0: off)', type=at_least(float, 0)
  )
  beta: float = option(
    _CUTOFFS.slope, 'faster filter in motion, Hz per head a second', type=at_least(float, 0)
  )
  speed_cutoff: float = option(
    _CUTOFFS.speed, "smoothing of the head's speed, Hz", type=at_least(float, 1e-3)
  )
  calibration: float = option(
    _MANNER.calibration,
    'seconds from whose most neutral frame --motion=relative starts',
    type=at_least(float, 0),
  )
  hold: float = option(_MANNER.hold, 'seconds to hold a lost face', type=at_least(float, 0))
  fade: float = option(
    _MANNER.fade, 'seconds in which it then becomes neutral', type=at_least(float, 0)
  )
  wait: float = option(
    10.0, 'seconds without any frame after which it ends', type=at_least(float, 0.1)
  )
  input_format: str = option('', "FFmpeg's format of --driving (default: recognised)")
  input_options: str = option('', "FFmpeg's options: video_size=640x480,framerate=30")
  log: str = option('', '.csv file to write: frames and latency every five seconds')

  @property
  def cutoffs(self) -> Cutoffs:
    """Of the filter of the head."""
    return Cutoffs(self.min_cutoff, self.beta, self.speed_cutoff)

  def manner(self, options: Options, aligned: bool) -> Manner:
    """How motion is shown; `aligned` is whether each frame has a square of its own."""
    return Manner(
      options.motion == 'relative', options.gain, self.calibration, self.hold, self.fade,
      options.in_plane and aligned,
    )  # fmt: skip

  def of_format(self) -> dict[str, str]:
    """The options of the input format. Raises InputError for one without '='."""
    pairs = [pair.partition('=') for pair in self.input_options.split(',') if pair]
    if any(not found for _, found, _ in pairs):
      raise InputError(f'--input-options={self.input_options}: give NAME=VALUE,NAME=VALUE')
    return {name.strip(): value for name, _, value in pairs}


def build_parser(description: str) -> argparse.ArgumentParser:
  """Returns the parser of `python -m hybrid_jax.live`."""
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.live',
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--source', required=True, help='portrait of the person')
  parser.add_argument(
    '--driving', required=True, help='camera (/dev/video0), file, address, or - for a pipe'
  )
  parser.add_argument(
    '--output',
    default='window',
    help='window (default), a file as for reenact, an address, or - for a pipe',
  )
  add_arguments(parser, SHARED)
  add_arguments(parser, [field.name for field in dataclasses.fields(Live)], Live)
  return parser


def parse(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> tuple[Options, Live]:
  """Returns the options of a command line; exits with a usage message if they are wrong."""
  given = vars(parser.parse_args(argv))
  live = Live(**{field.name: given.pop(field.name) for field in dataclasses.fields(Live)})
  return Options(**given), live
