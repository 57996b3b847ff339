"""Measures how exactly the in-plane motion of a driver is recovered, and how much it jitters.

  python -m experiments.cost.in_plane --face_detector=YUNET.onnx \\
      --output=experiments/results/in_plane.json

A picture of a rendered person is moved by a known roll, shift and size, with noise of a camera, and
written as H.264. The detector finds the face in each frame, and the place of a head of 256 px is
computed from it with several time constants of smoothing. For a head that is `still`, and for one
that is `moving`, the result has in px:
  error   mean distance of the corners of the head from where they should be
  jitter  root mean square of their second differences from frame to frame
"""

import argparse
import pathlib
import sys
import tempfile
from fractions import Fraction

import cv2
import numpy as np

from experiments import script
from hybrid_jax import cli
from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import rendered
from hybrid_jax.media import align, tracking, video
from hybrid_jax.media.landmarkers import Landmarker, open_landmarker
from hybrid_jax.reenactment import in_plane, motion_file

SIDE, FRAME, RATE = 256, 448, 25  # px of the head and of the frames; frames per second
NOISE = 4.0  # standard deviation, grey levels
SMOOTH = (0.0, 0.05, 0.1, 0.2)  # s; 0.1 is the default of the command


def known_motion(count: int) -> np.ndarray:
  """Returns squares (count, 4): roll of 12 degrees, shift of 0.15 sides, size of 0.85 to 1.15."""
  t = np.arange(count) / RATE
  roll, size = np.radians(12) * np.sin(2.1 * t), 1 + 0.15 * np.sin(1.3 * t)
  centre = FRAME / 2 + 0.15 * SIDE * np.stack((np.sin(1.7 * t), np.sin(2.6 * t)), 1)
  x = SIDE / 2 * size[:, None] * np.stack((np.cos(roll), np.sin(roll)), 1)
  return np.concatenate((centre, x), 1)


def write_clip(path: pathlib.Path, head: np.ndarray, squares: np.ndarray, seed: int) -> None:
  """Writes a clip of a picture (SIDE, SIDE, 3) uint8 at the squares (t, 4)."""
  rng = np.random.default_rng(seed)
  with video.VideoWriter(path, FRAME, FRAME, time_base=Fraction(1, RATE)) as writer:
    for k, square in enumerate(squares):
      frame = cv2.warpAffine(
        head, align.to_picture(square, SIDE), (FRAME, FRAME), borderMode=cv2.BORDER_REPLICATE
      )
      noisy = np.rint(frame + rng.normal(0, NOISE, frame.shape)).clip(0, 255).astype(np.uint8)
      writer.write(noisy, Fraction(k, RATE))


def places(track: tracking.Track, seconds: float) -> np.ndarray:
  """Returns the corners (t, 4, 2) of a head of SIDE px that moves as the face of a track does."""
  squares = tracking.squares(track, 'ffhq', 1.0, seconds)
  motion = motion_file.Motion(
    None, track.ticks, track.time_base, (), (0,), '', '', squares
  )  # fmt: skip
  found = in_plane.measure(motion, 0, 1.0, 0.0)
  own = np.array([FRAME / 2, FRAME / 2, SIDE / 2, 0.0])
  return np.stack([align.corners(found.moved(own, k)) for k in range(len(squares))])


def jitter(corners: np.ndarray) -> float:
  """Returns the root mean square of the second differences of (t, 4, 2) px."""
  return float(np.sqrt((np.diff(corners, 2, 0) ** 2).sum(-1).mean()))


def of_clip(
  head: np.ndarray, squares: np.ndarray, landmarker: Landmarker, seed: int
) -> dict[str, dict[str, float]]:
  """Returns error and jitter of one clip by the time constant, and the jitter of the truth."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'driver.mp4'
    write_clip(path, head, squares, seed)
    track = tracking.track(path, landmarker, tracking.chooser('largest'))
  truth = np.stack([align.corners(square) for square in squares])
  result = {'truth': {'error': 0.0, 'jitter': jitter(truth)}}
  for seconds in SMOOTH:
    corners = places(track, seconds)
    error = np.linalg.norm(corners - truth, axis=-1).mean()
    result[f'{seconds:g} s'] = {'error': float(error), 'jitter': jitter(corners)}
  return result


def measure(landmarker: Landmarker, people: int, frames: int) -> dict:
  """Returns the means over people, with 95 % intervals."""
  data = rendered.pairs(0, people, 1, True, size=SIDE)
  start = np.array([FRAME / 2, FRAME / 2, SIDE / 2, 0.0])
  motions = {'still': np.tile(start, (frames, 1)), 'moving': known_motion(frames)}
  result = {'people': people, 'frames': frames}
  for name, squares in motions.items():
    clips = [of_clip(head, squares, landmarker, k) for k, head in enumerate(data['source'])]
    result[name] = {
      step: {m: script.interval([clip[step][m] for clip in clips]) for m in figures}
      for step, figures in clips[0].items()
    }
  return result


def parse_args() -> argparse.Namespace:
  parser = script.parser(__doc__)
  parser.add_argument('--face_detector', required=True, help='YuNet or MediaPipe file')
  parser.add_argument('--people', type=int, default=8, help='(%(default)s)')
  parser.add_argument('--frames', type=int, default=50, help='of each clip (%(default)s)')
  parser.add_argument('--output', type=pathlib.Path, required=True, help='.json file to write')
  return parser.parse_args()


def main() -> None:
  args = parse_args()
  cli.use_compilation_cache()
  record = script.record()
  try:
    result = measure(open_landmarker(args.face_detector), args.people, args.frames)
  except InputError as error:
    sys.exit(f'error: {error}')
  script.write_json(args.output, result | {'measured': record})
  for name in ('still', 'moving'):
    for step, figures in result[name].items():
      print(f'{name}, {step}: ' + ', '.join(f'{m} {v["mean"]:.2f} px' for m, v in figures.items()))


if __name__ == '__main__':
  main()
