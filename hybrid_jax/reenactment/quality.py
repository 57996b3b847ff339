"""What a re-enactment is worth, frame by frame: a table and a picture of it beside the output.

  identity    cosine of the embeddings of frame and source, 1 is the same picture
  confidence  of the face detector in the frame, 0 where it finds no face (MediaPipe: 1 or 0)
  finite      1; 0 in the frame at which a render stopped because it was not finite
  jitter      length of the second difference of s_f, over the root mean square of the first

What cannot be measured is 'not available', in these words.
"""

import array
import csv
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import judges
from hybrid_jax.media import replacing, timeline
from hybrid_jax.media.composite import fit
from hybrid_jax.media.landmarkers import Landmarker
from hybrid_jax.models.batching import batched, run_in_batches
from hybrid_jax.models.ops import from_uint8
from hybrid_jax.reenactment.model import Model
from hybrid_jax.weights import load, shipped

NOT_AVAILABLE = 'not available'
COLUMNS = ('frame', 'seconds', 'identity', 'confidence', 'finite', 'jitter')
Embed = Callable[[np.ndarray], np.ndarray]


class LowQuality(Exception):
  """A finished output that is not what was asked for; one line."""


@functools.lru_cache(maxsize=2)  # compiled once a model
def embedder(model: Model) -> tuple[Embed | None, str]:
  """((n, s, s, 3) uint8 -> (n, d) of length 1, by which network); None and why there is none.

  The rendered world has a judge that no loss has seen; elsewhere it is the model's ArcFace.

  Raises:
    InputError: the file of weights is none.
  """
  path = model.config.weights.arcface
  if path == 'random':
    return None, f'{NOT_AVAILABLE}: the model has a random ArcFace'
  if path == 'shipped':
    judge, tree = judges.identity(), shipped.load('judge_identity')
    embed, name = lambda x: judges.unit(judge.apply(tree, x)), 'judge of the rendered heads'
  elif not os.path.exists(path):
    return None, f'{NOT_AVAILABLE}: {path} is missing'
  else:
    tree = load.load_arcface(model.networks, path)
    embed, name = lambda x: model.networks.arcface.apply(tree, x), 'ArcFace'
  compiled = jax.jit(lambda x: embed(from_uint8(x)))
  return lambda x: np.asarray(compiled(x)), name


