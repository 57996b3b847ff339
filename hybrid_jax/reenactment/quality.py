"""The quality of a re-enactment, frame by frame: a table and a timeline beside the output.

  identity    cosine similarity of the embeddings of frame and source; 1 is the same picture
  confidence  score of the face detector in the frame, 0 without a face (MediaPipe: 1 or 0)
  finite      1; 0 in the frame at which a render stopped because it was not finite
  jitter      length of the second difference of s_f, over the root mean square of the first

A quantity that cannot be measured is reported as 'not available'.
"""

import array
import csv
import dataclasses
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


def embedder(model: Model) -> tuple[Embed | None, str]:
  """Returns (embed, name of the network), or (None, the reason).

  `embed` maps frames (n, s, s, 3) uint8 to unit embeddings (n, d). For the rendered world it is a
  judge that no loss uses; otherwise the model's ArcFace. It is compiled once per model.

  Raises:
    InputError: the weights cannot be read.
  """
  if 'embedder' not in model.memo:
    model.memo['embedder'] = _embedder(model)
  return model.memo['embedder']


def _embedder(model: Model) -> tuple[Embed | None, str]:
  # A figure of an untrained network would look like a measurement.
  path = model.config.weights.arcface
  if path == 'random':
    return None, f'{NOT_AVAILABLE}: the model has a random ArcFace'
  if path == 'shipped':
    # Not the shipped ArcFace: training maximised the similarity by it, so it overstates identity.
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
  """Measures the frames and the rows of motion that pass through it.

  Args:
    model: whose embedder is used.
    head: (s, s, 3) uint8 crop of the source, s = `model.size`.
    landmarker: detects faces in the result; None measures no confidence.
    store: file of the measurements so far, from which a killed run goes on.
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
    # Repeated to a batch: the program is compiled for one shape.
    self._source = self._embed(np.stack([head] * batch))[0] if self._embed else None
    # Arrays and not lists of floats, which would leave holes in the heap between the frames.
    self._steps, self._turns = array.array('d'), array.array('d')

  def motion(self, rows: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the rows of a motion (d,) unchanged, and measures their jitter."""
    before = step = None
    for row in rows:
      last, step = step, None if before is None else row - before
      self._steps.append(np.nan if step is None else np.linalg.norm(step))
      # The first row has no step, the second no change of step: NaN, an empty cell of the table.
      self._turns.append(np.nan if last is None else np.linalg.norm(step - last))
      before = np.array(row)
      yield row

  def frames(self, images: Iterable[np.ndarray], start: int) -> Iterator[np.ndarray]:
    """Yields results (h, w, 3) uint8 unchanged, and measures them; the first is number `start`."""
    # A run that is killed has measured frames beyond its last segment. They are rendered again, so
    # their lines are dropped; a line may also be cut off or, after a power failure, missing.
    kept = self._store.read_text().splitlines()[:start] if self._store.is_file() else []
    kept += ['nan nan 1'] * (start - len(kept))
    self._store.write_text(''.join(line + '\n' for line in kept))
    # Line by line to the system: a segment that is on disk must have its lines there too.
    with self._store.open('a', buffering=1) as file:
      try:
        for chunk in batched(images, self._batch):
          similarities = self._similarities(chunk)
          for image, value in zip(chunk, similarities, strict=True):
            file.write(f'{value:.6f} {self._confidence(image):.6f} 1\n')
            yield image
      except FloatingPointError:
        # The error belongs to the next frame, of which nothing else can be measured.
        file.write('nan nan 0\n')
        raise

  def _similarities(self, chunk: tuple[np.ndarray, ...]) -> np.ndarray:
    if not self._embed:
      return np.full(len(chunk), np.nan)
    heads = [fit(image, (self._side, self._side)) for image in chunk]
    return run_in_batches(self._embed, heads, size=self._batch) @ self._source

  def _confidence(self, image: np.ndarray) -> float:
    if not self._landmarker:
      return np.nan
    # The best face: in a result that fills the picture there is one.
    return max((face.score for face in self._landmarker.detect(image)), default=0.0)

  def measured(self, seconds: np.ndarray, rows: np.ndarray) -> 'Measured':
    """Returns all measurements of the frames that have passed.

    Args:
      seconds, rows: (t,) times of the frames, and the numbers of their rows of the motion.
    """
    values = np.array([line.split() for line in self._store.read_text().splitlines()], float)
    values = values.reshape(-1, 3)[: len(seconds)]  # fewer where the render stopped
    seconds, rows = seconds[: len(values)], rows[: len(values)]
    identity, confidence, finite = values.T
    steps, turns = np.array(self._steps), np.array(self._turns)
    # Relative to the usual step, since the scale of s_f differs between models. `rows`, since with
    # a constant frame rate a row may be shown twice or never.
    typical, rows = _rms(steps), np.minimum(rows, len(turns) - 1)
    columns = {
      'identity': identity if self._embed else None,
      'confidence': confidence if self._landmarker else None,
      'finite': finite,
      'jitter': turns[rows] / typical if typical else np.zeros(len(rows)),
    }
    jitter = round(_rms(turns) / typical, 4) if typical else 0.0
    return Measured(seconds, columns, self.by, jitter)


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
  """The measured quality of t frames.

  Attributes:
    seconds: (t,) times of the frames.
    columns: (t,) of each of `COLUMNS`; None if it is not available.
    by: the network that measured the identity, or the reason why none did.
    jitter: of the whole motion.
  """

  seconds: np.ndarray
  columns: dict[str, np.ndarray | None]
  by: str
  jitter: float

  def summary(self) -> dict[str, Any]:
    """Returns mean, minimum and its frame of identity and confidence, and the other figures."""
    return {
      'identity': _figures(self.columns['identity']),
      'identity_by': self.by,
      'confidence': _figures(self.columns['confidence']),
      'finite': bool(self.columns['finite'].all()),
      'jitter': self.jitter,
    }

  def write(self, output: str, least: float | None) -> None:
    """Writes OUTPUT.quality.csv and .png; a line marks `least`, the smallest identity wanted."""
    with replacing(f'{output}.quality.csv') as part, part.open('w', newline='') as file:
      table = csv.writer(file)
      table.writerow(COLUMNS)
      for k, time in enumerate(self.seconds):
        cells = [NOT_AVAILABLE if v is None else _cell(v[k]) for v in self.columns.values()]
        table.writerow((k, f'{time:.6f}', *cells))
    titles = {
      'identity': f'identity with the source: {self.by}',
      'confidence': 'confidence of the face detector',
      'finite': 'finite',
      'jitter': 'jitter of the motion',
    }
    units = {
      'identity': 'cosine',
      'confidence': 'score',
      'finite': '1: yes, 0: no',
      'jitter': 'of the RMS step',
    }
    strips = []
    for name, values in self.columns.items():
      # The title of the identity has the reason already.
      missing = f': {NOT_AVAILABLE}' if values is None and name != 'identity' else ''
      values = np.full(len(self.seconds), np.nan) if values is None else values
      line = least if name == 'identity' else None
      strips.append(timeline.Strip(titles[name] + missing, values, line, units[name]))
    timeline.draw(f'{output}.quality.png', self.seconds, strips)


def below(figures: dict[str, Any], least: float | None, output: str) -> str:
  """Returns one line if a frame has an identity similarity below `least`; otherwise ''."""
  if least is None or figures['identity']['min'] >= least:
    return ''
  frame = figures['identity']['min_frame']
  return (
    f'{output}: identity {figures["identity"]["min"]:.3f} in frame {frame}, below --min-identity='
    f'{least:g}; see {output}.quality.csv'
  )


def refuse(model: Model, least: float | None) -> None:
  """Raises InputError if a smallest identity is asked for and cannot be measured."""
  # Before any work: a threshold that is never applied would pass every output.
  if least is not None and embedder(model)[0] is None:
    raise InputError(f'--min-identity={least:g}: identity is {embedder(model)[1]}')


def lines(figures: dict[str, Any]) -> Iterator[str]:
  """Yields the figures of `Measured.summary`, one line each."""
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
  finite = values[np.isfinite(values)]
  return float(np.sqrt(np.mean(finite**2))) if len(finite) else 0.0


def _cell(value: float) -> str:
  return f'{value:.6g}' if np.isfinite(value) else ''
