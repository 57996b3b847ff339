"""Numbers of many clips, what they are worth, and their drawings."""

import pathlib
import shutil
import subprocess

import numpy as np
import pytest

from hybrid_jax.evaluation import charts, measure, results
from hybrid_jax.evaluation.pairing import Pair


def measured(name, values, person=''):
  pair = Pair(name, pathlib.Path('g'), pathlib.Path('r'), None, person)
  return measure.Measured(pair, 1, values, np.zeros(1), {}, [])


def test_clips_of_a_person_are_drawn_together():
  values = np.repeat(np.random.default_rng(0).normal(size=4), 25)
  alone = results.summary([measured(f'{k}', {'l1': x}) for k, x in enumerate(values)], 'l1')
  clips = [measured(f'{k}', {'l1': x}, f'{k // 25}') for k, x in enumerate(values)]
  together = results.summary(clips, 'l1')
  assert together['mean'] == alone['mean'] and together['people'] == 4 and 'people' not in alone
  assert together['high'] - together['low'] > 3 * (alone['high'] - alone['low'])
  one = results.summary(clips[:1], 'l1')
  assert one == {'mean': values[0], 'deviation': None, 'clips': 1}
  assert 'low' not in results.summary(clips[:25], 'l1')


@pytest.mark.skipif(not shutil.which('git'), reason='needs git')
def test_the_commit_is_that_of_a_repository_that_knows_the_file(tmp_path):
  git = ['git', '-c', 'user.name=x', '-c', 'user.email=x@x', '-C', str(tmp_path)]
  for name in ('known.py', 'copy.py'):
    (tmp_path / name).write_text('')
  for arguments in (('init',), ('add', 'known.py'), ('commit', '-m', 'x')):
    subprocess.run([*git, *arguments], check=True, capture_output=True)
  head = subprocess.run([*git, 'rev-parse', 'HEAD'], check=True, capture_output=True, text=True)
  assert results.commit(tmp_path / 'known.py') == head.stdout[:12] + '+'  # copy.py is new
  assert results.commit(tmp_path / 'copy.py') is None


def test_lines_over_time_keep_the_worst_of_each_stretch():
  values = np.ones(10 * charts.POINTS)
  values[1234] = 0
  drawn = [
    charts.timelines(np.arange(len(values)), {'x': (values, more)}) for more in (True, False)
  ]
  assert ['>0<' in drawing for drawing in drawn] == [True, False]
