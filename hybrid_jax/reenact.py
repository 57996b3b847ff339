"""Re-enacts a portrait with a driving video: the person of one, the motion of the other.

  python -m hybrid_jax.reenact --source portrait.png --driving clip.mp4 --output out.mp4

  # photographs and films: detect the face, put the result back into the picture
  python -m hybrid_jax.reenact --source me.jpg --driving clip.mov --output out.mp4 \\
      --face-detector face_detection_yunet.onnx --layout pasted

  # a person with another face shape: transfer only the change from a neutral frame
  python -m hybrid_jax.reenact ... --motion relative --gain 1.2

  # an unusual face: first tune the generator to this source and driver (minutes, then cached)
  python -m hybrid_jax.reenact ... --cma

  # extract the motion once, drive any source with it later
  python -m hybrid_jax.extract_motion --driving clip.mp4 --output talk.safetensors
  python -m hybrid_jax.reenact --source me.png --driving talk.safetensors --output out.mp4

  # edit the person: glasses from the first second on (edit_sheet shows the edits)
  python -m hybrid_jax.reenact ... --edit glasses=0@0s,1@1s,hair_dark=-0.5
  python -m hybrid_jax.reenact ... --directions ffhq_directions --edit age=+2,smile=-1

Without --face-detector (or files of landmarks) both inputs must be square crops of the head.
Frames keep the presentation times of the driving video, and its sound is copied. If a run is
killed, the same command resumes it from its last finished segment.

An --output without a suffix is a folder of PNG files with their times in timestamps.csv.

The sidecar OUTPUT.json records what the result was made from (hybrid_jax.verify reads it);
--quality adds OUTPUT.quality.csv and .png, the quality of each frame. The exit code is 3 if a frame
of a finished output is below --min-identity, and 1 after an error.
"""

import sys

from hybrid_jax import cli
from hybrid_jax.reenactment import run
from hybrid_jax.reenactment.model import load_model
from hybrid_jax.reenactment.options import Options, build_parser


def parse_args(argv: list[str] | None = None) -> Options:
  """The options of a command line; exits with a usage message if they are wrong."""
  return Options(**vars(build_parser(__doc__).parse_args(argv)))


def main() -> None:
  """Runs the command."""
  options = parse_args()
  with cli.running('stopped; the same command resumes from the last finished segment'):
    model = load_model(options.workdir)
    report = run.reenact(model, options, progress=cli.progress, say=print)
    print('\n'.join(report.lines()))
  if report.low_quality:
    print(f'low quality: {report.low_quality}', file=sys.stderr)
    sys.exit(3)


if __name__ == '__main__':
  cli.command(main)
