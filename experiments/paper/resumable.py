"""A training that resumes: its settings, one checkpoint, a log, and an end at SIGTERM.

A workdir holds settings.json, checkpoint.msgpack and log.jsonl. The batch of a step follows from
its number, so a run that was stopped ends with the weights of one that was not.
"""

import argparse
import json
import math
import pathlib
import signal
import sys
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
from tqdm import tqdm

from experiments import script
from experiments.paper import baselines
from hybrid_jax import cli
from hybrid_jax.errors import InputError
from hybrid_jax.media import reason, replacing

CHECKPOINT, SETTINGS, LOG = 'checkpoint.msgpack', 'settings.json', 'log.jsonl'


def parser_of(doc: str, verbs: tuple[str, ...], steps: int, rate: float, every: int):
  """Returns the parser of a command that trains: its verb, workdir, and options of the training."""
  parser = script.parser(doc)
  add = parser.add_argument
  add('verb', choices=verbs)
  add('workdir', type=pathlib.Path, help='folder of the training')
  add('--steps', type=int, default=steps, help='(%(default)s)')
  add('--rate', type=float, default=rate, help='of Adam (%(default)s)')
  add('--seed', type=int, default=baselines.PROTOCOL['seeds']['all'][0], help='(%(default)s)')
  add('--checkpoint-steps', type=int, default=every, help='(%(default)s)')
  return parser


def begin(workdir: pathlib.Path, settings: dict) -> None:
  """Writes the settings of a new run, or checks that they are those of the one in `workdir`.

  Raises:
    InputError: the run was begun with others.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  if not (workdir / SETTINGS).is_file():
    return script.write_json(workdir / SETTINGS, settings)
  known = settings_of(workdir)
  # As JSON has them: tuples become lists.
  given = json.loads(json.dumps(settings))
  changed = [name for name in {**known, **given} if known.get(name) != given.get(name)]
  if changed:
    named = ', '.join(f'{name} {known.get(name)}' for name in sorted(changed))
    raise InputError(f'{workdir}: was begun with {named}; give the same, or another workdir')


def settings_of(workdir: pathlib.Path) -> dict:
  """Returns the settings of a run. Raises InputError if `workdir` holds no run."""
  try:
    return json.loads((workdir / SETTINGS).read_text())
  except (OSError, ValueError) as error:
    raise InputError(f'{workdir}: no training ({SETTINGS}: {reason(error)})') from error


def restore(workdir: pathlib.Path, state: Any) -> Any:
  """Returns the state of the checkpoint, or `state` if no checkpoint was written yet.

  Raises:
    InputError: the checkpoint is damaged or of other networks.
  """
  path = workdir / CHECKPOINT
  if not path.is_file():
    return state
  try:
    found = flax.serialization.from_bytes(jax.device_get(state), path.read_bytes())
  except (ValueError, KeyError, TypeError) as error:
    raise InputError(f'{path}: cannot be read ({reason(error)}); take another workdir') from error
  return jax.tree.map(jnp.asarray, found)


def trained(workdir: pathlib.Path, state: Any) -> Any:
  """Returns the state of a run that has ended.

  Raises:
    InputError: there is no checkpoint, or steps are left.
  """
  state, steps = restore(workdir, state), settings_of(workdir)['steps']
  if int(state.step) < steps:
    raise InputError(f'{workdir}: step {int(state.step)} of {steps}; train it to its end first')
  return state


def run(
  workdir: pathlib.Path,
  state: Any,
  steps: int,
  advance: Callable[[Any, int], tuple[Any, dict]],
  report: Callable[[Any], dict],
  every: int,
) -> Any:
  """Advances from `state.step` to `steps`; logs and saves each `every` steps and at the end.

  Args:
    advance: (state, number of the step) -> (state, metrics).
    report: more figures of a state for the log, such as losses on held-out people.

  Raises:
    InputError: a metric is not finite; the last checkpoint is kept.
  """
  stopping: list[bool] = []
  before = signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
  try:
    start = int(state.step)
    for k in tqdm(range(start, steps), initial=start, total=steps, mininterval=10, unit='step'):
      state, metrics = advance(state, k)
      if (k + 1) % every and k + 1 < steps and not stopping:
        continue
      row = {name: float(value) for name, value in (metrics | report(state)).items()}
      if not all(map(math.isfinite, row.values())):
        raise InputError(f'{workdir}: a loss is not finite at step {k + 1}; lower the rate')
      with replacing(workdir / CHECKPOINT) as part:
        part.write_bytes(flax.serialization.to_bytes(jax.device_get(state)))
      with open(workdir / LOG, 'a') as file:
        file.write(json.dumps({'step': k + 1} | row) + '\n')
      if stopping:
        break
  finally:
    signal.signal(signal.SIGTERM, before)
  return state


def command(args: argparse.Namespace, **verbs: tuple) -> None:
  """Runs the verb `args.verb`; errors are one line.

  Args:
    verbs: function of `args` by name of the verb, and after it the options that the verb needs.
  """
  run_verb, *needed = verbs[args.verb]
  cli.use_compilation_cache()
  try:
    if missing := [f'--{name}' for name in needed if not getattr(args, name)]:
      raise InputError(f'{args.verb} needs {" and ".join(missing)}; see --help')
    run_verb(args)
  except InputError as error:
    sys.exit(f'error: {error}')
  except KeyboardInterrupt:
    sys.exit('stopped; the same command continues')
