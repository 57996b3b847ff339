"""Clips of people, and triplets of them: source, same-person driver, other-person driver.

Frames are uint8 (h, w, 3) RGB squares at the encoder's size. Clips are held in memory
(`MemoryClips`: folders of up to a few hundred, and rendered heads) or packed on disk
(`PackedClips`: any number, only the frames drawn are decoded). This module must not import jax:
data worker processes import it.
"""

import dataclasses
import hashlib
import importlib.util
import io
import json
import multiprocessing
import os
import pathlib
import signal
import threading
from collections.abc import Iterable, Sequence
from multiprocessing import resource_tracker
from typing import Protocol

import grain
import numpy as np
from etils import epath
from PIL import Image

from hybrid_jax import media
from hybrid_jax.errors import InputError
from hybrid_jax.media import clips as media_clips
from hybrid_jax.media import framing
from hybrid_jax.media.landmarkers import open_landmarker
from hybrid_jax.progress import Progress, silent
from hybrid_jax.training import people

SUFFIXES = {'.mp4', '.m4v', '.mov', '.mkv', '.webm', '.avi', '.gif'}
# Of one thread at a time: two that import TFDS at once wait for each other for ever.
_OPENING = threading.Lock()
INDEX = 'clips.json'  # beside packed data: identity and number of frames of each record


@dataclasses.dataclass(frozen=True)
class Clip:
  """Frames (t, size, size, 3) uint8 of one shot of one person.

  `masks` (t, size, size, 4) uint8 are of mouth, eyes, brows and face, None where there are none.
  """

  identity: str
  name: str
  frames: np.ndarray
  masks: np.ndarray | None = None


class Clips(Protocol):
  """What triplets are drawn from. `identities` and `lengths` (in frames) have one entry a clip."""

  identities: Sequence[str]
  lengths: Sequence[int]

  def read(
    self, index: int, picks: Sequence[int], masks: bool = True
  ) -> tuple[np.ndarray, np.ndarray | None]:
    """Frames (k, h, w, 3) and, if wanted, masks (k, h, w, 4) of clip `index`."""


class MemoryClips:
  """`Clips` held in memory."""

  def __init__(self, clips: Sequence[Clip]):
    self.clips = clips
    self.identities = [clip.identity for clip in clips]
    self.lengths = [len(clip.frames) for clip in clips]

  def read(
    self, index: int, picks: Sequence[int], masks: bool = True
  ) -> tuple[np.ndarray, np.ndarray | None]:
    """See `Clips.read`."""
    clip = self.clips[index]
    return clip.frames[picks], None if clip.masks is None or not masks else clip.masks[picks]


class PackedClips:
  """`Clips` of one split of a data set that data/face_clips or data/synthetic_heads wrote.

  Reading needs tensorflow_datasets, but does not import TensorFlow.

  Raises:
    InputError: no such data set, or tensorflow_datasets is not installed.
  """

  def __init__(self, data_dir: str, split: str):
    check_packed(data_dir)
    path = epath.Path(data_dir)
    index = json.loads((path / INDEX).read_text())
    rows = index['splits'].get(split, [])
    if not rows:
      raise InputError(f'{data_dir}: its split {split!r} has no clip')
    self.identities = [row['identity'] for row in rows]
    self.lengths = [row['frames'] for row in rows]
    # How heads were cut out; '' of rendered people, and of clips that were packed whole.
    config = index.get('config', {})
    self.framing = framing.of_data({'videos': data_dir, **config})
    # Rendered people have no config, and always masks.
    self.has_masks = bool(config.get('masks', True) and config.get('face_detector', True))
    self._path, self._split, self._source = path, split, None

  def read(
    self, index: int, picks: Sequence[int], masks: bool = True
  ) -> tuple[np.ndarray, np.ndarray | None]:
    """See `Clips.read`."""
    with _OPENING:
      if self._source is None:  # an open file cannot be pickled, and workers receive this object
        self._source = self._open()
    record = self._source[index]
    decode = lambda name: np.stack(  # noqa: E731
      [np.asarray(Image.open(io.BytesIO(record[name][k]))) for k in picks]
    )
    return decode('frames'), decode('masks') if masks and self.has_masks else None

  def _open(self) -> Sequence:
    import tensorflow_datasets as tfds

    class KeepEncoded(tfds.decode.SkipDecoding):
      """Adds the method that sequences of images call and TFDS' own class lacks."""

      def decode_batch_example_np(self, example):
        return example

    builder, skip = tfds.builder_from_directory(self._path), KeepEncoded()
    decoders = {name: skip for name in ('frames', 'masks') if name in builder.info.features}
    return builder.as_data_source(split=self._split, decoders=decoders)


