"""Writes the motion of a clip to a file that can drive any source later.

  python -m hybrid_jax.extract_motion --driving clip.mp4 --output talk.safetensors \\
      --face-detector face_detection_yunet.onnx

The file holds s_f of every frame, its time, and the hashes of encoder and clip; no picture.
"""

import argparse
import pathlib
import tempfile

from hybrid_jax import cli, environment
from hybrid_jax.errors import InputError
from hybrid_jax.media import refuse_overwriting, refuse_target
from hybrid_jax.reenactment import motion, motion_file
from hybrid_jax.reenactment.inputs import open_clip
from hybrid_jax.reenactment.model import Model, load_model
from hybrid_jax.reenactment.options import CropOptions, add_arguments

SHARED = (
  'workdir', 'face_detector', 'driving_landmarks', 'face', 'crop', 'smooth', 'on_missing',
  'batch_size',
)  # fmt: skip


def extract_motion(model: Model, args: argparse.Namespace) -> int:
  """Writes the file and returns the number of frames. Raises InputError as `run.reenact`."""
  if not motion_file.is_motion(args.output):
    raise InputError(f'{args.output}: a motion file ends in .safetensors')
  refuse_target(args.output)
  refuse_overwriting([args.output], [args.driving, args.driving_landmarks])
  if not pathlib.Path(args.driving).is_file():
    raise InputError(f'{args.driving}: no such file')
  detector = '' if args.driving_landmarks else args.face_detector
  crop = CropOptions(detector, args.driving_landmarks, args.face, args.crop, args.smooth)
  with tempfile.TemporaryDirectory() as folder:
    store = pathlib.Path(folder) / 'driving.npz'
    driving = open_clip(args.driving, crop, model, store, cli.progress)
  digest = environment.sha256(args.driving)
  motion.extract(
    model, driving, digest, args.on_missing, args.output, args.batch_size, cli.progress
  )
  count = len(motion_file.read(args.output))
  print(f'{args.output}: motion of {count} frames')
  missing = motion.missing_line(driving.missing, args.on_missing)
  track = driving.track
  for line in filter(None, (missing, track.others_line, track.broken)):
    print(f'  {line}')
  return count


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
  """The arguments of a command line; exits with a usage message if they are wrong."""
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.extract_motion',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--driving', required=True, help='clip whose motion is read')
  parser.add_argument('--output', required=True, help='file to write, .safetensors')
  add_arguments(parser, SHARED)
  return parser.parse_args(argv)


def main() -> None:
  """Runs the command."""
  args = parse_args()
  with cli.running(lower=f'lower --batch-size (now {args.batch_size})'):
    extract_motion(load_model(args.workdir), args)


if __name__ == '__main__':
  cli.command(main)
