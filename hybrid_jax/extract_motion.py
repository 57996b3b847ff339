"""Writes the motion of a clip to a file that can drive any source later.

  python -m hybrid_jax.extract_motion --driving clip.mp4 --output talk.safetensors \\
      --face-detector face_detection_yunet.onnx

The file holds s_f of every frame, its time, and hashes of encoder and clip; it holds no picture.
"""

import argparse
import pathlib
import tempfile

from hybrid_jax.cli import running
from hybrid_jax.errors import InputError
from hybrid_jax.reenact import bar, missing_line
from hybrid_jax.reenactment import motion_file, pipeline
from hybrid_jax.reenactment.model import Model, load_model
from hybrid_jax.reenactment.options import add_cropping


def extract_motion(model: Model, args: argparse.Namespace) -> int:
  """Returns the number of frames written. Raises InputError as `reenact` does."""
  if not motion_file.is_motion(args.output):
    raise InputError(f'{args.output}: a motion file ends in .safetensors')
  detector = '' if args.driving_landmarks else args.face_detector
  how = pipeline.Cropping(detector, args.driving_landmarks, args.face, args.crop, args.smooth)
  with tempfile.TemporaryDirectory() as folder:
    store = pathlib.Path(folder) / 'driving.npz'
    driving = pipeline.open_clip(args.driving, how, model, store, bar)
  gone = pipeline.missing(driving, how)
  pipeline.extract(model, driving, how, args.on_missing, args.output, args.batch_size, bar)
  motion = motion_file.read(args.output)
  print(f'{args.output}: motion of {len(motion)} frames')
  for line in (missing_line(gone, args.on_missing) if gone.any() else '', driving.clip.broken):
    if line:
      print(f'  {line}')
  return len(motion)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.extract_motion',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--driving', required=True, help='clip whose motion is read')
  parser.add_argument('--output', required=True, help='file to write, .safetensors')
  add_cropping(parser)
  return parser.parse_args(argv)


def main() -> None:
  args = parse_args()
  with running():
    extract_motion(load_model(args.workdir), args)


if __name__ == '__main__':
  main()
