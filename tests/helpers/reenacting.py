"""The re-enactment command in tests: a small random model, its inputs, and reading of outputs."""

import av
import jax
import numpy as np
from ml_collections import ConfigDict
from small import small_config, write_clip

from hybrid_jax.media import stills, video
from hybrid_jax.method import networks
from hybrid_jax.reenactment.model import Model
from hybrid_jax.reenactment.options import Options
from hybrid_jax.reenactment.run import reenact


def random_model():
  """A random model whose deformation depends on the frame; nothing is compiled to make it."""
  config = ConfigDict(small_config())
  nets = networks.build(config.model)
  rng = np.random.default_rng(0)

  def fill(path, x, spread):
    noise = spread * rng.standard_normal(x.shape).astype(np.float32)
    return 1 + noise if path[-1].key in ('var', 'scale') else noise

  E = jax.eval_shape(lambda key: networks.init_encoder(nets, key), jax.random.key(0))
  E = jax.tree_util.tree_map_with_path(lambda path, x: fill(path, x, 0.1), E)
  G = jax.eval_shape(lambda key: networks.random_frozen(nets, key), jax.random.key(0))['generator']
  G = jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), G)
  return Model(config, nets, E, G, nets.hybrid.encoder.num_ws, 'small')


def write_inputs(folder):
  """Writes the inputs; returns (portrait, driving clip, its times)."""
  times = write_clip(folder / 'driver.mp4', 5, frames=23)
  write_clip(folder / 'person.mp4', 1, frames=2)
  rgb = next(video.read_frames(folder / 'person.mp4')).rgb
  stills.write_image(folder / 'portrait.png', rgb)
  return str(folder / 'portrait.png'), str(folder / 'driver.mp4'), times


def frames_of(path):
  return list(video.read_frames(path))


def pixels(path):
  return np.stack([frame.rgb for frame in frames_of(path)])


def packets(path, kind):
  with av.open(str(path)) as container:
    found = [p for p in container.demux(**{kind: 0}) if p.pts is not None]
    return sorted((p.pts * p.time_base, bytes(p)) for p in found)


def run(model, inputs, output, **options):
  """Runs and prints as the command does; returns the number of frames."""
  source, driving, _ = inputs
  given = {'source': source, 'driving': driving, 'output': str(output), 'batch_size': 4, **options}
  report = reenact(model, Options(**given), say=print)
  print(*report.lines(), sep='\n')
  return report.frames
