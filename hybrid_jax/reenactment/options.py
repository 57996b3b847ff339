"""What a re-enactment is asked for: options of the command, and of each row of a batch of jobs."""

import argparse
import dataclasses
from fractions import Fraction

from hybrid_jax.method import cma
from hybrid_jax.reenactment import motion_file, pipeline
from hybrid_jax.reenactment.pipeline import Cropping

# What the encoder is called, and where its streams may go.
CODECS = {
  'h264': ('libx264', ('.mp4', '.m4v', '.mov', '.mkv')),
  'ffv1': ('ffv1', ('.mp4', '.mkv')),
  'vp9': ('libvpx-vp9', ('.webm', '.mkv', '.mp4')),
}


@dataclasses.dataclass(frozen=True)
class Options:
  """What the command takes; `parse` says what each is."""

  source: str
  driving: str
  output: str
  workdir: str = ''
  face_detector: str = ''
  source_landmarks: str = ''
  driving_landmarks: str = ''
  source_face: str = 'largest'
  face: str = 'largest'
  crop: str = ''
  smooth: float = 0.1
  on_missing: str = 'hold'
  motion: str = 'absolute'
  reference: int | None = None
  gain: float = 1.0
  smooth_motion: float = 0.0
  layout: str = 'result'
  save_crops: str = ''
  cma_steps: int = cma.Options.steps
  cma_rate: float = cma.Options.rate
  cma_lambda: float = cma.Options.driver_weight
  cma: str = ''  # last: it hides the module
  audio: bool = True
  fps: Fraction | None = None
  codec: str = 'h264'
  crf: float = 18
  batch_size: int = 8
  edit: str = ''
  directions: str = ''
  quality: bool = False
  min_identity: float | None = None
  certificate: str = ''
  key: str = ''

  def cropping(self, of: str) -> Cropping:
    """Of 'source' or 'driving'."""
    landmarks, face = (
      (self.source_landmarks, self.source_face)
      if of == 'source'
      else (self.driving_landmarks, self.face)
    )
    detector = '' if landmarks else self.face_detector
    return Cropping(detector, landmarks, face, self.crop, self.smooth)


def add_cropping(parser: argparse.ArgumentParser) -> None:
  """The options that say where the driving face is."""
  add = parser.add_argument
  add('--workdir', default='', help='of a training run, or an exported model (the shipped one)')
  add('--face-detector', default='', help='YuNet (.onnx) or MediaPipe FaceLandmarker (.task) file')
  add('--driving-landmarks', default='', help='.npz, .json or .csv file of landmarks instead')
  add(
    '--face', default='largest', help='largest, left, right, NUMBER from the left or like=PICTURE'
  )
  add('--crop', default='', choices=('', 'ffhq', 'square', 'whole'), help='(as the model learnt)')
  add('--smooth', type=_at_least(float, 0), default=0.1, help='of the crop over time, s (0.1)')
  add('--on-missing', default='hold', choices=motion_file.ON_MISSING, help='frames with no face')
  add('--batch-size', type=_at_least(int, 1), default=8, help='frames computed together (8)')


def _at_least(kind, least):
  def number(text):
    value = kind(text)
    if not value >= least:
      raise argparse.ArgumentTypeError(f'must be at least {least}, not {text}')
    return value

  return number


def _rate(text):
  try:
    rate = Fraction(text)
  except (ValueError, ZeroDivisionError):
    raise argparse.ArgumentTypeError(f'{text}: give a number or a fraction, 30000/1001') from None
  if not 0 < rate <= 1000:
    raise argparse.ArgumentTypeError(f'{text}: must be above 0 and at most 1000')
  return rate


def parse(argv: list[str] | None, description: str) -> Options:
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.reenact',
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--source', required=True, help='portrait, or a clip of the person')
  add('--driving', required=True, help='clip whose motion is used, or a motion file')
  add('--output', required=True, help='.mp4, .mov, .mkv or .webm; no suffix: a folder of PNG files')
  add_cropping(parser)
  add('--source-landmarks', default='', help='as --driving-landmarks')
  add('--source-face', default='largest', help='as --face')
  add('--motion', default='absolute', choices=('absolute', 'relative'), help='(absolute)')
  add('--reference', type=int, help='frame that relative motion starts from (the most neutral)')
  add('--gain', type=float, default=1.0, help='of relative motion (1)')
  add('--smooth-motion', type=_at_least(float, 0), default=0.0, help='over time, s (0: off)')
  add(
    '--edit',
    default='',
    help='of the person: glasses=1,skin=0@0s,0.3@2s (see edit_sheet)',
  )
  add('--directions', default='', help="folder of edits' files (the rendered world's own)")
  add('--layout', default='result', choices=pipeline.LAYOUTS, help='what is shown (result)')
  add('--save-crops', default='', help='picture to write: what the model sees')
  add(
    '--cma',
    nargs='?',
    const='cma',
    default='',
    choices=('cma', 'pti'),
    help='tune the generator first: cyclic manifold adjustment, or =pti to the source alone',
  )
  add('--cma-steps', type=_at_least(int, 1), default=cma.Options.steps, help='most steps (350)')
  add('--cma-rate', type=_at_least(float, 0), default=cma.Options.rate, help='of Adam (3e-4)')
  add(
    '--cma-lambda',
    type=_at_least(float, 0),
    default=cma.Options.driver_weight,
    help="weight of the driver's cycle against the source's (1)",
  )
  add('--no-audio', dest='audio', action='store_false', help='leave the sound out')
  add('--fps', type=_rate, help='constant frame rate, e.g. 25 or 30000/1001 (as the driving clip)')
  add('--codec', default='h264', choices=CODECS, help='ffv1 is lossless, vp9 for .webm (h264)')
  add(
    '--crf',
    type=_at_least(float, 0),
    default=18,
    help='quality of H.264 and VP9, lower is better (18)',
  )
  add('--quality', action='store_true', help='measure each frame: OUTPUT.quality.csv and .png')
  add(
    '--min-identity',
    type=_at_least(float, -1),
    help='exit code 3 where a frame is less like the source',
  )
  add('--certificate', default='', help="PEM chain for content credentials; 'test': self-made")
  add('--key', default='', help='its private key, PEM')
  return Options(**vars(parser.parse_args(argv)))
