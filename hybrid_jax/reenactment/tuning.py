"""Tunes a generator to one video by CMA (eqs. 15-18) or PTI, and caches the result by content.

The change of the generator (its delta) is saved under a hash of everything that it depends on:
source, driving frames, options, networks. The same job reads it again. The equations are in
`method.cma`.
"""

import csv
import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import safetensors
from safetensors.numpy import save_file

from hybrid_jax import environment
from hybrid_jax.errors import InputError
from hybrid_jax.media import composite, reason, replacing, stills
from hybrid_jax.method import cma, networks
from hybrid_jax.models.ops import to_uint8
from hybrid_jax.progress import Progress, silent
from hybrid_jax.reenactment.model import Model, digest
from hybrid_jax.weights import load

CHUNK = 5  # steps after which progress is reported
MEASURED = 25  # steps after which the drift is measured
BATCH = 8  # frames drawn together for the sheet
# A change of any other option compiles a new program.
TRACED = ('driver_weight', 'rate', 'enough_lpips')  # options that are inputs of the program
# Sizes at which eq. (15) compares: a source may be enlarged by this factor rather than halved ...
ENLARGED = math.sqrt(2)
SMALLEST = 32  # ... and below this many px AlexNet's LPIPS pools a picture to nothing
DRIFT = ('identity_similarity', 'perceptual_distance')  # of R to the untuned R


def cache_folder() -> pathlib.Path:
  """Returns the folder of the deltas of all tunings of this user."""
  return environment.cache_folder('cma')


def compared_at(model: Model, side: float, enlarged: float = 1.0) -> int:
  """Returns the size in px at which a crop of `side` px is compared with the generated picture.

  The generator's resolution, as in PTI, or the first of its halves to which the crop need not be
  enlarged by more than `enlarged`: a blurred target would blur the result. Halves, and not the size
  itself, so that pooling is exact and few programs serve all videos.
  """
  size = model.resolution
  while size > side * enlarged and size // 2 >= SMALLEST:
    size //= 2
  return size


