"""The pairs of a table, source and driving clip, and the checks of other systems' answers to them.

A table writes pairs.csv into the folder of `--keep`: columns `name`, `source` and `driving`, paths
in that folder. A system renders each pair as NAME.mp4, .npy or a folder NAME of pictures, one frame
for each of the driving clip, in the size of the source.
"""

import csv
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hybrid_jax.errors import InputError
from hybrid_jax.media import reason, replacing, sequences, stills

FILE = 'pairs.csv'
SHOWN = 3  # names in a line


class Pair(NamedTuple):
  """A clip to render: its name, the picture of its source and the driving clip."""

  name: str
  source: pathlib.Path
  driving: pathlib.Path


def write(folder: pathlib.Path, pairs: Sequence[Pair]) -> None:
  """Writes pairs.csv into the folder that holds the files of the pairs."""
  with replacing(folder / FILE) as part, open(part, 'w', newline='') as file:
    table = csv.writer(file, lineterminator='\n')
    table.writerow(Pair._fields)
    for name, *paths in pairs:
      table.writerow((name, *(path.relative_to(folder).as_posix() for path in paths)))


def read(folder: pathlib.Path) -> list[Pair]:
  """Returns the pairs of a folder of `--keep`.

  Raises:
    InputError: the folder has no pairs.csv, or a file that it names is missing.
  """
  try:
    with open(folder / FILE, newline='') as file:
      rows = [[row[field] for field in Pair._fields] for row in csv.DictReader(file)]
  except (OSError, ValueError, KeyError) as error:
    raise InputError(
      f'{folder}: no clips of a table ({FILE}: {reason(error)}); run the table with --keep={folder}'
    ) from error
  found = [Pair(name, folder / source, folder / driving) for name, source, driving in rows]
  missing = [path for pair in found for path in pair[1:] if not path.is_file()]
  if missing:
    raise InputError(f'{missing[0]}: missing, but {folder / FILE} names it; run the table again')
  return found


def check(methods: Mapping[str, str], pairs: Sequence[Pair]) -> None:
  """Checks that each system has every clip, in the right size and length.

  Args:
    methods: folders of videos by the name of the system.

  Raises:
    InputError: a clip is missing, cannot be read, or has another size or number of frames.
  """
  for method, folder in methods.items():
    clips = sequences.find(folder)
    missing = [pair.name for pair in pairs if pair.name not in clips]
    if missing:
      more = f' and {len(missing) - SHOWN} more' if len(missing) > SHOWN else ''
      raise InputError(
        f'--method={method}={folder}: {len(missing)} of {len(pairs)} clips are missing: '
        f'{", ".join(missing[:SHOWN])}{more}; render every pair of {FILE} (see --keep)'
      )
    for pair in pairs:
      _check_clip(f'--method={method}', clips[pair.name], pair)


def _check_clip(option: str, path: pathlib.Path, pair: Pair) -> None:
  first = next(sequences.read(path), None)
  if first is None or first.rgb is None:
    raise InputError(f'{option}: {path}: its first frame cannot be used; render it again')
  wanted, size = stills.read_image(pair.source).shape, first.rgb.shape
  if size != wanted:
    raise InputError(
      f'{option}: {path}: {size[1]} x {size[0]} px, and its source {wanted[1]} x {wanted[0]}; '
      'render it in the size of the source'
    )
  # Frames with times are compared by time, and doubts about them are reported with the row.
  if first.time is None:
    counts = [sum(1 for _ in sequences.read(clip)) for clip in (path, pair.driving)]
    if counts[0] != counts[1]:
      raise InputError(
        f'{option}: {path}: {counts[0]} frames, and its driving clip {counts[1]}; render one frame '
        'for each of the driving clip'
      )
