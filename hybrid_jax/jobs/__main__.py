"""Re-enacts the rows of a table.

  python -m hybrid_jax.jobs --jobs jobs.csv
  python -m hybrid_jax.jobs --jobs jobs.jsonl --shard=0/3 --options='--quality --layout=grid'

A .csv has the columns source, driving, output and, if wanted, options; a .jsonl an object of the
same names in each line. Options are those of hybrid_jax.reenact. The model is loaded and compiled
once a process. A bad row is told and the others go on; rows that are finished are skipped when the
command is given again, and a row that was killed goes on from its last finished part.

Several processes: the same command in each, with --shard=i/n, or as tasks or an array of SLURM,
which are detected automatically. Process i takes device i of its machine, in turn.

The report is a folder beside the table, JOBS.report: index.html, report.csv, and a log and a mark
of each row. The exit code is 1 if a row of this process failed, 3 if one has low quality.
"""

import argparse
import os
import pathlib
import sys

from hybrid_jax.cli import running
from hybrid_jax.jobs import report, shard, table, work
from hybrid_jax.reenactment.model import load_model


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.jobs',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--jobs', required=True, help='.csv or .jsonl table')
  add('--report', default='', help='folder of the report (JOBS.report)')
  add('--options', default='', help='of hybrid_jax.reenact, for all rows')
  add('--workdir', default='', help='workdir of a training run (the shipped model)')
  add('--shard', default='', help='i/n: this is process i (from 0) of n')
  return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
  """Does this process's rows and writes the report; returns the exit code.

  Raises:
    InputError: the table, the model or the division cannot be used.
  """
  jobs = table.read(args.jobs, args.options)
  mine = shard.choose(args.shard, os.environ)
  if mine.count > 1:  # processes may share a device
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  device = shard.use_device(mine)
  rows = mine.of(jobs)
  print(
    f'{args.jobs}: {len(rows)} of {len(jobs)} rows are for process {mine.index} of {mine.count} '
    f'({mine.origin}), on {device}',
    flush=True,
  )
  folder = pathlib.Path(args.report or f'{args.jobs}.report')
  report.write(jobs, folder)
  counts = work.run_rows(
    rows, lambda: load_model(args.workdir), folder, lambda line: print(line, flush=True)
  )
  everywhere = report.write(jobs, folder)
  for name, found in (('of this process', counts), ('of all so far', everywhere)):
    told = ', '.join(f'{count} {what}' for what, count in found.items() if count)
    print(f'{name}: {told or "no rows"}')
  print(f'report: {folder / "index.html"}')
  return 1 if counts['failed'] else 3 if counts['low quality'] else 0


def main() -> None:
  args = parse_args()
  with running('stopped; the same command goes on with the rows that are not finished'):
    sys.exit(run(args))


if __name__ == '__main__':
  main()
