"""The part `clip` of `accelerator`: files to a file, as the command `reenact` does it.

Needs all dependencies of the project; imports are inside, because the command starts no device.
"""

import os
import pathlib
import tempfile
import time
from fractions import Fraction
from typing import Any

from experiments.cost.accelerator_parts import calibrated, emit, emit_memory


def random_model(config: Any) -> Any:
  """Returns a model with random weights, whose encoder is calibrated on noise."""
  import jax

  from hybrid_jax.method import networks
  from hybrid_jax.reenactment.model import Model

  nets = networks.build(config.model)

  def start(key):
    keys = jax.random.split(key, 3)
    seen = jax.random.uniform(keys[0], (2, nets.frame_size, nets.frame_size, 3), minval=-1)
    E = calibrated(
      nets.hybrid.encoder, networks.init_encoder(nets, keys[1]), seen, method='pyramid'
    )
    return E, networks.random_frozen(nets, keys[2])['generator']

  return Model(
    config, nets, *jax.jit(start)(jax.random.key(0)), nets.hybrid.encoder.num_ws, 'random'
  )


def write_inputs(folder: pathlib.Path, frames: int, size: int) -> tuple[str, str]:
  """Writes a portrait and a clip of noise at 25 frames a second; returns their paths."""
  import numpy as np

  from hybrid_jax.media import stills, video

  rng = np.random.default_rng(0)
  # Coarse noise, so that H.264 does not take longer to read it than a real clip.
  coarse = rng.integers(0, 256, (frames, 8, 8, 3), dtype=np.uint8)
  pictures = coarse.repeat(size // 8, axis=1).repeat(size // 8, axis=2)
  source, driving = folder / 'source.png', folder / 'driving.mp4'
  stills.write_image(source, pictures[0])
  with video.VideoWriter(driving, size, size, time_base=Fraction(1, 25)) as writer:
    for k, rgb in enumerate(pictures):
      writer.write(rgb, Fraction(k, 25))
  return str(source), str(driving)


def clip(config: Any = None, frames: int = 0) -> None:
  """A portrait and a driving clip to an H.264 video, 1024 px: the second of two runs is timed."""
  import jax
  from ml_collections import ConfigDict

  from configs import common
  from hybrid_jax.reenactment.options import Options
  from hybrid_jax.reenactment.run import reenact

  frames = frames or (8 if jax.default_backend() == 'cpu' else 500)
  model = random_model(config or ConfigDict(common.paper()))
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    source, driving = write_inputs(folder, frames, model.size)
    for run in ('first', 'second'):
      began = time.perf_counter()
      report = reenact(model, Options(source, driving, str(folder / f'{run}.mp4')))
      took = time.perf_counter() - began
      if run == 'first':
        emit(f'clip {model.resolution} px, first run, with compilation', took, 's')
    rate = report.frames / took
    emit(f'clip {model.resolution} px', rate, 'frames per second', cores=os.cpu_count())
  emit_memory('clip')