def check_packed(folder: str) -> None:
  """Checks that a folder holds a packed data set, and that this installation can read it.

  Raises:
    InputError: it does not, or tensorflow_datasets is not installed.
  """
  if importlib.util.find_spec('tensorflow_datasets') is None:
    raise InputError("packed data needs the extra [data]: pip install -e '.[data]'")
  if not media.exists(epath.Path(folder) / INDEX):
    raise InputError(f'{folder}: no {INDEX} in it; give the folder of a packed data set')


def find_videos(folder: str) -> list[tuple[str, pathlib.Path]]:
  """Returns (identity, path) of each video: a subfolder, or a file beside them, is one identity.

  Files named as those of CelebV-HQ and HDTF are grouped, see `people.of_file`.

  Raises:
    InputError: no such folder, or no video in it.
  """
  if media.is_remote(folder):
    raise InputError(f'{folder}: videos are read from a file system; pack them, or copy them here')
  root = pathlib.Path(folder)
  if not folder or not root.is_dir():
    raise InputError(f"no folder of videos at '{folder}': set --config.data.videos=DIR")
  paths = sorted(p for p in root.rglob('*') if p.suffix.lower() in SUFFIXES and p.is_file())
  if not paths:
    raise InputError(
      f'{folder}: no video in it; supported suffixes are {" ".join(sorted(SUFFIXES))}'
    )
  return [
    (people.of_file(p.stem) if p.parent == root else p.relative_to(root).parts[0], p) for p in paths
  ]


