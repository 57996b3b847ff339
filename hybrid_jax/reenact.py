"""Re-enacts a portrait with a driving video, on the model of a training workdir.

  python -m hybrid_jax.reenact --workdir=runs/tiny --source=portrait.jpg --driving=clip.mp4 \\
      --output=out.mp4

Source and driving video must be square crops of the head, or --face-detector must name a YuNet
model that finds the face in them. Frames keep the driving video's presentation times, and its sound
is copied.
"""

import argparse
import collections
import itertools
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict
from tqdm import tqdm

from hybrid_jax import checkpoint, compilation, steps
from hybrid_jax.errors import InputError
from hybrid_jax.media import faces, stills, video
from hybrid_jax.models.ops import from_uint8, to_uint8
from hybrid_jax.networks import Networks, build, init_encoder
from hybrid_jax.weights import load

IN_FLIGHT = 2  # batches that the device computes while the host decodes and encodes


def make_renderer(networks: Networks) -> tuple[Callable, Callable]:
  """(identity(E, G, image, rows) -> w_id, render(E, G, w_id, frames) -> (images, finite)), jitted.

  Frames and images are uint8 (n, h, w, 3). The identity is encoded once per video, the deformation
  per frame. `finite` says whether every value was a number before it became 8 bits.
  """
  hybrid = networks.hybrid

  @jax.jit
  def identity(E, G, image, rows):
    return hybrid.identity(E, G, from_uint8(image), rows)

  @jax.jit
  def render(E, G, W_S, frames):
    F_D = hybrid.deformation(E, from_uint8(frames))  # Eq. 2
    R = hybrid.reenact(G, jnp.repeat(W_S, len(frames), axis=0), F_D)  # Eq. 3
    return to_uint8(R), jnp.isfinite(R).all()

  return identity, render


def render_all(
  render: Callable, E: Any, G: Any, W_S: jax.Array, frames: Iterable[np.ndarray], batch: int
) -> Iterator[np.ndarray]:
  """One image per frame, in order; memory does not grow with their number.

  Raises:
    FloatingPointError: a batch holds a value that is no number.
  """
  pending: collections.deque = collections.deque()
  done = 0

  def collect():
    nonlocal done
    images, finite, count = pending.popleft()
    if not finite:
      raise FloatingPointError(f'frames {done} to {done + count - 1} of the result are not finite')
    done += count
    yield from np.asarray(images)[:count]

  for chunk in batched(frames, batch):
    count = len(chunk)
    padded = np.stack([*chunk, *[chunk[-1]] * (batch - count)])  # one shape, one program
    images, finite = render(E, G, W_S, padded)
    images.copy_to_host_async()
    pending.append((images, finite, count))
    if len(pending) > IN_FLIGHT:
      yield from collect()
  while pending:
    yield from collect()


def batched(items: Iterable, size: int) -> Iterator[tuple]:
  """itertools.batched, which Python 3.11 lacks."""
  iterator = iter(items)
  while chunk := tuple(itertools.islice(iterator, size)):
    yield chunk


def square_source(
  path: str, size: int, detector: faces.FaceDetector | None, scale: float
) -> np.ndarray:
  """The head in a portrait as (size, size, 3) uint8.

  Raises:
    InputError: unreadable, no face, or not square without a detector.
  """
  image = stills.read_image(path)
  h, w, _ = image.shape
  if detector is not None:
    found = detector.detect(image)
    if not found:
      raise InputError(f'{path}: no face found; crop the head to a square, without the detector')
    return faces.crop_square(image, faces.square_box(found[0].box, scale, (h, w)), size)
  if h != w:
    raise InputError(f'{path}: {w}x{h} is not square; crop the head or give --face-detector')
  return faces.crop_square(image, (0, 0, w, h), size)


def driving_square(path: str, detector: faces.FaceDetector | None, scale: float) -> faces.Square:
  """One square around the head for the whole clip.

  Raises:
    InputError: unreadable, no face, or not square without a detector.
  """
  info = video.probe(path)
  if detector is not None:
    frames = (frame.rgb for frame in video.read_frames(path))
    return faces.track_box(frames, detector, scale=scale, name=path).square
  if info.height != info.width:
    raise InputError(
      f'{path}: {info.width}x{info.height} is not square; crop the head or give --face-detector'
    )
  return 0, 0, info.width, info.height


def reenact(
  workdir: str,
  source: str,
  driving: str,
  output: str,
  *,
  face_detector: str = '',
  batch_size: int = 8,
  crf: int = 18,
) -> int:
  """Writes the video of `source` doing what `driving` does; returns the number of frames.

  Raises:
    InputError: any input that cannot be used.
  """
  config = ConfigDict(checkpoint.read_config(workdir))
  networks = build(config.model)
  detector = faces.FaceDetector(face_detector) if face_detector else None
  scale, size = config.data.crop_scale, networks.frame_size
  portrait = square_source(source, size, detector, scale)
  square = driving_square(driving, detector, scale)
  info = video.probe(driving)
  shapes = jax.eval_shape(lambda key: init_encoder(networks, key), jax.random.key(0))
  step, E = checkpoint.restore_encoder(workdir, shapes)
  G = load.load_generator(networks, config.weights, config.train.seed)
  if config.weights.e4e == 'random':
    print('note: this model has RANDOM frozen networks; the video shows the plumbing, not a face')

  identity, render = make_renderer(networks)
  rows = steps.active_rows(step, config.progressive, networks.hybrid.encoder.num_ws)
  W_S = identity(E, G, portrait[None], rows)
  times: collections.deque = collections.deque()

  def frames():
    for frame in video.read_frames(driving):
      times.append(frame.time)
      yield faces.crop_square(frame.rgb, square, size)

  side = config.model.resolution
  written = 0
  with video.VideoWriter(
    output, side, side, time_base=info.time_base, crf=crf, audio_from=driving
  ) as writer:
    images = render_all(render, E, G, W_S, frames(), batch_size)
    for image in tqdm(images, total=info.frames, desc='re-enacting', unit='frame'):
      writer.write(image, times.popleft())
      written += 1
  note = f'; {writer.audio_note}' if writer.audio_note else ''
  print(f'{output}: {written} frames of {side}x{side}{note}')
  return written


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.reenact',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--workdir', required=True, help='workdir of a training run')
  parser.add_argument('--source', required=True, help='portrait, any still image')
  parser.add_argument(
    '--driving', required=True, help='video whose expressions and motion are used'
  )
  parser.add_argument('--output', required=True, help='video to write, .mp4, .mov or .mkv')
  parser.add_argument('--face-detector', default='', help='YuNet model (.onnx) that crops the head')
  parser.add_argument('--batch-size', type=int, default=8, help='frames computed together (8)')
  parser.add_argument('--crf', type=int, default=18, help='H.264 quality, lower is better (18)')
  args = parser.parse_args(argv)
  if args.batch_size < 1:
    parser.error(f'--batch-size must be at least 1, not {args.batch_size}')
  if not pathlib.Path(args.output).absolute().parent.is_dir():
    parser.error(f'--output: no folder {pathlib.Path(args.output).parent}')
  return args


def main() -> None:
  args = parse_args()
  compilation.use_cache()
  logging.set_verbosity(logging.ERROR)  # Orbax warns of what reading only means
  try:
    reenact(**vars(args))
  except (InputError, FloatingPointError) as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  main()
