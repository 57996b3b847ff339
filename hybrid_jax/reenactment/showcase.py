"""The showcase of a model of the rendered world: unseen people in a film, a sheet and a table.

Rendered people have ground truth: the source person rendered with the driver's motion. The figures
are errors against it. The showcase is written at the end of
a training on rendered people (`config.showcase`).
"""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
from etils import epath

from hybrid_jax.evaluation import images, rendered
from hybrid_jax.media import replacing, stills
from hybrid_jax.models.ops import from_uint8
from hybrid_jax.progress import Progress, silent
from hybrid_jax.reenactment.model import Model, load_model
from hybrid_jax.world import clips, people
from hybrid_jax.world.films import write_film

PEOPLE, FRAMES = 32, 4  # of the figures; frames of each person
SHOWN = 10  # people on the sheet
SECONDS, FPS, SCALE = 4, 25, 3  # of the film; its panels are enlarged
METRICS = {
  'l1': 'L1, whole frame',
  'l1_face': 'L1, face',
  'identity_score': 'identity (1: the person)',
  'expression_error': 'expression error',
  'pose_error': 'pose error',
}


def reenacted(model: Model, source: np.ndarray, driving: list[np.ndarray]) -> Iterator[np.ndarray]:
  """Yields frames (size, size, 3) uint8 of the source with the motion of the driving frames."""
  return model.images(model.identity(source), model.deformations(driving, 8), 8)


def answers(model: Model, data: dict[str, np.ndarray]) -> np.ndarray:
  """Returns the model's frames (n, size, size, 3) uint8 for `evaluation.rendered.pairs`."""
  # Pairs of one person follow each other and share the source: its identity is computed once.
  starts = np.flatnonzero(np.diff(data['person'], prepend=-1))
  return np.stack(
    [
      image
      for k, end in zip(starts, [*starts[1:], len(data['person'])], strict=True)
      for image in reenacted(model, data['source'][k], list(data['driving'][k:end]))
    ]
  )


def panels(
  model: Model, source: int, driver: int, times: np.ndarray, scale: int
) -> tuple[np.ndarray, Iterator[np.ndarray]]:
  """Returns the driver's motion (t, 16) and the panels of each moment.

  Panels are source, driver, re-enactment and ground truth side by side, (h, w, 3) uint8.

  Args:
    source, driver: numbers of people.
    times: (t,) moments of the driver's clip, seconds.
    scale: factor by which the panels are enlarged.
  """
  draw = clips.Renderer(rendered.SIZE)
  identity, own, scene = clips.vectors(source, 0, times)
  other, motion, other_scene = clips.vectors(driver, 0, times)
  portrait = draw(identity, own[0], scene)[0]
  driving = [draw(other, m, other_scene)[0] for m in motion]
  # Ground truth is in the source's own scene (light and background), which re-enactment keeps.
  truth = (draw(identity, m, scene)[0] for m in motion)
  rows = zip(driving, reenacted(model, portrait, driving), truth, strict=True)
  # Repeated pixels: interpolation would hide how coarse 64 px are.
  enlarge = lambda x: x.repeat(scale, 0).repeat(scale, 1)  # noqa: E731
  return motion, (enlarge(np.hstack((portrait, *row))) for row in rows)


def film(
  model: Model, path: pathlib.Path, source: int, driver: int, progress: Progress = silent
) -> None:
  """Writes the panels of a source and a driver as a video, with the driver's voice."""
  times = np.arange(SECONDS * FPS) / FPS
  motion, shown = panels(model, source, driver, times, SCALE)
  write_film(path, progress(shown, 're-enacting', len(times)), motion, FPS)


def summary(values: np.ndarray, person: np.ndarray) -> dict[str, float]:
  """Returns mean and 95 % interval of values (n,), by a bootstrap over people."""
  # Over people and not over frames: frames of one person are no independent samples.
  return dict(zip(('mean', 'low', 'high'), images.bootstrap(values, person), strict=True))


def show(workdir: str, output: str, progress: Progress = silent) -> dict:
  """Writes reenacted.mp4, .png and .json of a workdir's model into the folder `output`.

  All people are of the test split. Returns the figures: for 'ours', 'copy_source' and
  'copy_driving', mean and 95 % interval of each metric of `evaluation.rendered.measure`.
  """
  # The two copies are the trivial answers: one has the right person, the other the right motion.
  # Loaded from the workdir and not handed over by training: the figures are of the files on disk.
  folder, model = epath.Path(output), load_model(workdir)
  first = people.SPLITS['test']
  film(model, folder / 'reenacted.mp4', first + 1, first + 2, progress)

  # `cross`: each source with the motion of another person, as in use; self-reenactment is easier.
  data = rendered.pairs(0, PEOPLE, FRAMES, cross=True)
  answered = answers(model, data)
  columns = [data['source'], data['driving'], answered, data['truth']]
  # The first frame of each person; the rows of the sheet are the columns of the comparison.
  rows = [list(column[: SHOWN * FRAMES : FRAMES]) for column in columns]
  stills.write_image(folder / 'reenacted.png', stills.grid(rows))

  judge = rendered.Judges()
  ends = rendered.scale(judge, data, cross=True)
  methods = {'ours': answered, 'copy_source': data['source'], 'copy_driving': data['driving']}
  result = {
    name: {
      metric: summary(values, data['person'])
      for metric, values in rendered.measure(
        judge, from_uint8(method.astype(np.float32)), data, ends
      ).items()
    }
    for name, method in methods.items()
  }
  with replacing(folder / 'reenacted.json') as part:
    part.write_text(json.dumps(result, indent=1) + '\n')
  return result


def lines(result: dict, output: str) -> Iterator[str]:
  """Yields the figures of `show` as a table, one line each."""
  yield f'{PEOPLE} unseen people, each with the motion of another, against ground truth:'
  yield f'{"":26}' + ''.join(f'{name.replace("_", " "):>14}' for name in result)
  for metric, title in METRICS.items():
    yield f'{title:26}' + ''.join(f'{result[name][metric]["mean"]:14.3f}' for name in result)
  yield f'{output}/reenacted.mp4: source, driver, re-enactment, ground truth; .png: stills of them'