def split_people(identities: Iterable[str], held_out: float) -> dict[str, set[str]]:
  """Assigns each person to 'train' or 'validation', at least two people to each.

  People are ordered by a hash of their name, so that adding people moves few others to another
  split.

  Raises:
    InputError: fewer than four people.
  """
  order = sorted(set(identities), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
  if len(order) < 4:
    raise InputError(
      f'{len(order)} people: training and validation need two each, for other-person drivers'
    )
  count = min(max(2, round(held_out * len(order))), len(order) - 2)
  return {'train': set(order[count:]), 'validation': set(order[:count])}


def read_folder(
  folder: str,
  *,
  size: int,
  frames_per_clip: int,
  face_detector: str,
  kind: str,
  masks: bool = True,
  progress: Progress = silent,
) -> tuple[list[Clip], list[str]]:
  """Returns all usable clips of a folder, and a line for each clip that was skipped.

  Args:
    folder: see `find_videos`.
    size: side of the frames, px.
    frames_per_clip: evenly spaced frames kept of each clip.
    face_detector: YuNet's or MediaPipe's file; '' takes square clips whole.
    kind: of the crops, one of `media.framing.KINDS`.
    masks: whether to draw and keep masks, which are larger than the frames.
    progress: shows how many clips are read.

  Raises:
    InputError: no usable clip, or all of one identity.
  """
  detector = open_landmarker(face_detector) if face_detector else None
  clips, skipped = [], []
  videos = find_videos(folder)
  for identity, path in progress(videos, 'reading clips', len(videos)):
    try:
      clip = media_clips.read_clip(
        path, size=size, count=frames_per_clip, detector=detector, kind=kind, masks=masks
      )
    except InputError as error:
      skipped.append(f'skipped {error}')
      continue
    clips.append(Clip(identity, path.stem, clip.frames, clip.masks))
  reasons = '; '.join(skipped)
  if not clips:
    raise InputError(f'{folder}: no clip can be used ({reasons})')
  if len({clip.identity for clip in clips}) < 2:
    raise InputError(
      f"{folder}: all usable clips are of one identity, '{clips[0].identity}', so no other-person "
      'driver exists; add videos of a second person' + (f' ({reasons})' if reasons else '')
    )
  return clips, skipped


# Grain's default reads 500 batches ahead: 2.4 GB of 8 triplets at 256 px, and at the start of a run
# all cores are busy with them.
READ_AHEAD = grain.ReadOptions(num_threads=8, prefetch_buffer_size=8)  # batches
WORKER_BATCHES = 2  # finished ones that wait in each worker process


class DrawTriplet(grain.transforms.RandomMap):
  """Maps a clip index to two different frames of that clip and one frame of another person.

  With `masks`, also the union of the masks of mouth, eyes and brows of the first two, (h, w) uint8.
  With `flip`, half of the triplets are mirrored, all frames and masks together.
  """

  def __init__(self, clips: Clips, masks: bool, flip: bool = False):
    self.clips, self.masks, self.flip = clips, masks, flip

  def random_map(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws a triplet; Grain seeds `rng` by the position in the data, hence exact resuming."""
    clips = self.clips
    picks = rng.choice(clips.lengths[index], 2, replace=False)
    frames, masks = clips.read(index, picks, self.masks)
    other = index
    while clips.identities[other] == clips.identities[index]:
      other = int(rng.integers(len(clips.identities)))
    others, _ = clips.read(other, [int(rng.integers(clips.lengths[other]))])
    drawn = {'source': frames[0], 'driving': frames[1], 'other': others[0]}
    if self.masks:
      drawn['source_mask'], drawn['driving_mask'] = masks[..., :3].max(-1)
    # Drawn last, so that the same triplets come with and without flips.
    if self.flip and rng.random() < 0.5:
      drawn = {name: image[:, ::-1] for name, image in drawn.items()}
    return drawn


def shapes(size: int, masks: bool) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of one triplet, without the batch axis; all its arrays are uint8."""
  named = {role: (size, size, 3) for role in ('source', 'driving', 'other')}
  return named | {f'{role}_mask': (size, size) for role in ('source', 'driving') if masks}


def _end_with_the_run(worker: int, workers: int) -> None:
  """Ends a worker process when the run has died; a run that is killed cannot end its workers."""
  del worker, workers

  def watch():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


class Batches:
  """Iterator of batches, drawn in this process or by `workers` of them, alike in every bit.

  Its state is the number of batches drawn, whatever draws them, so that a run may resume with
  another number of workers. (Grain's own state belongs to a number of workers, and yields other
  batches with another one.) Checkpoints take it for an iterator of Grain.
  """

  def __init__(self, dataset: grain.MapDataset, workers: int):
    self.dataset, self.workers, self.drawn, self._batches = dataset, workers, 0, None

  def __iter__(self) -> 'Batches':
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    batch = next(self._batches) if self._batches else self._first()
    self.drawn += 1
    return batch

  def _first(self) -> dict[str, np.ndarray]:
    rest = self.dataset[self.drawn :].to_iter_dataset(READ_AHEAD)
    if self.workers:
      options = grain.MultiprocessingOptions(self.workers, WORKER_BATCHES)
      rest = rest.mp_prefetch(options, _end_with_the_run)
      resource_tracker.ensure_running()  # its start would end the mask
    # Workers inherit the mask of signals: Ctrl-C, which a terminal sends to all, is for the run,
    # which saves first. There it waits until the first batch has come.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
      self._batches = iter(rest)
      return next(self._batches)
    finally:
      signal.pthread_sigmask(signal.SIG_SETMASK, before)

  def get_state(self) -> bytes:
    """Returns the place in the data."""
    return json.dumps({'next_index': self.drawn}).encode()

  def set_state(self, state: bytes) -> None:
    """Moves to a place in the data; the next batch is read from there."""
    self.close()
    self.drawn = json.loads(state)['next_index']

  def start_prefetch(self) -> None:
    """Does nothing: reading begins with the first batch."""

  def close(self) -> None:
    """Ends the worker processes."""
    if self._batches is not None:
      self._batches.close()
    self._batches = None


def triplets(
  clips: Clips,
  *,
  batch_size: int,
  seed: int,
  masks: bool = False,
  flip: bool = False,
  process: tuple[int, int] = (0, 1),
  workers: int = 0,
) -> Batches:
  """Returns endless shuffled batches {'source', 'driving', 'other'} of (n, h, w, 3) uint8.

  Its iterator can be saved and restored at any batch. With `masks`, batches also have 'source_mask'
  and 'driving_mask'; with `flip`, half of the triplets are mirrored. See `DrawTriplet`.

  `process` is (index, count): each of several processes gets its part of every batch, in order, so
  that their batches side by side are those of a single process.

  Raises:
    InputError: the batch cannot be divided among the processes, or all clips show one person.
  """
  index, count = process
  if batch_size % count:
    raise InputError(f'batches of {batch_size} cannot be divided among {count} processes')
  if len(set(clips.identities)) < 2:
    raise InputError(
      'all clips are of one identity, so no other-person driver exists; add a person'
    )
  dataset = grain.MapDataset.range(len(clips.identities)).seed(seed).shuffle().repeat()
  dataset = dataset.random_map(DrawTriplet(clips, masks, flip))
  dataset = dataset.batch(batch_size // count, drop_remainder=True)
  return Batches(dataset[index::count], workers)
