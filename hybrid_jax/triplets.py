"""Videos to (source, same-person driver, other-person driver) triplets.

Frames are uint8 (h, w, 3) RGB squares at the encoder's size, held in memory: this source is for
folders of up to a few hundred clips. No jax here, so that worker processes can import it.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Iterable, Sequence

import grain
import numpy as np
from tqdm import tqdm

from hybrid_jax.errors import InputError
from hybrid_jax.media import faces, video

SUFFIXES = {'.mp4', '.m4v', '.mov', '.mkv', '.webm', '.avi', '.gif'}


@dataclasses.dataclass(frozen=True)
class Clip:
  """Frames (t, size, size, 3) of one shot of one person."""

  identity: str
  name: str
  frames: np.ndarray


def find_videos(folder: str) -> list[tuple[str, pathlib.Path]]:
  """(identity, path) of each video: a subfolder is one identity, a file directly in it its own.

  Raises:
    InputError: no such folder, or no video in it.
  """
  root = pathlib.Path(folder)
  if not folder or not root.is_dir():
    raise InputError(f"no folder of videos at '{folder}': set --config.data.videos=DIR")
  paths = sorted(p for p in root.rglob('*') if p.suffix.lower() in SUFFIXES and p.is_file())
  if not paths:
    raise InputError(f'{folder}: no video in it; known endings are {" ".join(sorted(SUFFIXES))}')
  return [(p.stem if p.parent == root else p.relative_to(root).parts[0], p) for p in paths]


def read_clip(
  path: pathlib.Path, size: int, count: int, detector: faces.FaceDetector | None, crop_scale: float
) -> np.ndarray:
  """Up to `count` evenly spaced frames (t, size, size, 3), cropped with one box for the clip.

  Decodes twice, once to find the box and the number of frames and once to keep the chosen ones, so
  that memory does not grow with the clip's length.

  Raises:
    InputError: unreadable, no face, not square without a detector, fewer than two frames.
  """
  info, total = video.probe(path), 0

  def counted():
    nonlocal total
    for frame in video.read_frames(path):
      total += 1
      yield frame.rgb

  if detector is not None:
    box = faces.track_box(counted(), detector, scale=crop_scale, name=path.name).square
  elif info.height == info.width:
    box = (0, 0, info.width, info.height)
    collections.deque(counted(), maxlen=0)
  else:
    raise InputError(
      f'{path.name}: {info.width}x{info.height} is not square; give a face detector to crop it'
    )
  if total < 2:
    raise InputError(f'{path.name}: {total} frame(s); a triplet needs two of one person')
  chosen = set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())
  return np.stack(
    [
      faces.crop_square(frame.rgb, box, size)
      for i, frame in enumerate(video.read_frames(path))
      if i in chosen
    ]
  )


def read_folder(
  folder: str, *, size: int, frames_per_clip: int, face_detector: str, crop_scale: float
) -> tuple[list[Clip], list[str]]:
  """All usable clips of a folder, and a line for each that was skipped.

  Raises:
    InputError: no usable clip, or all of one identity.
  """
  detector = faces.FaceDetector(face_detector) if face_detector else None
  clips, skipped = [], []
  for identity, path in tqdm(find_videos(folder), desc='reading clips', unit='clip'):
    try:
      frames = read_clip(path, size, frames_per_clip, detector, crop_scale)
    except InputError as error:
      skipped.append(f'skipped {error}')
      continue
    clips.append(Clip(identity, path.stem, frames))
  reasons = '; '.join(skipped)
  if not clips:
    raise InputError(f'{folder}: no clip can be used ({reasons})')
  if len({clip.identity for clip in clips}) < 2:
    raise InputError(
      f"{folder}: all usable clips are of one identity, '{clips[0].identity}', so no other-person "
      'driver exists; add videos of a second person' + (f' ({reasons})' if reasons else '')
    )
  return clips, skipped


class DrawTriplet(grain.transforms.RandomMap):
  """Clip index -> two different frames of that clip and one frame of another person's."""

  def __init__(self, clips: Sequence[Clip]):
    self.clips = clips
    self.others = {
      identity: [c for c in clips if c.identity != identity]
      for identity in {c.identity for c in clips}
    }

  def random_map(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    clip = self.clips[index]
    source, driving = rng.choice(len(clip.frames), 2, replace=False)
    others = self.others[clip.identity]
    other = others[rng.integers(len(others))]
    return {
      'source': clip.frames[source],
      'driving': clip.frames[driving],
      'other': other.frames[rng.integers(len(other.frames))],
    }


def triplets(
  clips: Sequence[Clip], *, batch_size: int, seed: int
) -> Iterable[dict[str, np.ndarray]]:
  """Endless shuffled batches {'source', 'driving', 'other'} of (n, h, w, 3); resumes exactly."""
  dataset = grain.MapDataset.range(len(clips)).seed(seed).shuffle().repeat()
  dataset = dataset.random_map(DrawTriplet(clips))
  return dataset.batch(batch_size, drop_remainder=True).to_iter_dataset()
