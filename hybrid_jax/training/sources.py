"""Where the clips of a run come from: a folder of videos, a packed set, or the rendered world."""

import os
import pathlib
from typing import Any

import numpy as np
from tqdm import tqdm

from hybrid_jax.errors import InputError
from hybrid_jax.media import replacing
from hybrid_jax.training import triplets


def check(data: Any, stage: str) -> None:
  """Looks for what may be missing, before any work.

  Raises:
    InputError: none or several sources are set, or the one that is set is not there.
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


def load(data: Any, size: int) -> tuple[triplets.Clips, triplets.Clips | None, list[str]]:
  """(training clips, clips of held-out people or None where there are too few, lines to print).

  Raises:
    InputError: no usable clip, one person alone, or frames of another size.
  """
  if data.packed:
    train, held_out = (triplets.PackedClips(data.packed, s) for s in ('train', 'validation'))
    got = train.read(0, [0])[0].shape[1]
    if got != size:
      raise InputError(f'{data.packed}: frames of {got} px; config.model.frame_size is {size}')
    return train, held_out, [f'{len(train.lengths)} packed clips, {len(held_out.lengths)} held out']
  if data.rendered_people:
    few = max(4, round(data.held_out * data.rendered_people))
    train = rendered('train', data.rendered_people, data.rendered_clips, data.frames_per_clip, size)
    held_out = rendered('validation', few, 1, data.frames_per_clip, size)
    return train, held_out, [f'{data.rendered_people} rendered people, {few} held out']
  clips, lines = triplets.read_folder(
    data.videos,
    size=size,
    frames_per_clip=data.frames_per_clip,
    face_detector=data.face_detector,
    crop_scale=data.crop_scale,
  )
  people = {c.identity for c in clips}
  lines.append(f'{len(clips)} clips used, {len(people)} identities')
  if len(people) < 4:
    lines.append('no validation: with fewer than four people nobody can be held out')
    return triplets.MemoryClips(clips), None, lines
  held_out = triplets.split_people(people, data.held_out)['validation']
  lines.append(f'held out: {", ".join(sorted(held_out))}')
  parts = ([c for c in clips if (c.identity in held_out) == held] for held in (False, True))
  return *map(triplets.MemoryClips, parts), lines


def rendered(split: str, people: int, clips: int, frames: int, size: int) -> triplets.MemoryClips:
  """Clips of the rendered world, drawn once and then kept in the user's cache folder."""
  from hybrid_jax.world import clips as heads  # needs jax; worker processes import this module
  from hybrid_jax.world import people as world

  base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  folder = pathlib.Path(base) / 'hybrid_jax'
  path = folder / f'heads-v{world.SEED}-{split}-{people}x{clips}x{frames}-{size}.npz'
  if path.is_file():
    with np.load(path) as file:
      names, images, masks = (file[key] for key in ('identity', 'frames', 'masks'))
  else:
    drawn = heads.iterate(split, persons=people, clips=clips, frames=frames, size=size)
    drawn = list(tqdm(drawn, desc=f'rendering {split}', total=people * clips, unit='clip'))
    names = np.array([clip.identity for clip in drawn])
    images, masks = (np.stack([getattr(c, key) for c in drawn]) for key in ('frames', 'masks'))
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, open(part, 'wb') as file:
      np.savez(file, identity=names, frames=images, masks=masks)
  return triplets.MemoryClips(
    [triplets.Clip(str(name), f'{name}-{k}', images[k], masks[k]) for k, name in enumerate(names)]
  )
