"""The paper's ablations (section 4.3) in the metrics of its Table 2, on rendered heads; resumable.

  python -m experiments.paper.ablation_tables --work runs/ablations \\
      --people=75 --frames=32 --output=experiments/results/ablations_table2.json

Trains what ablations.py trains, with the same folder of trainings, and re-enacts the same pairs of
people of the test split with every training, across identity as in table2.py. The full model is
also tuned to each pair, by CMA and by PTI, with cma.py's settings; the first --tuned pairs of each
training, because a tuning takes 14 s. A row is a variant:

  metrics   means over seeds; those of clips with the difference to `full` on the same clips and its
            95 % interval over people; Fréchet distances, which belong to a set of clips and not to
            one, with the values of each seed
  tuned     the same for `full`, CMA and PTI on the tuned pairs alone, with differences to PTI

`claims` states for each ordering of the paper's own Table 2 whether ours agrees: `yes` or `no`
where the interval excludes 0 (Fréchet distances: all seeds agree), `open` otherwise.
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from configs.ablations import STEPS
from experiments import script
from experiments.paper import ablations, table2, tables
from hybrid_jax.evaluation import results
from hybrid_jax.evaluation.measure import Measured
from hybrid_jax.reenactment.model import load_model

FULL, CMA, PTI = 'full', 'full_cma', 'full_pti'
SMALL = 'full_here'  # the untuned model on the tuned pairs
# Rows of the paper, ours and theirs, and which is worse there in every metric of Table 2.
CLAIMS = {
  'without ID regularisation is worse': ('without_8_10', FULL),
  'without hybrid is worse': ('without_hybrid', FULL),
  'without CMA is worse': (SMALL, CMA),
  'PTI for CMA is worse': (PTI, CMA),
}
# Ours for each metric of the paper's Table 2.
METRICS = {
  'fid': 'fid_judge',
  'fvd': 'fvd_judge',
  'mouth_fvd': 'mouth_fvd_judge',
  'au_correlation': 'expression_correlation_truth',
  'pose_correlation': 'pose_correlation_truth',
}

Row = list[tuple[dict, list[Measured]]]  # by seed: the result of a table's row, and its clips


def paired(row: Row, other: Row, metric: str) -> dict:
  """Returns the mean difference of a clip's metric to the same clip of another row, over seeds."""
  person = [clip.pair.person for clip in row[0][1]]
  gaps = np.array(
    [
      [a.values[metric] - b.values[metric] for a, b in zip(x, y, strict=True)]
      for (_, x), (_, y) in zip(row, other, strict=True)
    ]
  )
  return script.interval(gaps.mean(0), np.array(person)) | {'seeds': gaps.mean(1).tolist()}


def summary(rows: Mapping[str, Row], reference: str) -> dict[str, dict]:
  """Returns each row's metrics, with the difference to the row `reference`."""
  found: dict[str, dict] = {}
  for name, row in rows.items():
    metrics = [m for m in results.METRICS if all(m in of['metrics'] for of, _ in row)]
    found[name] = {}
    for metric in metrics:
      seeds = [of['metrics'][metric]['mean'] for of, _ in row]
      value = {'mean': float(np.mean(seeds)), 'seeds': seeds}
      if name != reference and all(metric in clip.values for _, clips in row for clip in clips):
        value['difference'] = paired(row, rows[reference], metric)
      elif name != reference:
        others = [of['metrics'][metric]['mean'] for of, _ in rows[reference]]
        gaps = np.subtract(seeds, others)
        value['difference'] = {'mean': float(gaps.mean()), 'seeds': gaps.tolist()}
      found[name][metric] = value
  return found


def agreement(worse: Row, better: Row, metric: str) -> str:
  """Returns whether a row is worse than another in a metric: 'yes', 'no', or 'open'."""
  if all(metric in clip.values for _, clips in (*worse, *better) for clip in clips):
    gap = paired(worse, better, metric)
    low, high = gap['low'], gap['high']
  else:
    gaps = [
      a['metrics'][metric]['mean'] - b['metrics'][metric]['mean']
      for (a, _), (b, _) in zip(worse, better, strict=True)
    ]
    low, high = min(gaps), max(gaps)
  if results.METRICS[metric].more:
    low, high = -high, -low
  return 'yes' if low > 0 else 'no' if high < 0 else 'open'


class Bench:
  """Re-enacts and measures the pairs of one table with any number of models."""

  def __init__(self, table: tables.Table):
    self.table = table
    self.reference, driving, self.sources = table.make('reference', 'driving', 'sources')
    self.pairs = []
    for source, portrait, driver, _ in table2.rendered(table, self.reference, driving):
      path = self.sources / f'{source}.png'
      table2.stills.write_image(path, portrait)
      self.pairs.append((f'{source}_as_{driver}', path, driving / f'{driver}.mp4'))

  def row(self, name: str, count: int | None = None, **options) -> tuple[dict, list[Measured]]:
    """Returns result and clips of the table's present model on the first `count` pairs."""
    (folder,) = self.table.make(name)
    for pair, source, clip in tqdm(self.pairs[:count], name):
      self.table.reenact(source, clip, folder / f'{pair}.mp4', **options)
    self.table.row(name, folder, self.reference, source=self.sources, answers=True)
    return self.table.rows[name], self.table.clips[name]


