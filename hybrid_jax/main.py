"""Trains the hybrid encoder.

  python -m hybrid_jax.main --config=configs/pretrain.py:tiny --workdir=runs/tiny \\
      --config.data.videos=DIR

Any field of the config can be set on the command line, e.g. --config.train.num_steps=1000. Run
again with the same --workdir to resume; SIGTERM or Ctrl-C saves first. The workdir gets
config.json, versions.json, metrics.csv, validation.csv, samples/, checkpoints/ and best/. With
--config=configs/pretrain.py:heads both stages run on rendered heads, and at the end unseen people
are re-enacted: reenacted.mp4, .png and .json.

Several machines: the same command on each with --coordinator=HOST:PORT --processes=N --process=K
(on a TPU pod, --coordinator=auto alone).
"""

import os
import sys
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict

from hybrid_jax import config_flag

_WORKDIR = flags.DEFINE_string('workdir', None, 'Where checkpoints, logs and samples go.')
_COORDINATOR = flags.DEFINE_string(
  'coordinator', '', "HOST:PORT of process 0 of several, 'auto' where the cluster tells it."
)
_PROCESSES = flags.DEFINE_integer('processes', None, 'Number of processes.', lower_bound=1)
_PROCESS = flags.DEFINE_integer('process', None, 'Number of this process, from 0.', lower_bound=0)
_CACHE = flags.DEFINE_string(
  'compilation_cache', None, "Folder of compiled programs; '' keeps none (~/.cache/hybrid_jax)."
)


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unexpected argument {argv[1]!r}; options are written --name=value')
  # Imported here: data worker processes import this module again and need none of it.
  from hybrid_jax import cli
  from hybrid_jax.errors import InputError
  from hybrid_jax.training import parallel

  cli.use_compilation_cache(_CACHE.value)
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.ERROR)  # Orbax logs every checkpoint, and warns of reading one
  try:
    parallel.join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    run(config_flag.CONFIG.value, _WORKDIR.value)
  except (InputError, FloatingPointError) as error:
    sys.exit(f'error: {error}')


def run(config: Any, workdir: str) -> None:
  """The training of a config, the one that it says follows, and the showcase of the last."""
  import jax

  from hybrid_jax import cli
  from hybrid_jax.reenactment import showcase
  from hybrid_jax.training import loop

  last = workdir
  if loop.train(config, workdir) is None:
    return  # interrupted
  if config.then:
    following = ConfigDict(config.to_dict())
    following.update(config.then.to_dict())
    following.train.init_from, following.then = workdir, {}
    last = os.path.join(workdir, following.stage)
    if loop.train(following, last) is None:
      return
  if config.showcase and jax.process_index() == 0:
    print()
    print(*showcase.lines(showcase.show(last, workdir, cli.progress), workdir), sep='\n')


if __name__ == '__main__':
  flags.mark_flags_as_required(['config', 'workdir'])
  app.run(main, flags_parser=config_flag.parse)
