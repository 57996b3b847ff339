"""Trains the hybrid encoder of the rendered world by both stages, and ships it.

  python experiments/heads_encoder.py WORKDIR            # resumes; hours of 2 CPU cores
  python experiments/heads_encoder.py WORKDIR --export   # the best of stage 2 into the package

The same commands as a user's, with configs :heads_full. Options after `--` go to both.
"""

import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from hybrid_jax import checkpoint, networks  # noqa: E402
from hybrid_jax.media import replacing  # noqa: E402
from hybrid_jax.weights import shipped  # noqa: E402


def export(workdir: str) -> None:
  """The encoder of the lowest validation loss, float16, and its config."""
  config = checkpoint.read_config(workdir)
  nets = networks.build(ConfigDict(config).model)
  make = lambda key: networks.init_encoder(nets, key)  # noqa: E731
  step, encoder = checkpoint.restore_encoder(
    workdir, jax.eval_shape(make, jax.random.key(0)), 'best'
  )
  path = shipped.FOLDER / 'encoder_64.npz'
  with replacing(path) as part:
    shipped.save(part, encoder)
  config['trained_steps'] = {'finetune': step}
  # Where it was trained and from what is nobody's concern who uses it.
  config['train']['init_from'] = config['data']['packed'] = ''
  with replacing(path.with_suffix('.json')) as part:
    part.write_text(json.dumps(config, indent=1) + '\n')
  print(f'{path}: stage 2, step {step}, {path.stat().st_size / 1e6:.2f} MB')


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('workdir')
  parser.add_argument('--export', action='store_true')
  parser.add_argument('fields', nargs='*', help='e.g. -- --config.train.num_steps=5000')
  args = parser.parse_args()
  workdir = pathlib.Path(args.workdir)
  if args.export:
    export(str(workdir / 'finetune'))
    return
  for stage in ('pretrain', 'finetune'):
    command = [sys.executable, '-m', 'hybrid_jax.main', f'--config=configs/{stage}.py:heads_full']
    command += [f'--workdir={workdir / stage}', *args.fields]
    if stage == 'finetune':
      command += [f'--config.train.init_from={workdir / "pretrain"}']
    subprocess.run(command, cwd=ROOT, check=True)


if __name__ == '__main__':
  main()
