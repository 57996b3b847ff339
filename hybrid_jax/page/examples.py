"""Example inputs: people of the rendered world, drawn on the first visit and kept in the cache."""

import dataclasses
import pathlib
import shutil
import tempfile
import threading

from hybrid_jax import environment
from hybrid_jax.page.stages import Stages
from hybrid_jax.world import films

# What is drawn. Of the test split: no bundled network was trained on these people.
WORLD = {'people': 3, 'clips': 2, 'size': 128, 'seconds': 2.0, 'fps': 25}


_drawing = threading.Lock()  # visitors that come meanwhile wait for the same files


@dataclasses.dataclass(frozen=True)
class Examples:
  """Paths of example portraits and driving clips."""

  portraits: list[str]
  clips: list[str]


def folder() -> pathlib.Path:
  """Returns the folder of the examples of this user."""
  # The sizes are in the name, so that a version with other examples draws its own.
  name = '_'.join(f'{value:g}' for value in WORLD.values())
  return environment.cache_folder('examples', name)


def found() -> Examples | None:
  """Returns the examples; None if they were not drawn yet."""
  if not folder().is_dir():
    return None
  portraits, clips = folder().glob('portraits/*.png'), folder().glob('driving/*.mp4')
  return Examples(sorted(map(str, portraits)), sorted(map(str, clips)))


def draw(stages: Stages) -> Examples:
  """Returns the examples, drawn if they were not yet; waits if they are just being drawn.

  Raises:
    Stopped: see `Stages`.
    OSError: the cache folder cannot be written.
  """
  with _drawing:
    return found() or _draw(stages)


def _draw(stages: Stages) -> Examples:
  total = films.frames_of_world(**{k: v for k, v in WORLD.items() if k != 'size'}, answers=False)
  bar = iter(stages(range(total), 'Drawing examples, for the first visit only', total))
  next(bar)  # says that compiling the renderer takes a while
  folder().parent.mkdir(parents=True, exist_ok=True)
  part = pathlib.Path(tempfile.mkdtemp(dir=folder().parent, prefix='.part'))

  def advance(description: str, frames: int) -> None:
    stages.check()
    for _ in range(frames):
      next(bar, None)

  try:
    films.write_world(part, **WORLD, answers=False, progress=advance)
    # Another server of the same user may have been quicker; its examples are the same.
    if not folder().exists():
      part.rename(folder())
  finally:
    shutil.rmtree(part, ignore_errors=True)
  return found()
