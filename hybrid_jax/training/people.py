"""People in a set of videos, by the names of the files: CelebV-HQ's and HDTF's rules."""

import collections
import pathlib
import re
from collections.abc import Iterable

HDTF_SUBSETS = ('RD', 'WDA', 'WRA')

_HDTF_PREFIX = re.compile(rf'({"|".join(HDTF_SUBSETS)})_')
_YOUTUBE_CLIP = re.compile(r'([A-Za-z0-9_-]{11})_\d+')  # a video id has 11 characters
_NUMBERED = re.compile(r'(.+)_\d+')


def celebv_identity(stem: str) -> str:
  """Returns the video of a clip of CelebV-HQ, which counts as a person: dQw4w9WgXcQ_0."""
  return stem.rpartition('_')[0] or stem


def hdtf_stem(stem: str) -> str:
  """Returns the name without the subset, which some preparation scripts put in front."""
  return _HDTF_PREFIX.sub('', stem, count=1) if _HDTF_PREFIX.match(stem) else stem


def hdtf_identity(video: str) -> str:
  """Returns the person in a video of HDTF: AmyKlobuchar1 -> AmyKlobuchar."""
  # Radio1, Radio2, ... are different people; under other names the number counts the videos.
  return video if re.fullmatch(r'Radio\d+', video) else video.rstrip('0123456789') or video


def of_file(stem: str) -> str:
  """Returns the person that a file of a folder shows.

  The file is a person unless its name is surely CelebV-HQ's (a YouTube id and a number) or HDTF's
  (with its subset), whose clips of one person are several files.
  """
  if _HDTF_PREFIX.match(stem):
    return hdtf_identity(_unnumbered(hdtf_stem(stem)))
  return celebv_identity(stem) if _YOUTUBE_CLIP.fullmatch(stem) else stem


def layout_of(paths: Iterable[pathlib.Path]) -> str:
  """Returns the layout of `data.face_clips.pack` that most names of files have; '' for none."""
  stems = [path.stem for path in paths]
  hdtf = sum(bool(_HDTF_PREFIX.match(stem)) for stem in stems)
  celebv = sum(bool(_YOUTUBE_CLIP.fullmatch(stem)) for stem in stems)
  if 2 * max(hdtf, celebv) <= len(stems):
    return ''
  # HDTF's needs its metadata as well; in a folder its prefixed names are grouped without them.
  return 'celebv_hq' if celebv > hdtf else ''


def look_like(paths: Iterable[pathlib.Path]) -> str:
  """Returns a line about names that seem to number the clips of one person; or ''."""
  groups = collections.defaultdict(list)
  for path in paths:
    # Names that `of_file` groups are understood already.
    if _NUMBERED.fullmatch(path.stem) and of_file(path.stem) == path.stem:
      groups[path.parent, hdtf_identity(_unnumbered(path.stem))].append(path.name)
  several = [names for names in groups.values() if len(names) > 1]
  if not several:
    return ''
  return (
    f'{several[0][0]} and {several[0][1]} look like clips of one person, as in HDTF, but each file '
    'counts as another: put the clips of a person into one subfolder, or pack with --layout hdtf'
  )


def _unnumbered(stem: str) -> str:
  match = _NUMBERED.fullmatch(stem)
  return match[1] if match else stem
