"""Exports the rendered world to plain folders, for training code of other systems; resumable.

  # what the bundled encoder was trained on: 1500 people, 2 clips of 10 frames; 4 min on 2 cores
  python -m experiments.world.export_clips world/
  python -m experiments.world.export_clips small/ --people=8 --held-out=2 --clips=1 --frames=4

  world/train/id0000000#0/000000.png       frames of a clip: person 0, clip 0
  world/landmarks/train/id0000000#0.csv    frame,x0,y0,...,x67,y67: 68 points of 300-W, px
  world/motion/train/id0000000#0.csv       frame,seconds,yaw,...: true parameters in [0, 1]
  world/world.json                         options, people of each split, record of the run

The folders validation/ and test/ hold other people. Frames are spread evenly over the 60 s of a
clip, as in training on rendered people. The same command continues an export that was stopped.
"""

import argparse
import csv
import dataclasses
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterable, Iterator

import numpy as np
from tqdm import tqdm

from experiments import script
from hybrid_jax import cli
from hybrid_jax.errors import InputError
from hybrid_jax.media import reason, replacing, stills
from hybrid_jax.world import clips, parameters, people

INDEX = 'world.json'
OPTIONS = ('people', 'held_out', 'clips', 'frames', 'size')


@dataclasses.dataclass(frozen=True)
class Exported:
  """A clip of an export: paths of its frames, its person, and its name `id...#clip`."""

  person: str
  name: str
  frames: tuple[pathlib.Path, ...]


def clip_name(person: int, clip: int) -> str:
  """Returns the name of a clip; the part before `#` is the person's."""
  return f'id{person:07d}#{clip}'


def split_sizes(options: dict) -> dict[str, int]:
  """Returns how many people each split has."""
  return {name: options['people' if name == 'train' else 'held_out'] for name in people.SPLITS}


def wanted(options: dict) -> Iterator[tuple[str, int, int]]:
  """Yields (split, person, clip) of every clip, the small splits first."""
  for split, count in sorted(split_sizes(options).items(), key=lambda item: item[1]):
    for k in range(count):
      for clip in range(options['clips']):
        yield split, people.SPLITS[split] + k, clip


def write_rows(path: pathlib.Path, header: Iterable[str], rows: Iterable[Iterable]) -> None:
  """Writes a .csv file, whole or not at all."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with replacing(path) as part, open(part, 'w', newline='') as file:
    table = csv.writer(file, lineterminator='\n')
    table.writerow(header)
    table.writerows(rows)


def write_motion(path: pathlib.Path, times: np.ndarray, motion: np.ndarray) -> None:
  """Writes motion (t, 16) at `times` (t,), seconds, as this export and its readings have it."""
  rows = (
    (k, f'{t:.6f}', *(f'{x:.6f}' for x in m))
    for k, (t, m) in enumerate(zip(times, motion, strict=True))
  )
  write_rows(path, ('frame', 'seconds', *parameters.MOTION), rows)


def write_points(path: pathlib.Path, points: np.ndarray) -> None:
  """Writes landmarks (t, 68, 2), px."""
  columns = [f'{axis}{k}' for k in range(points.shape[1]) for axis in 'xy']
  rows = ((k, *(f'{x:.3f}' for x in frame.ravel())) for k, frame in enumerate(points))
  write_rows(path, ('frame', *columns), rows)


def read_points(path: pathlib.Path) -> np.ndarray:
  """Returns the landmarks (t, 68, 2) of a file that `write_points` wrote. Raises InputError."""
  return _read(path, [f'{axis}{k}' for k in range(68) for axis in 'xy']).reshape(-1, 68, 2)


def read_motion(path: pathlib.Path) -> np.ndarray:
  """Returns the motion (t, 16) of a file that `write_motion` wrote. Raises InputError."""
  return _read(path, list(parameters.MOTION))


def _read(path: pathlib.Path, columns: list[str]) -> np.ndarray:
  try:
    with open(path, newline='') as file:
      rows = list(csv.DictReader(file))
    return np.array([[float(row[name]) for name in columns] for row in rows], np.float32)
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(
      f'{path}: cannot be read ({reason(error)}); export or read it again'
    ) from error


def write_clip(out: pathlib.Path, split: str, clip: clips.RenderedClip, name: str) -> None:
  """Writes a clip's landmarks and motion, and then its frames, whose folder marks it complete."""
  points = clip.points * clip.frames.shape[1]
  write_points(out / 'landmarks' / split / f'{name}.csv', points)
  write_motion(out / 'motion' / split / f'{name}.csv', clip.times, clip.motion)
  # Beside the splits, whose every entry is a clip to the code that reads them.
  part = out / '.part'
  shutil.rmtree(part, ignore_errors=True)
  part.mkdir()
  for k, frame in enumerate(clip.frames):
    stills.write_image(part / f'{k:06d}.png', frame)
  os.replace(part, out / split / name)


