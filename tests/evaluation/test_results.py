"""Numbers of many clips, their intervals, and their charts."""

import base64
import pathlib
import xml.etree.ElementTree

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


def test_lines_over_time_keep_the_worst_of_each_stretch():
  values = np.ones(10 * charts.POINTS)
  values[1234], values[2000] = 0, np.nan
  least, most = (charts.worst_of_stretches(values, more) for more in (True, False))
  assert len(least) == len(most) == charts.POINTS and (np.diff(least) > 0).all()
  assert 1234 in least and 1234 not in most and 2000 not in {*least, *most}
  assert not len(charts.worst_of_stretches(values * np.nan, True))


@pytest.mark.parametrize('values', [[1.0, 2.0, 4.0], [3.0, 3.0, 3.0]])
def test_charts_are_drawn_of_any_values(values):
  """Also of a level line, of none that is finite, and of an interval of no width."""
  lines = {'a': (np.array(values), True), 'b & <c>': (np.full(3, np.inf), False)}
  low, high = min(values), max(values)
  for chart in (charts.timelines(np.arange(3.0), lines), charts.dots(values, low, low, high)):
    kind, _, data = chart.partition(';base64,')
    assert kind == 'data:image/svg+xml'
    drawn = xml.etree.ElementTree.fromstring(base64.b64decode(data))
    assert 'nan' not in ''.join(drawn.itertext())
  assert charts.dots(values, low, low, high) == chart  # and each time in the same way
