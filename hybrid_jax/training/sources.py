"""Sources of clips for a run: a folder of videos, a packed data set, or the rendered world.

`data` is the section of a config. Frames are uint8 (t, size, size, 3).
"""

import math
import os
import pathlib
from typing import Any

import numpy as np

from hybrid_jax import environment
from hybrid_jax.errors import InputError
from hybrid_jax.media import MediaError, replacing
from hybrid_jax.media.containers import open_clip, video_stream
from hybrid_jax.progress import Progress, silent
from hybrid_jax.training import people, triplets

_SHARE = 4  # a folder of videos may take one part in so many of the memory
_MOST_HEADERS = 1000


def check(data: Any, stage: str) -> None:
  """Checks, without opening a file, that a config names one source and that it exists.

  Raises:
    InputError: none or several sources are set, a folder has no video or is no packed set, or
      stage 2 lacks what its masks come from.
  """
  named = {
    'videos': bool(data.videos),
    'packed': bool(data.packed),
    'rendered_people': data.rendered_people > 0,
  }
  chosen = [name for name, is_set in named.items() if is_set]
  if len(chosen) != 1:
    raise InputError(
      f'set one of config.data.videos=DIR, .packed=DIR and .rendered_people=N, not '
      f'{" and ".join(chosen) or "none"}'
    )
  if data.packed:
    triplets.check_packed(data.packed)
  if data.videos:
    triplets.find_videos(data.videos)
    if stage == 'finetune' and not data.face_detector:
      raise InputError(
        'stage 2 needs the places of mouth, eyes and brows: set config.data.face_detector=FILE'
      )


def check_memory(data: Any, size: int, masks: bool) -> None:
  """Checks, from the headers of the videos, that a folder fits into a quarter of the memory.

  Raises:
    InputError: it does not; the message has the command that packs it.
  """
  limit, needed = memory() // _SHARE, 0
  videos = triplets.find_videos(data.videos)
  # Without a header that states it, a clip is taken to have all frames that are kept.
  frame = size * size * (7 if masks and data.face_detector else 3)
  largest = data.frames_per_clip * frame
  if len(videos) * largest <= limit:
    return
  for done, (_, path) in enumerate(videos, 1):
    needed += min(data.frames_per_clip, frames_in(path) or data.frames_per_clip) * frame
    # The first thousand stand for the rest: opening each of 35,000 files takes minutes.
    if done == _MOST_HEADERS:
      break
  needed = round(needed * len(videos) / done)
  if needed <= limit:
    return
  layout = f' --layout {name}' if (name := people.layout_of(p for _, p in videos)) else ''
  detector = f' --face_detector {data.face_detector}' if data.face_detector else ''
  raise InputError(
    f'{data.videos}: its {len(videos)} videos take about {needed / 1e9:,.1f} GB of memory at '
    f'{size} px, more than a quarter of {memory() / 1e9:,.1f} GB: pack them with python -m '
    f'data.face_clips.pack {data.videos} packed{layout} --size {size} --frames '
    f'{data.frames_per_clip} --framing {data.framing}{detector}, and set --config.data.packed to '
    'the folder that it prints'
  )


def frames_in(path: str | os.PathLike) -> int | None:
  """Returns the number of frames of a video by its header; None if it does not state it."""
  try:
    with open_clip(path) as container:
      stream = video_stream(container, path)
      if stream.frames:
        return stream.frames
      seconds = (container.duration or 0) / 1e6  # in microseconds
      return math.ceil(seconds * float(stream.average_rate or 0)) or None
  # It is skipped when the clips are read, with its reason.
  except MediaError:
    return None


def memory() -> int:
  """Returns the bytes of memory that this process may use: the machine's, or its container's."""
  total = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  limit = pathlib.Path('/sys/fs/cgroup/memory.max')  # Linux; 'max' means no limit
  text = limit.read_text().strip() if limit.is_file() else 'max'
  return min(total, int(text)) if text.isdecimal() else total