def check(out: pathlib.Path, options: dict) -> None:
  """Raises InputError for options out of range, and for an export with other options."""
  for name in ('people', 'held_out', 'clips'):
    if options[name] < 1:
      raise InputError(f'--{name.replace("_", "-")}={options[name]}: at least 1')
  if options['frames'] < 2:
    raise InputError(f'--frames={options["frames"]}: at least 2, a source and a target')
  if options['size'] % 8 or not 32 <= options['size'] <= 2048:
    raise InputError(f'--size={options["size"]}: must be a multiple of 8 from 32 to 2048')
  if (out / INDEX).is_file():
    known = read_index(out)['options']
    if known != options:
      changed = ', '.join(f'{name} {known.get(name)}' for name in OPTIONS)
      raise InputError(f'{out}: was begun with {changed}; give the same, or another folder')
  elif out.is_dir() and any(out.iterdir()):
    raise InputError(f'{out}: holds other files; give a new folder')


def read_index(out: pathlib.Path) -> dict:
  """Returns the index of an export.

  Raises:
    InputError: the folder is no export.
  """
  try:
    return json.loads((out / INDEX).read_text())
  except (OSError, ValueError) as error:
    raise InputError(
      f'{out}: no export of the rendered world ({INDEX}: {reason(error)}); '
      'write one with python -m experiments.world.export_clips'
    ) from error


def read(out: pathlib.Path, split: str) -> list[Exported]:
  """Returns the clips of a split of an export.

  Raises:
    InputError: the folder is no export, or it is not complete.
  """
  options, found = read_index(out)['options'], []
  for one, person, clip in wanted(options):
    if one != split:
      continue
    name = clip_name(person, clip)
    if not (out / split / name).is_dir():
      raise InputError(f'{out}: {split}/{name} is missing; run the command of the export again')
    frames = (out / split / name / f'{k:06d}.png' for k in range(options['frames']))
    found.append(Exported(name.partition('#')[0], name, tuple(frames)))
  return found


def export(out: pathlib.Path, options: dict, record: dict) -> int:
  """Renders the clips that are missing; returns how many clips the export has.

  Raises:
    InputError: an option is out of range, or the folder was begun with others.
  """
  check(out, options)
  out.mkdir(parents=True, exist_ok=True)
  if not (out / INDEX).is_file():
    ids = {
      split: [f'id{people.SPLITS[split] + k:07d}' for k in range(count)]
      for split, count in split_sizes(options).items()
    }
    script.write_json(out / INDEX, {'options': options, 'people': ids, 'measured': record})
  for split in people.SPLITS:
    (out / split).mkdir(exist_ok=True)
  renderer, times = clips.Renderer(options['size']), clips.spread_times(options['frames'])
  every = list(wanted(options))
  left = [one for one in every if not (out / one[0] / clip_name(*one[1:])).is_dir()]
  done = len(every) - len(left)
  for split, person, clip in tqdm(left, initial=done, total=len(every), unit='clip'):
    write_clip(out, split, renderer.clip(person, clip, times), clip_name(person, clip))
  return len(every)


def parse_args() -> argparse.Namespace:
  parser = script.parser(__doc__)
  add = parser.add_argument
  add('out', type=pathlib.Path, help='folder to write to')
  add('--people', type=int, default=1500, help='of training (%(default)s)')
  add('--held-out', type=int, default=40, help='people of validation, and of test (%(default)s)')
  add('--clips', type=int, default=2, help='of each person (%(default)s)')
  add('--frames', type=int, default=10, help='of each clip (%(default)s)')
  add('--size', type=int, default=64, help='px, a multiple of 8 (%(default)s)')
  return parser.parse_args()


def main() -> None:
  args = parse_args()
  record = script.record()
  cli.use_compilation_cache()
  try:
    count = export(args.out, {name: getattr(args, name) for name in OPTIONS}, record)
  except InputError as error:
    sys.exit(f'error: {error}')
  except OSError as error:
    sys.exit(f'error: {args.out}: cannot be written ({reason(error)})')
  except KeyboardInterrupt:
    sys.exit('stopped; the same command continues')
  print(f'{args.out}: {count} clips of {args.frames} frames')


if __name__ == '__main__':
  main()
