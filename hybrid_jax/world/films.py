"""Files of the rendered world: portraits, driving videos with sound, and true re-enactments.

Videos are H.264 with AAC sound. Frame k is presented at exactly k / fps seconds.
"""

import itertools
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

import av
import numpy as np

from hybrid_jax.media import replacing, stills, video
from hybrid_jax.world import people
from hybrid_jax.world.clips import Renderer, vectors
from hybrid_jax.world.parameters import MOTION, pack

RATE = 16_000  # of the sound, Hz
PITCH, HARMONICS, LOUDNESS = 130, 7, 6000  # Hz; sines; int16 level of a sine at an open mouth

Progress = Callable[[str, int], None]


def voice(motion: np.ndarray, fps: int) -> np.ndarray:
  """Returns a hum as loud as the mouth is open: (samples,) int16 at `RATE`, for motion (t, 16).

  It makes a shift between sound and picture audible in a re-enactment.
  """
  # The mouth is known once per frame; steps of loudness would click, so it is interpolated.
  samples = len(motion) * RATE // fps
  t = np.arange(samples) / RATE
  loud = np.interp(t * fps, np.arange(len(motion)), motion[:, list(MOTION).index('jaw_open')])
  tone = sum(np.sin(2 * np.pi * PITCH * k * t) / k for k in range(1, HARMONICS + 1))
  return np.round(LOUDNESS * loud * tone).astype(np.int16)


def write_sound(path: pathlib.Path, samples: np.ndarray) -> None:
  """Writes (samples,) int16 at `RATE` as AAC in an MP4 container (.m4a)."""
  with av.open(str(path), 'w', format='mp4') as container:
    track = container.add_stream('aac', rate=RATE, layout='mono')
    frame = av.AudioFrame.from_ndarray(samples[None], format='s16', layout='mono')
    frame.sample_rate = RATE
    container.mux(track.encode(frame))
    container.mux(track.encode(None))  # flushes the encoder


def write_film(
  path: pathlib.Path,
  images: Iterable[np.ndarray],
  motion: np.ndarray,
  fps: int,
  on_frame: Callable[[], object] | None = None,
) -> None:
  """Writes images (h, w, 3) uint8 as a video whose sound is the `voice` of `motion` (t, 16).

  `on_frame` is called after each frame that was written.
  """
  images = iter(images)
  first = next(images)
  height, width, _ = first.shape
  with tempfile.TemporaryDirectory() as folder:
    sound = pathlib.Path(folder) / 'voice.m4a'
    write_sound(sound, voice(motion, fps))
    # The time base holds every k / fps exactly. The compression is low, since these films are the
    # inputs and the true answers of measurements.
    with video.VideoWriter(
      path, height, width, time_base=Fraction(1, 1000 * fps), crf=14, audio_from=sound
    ) as writer:
      for k, image in enumerate(itertools.chain([first], images)):
        writer.write(image, Fraction(k, fps))
        if on_frame:
          on_frame()


def frames_of_world(
  *, people: int, clips: int, seconds: float, fps: int, answers: bool = True
) -> int:
  """Returns how many frames `write_world` renders with these options."""
  return people + clips * len(_times(seconds, fps)) * (people * answers + 1)


def write_world(
  out: pathlib.Path,
  *,
  people: int,
  clips: int,
  size: int,
  seconds: float,
  fps: int,
  answers: bool = True,
  progress: Progress = lambda description, frames: None,
) -> None:
  """Writes portraits, driving clips with their truth, and every re-enactment of both, into `out`.

  The people are the first ones of the split 'test'. The file names are listed in the README of this
  folder.

  Args:
    out: folder; made if missing.
    people: number of portraits.
    clips: number of driving clips, each of a person without a portrait.
    size: px, a multiple of 8.
    seconds: length of each clip.
    fps: frames a second.
    answers: whether to write the re-enactments.
    progress: called with a description and the number of frames rendered since the last call.
  """
  for name in ('portraits', 'driving', *['answers'] * answers):
    (out / name).mkdir(parents=True, exist_ok=True)
  renderer, times = Renderer(size), _times(seconds, fps)
  sources = []  # identity and scene: an answer shows the portrait's person and background
  for k in range(people):
    # The first picture waits for the compiler, at 256 px for up to a minute.
    progress(f'portrait {k}' if k else 'compiling the renderer', 0)
    sources.append(_write_portrait(out, renderer, k))
    progress(f'portrait {k}', 1)
  for clip in range(clips):
    description = f'driving clip {clip}'
    progress(description, 0)
    # The drivers follow the sources in the split and have no portrait, so that every answer shows
    # one person with the motion of another.
    motion = _write_driving(
      out, renderer, clip, people + clip, times, fps, lambda d=description: progress(d, 1)
    )
    for k, (identity, scene) in enumerate(sources if answers else ()):
      description = f'answer of person {k} to clip {clip}'
      progress(description, 0)
      path = out / 'answers' / f'person_{k}_as_clip_{clip}.mp4'
      images = (renderer(identity, m, scene)[0] for m in motion)
      write_film(path, images, motion, fps, lambda d=description: progress(d, 1))


def _times(seconds: float, fps: int) -> np.ndarray:
  return np.arange(max(2, round(seconds * fps))) / fps


def _write_portrait(
  out: pathlib.Path, renderer: Renderer, person: int
) -> tuple[np.ndarray, np.ndarray]:
  """Writes a nearly neutral portrait; returns identity and scene."""
  identity, _, scene = vectors(people.SPLITS['test'] + person, 0, np.zeros(1))
  portrait, _, _ = renderer(identity, pack(MOTION, smile=0.1), scene)
  stills.write_image(out / 'portraits' / f'person_{person}.png', portrait)
  return identity, scene


def _write_driving(
  out: pathlib.Path,
  renderer: Renderer,
  clip: int,
  person: int,
  times: np.ndarray,
  fps: int,
  on_frame: Callable[[], object],
) -> np.ndarray:
  """Writes a driving clip and its truth (.npz); returns the motion (t, 16)."""
  identity, motion, scene = vectors(people.SPLITS['test'] + person, 0, times)
  path, points = out / 'driving' / f'clip_{clip}.mp4', []

  def images() -> Iterator[np.ndarray]:
    for m in motion:
      image, _, landmarks = renderer(identity, m, scene)
      points.append(landmarks)  # complete when the film is written
      yield image

  write_film(path, images(), motion, fps, on_frame)
  with replacing(path.with_suffix('.npz')) as part, open(part, 'wb') as file:
    np.savez(file, times=times, motion=motion, landmarks=np.stack(points))
  return motion
