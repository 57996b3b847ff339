"""Frames of a model before and after tuning its generator, and the errors that both are judged by.

Shared by cma.py and ablations.py. Frames are (n, 64, 64, 3) uint8.
"""

import dataclasses
import functools
import pathlib

import numpy as np

from experiments.paper import out_of_domain
from hybrid_jax.evaluation import rendered
from hybrid_jax.media import replacing
from hybrid_jax.method import cma
from hybrid_jax.models.ops import from_uint8
from hybrid_jax.reenactment.model import Model
from hybrid_jax.reenactment.tuning import Adjuster

SETTINGS = 'rate', 'lambda', 'steps'
METRICS = ('l1', 'l1_face', 'ssim', 'identity_score', 'expression_error', 'pose_error')
KINDS = ('inside', *out_of_domain.KINDS)
MARKS = (25, 50, 100, 200)  # steps after which a tuning is judged
BATCH = 8
# The early stop is off: its threshold belongs to another perceptual network.
BASE = cma.Options(steps=MARKS[-1], enough_lpips=0.0, pool=out_of_domain.POOL)
# Each is compiled once; lambda and rate are inputs of the program.
VARIANTS = {
  'cma': BASE,
  'stopped': dataclasses.replace(BASE, through_encoder=False),
  'pti': dataclasses.replace(BASE, method='pti', pool=1),
}


class Bench:
  """A model, its tuners, and the frames of each method and episode, which `work` keeps."""

  def __init__(self, model: Model, work: pathlib.Path):
    self.model, self.work = model, work
    self.adjuster = functools.cache(lambda variant: Adjuster(model, VARIANTS[variant]))

  def frames(self, model: Model, episode: out_of_domain.Episode) -> np.ndarray:
    """Returns the (TARGETS, 64, 64, 3) re-enactments of an episode by a model."""
    F = model.deformations(list(episode.data['driving']), BATCH)
    return np.stack(list(model.images(model.identity(episode.source), F, BATCH)))

  def untuned(self, episode: out_of_domain.Episode) -> np.ndarray:
    """Returns the frames of the model itself."""
    return self.frames(self.model, episode)

  def tuned(
    self,
    split: str,
    episode: out_of_domain.Episode,
    variant: str,
    rate: float,
    weight: float,
    marks: tuple[int, ...],
  ) -> dict[str, np.ndarray]:
    """Tunes to an episode; returns its frames after so many steps, and the drift at the end.

    Args:
      split: name of the folder that keeps the result.
      variant: of VARIANTS. rate, weight: learning rate and lambda.
      marks: numbers of steps.

    Returns:
      {str(steps): frames (TARGETS, 64, 64, 3)}, 'drift' (2,): identity similarity and perceptual
      distance to the untuned result.
    """
    settings = f'{variant}-{rate:g}-{weight:g}-{"-".join(map(str, marks))}'
    name = f'{episode.name.replace(" ", "-")}-{settings}'
    path = self.work / split / f'{name}.npz'
    if path.is_file():
      with np.load(path) as file:
        return dict(file)
    adjuster = self.adjuster(variant)
    # PTI fits the source alone.
    drivers = episode.source[None] if variant == 'pti' else episode.pool
    model, tuner = self.model, adjuster.tuner
    job = tuner.job(model.G, model.E, adjuster.frozen, episode.source, drivers)
    job = job.replace(driver_weight=np.float32(weight), rate=np.float32(rate))
    kept = {}
    chunk = int(np.gcd.reduce(marks))
    tuning = tuner.tune(job, chunk)
    for done in range(chunk, marks[-1] + 1, chunk):
      state = next(tuning)
      if done in marks:
        G = cma.adjusted(model.G, cma.delta(model.G, state))
        kept[str(done)] = self.frames(model.with_generator(G, ''), episode)
    kept['drift'] = np.array(tuner.drift(job, state.params))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, open(part, 'wb') as file:
      np.savez_compressed(file, **kept)
    return kept


def judged(
  judge: rendered.Judges, frames: np.ndarray, data: dict, ends: dict
) -> dict[str, np.ndarray]:
  """Returns each of METRICS (n,) of frames against the true answers in `data`."""
  images = np.asarray(from_uint8(frames.astype(np.float32)))
  values = rendered.measure(judge, images, data, ends)
  return {name: values[name] for name in METRICS}


def kinds_of(episodes: list[out_of_domain.Episode]) -> np.ndarray:
  """Returns the kind of the episode of each target frame, (n,)."""
  return np.repeat([e.name.split()[0] for e in episodes], out_of_domain.TARGETS)
