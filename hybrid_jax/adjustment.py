"""A model adjusted to one video: CMA or PTI once, then from the cache by content.

What a tuning adds to the generator is kept under a hash of everything it follows from: source,
driving frames, options, encoder and generator. The same job again is read and not computed.
"""

import csv
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from hybrid_jax import cma, networks
from hybrid_jax.errors import InputError
from hybrid_jax.inference import Model
from hybrid_jax.media import replacing, stills
from hybrid_jax.models.ops import adaptive_avg_pool, to_uint8
from hybrid_jax.weights import load

CHUNK = 25  # steps between two signs of progress
SHOWN = 6  # drivers on the sheet
Progress = Callable[[Iterable, str, int | None], Iterable]


def cache_folder() -> pathlib.Path:
  base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(base) / 'hybrid_jax' / 'cma'


class Adjuster:
  """Tunes generators of one model; its jobs run through one compiled program.

  Raises:
    InputError: the model's perceptual network is missing.
  """

  def __init__(self, model: Model, options: cma.Options):
    config = model.config.copy_and_resolve_references()
    config.model.polyphase_from, config.model.half_dtype = 0, ''  # weights are trained here
    self.model, self.options = model, options
    self.tuner = cma.Tuner(networks.build(config.model), options, model.rows)
    self.frozen, _ = load.load(model.networks, model.config.weights, model.config.train.seed)

  def key(self, source: np.ndarray, drivers: np.ndarray) -> str:
    """SHA-256 of everything that the result follows from."""
    sha = hashlib.sha256(repr(dataclasses.asdict(self.options)).encode())
    sha.update(self.model.digest().encode())
    for x in jax.tree.leaves(self.model.G):
      sha.update(np.ascontiguousarray(x))
    for frames in (source, drivers):
      sha.update(repr(frames.shape).encode() + np.ascontiguousarray(frames).tobytes())
    return sha.hexdigest()

  def adjust(
    self, source: np.ndarray, drivers: np.ndarray, bar: Progress, folder: pathlib.Path | None = None
  ) -> tuple[Model, str]:
    """(the model with its generator tuned, a line that says what was done).

    Args:
      source: (size, size, 3) uint8 crop, drivers: (n, size, size, 3) of the driving clip.
      folder: of the deltas; `cache_folder()` if not given.

    Raises:
      FloatingPointError: the loss is not finite; nothing was changed or written.
    """
    folder, method = folder or cache_folder(), self.options.method.upper()
    path = folder / f'{self.key(source, drivers)}.safetensors'
    if path.is_file():
      try:
        added, steps = load_file(path), None
      except (SafetensorError, OSError) as error:
        raise InputError(f'{path}: damaged ({error}); delete it, it is made anew') from error
    else:
      job = self.tuner.job(self.model.G, self.model.E, self.frozen['lpips'], source, drivers)
      total = -(-self.options.steps // CHUNK)
      *_, state = bar(self.tuner.tune(job, CHUNK), f'{method}, {CHUNK} steps', total)
      added, steps = cma.delta(self.model.G, state), int(state.step)
      history = np.asarray(state.history)[:steps]
      self._keep(path, job, added, history)
    tuned = dataclasses.replace(
      self.model,
      G=cma.adjusted(self.model.G, added),
      name=f'{self.model.name}, adjusted by {method}',
    )
    if steps is None:
      return tuned, f'{method}: the generator of an earlier run ({path})'
    return tuned, (
      f'{method}: {steps} steps, loss {history[0, 0]:.4f} -> {history[-1, 0]:.4f}; '
      f'curve and pictures in {path.with_suffix("")}.csv and .png'
    )

  def _keep(self, path: pathlib.Path, job: cma.Job, added: dict, history: np.ndarray) -> None:
    """The delta, with the curve and a sheet: source and drivers, before, after."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path.with_suffix('.csv')) as part, open(part, 'w', newline='') as file:
      rows = csv.writer(file)
      rows.writerow(('step', *cma.HISTORY))
      rows.writerows((k + 1, *map(float, row)) for k, row in enumerate(history))
    shown = np.linspace(0, self.options.pool - 1, SHOWN).round().astype(int)
    source = np.asarray(to_uint8(job.source.image[0]))
    rows = [[source, *np.asarray(to_uint8(job.drivers.image[shown]))]]
    for G in (self.model.G, cma.adjusted(self.model.G, added)):
      rows.append([np.full_like(source, 255), *self._reenacted(G, job, shown)])
    stills.write_image(path.with_suffix('.png'), stills.grid(rows))
    with replacing(path) as part:
      save_file({k: np.ascontiguousarray(x) for k, x in added.items()}, part)

  def _reenacted(self, G: Mapping, job: cma.Job, drivers: np.ndarray) -> np.ndarray:
    """R of some drivers, (n, size, size, 3) uint8."""
    F = jax.tree.map(lambda x: x[drivers], job.drivers.F)
    W_S = jnp.repeat(job.source.W, len(drivers), 0)
    R = self.model.networks.hybrid.reenact(G, W_S, F)
    return np.asarray(to_uint8(adaptive_avg_pool(R, self.model.size)))