def fill(table: tables.Table) -> None:
  """Trains, re-enacts and measures every row, and writes the result."""
  args = table.args
  wanted, budget, _, settings = ablations.check(args)
  trained = ablations.trainings(
    args.work.absolute(), 'configs/ablations.py', wanted, budget, args.processes
  )
  bench = Bench(table)
  rows: dict[str, Row] = {}
  for variant, seed in wanted:
    table.model = load_model(trained[variant, seed]['workdir'])
    rows.setdefault(variant, []).append(bench.row(f'{variant}-{seed}'))
    if variant != FULL:
      continue
    rows.setdefault(SMALL, []).append(bench.row(f'{SMALL}-{seed}', args.tuned))
    for name, method in ((CMA, 'cma'), (PTI, 'pti')):
      chosen = settings[ablations.INFERENCE[name]]
      options = {'cma': method, 'cma_rate': chosen['rate'], 'cma_steps': chosen['steps']}
      rows.setdefault(name, []).append(bench.row(f'{name}-{seed}', args.tuned, **options))
  tuned = {name: rows.pop(name) for name in (SMALL, CMA, PTI)}
  both = rows | tuned
  result = {
    'budget_steps': budget,
    'seeds': list(dict.fromkeys(seed for _, seed in wanted)),
    'pairs': args.people,
    'tuned_pairs': args.tuned,
    'frames': args.frames,
    'settings': settings,
    'metrics': summary(rows, FULL),
    'tuned': summary(tuned, PTI),
    'claims': {
      claim: {paper: agreement(both[a], both[b], ours) for paper, ours in METRICS.items()}
      for claim, (a, b) in CLAIMS.items()
      if a in both
    },
  }
  facts = {key: value for key, value in table.facts().items() if not key.startswith('model')}
  script.write_json(args.output, result | facts)
  markdown = text(result)
  args.output.with_suffix('.md').write_text(markdown)
  print(markdown)


def text(result: Mapping) -> str:
  """Returns Markdown: rows in the metrics of Table 2 beside the paper's numbers, and the claims."""
  lines = [
    f'Rendered heads, {result["pairs"]} pairs of people, {len(result["seeds"])} seeds; in brackets '
    'the difference to the first row with its 95 % interval over people, or for Fréchet distances '
    'the range over seeds.'
  ]
  for part, reference in (('metrics', FULL), ('tuned', PTI)):
    count = result['pairs' if part == 'metrics' else 'tuned_pairs']
    lines += ['', f'### {count} pairs, differences to `{reference}`', '']
    lines += ['| | ' + ' | '.join(METRICS.values()) + ' |', '|---' * (1 + len(METRICS)) + '|']
    for name, of in result[part].items():
      lines.append(f'| {name} | ' + ' | '.join(_cell(of[m]) for m in METRICS.values()) + ' |')
  lines += ['', "### Are the paper's orderings reproduced?", '']
  lines += ['| | ' + ' | '.join(METRICS) + ' |', '|---' * (1 + len(METRICS)) + '|']
  for claim, of in result['claims'].items():
    lines.append(f'| {claim} | ' + ' | '.join(of[m] for m in METRICS) + ' |')
  return '\n'.join(lines) + '\n'


def _cell(value: Mapping) -> str:
  if 'difference' not in value:
    return f'{value["mean"]:.4g}'
  gap = value['difference']
  low, high = gap.get('low', min(gap['seeds'])), gap.get('high', max(gap['seeds']))
  return f'{value["mean"]:.4g} ({gap["mean"]:+.3g}; {low:+.3g} to {high:+.3g})'


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
  parser = tables.parser(__doc__)
  add = parser.add_argument
  add('--work', type=pathlib.Path, required=True, help='folder of trainings')
  add('--settings', type=pathlib.Path, default=script.RESULTS / 'cma.json', help='of cma.py')
  add('--seeds', default='0,1,2', help='(%(default)s)')
  add('--variants', default='full,without_8_10,without_hybrid', help='(%(default)s)')
  add('--budget', default=','.join(map(str, STEPS)), help='steps of stage 1 and 2 (%(default)s)')
  add('--processes', type=int, default=1, help='trainings at a time, on CPUs (%(default)s)')
  add('--tuned', type=int, default=16, help='pairs that are tuned (%(default)s)')
  parser.set_defaults(inference=','.join(ablations.INFERENCE))
  return parser.parse_args(arguments)


if __name__ == '__main__':
  tables.run('table2', parse_args(), fill)
