"""Layouts of video data sets on disk: the clips expected, their files, and the people in them.

folder      one file, or one subfolder of clips, per person
celebv_hq   `<video>_<k>.mp4`, cut and cropped by the set's own script, or uncut `<video>.mp4` and
            its JSON; each video counts as a person
hdtf        `<video>_<k>.mp4`, also with the prefix `RD_`, `WDA_` or `WRA_`, or uncut
            `<video>.mp4`, and the set's metadata; a person is a name without its trailing number
"""

import csv
import dataclasses
import json
import pathlib
import re

from hybrid_jax.errors import InputError
from hybrid_jax.training.people import HDTF_SUBSETS, celebv_identity, hdtf_identity, hdtf_stem
from hybrid_jax.training.triplets import find_videos


@dataclasses.dataclass(frozen=True)
class Expected:
  """A clip that the data set lists.

  name: unique in the set.
  identity: of the person.
  path: of the file; None if it is not on disk.
  span: (start, end) in an uncut video, seconds; None for the whole file.
  box: crop (top, bottom, left, right) in [0, 1] of the frame; None if the face is to be followed.
  """

  name: str
  identity: str
  path: pathlib.Path | None
  span: tuple[float, float] | None = None
  box: tuple[float, float, float, float] | None = None


def folder(videos: str) -> list[Expected]:
  """Returns the videos of a folder, each file or subfolder one person.

  Raises:
    InputError: no such folder, or no video in it.
  """
  root = pathlib.Path(videos)
  return [
    Expected(path.relative_to(root).with_suffix('').as_posix(), identity, path)
    for identity, path in find_videos(videos)
  ]


def celebv_hq(videos: str, metadata: str) -> list[Expected]:
  """Returns the clips of CelebV-HQ (Zhu et al. 2022).

  Args:
    videos: folder of cut clips or uncut videos.
    metadata: celebvhq_info.json; '' takes the cut clips found in the folder.

  Raises:
    InputError: no video, or another JSON file.
  """
  present = {path.stem: path for _, path in find_videos(videos)}
  if not metadata:
    return [Expected(name, celebv_identity(name), path) for name, path in sorted(present.items())]
  try:
    clips = json.loads(pathlib.Path(metadata).read_text())['clips']
    return [_celebv_clip(name, clip, present) for name, clip in sorted(clips.items())]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(f'{metadata}: is not celebvhq_info.json ({error!r})') from error


def _celebv_clip(name: str, clip: dict, present: dict) -> Expected:
  if name in present:
    return Expected(name, clip['ytb_id'], present[name])  # already cut in time and space
  # An uncut video: `read_clip` cuts it at the span and crops the given box, without a detector.
  span, box = clip['duration'], clip['bbox']
  return Expected(
    name,
    clip['ytb_id'],
    present.get(clip['ytb_id']),
    (float(span['start_sec']), float(span['end_sec'])),
    tuple(float(box[side]) for side in ('top', 'bottom', 'left', 'right')),
  )


def hdtf(videos: str, metadata: str) -> list[Expected]:
  """Returns the clips of HDTF (Zhang et al. 2021).

  Args:
    videos: folder of cut clips or uncut videos.
    metadata: folder of `*_annotion_time.txt` (the set's own spelling).

  Raises:
    InputError: no video, no metadata, or a line that cannot be read.
  """
  clips, raw = {}, {}
  for _, path in find_videos(videos):
    stem = hdtf_stem(path.stem)
    raw[stem] = path
    # A number after '_' is that of a span; 00 and 000 are the same.
    if match := re.fullmatch(r'(.+)_(\d+)', stem):
      clips[match[1], int(match[2])] = path
  expected = []
  for subset in HDTF_SUBSETS:
    table = pathlib.Path(metadata) / f'{subset}_annotion_time.txt'
    if not table.is_file():
      raise InputError(f"{table}: missing; give the folder of HDTF's metadata")
    for number, line in enumerate(table.read_text().splitlines(), start=1):
      if not line.strip():
        continue
      try:
        video, *spans = line.split()
        video = video.removesuffix('.mp4')
        spans = [tuple(map(_seconds, span.split('-'))) for span in spans]
        if any(len(span) != 2 or span[0] >= span[1] for span in spans):
          raise ValueError
      except ValueError:
        raise InputError(f"{table.name}, line {number}: cannot read '{line.strip()}'") from None
      for k, span in enumerate(spans):
        name, identity = f'{video}_{k}', hdtf_identity(video)
        if (video, k) in clips:
          # A clip cut already is used in full; an uncut video is cut at the span of the table.
          expected.append(Expected(name, identity, clips[video, k]))
        else:
          expected.append(Expected(name, identity, raw.get(video), span))
  return expected


def _seconds(time: str) -> float:
  """Converts '01:23' or '1:02:03' to seconds."""
  total = 0.0
  for part in time.split(':'):
    # Works for minutes and hours alike.
    total = 60 * total + float(part)
  return total


def corrected(expected: list[Expected], corrections: str) -> list[Expected]:
  """Replaces identities as a CSV file says, with lines `name,identity`; '#' starts a comment.

  Args:
    corrections: path; '' changes nothing. `name` is that of a clip or of an identity, and an empty
      `identity` drops the clip.

  Raises:
    InputError: the file cannot be read, or no clip has a name in it.
  """
  if not corrections:
    return expected
  try:
    with open(corrections, newline='') as file:
      rows = [row for row in csv.reader(file) if row and not row[0].startswith('#')]
    table = {name.strip(): identity.strip() for name, identity in rows}
  except (OSError, ValueError) as error:
    raise InputError(f"{corrections}: needs lines of 'name,identity' ({error})") from error
  # A misspelled name would otherwise change nothing, and a person be in both splits.
  names = {clip.name for clip in expected} | {clip.identity for clip in expected}
  if unknown := sorted(set(table) - names):
    raise InputError(f'{corrections}: no clip or identity is named {", ".join(unknown)}')
  result = []
  for clip in expected:
    # A clip's own line takes precedence over that of its person.
    identity = table.get(clip.name, table.get(clip.identity, clip.identity))
    if identity:
      result.append(dataclasses.replace(clip, identity=identity))
  return result


LAYOUTS = ('folder', 'celebv_hq', 'hdtf')


def read_layout(layout: str, videos: str, metadata: str, corrections: str) -> list[Expected]:
  """Returns the clips of a data set in one of `LAYOUTS`, with corrected identities.

  Raises:
    InputError: an unknown layout, or as `folder`, `celebv_hq`, `hdtf` and `corrected`.
  """
  if layout == 'folder':
    expected = folder(videos)
  elif layout == 'celebv_hq':
    expected = celebv_hq(videos, metadata)
  elif layout == 'hdtf':
    expected = hdtf(videos, metadata)
  else:
    raise InputError(f'no layout {layout!r}; choose from {", ".join(LAYOUTS)}')
  return corrected(expected, corrections)
