"""Sources of clips for a run: a folder of videos, a packed data set, or the rendered world.

`data` is the section of a config. Frames are uint8 (t, size, size, 3).
"""

from typing import Any

import numpy as np

from hybrid_jax import environment
from hybrid_jax.errors import InputError
from hybrid_jax.media import replacing
from hybrid_jax.progress import Progress, silent
from hybrid_jax.training import triplets


def check(data: Any, stage: str) -> None:
  """Checks, without opening a file, that a config names one source and that its videos exist.

  Raises:
    InputError: none or several sources are set, a folder has no video, or stage 2 lacks what its
      masks come from.
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
  if data.videos:
    triplets.find_videos(data.videos)
    if stage == 'finetune' and not data.face_detector:
      raise InputError(
        'stage 2 needs the places of mouth, eyes and brows: set config.data.face_detector=FILE'
      )


def load(
  data: Any, size: int, progress: Progress = silent
) -> tuple[triplets.Clips, triplets.Clips | None, list[str]]:
  """Returns training clips, clips of held-out people, and a report of what was used.

  Held-out clips are None where there are fewer than four people; the report is a list of lines.

  Raises:
    InputError: no usable clip, clips of one person only, or frames of another size than `size`.
  """
  if data.packed:
    train, held_out = (triplets.PackedClips(data.packed, s) for s in ('train', 'validation'))
    found = train.read(0, [0])[0].shape[1]
    if found != size:
      raise InputError(f'{data.packed}: frames of {found} px; config.model.frame_size is {size}')
    # `reenact` cuts heads as the config says, so that it must be what the model has seen.
    if train.framing not in ('', data.framing):
      raise InputError(
        f'{data.packed}: packed with framing {train.framing!r}; config.data.framing is '
        f'{data.framing!r}: set it so, or pack again with --framing={data.framing}'
      )
    return train, held_out, [f'{len(train.lengths)} packed clips, {len(held_out.lengths)} held out']
  if data.rendered_people:
    few = max(4, round(data.held_out * data.rendered_people))
    people, clips, frames = data.rendered_people, data.rendered_clips, data.frames_per_clip
    train = rendered('train', people, clips, frames, size, progress)
    held_out = rendered('validation', few, 1, frames, size, progress)
    return train, held_out, [f'{data.rendered_people} rendered people, {few} held out']
  clips, lines = triplets.read_folder(
    data.videos,
    size=size,
    frames_per_clip=data.frames_per_clip,
    face_detector=data.face_detector,
    kind=data.framing,
    progress=progress,
  )
  people = {c.identity for c in clips}
  lines.append(f'{len(clips)} clips used, {len(people)} identities')
  if len(people) < 4:
    lines.append('no validation: holding people out needs at least four')
    return triplets.MemoryClips(clips), None, lines
  held_out = triplets.split_people(people, data.held_out)['validation']
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
