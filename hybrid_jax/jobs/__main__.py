"""Re-enacts the rows of a table.

  python -m hybrid_jax.jobs --jobs jobs.csv
  python -m hybrid_jax.jobs --jobs jobs.jsonl --shard=0/3 --options='--quality --layout=grid'

A .csv has the columns source, driving, output and optionally options; a .jsonl has an object with
these names in each line. Options are those of hybrid_jax.reenact. The model is loaded and compiled
once per process. A bad row is reported, and the other rows still run. The same command again skips
finished rows, and resumes a killed row from its last finished segment.

Several processes: run the same command in each, with --shard=i/n; tasks and job arrays of SLURM are
detected automatically. Process i uses device i of its machine, modulo the number of devices.

The report is a folder beside the table, JOBS.report: index.html, report.csv, and a log and a mark
of each row. The exit code is 1 if a row of this process failed, 3 if one has low quality.
"""

import argparse
import os
import pathlib
import sys

from hybrid_jax import cli
from hybrid_jax.jobs import report, shard, table, work
from hybrid_jax.reenactment.model import load_model


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
  """Returns the arguments of a command line; exits with a usage message if they are wrong."""
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.jobs',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--jobs', required=True, help='.csv or .jsonl table')
  add('--report', default='', help='folder of the report (JOBS.report)')
  add('--options', default='', help='options of hybrid_jax.reenact for all rows')
  add('--workdir', default='', help='training run or exported model (the bundled model)')
  add('--shard', default='', help='i/n: run as process i (from 0) of n (SLURM, else 0/1)')
  return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
  """Runs the rows of this process and writes the report; returns the exit code.

  Raises:
    InputError: the table, the model or the shard cannot be used.
  """
  jobs = table.read(args.jobs, args.options)
  mine = shard.choose(args.shard, os.environ)
  # Processes may share a device, and by default the first one reserves most of its memory. JAX
  # reads the variable when it starts its first device, which is below.
  if mine.count > 1:
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  device = shard.use_device(mine)
  rows = mine.of(jobs)
  print(
    f'{args.jobs}: {len(rows)} of {len(jobs)} rows are for process {mine.index} of {mine.count} '
    f'({mine.origin}), on {device}',
    flush=True,
  )
  folder = pathlib.Path(args.report or f'{args.jobs}.report')
  # Once before any work, so that the page exists while rows run, and a folder that cannot be made
  # is an error now and not after hours.
  report.write(jobs, folder)
  counts = work.run_rows(
    rows, lambda: load_model(args.workdir), folder, lambda line: print(line, flush=True)
  )
  # Each process writes the whole report after its own rows; the last one's has all rows.
  everywhere = report.write(jobs, folder)
  for name, found in (('this process', counts), ('all rows so far', everywhere)):
    summary = ', '.join(f'{count} {status}' for status, count in found.items() if count)
    print(f'{name}: {summary or "no rows"}')
  print(f'report: {folder / "index.html"}')
  return 1 if counts['failed'] else 3 if counts['low quality'] else 0


def main() -> None:
  """Runs the command."""
  args = parse_args()
  with cli.running('stopped; the same command resumes with the unfinished rows'):
    sys.exit(run(args))


if __name__ == '__main__':
  cli.command(main)
