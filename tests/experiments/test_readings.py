"""The rule of experiments/paper/readings.py, fixed before the comparison, on known numbers."""

import numpy as np

from configs import readings
from experiments.paper import ablations
from experiments.paper import readings as script
from experiments.paper.tunings import METRICS

PEOPLE, FRAMES = 8, 6
BETTER = {metric: 1 if metric in script.HIGHER_IS_BETTER else -1 for metric in METRICS}


def rows(changes):
  """Rows of the default and of variants whose metrics are `changes` better, over three seeds."""
  rng = np.random.default_rng(0)
  person = np.repeat(np.arange(PEOPLE), FRAMES)
  base = [{metric: rng.normal(1, 0.1, len(person)) for metric in METRICS} for _ in range(3)]
  values = {
    name: [
      {
        metric: of[metric] + BETTER[metric] * changes.get(name, {}).get(metric, 0.0)
        for metric in of
      }
      for of in base
    ]
    for name in readings.VARIANTS
  }
  return ablations.summary(values, person >= 0, person, readings.DEFAULT)


def test_a_variant_wins_by_the_face_and_loses_by_any_other_metric():
  found = rows({
    'flip': {'l1_face': 0.1},
    'eq_10_mse': {'l1_face': 0.1, 'identity_score': -0.1},
    'eq_12_mse': {'identity_score': 0.1},
  })  # fmt: skip
  assert [name for name in readings.VARIANTS if script.wins(found[name])] == ['flip']


def test_the_best_together_have_one_reading_of_each_field():
  found = rows({'batch': {'l1_face': 0.1}, 'role': {'l1_face': 0.2}, 'flip': {'l1_face': 0.05}})
  assert script.best(found) == ['role', 'flip']
  assert script.best(rows({})) == []


def test_the_table_has_a_row_per_variant_and_split():
  found = rows({'flip': {'l1_face': 0.1}})
  result = {'seeds': [0, 1, 2], 'best': ['flip'], **{s: {'all': found} for s in script.SPLITS}}
  lines = [line for line in script.table(result).splitlines() if line.startswith('| flip |')]
  assert len(lines) == len(script.SPLITS) and '-0.1000; -0.1000 to -0.1000' in lines[0]