class Adjuster:
  """Tunes the generator of one model; jobs whose options differ only in TRACED share one program.

  Raises:
    InputError: the weights of the model's perceptual or identity network are missing.
  """

  def __init__(self, model: Model, options: cma.Options):
    self.model, self.options = model, options
    # Float32 scalars: a Python float would be a weak type, and a second trace of the same program.
    self.traced = {name: np.float32(getattr(options, name)) for name in TRACED}
    shared = dataclasses.replace(options, **dict.fromkeys(TRACED, 0.0))
    self.tuner, self.frozen = program(model, shared)

  def key(self, source: np.ndarray, drivers: np.ndarray) -> str:
    """Returns the SHA-256 of everything that the result depends on.

    Args:
      source: (h, h, 3) uint8. drivers: (n, k, k, 3) uint8.
    """
    # ArcFace is left out: it only measures the drift. Shapes are hashed, since bytes alone do not
    # show where one frame ends.
    facts = [dataclasses.asdict(self.options), self.model.config.model.to_dict()]
    facts += [int(self.model.rows), self.model.digests]
    facts += [digest(self.frozen['lpips']), source.shape, drivers.shape]
    sha = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for frames in (source, drivers):
      sha.update(np.ascontiguousarray(frames))
    return sha.hexdigest()

  def adjust(
    self,
    source: np.ndarray,
    drivers: np.ndarray,
    folder: pathlib.Path | None = None,
    progress: Progress = silent,
  ) -> tuple[Model, str]:
    """Returns the model with its generator tuned, and one line about the tuning.

    If it ends early, the given model is unchanged and no delta is saved.

    Args:
      source: (h, h, 3) uint8 crop, drivers: (n, k, k, 3) of the driving clip; each is compared at
        its own size, see `compared_at`.
      folder: of the deltas; `cache_folder()` if not given.

    Raises:
      InputError: the delta of an earlier run is damaged.
      FloatingPointError: the loss is not finite.
    """
    # No lock: two runs of the same job write the same bytes, and each replaces the file at once.
    path = (folder or cache_folder()) / f'{self.key(source, drivers)}.safetensors'
    if path.is_file():
      return with_delta(self.model, path), f'the generator of an earlier run, {path}'
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise InputError(
        f'{path.parent}: adjusted generators cannot be kept ({reason(error)})'
      ) from error
    job = self.tuner.job(self.model.G, self.model.E, self.frozen, source, drivers)
    job = job.replace(**self.traced)
    drifts, state = {}, None
    # By chunks, so that progress is shown. An early stop ends the loop before its last chunk.
    chunks = -(-self.options.steps // CHUNK)
    for state in progress(self.tuner.tune(job, CHUNK), f'tuning, {CHUNK} steps each', chunks):
      if int(state.step) % MEASURED == 0:
        drifts[int(state.step)] = self._drift(job, state)
    steps = int(state.step)
    drifts[steps] = similarity, distance = self._drift(job, state)
    history = np.asarray(state.history)[:steps]
    added = cma.delta(self.model.G, state)
    # The loss is checked in each chunk, but an update may overflow after the last loss.
    if not all(np.isfinite(x).all() for x in added.values()):
      raise FloatingPointError(
        f'{self.options.method}: the generator is not finite after step {steps} and was discarded; '
        f'try a lower rate than {self.options.rate:g}'
      )
    # From the delta, as a later run will have it: tuned parameters less the old ones, added again,
    # may differ in their last bit, and both runs must give the same frames.
    tuned = adjusted(self.model, added)
    with replacing(path.with_suffix('.csv')) as part:
      write_curve(part, history, drifts)
    stills.write_image(path.with_suffix('.png'), sheet((self.model, tuned), job))
    self._save(path, added)  # last: its name says that the tuning is complete
    return tuned, (
      f'{steps} steps, loss {history[0, 0]:.4f} -> {history[-1, 0]:.4f}; to the untuned result: '
      f'identity similarity {similarity:.3f}, perceptual distance {distance:.3f}; '
      f'{path}, its curve (.csv) and pictures (.png) beside it'
    )

  def _drift(self, job: cma.Job, state: cma.Tuning) -> tuple[float, ...]:
    return tuple(map(float, self.tuner.drift(job, state.params)))

  def _save(self, path: pathlib.Path, added: Mapping[str, np.ndarray]) -> None:
    # The generator's hash lets another one refuse the file; the options are for people.
    about = {
      'generator': self.model.digests['generator'],
      'options': dataclasses.asdict(self.options),
    }
    with replacing(path) as part:
      save_file(added, part, {name: json.dumps(value) for name, value in about.items()})


def program(model: Model, options: cma.Options) -> tuple[cma.Tuner, Mapping]:
  """Returns the compiled tuner and the frozen loss networks, the same for all jobs of a model."""
  key = 'tuner', options
  if key not in model.memo:
    # Per model and options, in the model's memo: it dies with the model, unlike a global cache.
    config = model.config.copy_and_resolve_references()
    # The generator's weights are trained here, so in float32 and in their original layout.
    config.model.polyphase_from, config.model.half_dtype = 0, ''
    # Not with the generator and the encoder, which the model has: 1.8 GB of an exported one.
    frozen = load.load_losses(model.networks, model.config.weights, model.config.train.seed)
    model.memo[key] = cma.Tuner(networks.build(config.model), options, model.rows), frozen
  return model.memo[key]


def to_clip(
  model: Model,
  options: cma.Options,
  source: np.ndarray,
  crops: Callable[[list[int]], Iterable[np.ndarray]],
  found: np.ndarray,
  progress: Progress = silent,
  folder: pathlib.Path | None = None,
) -> tuple[Model, str]:
  """Tunes to a source and to frames spread over a clip, see `Adjuster.adjust`.

  Args:
    source: (h, h, 3) uint8 crop.
    crops: frame numbers of the clip, which do not decrease -> (k, k, 3) uint8 heads.
    found: numbers of the frames with a face. PTI uses the source alone, and neither of these.
    folder: of the deltas, see `Adjuster.adjust`.
  """
  if options.method == 'pti':
    # The program takes drivers in any case: the source stands in for them.
    options, frames = dataclasses.replace(options, pool=1), source[None]
  else:
    frames = np.stack(list(crops(found[cma.evenly(len(found), options.pool)].tolist())))
  return Adjuster(model, options).adjust(source, frames, folder, progress)


def write_curve(path: pathlib.Path, history: np.ndarray, drifts: Mapping[int, tuple]) -> None:
  """Writes a CSV of the terms of each step (k, 6), with the drift where it was measured."""
  with open(path, 'w', newline='') as file:
    rows = csv.writer(file)
    rows.writerow(('step', *cma.HISTORY, *DRIFT))
    for k, row in enumerate(history):
      rows.writerow((k + 1, *map(float, row), *drifts.get(k + 1, ('', ''))))


def sheet(models: tuple[Model, Model], job: cma.Job) -> np.ndarray:
  """Returns a labelled sheet: source and drivers, R of the untuned and R of the tuned model."""
  shown = cma.evenly(len(job.drivers.image), cma.SHOWN)
  source = np.asarray(to_uint8(job.source.image[0]))
  rows = [np.asarray(to_uint8(job.drivers.image[shown]))]
  F = np.concatenate([np.asarray(x)[shown] for x in job.drivers.F], -1)
  # R = G(w_id, s_f), eq. (16), by the programs of re-enactment: at the precision of the result.
  rows += [list(model.images(job.source.W, F, BATCH)) for model in models]
  blank = np.full_like(source, 255)
  rows = [[first, *row] for first, row in zip((source, blank, blank), rows, strict=True)]
  return composite.labelled(rows, ('given', 'before', 'after'), ['source', *[''] * len(shown)])


def adjusted(model: Model, added: Mapping[str, np.ndarray]) -> Model:
  """Returns the model with a delta added to its generator; every run with it gives the same."""
  return model.with_generator(cma.adjusted(model.G, added), f'{model.name}, adjusted')


def with_delta(model: Model, path: str | os.PathLike) -> Model:
  """Returns the model with the delta of a file added to its generator.

  Raises:
    InputError: the file is missing, damaged, no delta, or that of another generator.
  """
  if not pathlib.Path(path).is_file():
    raise InputError(f'{path}: no such file; `reenact --cma` prints where it writes one')
  try:
    with safetensors.safe_open(path, 'np') as file:
      about = file.metadata() or {}
      added = {name: file.get_tensor(name) for name in file.keys()}
  except (safetensors.SafetensorError, OSError) as error:
    raise InputError(
      f'{path}: damaged ({error}); delete it and run the adjustment again'
    ) from error
  if 'generator' not in about:
    raise InputError(f'{path}: not an adjustment of a generator; give a file of `reenact --cma`')
  # A delta added to any other generator of the same shapes would give noise, without an error.
  if json.loads(about['generator']) != model.digests['generator']:
    raise InputError(
      f'{path}: was made for another generator than that of {model.name}; give the --workdir with '
      'which it was made'
    )
  return adjusted(model, added)
