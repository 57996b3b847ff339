"""Writes the bundled hybrid encoder: the best of stage 2 of a workdir.

  python -m hybrid_jax.main --config=configs/pretrain.py:heads_full --workdir=WORKDIR
  python -m experiments.world.encoder WORKDIR

Writes encoder_SIZE.npz and .json into the package, and heads_reenacted.gif, of two unseen people
with the motion of two others, into experiments/results.
"""

import json
import pathlib

import imageio.v2 as imageio
import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import script
from hybrid_jax.media import replacing
from hybrid_jax.method import networks
from hybrid_jax.reenactment import showcase
from hybrid_jax.reenactment.model import load_model
from hybrid_jax.training import checkpoint
from hybrid_jax.weights import shipped
from hybrid_jax.world import people


def export(workdir: str) -> None:
  """Writes the encoder of the lowest validation loss, in float16, and its config."""
  stages = {
    stage: f'{workdir}{folder}' for stage, folder in (('pretrain', ''), ('finetune', '/finetune'))
  }
  config = checkpoint.read_config(stages['finetune'])
  nets = networks.build(ConfigDict(config).model)
  make = lambda key: networks.init_encoder(nets, key)  # noqa: E731
  shapes = jax.eval_shape(make, jax.random.key(0))
  step, encoder = checkpoint.restore_encoder(stages['finetune'], shapes, 'best')
  before, _ = checkpoint.restore_encoder(stages['pretrain'], shapes)
  path = shipped.FOLDER / f'encoder_{config["model"]["resolution"]}.npz'
  with replacing(path) as part:
    shipped.save(part, encoder)
  config['trained_steps'] = {'pretrain': before, 'finetune': step}
  # Folders of the machine that trained it mean nothing elsewhere.
  config['train']['init_from'] = config['data']['packed'] = ''
  with replacing(path.with_suffix('.json')) as part:
    part.write_text(json.dumps(config, indent=1) + '\n')
  print(f'{path}: stage 1 to step {before}, stage 2 to {step}, {path.stat().st_size / 1e6:.2f} MB')


def show(path: pathlib.Path) -> None:
  """Writes a GIF of 4 s of two people; columns: source, driver, re-enactment, true answer."""
  model, first = load_model(''), people.SPLITS['test']
  times = np.arange(0, 4, 0.08)
  rows = [showcase.panels(model, first + s, first + d, times, 2)[1] for s, d in ((1, 2), (3, 4))]
  frames = [np.vstack(row) for row in zip(*rows, strict=True)]
  with replacing(path) as part:
    imageio.mimwrite(part, frames, format='gif', duration=80, loop=0)
  print(f'{path}: {path.stat().st_size / 1e6:.2f} MB')


def main() -> None:
  parser = script.parser(__doc__)
  parser.add_argument('workdir', help='of a run of configs/pretrain.py:heads_full')
  export(parser.parse_args().workdir)
  show(script.RESULTS / 'heads_reenacted.gif')


if __name__ == '__main__':
  main()