def load(
  data: Any, size: int, progress: Progress = silent, *, masks: bool = False
) -> tuple[triplets.Clips, triplets.Clips | None, list[str]]:
  """Returns training clips, clips of held-out people, and a report of what was used.

  Held-out clips are None where there are fewer than four people; the report is a list of lines.
  Masks are read only with `masks`, which stage 2 needs.

  Raises:
    InputError: no usable clip, clips of one person only, frames of another size than `size`, no
      masks where they are needed, or more videos in a folder than memory should hold.
  """
  if data.packed:
    train, held_out = (triplets.PackedClips(data.packed, s) for s in ('train', 'validation'))
    found = train.read(0, [0], masks=False)[0].shape[1]
    if found != size:
      raise InputError(
        f'{data.packed}: packed at {found} px; config.model.frame_size is {size}: pack again with '
        f'--size={size} and another --name (rendered people: --config=heads_{size})'
      )
    if masks and not train.has_masks:
      raise InputError(
        f'{data.packed}: has no masks, which stage 2 needs: pack again with --face_detector and '
        'without --no_masks'
      )
    # `reenact` cuts heads as the config says, so that it must be what the model has seen.
    if train.framing not in ('', data.framing):
      raise InputError(
        f'{data.packed}: packed with framing {train.framing!r}; config.data.framing is '
        f'{data.framing!r}: set it so, or pack again with --framing={data.framing}'
      )
    return train, held_out, [f'{len(train.lengths)} packed clips, {len(held_out.lengths)} held out']
  if data.rendered_people:
    few = max(4, round(data.held_out * data.rendered_people))
    count, clips, frames = data.rendered_people, data.rendered_clips, data.frames_per_clip
    train = rendered('train', count, clips, frames, size, progress)
    held_out = rendered('validation', few, 1, frames, size, progress)
    return train, held_out, [f'{data.rendered_people} rendered people, {few} held out']
  check_memory(data, size, masks)
  clips, lines = triplets.read_folder(
    data.videos,
    size=size,
    frames_per_clip=data.frames_per_clip,
    face_detector=data.face_detector,
    kind=data.framing,
    masks=masks,
    progress=progress,
  )
  persons = {c.identity for c in clips}
  lines.append(f'{len(clips)} clips used, {len(persons)} identities')
  if line := people.look_like(path for _, path in triplets.find_videos(data.videos)):
    lines.append(line)
  if len(persons) < 4:
    lines.append('no validation: holding people out needs at least four')
    return triplets.MemoryClips(clips), None, lines
  held_out = triplets.split_people(persons, data.held_out)['validation']
  lines.append(f'held out: {", ".join(sorted(held_out))}')
  parts = ([c for c in clips if (c.identity in held_out) == held] for held in (False, True))
  return *map(triplets.MemoryClips, parts), lines


def rendered(
  split: str, people: int, clips: int, frames: int, size: int, progress: Progress = silent
) -> triplets.MemoryClips:
  """Returns clips of the rendered world, rendered once and then kept in the cache folder."""
  from hybrid_jax.world import clips as heads  # needs jax; worker processes import this module
  from hybrid_jax.world import people as world

  folder = environment.cache_folder()
  # The seed of the world is part of the name: frames of another world are never read.
  path = folder / f'heads-v{world.SEED}-{split}-{people}x{clips}x{frames}-{size}.npz'
  if path.is_file():
    with np.load(path) as file:
      names, images, masks = (file[key] for key in ('identity', 'frames', 'masks'))
  else:
    drawn = heads.iterate(split, persons=people, clips=clips, frames=frames, size=size)
    drawn = list(progress(drawn, f'rendering people, {split}', people * clips))
    names = np.array([clip.identity for clip in drawn])
    images, masks = (np.stack([getattr(c, key) for c in drawn]) for key in ('frames', 'masks'))
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, open(part, 'wb') as file:
      np.savez(file, identity=names, frames=images, masks=masks)
  return triplets.MemoryClips(
    [triplets.Clip(str(name), f'{name}-{k}', images[k], masks[k]) for k, name in enumerate(names)]
  )
