"""Trains the hybrid encoder.

  python -m hybrid_jax.main --config=configs/pretrain.py

Any field of the config can be set on the command line, e.g. --config.train.num_steps=1000 or
--config.data.videos=DIR. Everything that is missing (weight files, data) is named, a line each,
before any work.

The run is written to --workdir, by default runs/CONFIG, or runs/CONFIG_ARGUMENT for
--config=configs/CONFIG.py:ARGUMENT: config.json, versions.json, metrics.csv, validation.csv,
samples/, checkpoints/ and best/. The same command resumes it; SIGTERM and Ctrl-C save first.

With --config=configs/pretrain.py:heads both stages run on rendered heads without any download, and
at the end unseen people are re-enacted: reenacted.mp4, .png and .json.

Several machines: the same command on each with --coordinator=HOST:PORT --processes=N --process=K
(on a TPU pod, --coordinator=auto alone).
"""

import functools
import os
from collections.abc import Callable
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict

from hybrid_jax import cli

_CONFIG, _WORKDIR = cli.define_config()
flags.adopt_module_key_flags(cli)  # lists them in --help
_COORDINATOR = flags.DEFINE_string(
  'coordinator', '', "HOST:PORT of process 0 of several; 'auto' asks the cluster."
)
_PROCESSES = flags.DEFINE_integer('processes', None, 'Number of processes.', lower_bound=1)
_PROCESS = flags.DEFINE_integer('process', None, 'Number of this process, from 0.', lower_bound=0)
_CACHE = flags.DEFINE_string(
  'compilation_cache', None, "Folder of compiled programs; '' keeps none [~/.cache/hybrid_jax]."
)


def main(argv: list[str]) -> None:
  """Trains --config in --workdir."""
  del argv  # cli.parse_flags has refused positional arguments
  # Imported here: data worker processes import this module again and need none of it.
  with cli.running(lower=cli.LESS_TRAINING, compilation_cache=_CACHE.value, shared_heap=False):
    from hybrid_jax import environment
    from hybrid_jax.training import parallel

    parallel.join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    if unused := environment.missing_accelerator():
      cli.report(unused)
    run(_CONFIG.value, _WORKDIR.value or cli.default_workdir(), cli.report)


def run(config: Any, workdir: str, report: Callable[[str], None] = print) -> None:
  """Trains a config, then the stage that follows it if the config names one, and shows the result.

  Args:
    config: a config of `configs`.
    workdir: folder of the run; a second stage gets a folder in it.
    report: prints a line.
  """
  import jax

  from hybrid_jax.reenactment import showcase
  from hybrid_jax.training import loop

  train = functools.partial(
    loop.train, report=report, progress=functools.partial(cli.progress, unit='it')
  )
  last = workdir
  if train(config, workdir) is None:
    return  # interrupted
  if config.then:
    next_stage = following(config, workdir)
    last = os.path.join(workdir, next_stage.stage)
    if train(next_stage, last) is None:
      return
  if config.showcase and jax.process_index() == 0:
    report('')
    for line in showcase.lines(showcase.show(last, workdir, cli.progress), workdir):
      report(line)


def following(config: Any, workdir: str) -> ConfigDict:
  """Returns the config of the stage that follows a run of `config` in `workdir`."""
  changed = ConfigDict(config.to_dict())
  changed.update(config.then.to_dict())
  changed.train.init_from, changed.then = workdir, {}
  return changed


if __name__ == '__main__':
  flags.mark_flags_as_required(['config'])
  parser = functools.partial(cli.parse_flags, _CONFIG)
  cli.command(lambda: app.run(main, flags_parser=parser))