class Watch:
  """Measures the frames and the motion that pass through it.

  Args:
    model: its embedder is used. head: (s, s, 3) uint8 crop of the source, s is `model.size`.
    landmarker: looks for faces in the result; None for none.
    store: file of what was measured, from which a killed run goes on.
    batch: frames that are embedded together.
  """

  def __init__(
    self,
    model: Model,
    head: np.ndarray,
    landmarker: Landmarker | None,
    store: pathlib.Path,
    batch: int,
  ):
    self._side, self._landmarker, self._store, self._batch = model.size, landmarker, store, batch
    self._embed, self.by = embedder(model)
    self._source = self._embed(np.stack([head] * batch))[0] if self._embed else None
    self._steps, self._turns = array.array('d'), array.array('d')

  def motion(self, rows: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Passes the rows of a motion (d,) on."""
    before = step = None
    for row in rows:
      last, step = step, None if before is None else row - before
      self._steps.append(np.nan if step is None else np.linalg.norm(step))
      self._turns.append(np.nan if last is None else np.linalg.norm(step - last))
      before = np.array(row)
      yield row

  def frames(self, images: Iterable[np.ndarray], start: int) -> Iterator[np.ndarray]:
    """Passes results (h, w, 3) uint8 on, of which the first has the number `start`."""
    kept = self._store.read_text().splitlines()[:start] if self._store.is_file() else []
    kept += ['nan nan 1'] * (start - len(kept))
    self._store.write_text(''.join(line + '\n' for line in kept))
    with self._store.open('a', buffering=1) as file:
      try:
        for chunk in batched(images, self._batch):
          alike = self._alike(chunk)
          for image, value in zip(chunk, alike, strict=True):
            file.write(f'{value:.6f} {self._confidence(image):.6f} 1\n')
            yield image
      except FloatingPointError:
        file.write('nan nan 0\n')
        raise

  def _alike(self, chunk: tuple[np.ndarray, ...]) -> np.ndarray:
    if not self._embed:
      return np.full(len(chunk), np.nan)
    heads = [fit(image, (self._side, self._side)) for image in chunk]
    return run_in_batches(self._embed, heads, size=self._batch) @ self._source

  def _confidence(self, image: np.ndarray) -> float:
    if not self._landmarker:
      return np.nan
    return max((face.score for face in self._landmarker.detect(image)), default=0.0)

  def finish(
    self, output: str, seconds: np.ndarray, rows: np.ndarray, least: float | None
  ) -> dict[str, Any]:
    """Writes OUTPUT.quality.csv and .png; returns the figures of the whole.

    Args:
      seconds, rows: (t,) times of the frames, and their rows of the motion.
      least: identity that a frame should have, None for any.
    """
    values = np.array([line.split() for line in self._store.read_text().splitlines()], float)
    values = values.reshape(-1, 3)[: len(seconds)]
    seconds, rows = seconds[: len(values)], rows[: len(values)]
    identity, confidence, finite = values.T
    steps, turns = np.array(self._steps), np.array(self._turns)
    usual = _rms(steps)
    rows = np.minimum(rows, len(turns) - 1)
    jitter = turns[rows] / usual if usual else np.zeros(len(rows))
    columns = {
      'identity': identity if self._embed else None,
      'confidence': confidence if self._landmarker else None,
      'finite': finite,
      'jitter': jitter,
    }
    with (
      replacing(f'{output}.quality.csv') as part,
      part.open('w', newline='') as file,
    ):
      table = csv.writer(file)
      table.writerow(COLUMNS)
      for k, time in enumerate(seconds):
        cells = [NOT_AVAILABLE if v is None else _cell(v[k]) for v in columns.values()]
        table.writerow((k, f'{time:.6f}', *cells))
    titles = {
      'identity': f'identity with the source: {self.by}',
      'confidence': 'confidence of the face detector',
      'finite': 'finite',
      'jitter': 'jitter of the motion',
    }
    strips = [
      timeline.Strip(
        titles[name] if v is not None or name == 'identity' else f'{titles[name]}: {NOT_AVAILABLE}',
        np.full(len(seconds), np.nan) if v is None else v,
        least if name == 'identity' else None,
      )
      for name, v in columns.items()
    ]
    timeline.draw(f'{output}.quality.png', seconds, strips)
    return {
      'identity': _figures(columns['identity']),
      'identity_by': self.by,
      'confidence': _figures(columns['confidence']),
      'finite': bool(finite.all()),
      'jitter': round(_rms(turns) / usual, 4) if usual else 0.0,
    }


def check(figures: dict[str, Any], least: float | None, output: str) -> None:
  """Raises LowQuality where a frame is less like the source than `least`."""
  if least is not None and not figures['identity']['min'] >= least:
    at = figures['identity']['min_frame']
    raise LowQuality(
      f'{output}: identity {figures["identity"]["min"]:.3f} in frame {at}, below --min-identity='
      f'{least:g}; see {output}.quality.csv'
    )


def refuse(model: Model, least: float | None) -> None:
  """Raises InputError where identity is asked for and nothing can tell it."""
  if least is not None and embedder(model)[0] is None:
    raise InputError(f'--min-identity={least:g}: identity is {embedder(model)[1]}')


def lines(figures: dict[str, Any]) -> Iterator[str]:
  """The figures in words."""
  found = figures['identity']
  yield (
    f'identity with the source: {found["mean"]:.3f} on average, {found["min"]:.3f} in frame '
    f'{found["min_frame"]} ({figures["identity_by"]})'
    if found
    else f'identity with the source: {figures["identity_by"]}'
  )
  if found := figures['confidence']:
    yield f'face detector: {found["mean"]:.2f} on average, {found["min"]:.2f} at worst'


def _figures(values: np.ndarray | None) -> dict[str, Any] | None:
  if values is None or np.isnan(values).all():
    return None
  return {
    'mean': round(float(np.nanmean(values)), 4),
    'min': round(float(np.nanmin(values)), 4),
    'min_frame': int(np.nanargmin(values)),
  }


def _rms(values: np.ndarray) -> float:
  known = values[np.isfinite(values)]
  return float(np.sqrt(np.mean(known**2))) if len(known) else 0.0


def _cell(value: float) -> str:
  return f'{value:.6g}' if np.isfinite(value) else ''
