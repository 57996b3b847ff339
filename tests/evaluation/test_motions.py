"""Files of motion beside clips: what is no such file, and clocks that differ."""

import numpy as np
import pytest

from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import motions
from hybrid_jax.evaluation.pairing import Pair


@pytest.mark.parametrize(
  'content',
  [b'no zip', {'times': np.arange(20.0)}, {'times': np.arange(20.0), 'motion': np.ones((20, 3))},
   {'times': np.zeros(20), 'motion': np.ones((20, motions.MOTION))},
   {'times': np.array([None]), 'motion': np.ones((1, motions.MOTION))}],
)  # fmt: skip
def test_a_foreign_file_of_motion_is_a_note(tmp_path, content):
  path = tmp_path / 'a.npz'
  path.write_bytes(content) if isinstance(content, bytes) else np.savez(path, **content)
  pair = Pair('a', tmp_path / 'x.mp4', tmp_path / 'a.mp4', None)
  with pytest.raises(InputError, match=r'a\.npz: ') as raised:
    motions.of_truth(pair, np.arange(20.0), np.zeros((20, motions.MOTION)), [])
  assert '\n' not in str(raised.value)


def test_true_motion_is_that_of_the_same_moments(tmp_path):
  """The first frame that is compared need not be the first of the reference."""
  times = np.arange(12) / 25
  motion = np.random.default_rng(0).random((12, motions.MOTION))
  np.savez(tmp_path / 'a.b.npz', times=times + 3, motion=motion)
  pair, notes = Pair('a.b', tmp_path / 'x.mp4', tmp_path / 'a.b.mp4', None), []
  found = motions.of_truth(pair, times[4:], motion[4:], notes)
  for known, read in found.values():
    assert known and all(np.array_equal(known[name], read[name]) for name in known)
  assert set(found) == set(motions.GROUPS) and not notes
  motions.of_truth(pair, times * 10, motion, notes)
  assert len(notes) == 1 and 'has no motion for 10 of 12 frames' in notes[0]


def test_true_motion_of_clips_without_times_goes_by_number(tmp_path):
  motion = np.random.default_rng(0).random((12, motions.MOTION))
  np.savez(tmp_path / 'a.npz', times=np.arange(12) / 25, motion=motion)
  pair, notes = Pair('a', tmp_path / 'x.npy', tmp_path / 'a.npy', None), []
  numbers = np.array([0, 3, 11, 12])
  found = motions.of_truth(pair, numbers.astype(float), motion[numbers.clip(max=11)], notes, True)
  known, read = found['pose']
  np.testing.assert_array_equal(known['yaw'][:3], read['yaw'][:3])
  assert np.isnan(known['yaw'][3]) and 'has no motion for 1 of 4 frames' in notes[0]


def test_rows_of_openface_without_a_face_are_told(tmp_path):
  header = 'frame, timestamp, confidence, success, AU01_r'
  for side, found in (('reference', 40), ('generated', 30)):
    rows = [f'{k + 1}, {k / 25:.4f}, 0.9, {int(k < found)}, {np.sin(k)}' for k in range(40)]
    (tmp_path / f'{side}.csv').write_text('\n'.join([header, *rows]))
  files, notes = [{'a': tmp_path / f'{side}.csv'} for side in ('reference', 'generated')], []
  motions.of_openface(Pair('a', tmp_path / 'a', tmp_path / 'a.mp4', None), files, 500, notes)
  assert len(notes) == 1 and 'no face in 10 of 40 rows of the generated clip' in notes[0]


@pytest.mark.parametrize(
  ('rate', 'count', 'frames', 'told'),
  [(25, 40, 500, ''), (25, 39, 500, ''), (25, 80, 30, ''), (50, 80, 500, ''),
   (24, 40, 500, 'lasts'), (25, 80, 500, 'lasts'), (26, 40, 500, 'lasts'),
   (25, 30, 500, 'no row at the time of 10 of 40')],
)  # fmt: skip
def test_clocks_of_openface_that_disagree_are_told(tmp_path, rate, count, frames, told):
  for side, n, fps in (('reference', 40, 25), ('generated', count, rate)):
    rows = [f'{k + 1}, {k / fps:.4f}, 0.9, 1, {np.sin(k)}' for k in range(n)]
    header = 'frame, timestamp, confidence, success, AU01_r'
    (tmp_path / f'{side}.csv').write_text('\n'.join([header, *rows]))
  files, notes = [{'a': tmp_path / f'{side}.csv'} for side in ('reference', 'generated')], []
  motions.of_openface(Pair('a', tmp_path / 'a', tmp_path / 'a.mp4', None), files, frames, notes)
  assert len(notes) == bool(told) and all(told in note for note in notes)
