"""Writes rendered portraits, driving videos and the true answers of their re-enactment.

  python -m hybrid_jax.world out/
  python -m hybrid_jax.world out/ --people 4 --clips 3 --size 512 --seconds 4

  out/portraits/person_0.png            the sources
  out/driving/clip_0.mp4                other people talking, with sound and exact timestamps
  out/driving/clip_0.npz                its true motion, landmarks (68) and times
  out/answers/person_0_as_clip_0.mp4    the portrait's person and scene with the clip's motion

The people are of the held-out split: nothing shipped has been trained on them. Then, for instance,
  python -m hybrid_jax.reenact --source out/portraits/person_0.png \\
      --driving out/driving/clip_0.mp4 --output person_0.mp4
"""

import argparse
import itertools
import pathlib
import sys
import tempfile
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
from tqdm import tqdm

RATE = 16_000  # of the sound, Hz


def voice(motion: np.ndarray, fps: int) -> np.ndarray:
  """A hum at 130 Hz, as loud as the mouth is open: (samples,) int16, for lips to be heard by."""
  from hybrid_jax.world.parameters import MOTION

  samples = len(motion) * RATE // fps
  t = np.arange(samples) / RATE
  loud = np.interp(t * fps, np.arange(len(motion)), motion[:, list(MOTION).index('jaw_open')])
  tone = sum(np.sin(2 * np.pi * 130 * k * t) / k for k in range(1, 8))
  return np.round(6000 * loud * tone).astype(np.int16)


def write_sound(path: pathlib.Path, samples: np.ndarray) -> None:
  """AAC in MP4 (.m4a)."""
  import av

  with av.open(str(path), 'w', format='mp4') as container:
    track = container.add_stream('aac', rate=RATE, layout='mono')
    frame = av.AudioFrame.from_ndarray(samples[None], format='s16', layout='mono')
    frame.sample_rate = RATE
    container.mux(track.encode(frame))
    container.mux(track.encode(None))


def write_film(path: pathlib.Path, images: Iterable, motion: np.ndarray, fps: int, bar) -> None:
  """Images (h, w, 3) as a video whose sound is the voice of `motion` (t, 16)."""
  from hybrid_jax.media import video

  images = iter(images)
  first = next(images)
  height, width, _ = first.shape
  with tempfile.TemporaryDirectory() as folder:
    sound = pathlib.Path(folder) / 'voice.m4a'
    write_sound(sound, voice(motion, fps))
    with video.VideoWriter(
      path, height, width, time_base=Fraction(1, 1000 * fps), crf=14, audio_from=sound
    ) as writer:
      for k, image in enumerate(itertools.chain([first], images)):
        writer.write(image, Fraction(k, fps))
        bar.update()


def write_world(
  out: pathlib.Path, *, people: int, clips: int, size: int, seconds: float, fps: int
) -> None:
  """Everything that the module's docstring lists."""
  from hybrid_jax.media import replacing, stills
  from hybrid_jax.world.clips import Renderer, vectors
  from hybrid_jax.world.parameters import MOTION, pack
  from hybrid_jax.world.people import SPLITS

  for name in ('portraits', 'driving', 'answers'):
    (out / name).mkdir(parents=True, exist_ok=True)
  renderer, first = Renderer(size), SPLITS['test']
  times = np.arange(max(2, round(seconds * fps))) / fps
  with tqdm(total=people + clips * len(times) * (people + 1), unit='frame') as bar:
    sources = []
    for k in range(people):
      bar.set_description(f'portrait {k}')
      identity, _, scene = vectors(first + k, 0, times[:1])
      portrait, _, _ = renderer(identity, pack(MOTION, smile=0.1), scene)
      stills.write_image(out / 'portraits' / f'person_{k}.png', portrait)
      sources.append((identity, scene))
      bar.update()
    for clip in range(clips):
      # The drivers have no portrait, so every answer crosses identities.
      identity, motion, scene = vectors(first + people + clip, 0, times)
      path = out / 'driving' / f'clip_{clip}.mp4'
      bar.set_description(f'driving clip {clip}')
      points = []

      def driving(identity=identity, motion=motion, scene=scene, points=points):
        for m in motion:
          image, _, landmarks = renderer(identity, m, scene)
          points.append(landmarks)
          yield image

      write_film(path, driving(), motion, fps, bar)
      with replacing(path.with_suffix('.npz')) as part, open(part, 'wb') as file:
        np.savez(file, times=times, motion=motion, landmarks=np.stack(points))
      for k, (identity, scene) in enumerate(sources):
        bar.set_description(f'answer of person {k} to clip {clip}')
        answer = out / 'answers' / f'person_{k}_as_clip_{clip}.mp4'
        write_film(answer, (renderer(identity, m, scene)[0] for m in motion), motion, fps, bar)


def main() -> None:
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.world',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('out', help='folder to write to')
  parser.add_argument('--people', type=int, default=2, help='portraits (2)')
  parser.add_argument('--clips', type=int, default=2, help='driving videos (2)')
  parser.add_argument('--size', type=int, default=256, help='px, even (256)')
  parser.add_argument('--seconds', type=float, default=2.0, help='length of each clip (2)')
  parser.add_argument('--fps', type=int, default=25, help='frames a second (25)')
  args = parser.parse_args()
  # Imported here, so that --help does not wait for JAX.
  from hybrid_jax import cli
  from hybrid_jax.errors import InputError

  try:
    for name in ('people', 'clips', 'size', 'seconds', 'fps'):
      if getattr(args, name) <= 0:
        raise InputError(f'--{name}={getattr(args, name)}: must be above zero')
    if args.size % 8 or not 32 <= args.size <= 2048:
      raise InputError(f'--size={args.size}: must be a multiple of 8 from 32 to 2048')
    if args.fps > 120:
      raise InputError(f'--fps={args.fps}: at most 120')
    cli.use_compilation_cache(None)
    options = dict(vars(args))
    write_world(pathlib.Path(options.pop('out')), **options)
  except InputError as error:
    sys.exit(f'error: {error}')
  except OSError as error:
    sys.exit(f'error: {args.out}: cannot be written ({error.strerror or error})')
  print(f'{args.out}: {args.people} portraits, {args.clips} driving clips and their true answers')


if __name__ == '__main__':
  main()
