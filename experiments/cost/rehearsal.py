"""Runs the commands of the README's section "Train at 1024 px", word for word, at full size.

  python -m experiments.cost.rehearsal --work=FOLDER --face_detector=FILE \
      --output=experiments/results/rehearsal.json
  python -m experiments.cost.rehearsal --work=FOLDER --face_detector=FILE --output=FILE --small

Weight files and videos are those of `rehearsal_inputs`: of the public formats, with random numbers
and rendered people. Options are only added behind a command (`added`), and the result lists them:
one triplet and recomputed layers, for 24 GiB of memory, and a few steps. The first training gets
SIGTERM, as a machine that is taken back sends it, in its third step, and the same command resumes
it. The result is written after each command, with its seconds, the peak memory of its processes and
the commit. The same command continues after the last one that succeeded. It takes up to 35 GB in
FOLDER. With --small networks and videos are those of a test.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from configs import common
from experiments import script
from experiments.cost import rehearsal_inputs
from hybrid_jax import environment

MARK = 'rehearsed'  # of the block in README.md
# README.md states it: what a machine of 24 GiB without an accelerator needs.
SMALL_MACHINE = (
  '--config.data.batch_size=1 --config.model.remat_from=256 --config.model.half_dtype='
)
# The hash in the public name of this file is not that of random numbers.
RANDOM_FILE = '--config.weights.lpips_backbone=weights/alexnet.pth'
STEPS, INTERRUPTED_IN, FINETUNE_STEPS, CMA_STEPS = 5, 3, 2, 2
INTERVAL = 0.1  # s between two looks at the memory
# What the log of a command must say, by the module.
EXPECTED = {
  'data.face_clips.pack': r'packed: ',
  'hybrid_jax.doctor': r'training can start',
  'hybrid_jax.main': r'done: runs/',
  'hybrid_jax.export': r'e4e encoder and decoder of',
  'hybrid_jax.convert': r'model',
  'hybrid_jax.reenact': r'8 frames',
  'hybrid_jax.evaluate': r'report/report\.html',
}


@dataclasses.dataclass(frozen=True)
class Step:
  """One command.

  command: as the README has it. added: options behind it. expected: a pattern that its output has.
  metrics: table of a training that is interrupted.
  """

  name: str
  command: str
  added: str = ''
  expected: str = ''
  metrics: str = ''


# --- The commands --------------------------------------------------------------------------------


def printed() -> list[str]:
  """The commands of the README's section."""
  text = (script.ROOT / 'README.md').read_text()
  code = re.search(rf'<!-- {MARK} -->\n```sh\n(.*?)```', text, re.S)[1]
  return [' '.join(line.split()) for line in code.replace('\\\n', ' ').splitlines()]


def module(command: str) -> str:
  """The module that a command runs; '' of a command of the shell."""
  words = shlex.split(command)
  return words[2] if words[:2] == ['python', '-m'] else ''


def small_networks() -> Iterator[str]:
  """The options that give the paper's config the networks of `rehearsal_inputs.small`."""
  paper, small = common.paper(), rehearsal_inputs.small()
  for section in ('model', 'loss'):
    for name, value in small[section].items():
      if value != paper[section][name]:
        yield shlex.quote(f'--config.{section}.{name}={value}'.replace(' ', ''))


def added(command: str, small: bool) -> str:
  """The options that the rehearsal adds to a command."""
  if '--cma' in command:
    return f'--cma-steps={CMA_STEPS}'
  if small and module(command) == 'data.face_clips.pack':
    return f'--size={rehearsal_inputs.small()["model"]["frame_size"]}'
  if module(command) not in ('hybrid_jax.doctor', 'hybrid_jax.main'):
    return ''
  steps = STEPS if 'pretrain.py' in command else FINETUNE_STEPS
  train = {'num_steps': steps, 'log_steps': 1, 'sample_steps': 2, 'val_steps': 2, 'val_batches': 1}
  options = [SMALL_MACHINE, RANDOM_FILE]
  options += [f'--config.train.{name}={value}' for name, value in train.items()]
  return ' '.join([*options, *(small_networks() if small else ())])


def steps(small: bool) -> list[Step]:
  """All commands in order; the first training is interrupted and then resumed."""
  inputs = 'python -m experiments.cost.rehearsal_inputs . --face_detector="$YUNET"'
  result = [Step('inputs', inputs + (' --small' if small else ''))]
  for command in printed():
    name = module(command).rpartition('.')[2] or command.split()[0]
    expected = EXPECTED.get(module(command), '')
    options = added(command, small)
    if name == 'main' and 'pretrain.py' in command:
      stopped = rf'SIGTERM: saved at step {INTERRUPTED_IN}'
      metrics = 'runs/pretrain/metrics.csv'
      result.append(Step('pretrain, interrupted', command, options, stopped, metrics))
      name, expected = 'pretrain, resumed', rf'resumed at step {INTERRUPTED_IN}(.|\n)*{expected}'
    elif name == 'main':
      name = 'finetune'
    elif name == 'pack':
      name = f'pack {shlex.split(command)[3].split("/")[0]}'
    elif '--cma' in command:
      name = 'reenact --cma'
    result.append(Step(name, command, options, expected))
  return result


# --- Running and measuring -----------------------------------------------------------------------


