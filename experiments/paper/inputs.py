"""The clips that the tables are measured on: rendered, or heads cut out of face videos.

Frames are (h, w, 3) uint8; clips are lossless (FFV1).
"""

import argparse
import dataclasses
import functools
import itertools
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

import numpy as np
from tqdm import tqdm

from data.face_clips import layouts
from experiments.paper.tables import FPS, Table
from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import rendered
from hybrid_jax.media import align, clips, faces, sequences, video
from hybrid_jax.training.triplets import INDEX, split_people
from hybrid_jax.world import clips as world_clips
from hybrid_jax.world import people


def write_clip(path: pathlib.Path, shown: Iterable[tuple[np.ndarray, Fraction]]) -> None:
  """Writes frames with their times."""
  shown = iter(shown)
  first = next(shown)  # the writer needs the size
  with video.VideoWriter(path, *first[0].shape[:2], codec='ffv1') as writer:
    for rgb, moment in itertools.chain([first], shown):
      writer.write(rgb, moment)


def frames_in(path: pathlib.Path) -> Iterator[np.ndarray]:
  """Returns the frames of a clip that `write_clip` wrote."""
  return (frame.rgb for frame in video.read_frames(path))


def moments(frames: int) -> tuple[np.ndarray, list[Fraction]]:
  """Returns the times of a rendered clip: seconds (t,), and exact ones."""
  return np.arange(frames, dtype=np.float32) / FPS, [Fraction(k, FPS) for k in range(frames)]


def render(path: pathlib.Path, person: int, motion: np.ndarray) -> list[np.ndarray]:
  """Writes a clip of a person (number in the test split) with motion (t, 16); returns its frames.

  True motion and landmarks are in a .npz file beside it, where the evaluation looks for the motion.
  """
  draw = world_clips.Renderer(rendered.SIZE)
  person += people.SPLITS['test']
  identity, _, scene = world_clips.vectors(person, 0, np.zeros(1, np.float32))
  frames, _, points = zip(*(draw(identity, m, scene) for m in motion), strict=True)
  times, exact = moments(len(motion))
  write_clip(path, zip(frames, exact, strict=True))
  with open(path.with_suffix('.npz'), 'wb') as file:
    np.savez(file, times=times, motion=motion, landmarks=np.stack(points))
  return list(frames)


def motion_of(person: int, clip: int, frames: int) -> np.ndarray:
  """Returns the motion (t, 16) of a clip of a person of the test split."""
  return world_clips.vectors(people.SPLITS['test'] + person, clip, moments(frames)[0])[1]


@dataclasses.dataclass(frozen=True)
class Source:
  """A video of a person, or a span of it, to cut heads out of."""

  person: str
  path: pathlib.Path
  read: Callable[[], Iterator[video.Frame]]


def videos_of(args: argparse.Namespace) -> dict[str, Source]:
  """Returns the clips of `--videos` by name; of HDTF those of people held out of training.

  The first clip of every person comes before the second of any.

  Raises:
    InputError: there are no videos, no metadata of HDTF, or no held-out people.
  """
  if not args.hdtf:
    return {
      name: Source(name, path, functools.partial(sequences.read, path))
      for name, path in sequences.find(args.videos).items()
    }
  expected = layouts.read_layout('hdtf', args.videos, args.hdtf, args.corrections)
  if args.packed:
    unseen = {clip.identity for clip in expected} - trained_on(args.packed)
  else:
    # The division that packing makes of the whole set, whichever videos are present.
    unseen = split_people([clip.identity for clip in expected], args.held_out)['validation']
  of_person: dict[str, list[tuple[str, Source]]] = {}
  for clip in expected:
    if clip.path and clip.identity in unseen:
      read = functools.partial(clips.read_span, clip.path, clip.span)
      known = clip.name, Source(clip.identity, clip.path, read)
      of_person.setdefault(clip.identity, []).append(known)
  rounds = itertools.zip_longest(*of_person.values())
  found = dict(known for of_round in rounds for known in of_round if known)
  if not found:
    raise InputError(f'{args.videos}: no video of a person who was held out of training')
  return found


def trained_on(packed: str) -> set[str]:
  """Returns the people of the training split of a packed data set.

  Raises:
    InputError: the folder holds no packed data set.
  """
  path = pathlib.Path(packed) / INDEX
  try:
    return {row['identity'] for row in json.loads(path.read_text())['splits']['train']}
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(f'--packed={packed}: no packed data set ({INDEX} cannot be read)') from error


def head_clips(
  table: Table, folder: pathlib.Path
) -> Iterator[tuple[str, pathlib.Path, list[Fraction]]]:
  """Cuts heads out of `--videos` into `folder`; yields (name, path, times) of each clip.

  A video without a usable face is reported and left out; the next one takes its place.
  """
  args = table.args
  if not args.cropper:
    raise InputError('--videos needs --cropper=YUNET.onnx, which finds the heads')
  detector, done = faces.FaceDetector(args.cropper), 0
  # Each video is decoded twice, once to find the squares: keeping its frames would take gigabytes.
  for name, given in tqdm(videos_of(args).items(), desc='cutting out heads', unit='video'):
    path, times = folder / f'{name}.mp4', []

    def usable(read=given.read):
      return (f for f in itertools.islice(read(), args.frames) if f.rgb is not None)

    def timed(usable=usable):
      for number, frame in enumerate(usable()):
        yield frame.rgb, Fraction(number, FPS) if frame.time is None else frame.time

    def cut(squares, times=times, timed=timed):
      # Fewer squares than frames, where 'fomm' ends the clip.
      for square, (rgb, moment) in zip(squares, timed(), strict=False):
        times.append(moment)
        yield align.cut(rgb, square, args.size), moment - times[0]

    try:
      shown = ((rgb, float(moment)) for rgb, moment in timed())
      write_clip(path, cut(clips.head_squares(shown, detector, table.model.crop, name=name)))
    except InputError as error:
      path.unlink(missing_ok=True)
      table.leave_out(str(error))
      continue
    table.videos[name], table.people[name] = sequences.digest(given.path), given.person
    yield name, path, [moment - times[0] for moment in times]
    done += 1
    if done == args.people:
      return
  table.leave_out(f'only {done} of {args.people} requested clips: there are no more videos')


def write_copies(path: pathlib.Path, rgb: np.ndarray, times: Iterable[Fraction]) -> None:
  """Writes a clip that never moves, the baseline of every metric."""
  write_clip(path, ((rgb, moment) for moment in times))
