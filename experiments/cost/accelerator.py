"""Checks golden vectors on the device, and times the 1024 px model with random weights.

  python -m experiments.cost.accelerator --output=results.json
  python -m experiments.cost.accelerator --parts=golden,generator    # some parts only
  python -m experiments.cost.accelerator --parts=golden,forms,reenact,train_step,cma_step,clip \\
      --output=results.json    # ten minutes of a large GPU

Needs jax, flax, optax and numpy, nothing else of the project's dependencies (jax 0.10 or 0.11);
`clip` and `suite` need them.
Each part runs in a process of its own, so that its peak memory is its own and one that does not fit
stops no other. On a CPU only what fits is run: float32, small batches, one triplet. The command
fails if a part fails, a golden vector differs, or a training step is not finite.
"""

import argparse
import json
import pathlib
import subprocess
import sys

from experiments.cost import accelerator_parts
from experiments.cost.accelerator_clip import clip
from experiments.cost.accelerator_forms import forms
from experiments.cost.accelerator_parts import MARK, ROOT
from experiments.cost.accelerator_tuning import cma_step
from hybrid_jax import environment

MODULE = 'experiments.cost.accelerator'
PARTS = accelerator_parts.PARTS | {'forms': forms, 'cma_step': cma_step}
# These need the project's dependencies.
EXTRA_PARTS = accelerator_parts.EXTRA_PARTS | {'clip': clip}


def describe() -> dict:
  """Returns command, commit, date, device and versions, for every result of a file."""
  # In a process of its own: JAX would keep the memory of the GPU from the parts.
  code = 'import json; from hybrid_jax import environment; print(json.dumps(environment.record()))'
  run = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True
  )
  record = json.loads(run.stdout.splitlines()[-1])
  versions = record.pop('versions')
  about = {'command': environment.command(), 'jax': versions['jax'], 'python': versions['python']}
  return record | about


def measure(part: str) -> tuple[list[dict], bool]:
  """Runs a part in a process; returns its results and whether it succeeded.

  Results of a part that fails are kept: they say which value failed.
  """
  command = [sys.executable, '-m', MODULE, '--worker', f'--parts={part}']
  run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
  lines = [line for line in run.stdout.splitlines() if line.startswith(MARK)]
  results = [{'part': part, **json.loads(line[len(MARK) :])} for line in lines]
  failed = any(r.get('ok') is False or r.get('finite') is False for r in results)
  return results, run.returncode == 0 and not failed


def main() -> None:
  """Runs the parts of the command line."""
  known = PARTS | EXTRA_PARTS
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--parts', default=','.join(PARTS), help=f'of {",".join(known)}')
  parser.add_argument('--output', help='JSON file to write; parts already in it are replaced')
  parser.add_argument('--worker', action='store_true', help=argparse.SUPPRESS)
  args = parser.parse_args()
  parts = args.parts.split(',')
  unknown = sorted(set(parts) - set(known))
  if unknown:
    parser.error(f'no part {unknown[0]}; there are {", ".join(known)}')
  if args.worker:
    try:
      known[parts[0]]()
    except FloatingPointError as error:
      sys.exit(f'error: {error}')
    return

  about = describe()
  print(f'{about["device"]}, jax {about["jax"]}, commit {about["commit"]}', file=sys.stderr)
  results, failed = [], []
  for part in parts:
    measured, succeeded = measure(part)
    results += measured
    if not succeeded:
      failed.append(part)
  if args.output:
    path = pathlib.Path(args.output)
    old = json.loads(path.read_text())['results'] if path.exists() else []
    kept = [r for r in old if r['part'] not in parts]
    temporary = path.with_suffix('.tmp')
    results = kept + [{**r, **about} for r in results]
    temporary.write_text(json.dumps({'results': results}, indent=1) + '\n')
    temporary.rename(path)
  if failed:
    sys.exit(f'failed: {", ".join(failed)}')


if __name__ == '__main__':
  main()