def resident(session: int) -> tuple[int, int]:
  """(bytes of all processes of a session now, largest peak of one of them)."""
  total = peak = 0
  for path in pathlib.Path('/proc').glob('[0-9]*'):
    try:
      if int((path / 'stat').read_text().rpartition(')')[2].split()[3]) != session:
        continue
      status = (path / 'status').read_text()
    except OSError:  # it has ended meanwhile
      continue
    kilobytes = dict(re.findall(r'(VmRSS|VmHWM):\s+(\d+) kB', status))
    total += 1024 * int(kilobytes.get('VmRSS', 0))
    peak = max(peak, 1024 * int(kilobytes.get('VmHWM', 0)))
  return total, peak


def logged(path: pathlib.Path) -> int:
  """The last step in metrics.csv; 0 without one."""
  rows = path.read_text().splitlines()[1:] if path.is_file() else []
  return int(rows[-1].split(',')[0]) if rows else 0


def run(step: Step, work: pathlib.Path, log: pathlib.Path, variables: dict[str, str]) -> dict:
  """Runs a command in `work` and returns its figures; exits with its output if it fails."""
  path = os.pathsep.join((str(pathlib.Path(sys.executable).parent), os.environ['PATH']))
  # A cache of its own: the first training compiles, and no tuning of another run is taken.
  environment = os.environ | {
    'PATH': path,
    'PYTHONPATH': str(script.ROOT),
    'XDG_CACHE_HOME': str(work / 'cache'),
    **variables,
  }
  command = ' '.join(filter(None, (step.command, step.added)))
  began, peak, interrupted = time.perf_counter(), 0, False
  with log.open('w') as output:
    process = subprocess.Popen(
      ['bash', '-euc', f'exec {command}'], cwd=work, env=environment,
      stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    while process.poll() is None:
      peak = max(peak, *resident(process.pid))
      if step.metrics and not interrupted:
        # The row of the step before is written while that step ends or this one runs.
        if interrupted := logged(work / step.metrics) == INTERRUPTED_IN - 1:
          process.send_signal(signal.SIGTERM)
      time.sleep(INTERVAL)
  text = log.read_text()
  if process.returncode or not re.search(step.expected, text):
    why = f'exit {process.returncode}, and no {step.expected!r} in its output'
    sys.exit(f'error: {step.name}: {why}:\n{command}\n{text[-3000:]}')
  seconds = time.perf_counter() - began
  return {'seconds': round(seconds, 1), 'peak_gib': round(peak / 2**30, 2)}


def losses(work: pathlib.Path) -> dict[str, list[float]]:
  """The total loss of each step of both stages. Raises ValueError if one is not finite."""
  result = {}
  for stage in ('pretrain', 'finetune'):
    header, *rows = (work / 'runs' / stage / 'metrics.csv').read_text().splitlines()
    column = header.split(',').index(f'{stage}/total')
    result[stage] = [float(row.split(',')[column]) for row in rows]
    if not all(map(math.isfinite, result[stage])):
      raise ValueError(f'{stage}: losses {result[stage]}')
  return result


def main() -> None:
  """Runs the command."""
  parser = script.parser(__doc__)
  parser.add_argument('--work', type=pathlib.Path, required=True, help='folder, kept')
  parser.add_argument('--output', type=pathlib.Path, required=True, help='JSON file')
  parser.add_argument('--face_detector', type=pathlib.Path, required=True, help='YuNet .onnx')
  parser.add_argument('--small', action='store_true', help='networks and videos of a test')
  options = parser.parse_args()
  rehearse(options)


def finished(todo: list[Step], done: list[dict]) -> list[dict]:
  """Entries of an earlier run whose commands, and all commands before them, are still the same."""
  same = [
    (step.command, step.added) == (entry['command'], entry['added'])
    for step, entry in zip(todo, done, strict=False)
  ]
  return done[: [*same, False].index(False)]


def rehearse(options: argparse.Namespace) -> None:
  """Runs all commands that the work folder does not have yet."""
  work, output = options.work.absolute(), options.output.absolute()
  (work / 'logs').mkdir(parents=True, exist_ok=True)
  # --config=configs/... is a path; the modules come from PYTHONPATH.
  if not (work / 'configs').exists():
    (work / 'configs').symlink_to(script.ROOT / 'configs')
  kept = work / 'rehearsal.json'
  result = json.loads(kept.read_text()) if kept.is_file() else None
  result = result or {'measured': script.record(), 'small': options.small, 'commands': []}
  todo = steps(options.small)
  done = result['commands'] = finished(todo, result['commands'])
  variables = {'YUNET': str(options.face_detector.absolute())}
  if options.small:  # most of its time is compilation
    variables['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
  for k, step in list(enumerate(todo))[len(done) :]:
    figures = run(step, work, work / 'logs' / f'{k:02d}.txt', variables)
    about = {'name': step.name, 'command': step.command, 'added': step.added}
    done.append(about | figures | {'commit': environment.commit()})
    print(f'{step.name}: {figures["seconds"]} s, {figures["peak_gib"]} GiB', flush=True)
    for path in (kept, output):
      script.write_json(path, result)
  result |= {
    'total_seconds': round(sum(x['seconds'] for x in result['commands']), 1),
    'peak_gib': max(x['peak_gib'] for x in result['commands']),
    'losses': losses(work),
  }
  script.write_json(output, result)


if __name__ == '__main__':
  main()
