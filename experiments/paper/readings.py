"""Measures readings that the paper leaves open on rendered heads; resumable.

  python -m experiments.paper.readings --work runs/readings \
      --output experiments/results/readings.json

Trains every variant of configs/readings.py with every seed, from the same encoder and within the
same budget, one after another, with the machinery of ablations.py. All are measured against the
true answer on people that no network was trained on. Choices are made on the split `validation`,
by a rule that was committed before the first run (`wins`); the winners together are then a last
variant, `best`, and every row is measured on the split `test` too. Beside the .json: the table
(.md).
"""

import argparse
import itertools
import pathlib
import sys

from configs import readings
from experiments import script
from experiments.paper import ablations, out_of_domain, tunings
from hybrid_jax import cli
from hybrid_jax.errors import InputError

CONFIG = 'configs/readings.py'
KINDS = ('inside', 'beyond')  # those whose motion the judge can read
FIRST = 3_000  # episodes that no other script uses
SPLITS = ('validation', 'test')
PRIMARY = 'l1_face'
HIGHER_IS_BETTER = ('ssim', 'identity_score')
EXCLUSIVE = {'batch', 'role'}  # readings of one field: at most one is part of the best


def wins(row: dict) -> bool:
  """Returns whether a variant beats the default.

  Its error of the face (PRIMARY) is lower for every seed and over the whole interval of the paired
  difference, and no other metric is worse over its whole interval.
  """
  gaps = {metric: row[metric][f'minus_{readings.DEFAULT}'] for metric in tunings.METRICS}
  worse = any(
    gap['high'] < 0 if metric in HIGHER_IS_BETTER else gap['low'] > 0
    for metric, gap in gaps.items()
  )
  return gaps[PRIMARY]['high'] < 0 and max(gaps[PRIMARY]['seeds']) < 0 and not worse


def best(rows: dict) -> list[str]:
  """Returns the variants that win, the largest gain first; of EXCLUSIVE ones the first alone."""
  winners = [name for name in readings.VARIANTS if name != readings.DEFAULT and wins(rows[name])]
  winners.sort(key=lambda name: rows[name][PRIMARY]['mean'])
  rivals = [name for name in winners if name in EXCLUSIVE]
  return [name for name in winners if name not in rivals[1:]]


def measured(work: pathlib.Path, runs: dict[tuple[str, int], dict], split: str, count: int) -> dict:
  """Returns errors and paired differences to the default of each variant, on people of a split."""
  episodes = out_of_domain.episodes(split, KINDS, count, FIRST)
  values, _ = ablations.judge_all(work, runs, episodes, {}, {})
  kind, person = tunings.kinds_of(episodes), out_of_domain.joined(episodes)['person']
  groups = {'all': kind != '', **{name: kind == name for name in KINDS}}
  return {
    name: ablations.summary(values, here, person[here], readings.DEFAULT)
    for name, here in groups.items()
  }


def table(result: dict) -> str:
  """Returns Markdown: for each split a row per variant, with the difference to the default."""
  lines = [
    f'Means over {len(result["seeds"])} seeds; in brackets the difference to `{readings.DEFAULT}` '
    'with its 95 % interval over people. Higher is better for ssim and identity_score, lower for '
    f'the others. Best together: {", ".join(result["best"]) or "the default"}.',
  ]
  for split in SPLITS:
    lines += ['', f'### {split}', '', '| | ' + ' | '.join(tunings.METRICS) + ' |']
    lines.append('|---' * (1 + len(tunings.METRICS)) + '|')
    for name, row in result[split]['all'].items():
      cells = []
      for metric in tunings.METRICS:
        gap = row[metric][f'minus_{readings.DEFAULT}']
        change = f' ({gap["mean"]:+.4f}; {gap["low"]:+.4f} to {gap["high"]:+.4f})'
        is_default = name == readings.DEFAULT
        cells.append(f'{row[metric]["mean"]:.4f}' + ('' if is_default else change))
      lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines) + '\n'


def parse_args() -> argparse.Namespace:
  parser = script.parser(__doc__)
  add = parser.add_argument
  add('--output', type=pathlib.Path, required=True, help='.json file to write')
  add('--work', type=pathlib.Path, required=True, help='folder of trainings')
  add('--seeds', default='0,1,2', help='(%(default)s)')
  add('--steps', type=int, default=readings.STEPS, help='budget of a training (%(default)s)')
  add('--processes', type=int, default=1, help='trainings at a time, on CPUs (%(default)s)')
  add('--count', type=int, default=16, help='sources of a kind, in each split (%(default)s)')
  return parser.parse_args()


def main() -> None:
  args = parse_args()
  work, record = args.work.absolute(), script.record()
  seeds = list(map(int, args.seeds.split(',')))

  def trained(variants: list[str]) -> dict[tuple[str, int], dict]:
    wanted = [(variant, seed) for seed, variant in itertools.product(seeds, variants)]
    done = ablations.trainings(work, CONFIG, wanted, (args.steps,), args.processes)
    return {run: done[run] for run in wanted}  # in order, and not as they ended

  try:
    args.output.parent.mkdir(parents=True, exist_ok=True)
    cli.use_compilation_cache()
    runs = trained(list(readings.VARIANTS))
    result = {'validation': measured(work, runs, 'validation', args.count)}
    chosen = best(result['validation']['all'])
    if len(chosen) > 1:
      runs |= trained(['+'.join(chosen)])
      result['validation'] = measured(work, runs, 'validation', args.count)
    result['test'] = measured(work, runs, 'test', args.count)
  except InputError as error:
    sys.exit(f'error: {error}')
  about = {
    'budget_steps': args.steps,
    'batch': readings.BATCH,
    'seeds': seeds,
    'sources_of_a_kind': args.count,
    'rule': ' '.join(wins.__doc__.split()),
    'best': chosen,
    'trainings': {
      f'{v}-{s}': {key: run.get(key) for key in ('last_call_s', 'commit')}
      for (v, s), run in runs.items()
    },
  }
  script.write_json(args.output, about | result | {'measured': record})
  markdown = table(about | result)
  args.output.with_suffix('.md').write_text(markdown)
  print(markdown)


if __name__ == '__main__':
  main()
