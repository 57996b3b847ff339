"""How video sets lie on disk: which clips are expected, where they are, and whose they are.

folder      one file, or one subfolder of clips, per person
celebv_hq   `<video>_<k>.mp4`, cut and cropped by the set's own script, or raw `<video>.mp4` with
            its JSON; a person is a video
hdtf        `<video>_<k>.mp4` with or without `RD_`, `WDA_` or `WRA_` in front, or raw
            `<video>.mp4`, with the set's metadata; a person is a name without its trailing number
"""

import csv
import dataclasses
import json
import pathlib
import re

from hybrid_jax.errors import InputError
from hybrid_jax.training.triplets import find_videos

HDTF_SUBSETS = ('RD', 'WDA', 'WRA')


@dataclasses.dataclass(frozen=True)
class Expected:
  """A clip that the set names.

  path: None where it is not on disk. span: (start, end) in seconds of a raw video, None for all of
  the file. box: (top, bottom, left, right) in [0, 1] of the frame, None where it is to be found.
  """

  name: str
  identity: str
  path: pathlib.Path | None
  span: tuple[float, float] | None = None
  box: tuple[float, float, float, float] | None = None


def folder(videos: str) -> list[Expected]:
  """Raises InputError: no such folder, or no video in it."""
  root = pathlib.Path(videos)
  return [
    Expected(path.relative_to(root).with_suffix('').as_posix(), identity, path)
    for identity, path in find_videos(videos)
  ]


def celebv_hq(videos: str, metadata: str) -> list[Expected]:
  """`metadata` is celebvhq_info.json; '' takes the clips that are there.

  Raises:
    InputError: no video, or a file that is not that JSON.
  """
  present = {path.stem: path for _, path in find_videos(videos)}
  if not metadata:
    return [Expected(name, _celebv_video(name), path) for name, path in sorted(present.items())]
  try:
    clips = json.loads(pathlib.Path(metadata).read_text())['clips']
    return [_celebv_clip(name, clip, present) for name, clip in sorted(clips.items())]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(f'{metadata}: is not celebvhq_info.json ({error!r})') from error


def _celebv_video(name: str) -> str:
  return name.rpartition('_')[0] or name


def _celebv_clip(name: str, clip: dict, present: dict) -> Expected:
  if name in present:
    return Expected(name, clip['ytb_id'], present[name])
  span, box = clip['duration'], clip['bbox']
  return Expected(
    name,
    clip['ytb_id'],
    present.get(clip['ytb_id']),
    (float(span['start_sec']), float(span['end_sec'])),
    tuple(float(box[side]) for side in ('top', 'bottom', 'left', 'right')),
  )


def hdtf(videos: str, metadata: str) -> list[Expected]:
  """`metadata` is the folder of `*_annotion_time.txt` (as it is spelled there).

  Raises:
    InputError: no video, no metadata, or a line that cannot be read.
  """
  clips, raw = {}, {}
  for _, path in find_videos(videos):
    stem = re.sub(rf'^({"|".join(HDTF_SUBSETS)})_', '', path.stem)
    raw[stem] = path
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
          expected.append(Expected(name, identity, clips[video, k]))
        else:
          expected.append(Expected(name, identity, raw.get(video), span))
  return expected


def _seconds(time: str) -> float:
  """'01:23' or '1:02:03' -> seconds."""
  total = 0.0
  for part in time.split(':'):
    total = 60 * total + float(part)
  return total


def hdtf_identity(video: str) -> str:
  """AmyKlobuchar1 -> AmyKlobuchar; Radio1 and Radio2 are different people."""
  return video if re.fullmatch(r'Radio\d+', video) else video.rstrip('0123456789')


def corrected(expected: list[Expected], corrections: str) -> list[Expected]:
  """Replaces identities by a CSV file of `name,identity`, a name being a clip's or an identity's.

  An empty identity drops the clip.

  Raises:
    InputError: a file that cannot be read, or a name that no clip has.
  """
  if not corrections:
    return expected
  try:
    with open(corrections, newline='') as file:
      rows = [row for row in csv.reader(file) if row and not row[0].startswith('#')]
    table = {name.strip(): identity.strip() for name, identity in rows}
  except (OSError, ValueError) as error:
    raise InputError(f"{corrections}: needs lines of 'name,identity' ({error})") from error
  known = {clip.name for clip in expected} | {clip.identity for clip in expected}
  if unknown := sorted(set(table) - known):
    raise InputError(f'{corrections}: no clip or identity is named {", ".join(unknown)}')
  result = []
  for clip in expected:
    identity = table.get(clip.name, table.get(clip.identity, clip.identity))
    if identity:
      result.append(dataclasses.replace(clip, identity=identity))
  return result


LAYOUTS = ('folder', 'celebv_hq', 'hdtf')


def read_layout(layout: str, videos: str, metadata: str, corrections: str) -> list[Expected]:
  """The clips of a set, by name. Raises InputError as the functions above."""
  if layout == 'folder':
    expected = folder(videos)
  elif layout == 'celebv_hq':
    expected = celebv_hq(videos, metadata)
  elif layout == 'hdtf':
    expected = hdtf(videos, metadata)
  else:
    raise InputError(f'no layout {layout!r}; known are {", ".join(LAYOUTS)}')
  return corrected(expected, corrections)
