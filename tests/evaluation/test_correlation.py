"""Correlations of known signals, and OpenFace's files."""

import numpy as np
import pytest

from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import correlation, openface


def test_a_lagged_sine_has_the_cosine_of_its_lag():
  t = np.arange(4000) / 4000 * 2 * np.pi * 5  # whole periods
  for lag in (0.0, 0.3, 1.5, np.pi):
    assert correlation.pearson(np.sin(t), 3 * np.sin(t - lag) - 7) == pytest.approx(np.cos(lag))


def test_missing_moments_are_masked():
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(2, 200))
  both = rng.random(200) < 0.7
  gone = x.copy()
  gone[~both] = np.nan
  assert correlation.pearson(gone, y) == pytest.approx(np.corrcoef(x[both], y[both])[0, 1])
  assert correlation.pearson(gone, np.where(both, np.nan, y)) is None


def test_few_of_the_moments_tell_nothing():
  t = np.linspace(0, 1, 60)
  assert correlation.pearson(t, np.where(np.arange(60) < 29, t, np.nan)) is None
  assert correlation.pearson(t, np.where(np.arange(60) < 30, t, np.nan)) == pytest.approx(1)


def test_constant_channels_are_skipped():
  t = np.linspace(0, 1, 50)
  found = correlation.correlations(
    {'a': t, 'still': 0.1 + 0 * t, 'alone': t}, {'a': -t, 'still': t, 'other': t}
  )
  assert found == {'a': pytest.approx(-1)}
  gone = np.full(50, np.nan)
  reference = {'a': t, 'still': 0 * t, 'lost': t, 'unseen': t}
  lost = correlation.frozen(reference, {'a': t, 'still': t, 'lost': 1 + 0 * t, 'unseen': gone})
  assert lost == ['lost']
  assert correlation.pearson(t, 1e9 + 1e-3 * np.sin(t)) is None


COLUMNS = (
  'frame, face_id, timestamp, confidence, success, gaze_angle_x, pose_Rx, pose_Tx, AU01_r, AU01_c'
)


def write(path, rows, columns=COLUMNS):
  path.write_text('\n'.join([columns, *(', '.join(map(str, row)) for row in rows)]) + '\n')
  return path


def test_openface_file(tmp_path):
  rows = [
    (1, 0, 0.0, 0.98, 1, 0.1, 0.01, 30.0, 1.5, 1),
    (1, 1, 0.0, 0.70, 1, 0.9, 0.90, 90.0, 4.0, 1),
    (2, 0, 0.04, 0.30, 1, 0.2, 0.02, 30.0, 2.0, 1),
    (2, 1, 0.04, 0.75, 1, 0.9, 0.90, 90.0, 4.0, 1),
    (3, 0, 0.08, 0.98, 0, 0.0, 0.00, 0.0, 0.0, 0),
    (4, 0, 0.12, 0.97, 1, 0.3, 0.03, '-nan(ind)', 2.5, 1),
  ]
  read = openface.read(write(tmp_path / 'a.csv', rows))
  np.testing.assert_array_equal(read.times, [0, 0.04, 0.08, 0.12])
  np.testing.assert_array_equal(read.group('au')['AU01_r'], [1.5, np.nan, np.nan, 2.5])
  np.testing.assert_array_equal(read.group('gaze')['gaze_angle_x'], [0.1, np.nan, np.nan, 0.3])
  assert set(read.group('pose')) == {'pose_Rx'}
  assert set(read.channels) == {'gaze_angle_x', 'pose_Rx', 'AU01_r'}


def test_openface_file_without_any_face(tmp_path):
  read = openface.read(write(tmp_path / 'a.csv', [(1, 0, 0.0, 0.0, 0, 0, 0, 0, 0, 0)]))
  assert np.isnan(read.channels['AU01_r']).all()


@pytest.mark.parametrize(
  ('text', 'said'),
  [
    ('', 'no column confidence'),
    ('frame, timestamp, confidence, success\n1, 0, 1, 1\n', r'no columns AU.._r'),
    (COLUMNS + '\n', 'has no rows'),
    (COLUMNS + '\n1, 0, x\n', 'no table can be read'),
    (COLUMNS + '\n1, 0, 0, 1, 1, 0, 0, 0, 0, 0\n2, 0, 0, 1, 1, 0, 0, 0, 0, 0\n', 'not increase'),
    (COLUMNS + '\n1, 0, 0, 1, 1, 0, 0, 0, 0, 0\n1, 0\n', 'no table can be read'),
  ],
)
def test_other_files_are_refused_in_one_line(tmp_path, text, said):
  (tmp_path / 'a.csv').write_text(text)
  with pytest.raises(InputError, match=said) as raised:
    openface.read(tmp_path / 'a.csv')
  assert '\n' not in str(raised.value) and 'a.csv' in str(raised.value)
