"""Clips by name and frames by time: known clocks, and folders that do not agree."""

from fractions import Fraction

import numpy as np
import pytest

from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import pairing
from hybrid_jax.media import MediaError, sequences, stills, video
from hybrid_jax.media.video import Frame


def frames(times):
  """Frames that carry their number."""
  return [Frame(np.full((2, 2, 3), k, np.uint8), t) for k, t in enumerate(times)]


def matched(reference, generated, limit=100):
  aligned = pairing.Aligned(reference, generated, limit)
  numbers = [tuple(int(rgb[0, 0, 0]) for rgb in match[2:]) for match in aligned]
  return numbers, aligned.notes


def rate(fps, count, start=0):
  return [Fraction(start) + Fraction(k, fps) for k in range(count)]


def test_same_clock_whatever_its_start():
  numbers, notes = matched(frames(rate(25, 9, 7)), frames(rate(25, 9)))
  assert numbers == [(k, k) for k in range(9)]
  said = 'begins 7 s before its reference; the first frame of each is compared'
  assert notes == [said]
  _, notes = matched(frames(rate(25, 9)), frames(rate(25, 9, Fraction(1, 1000))))
  assert not notes


def test_rounded_and_other_rates_take_the_nearest_frame():
  rounded = [round(t, 3) for t in rate(30, 12)]
  assert matched(frames(rate(30, 12)), frames(rounded))[0] == [(k, k) for k in range(12)]
  doubled, notes = matched(frames(rate(25, 6)), frames(rate(50, 12)))
  assert doubled == [(k, 2 * k) for k in range(6)] and not notes
  halved, _ = matched(frames(rate(50, 12)), frames(rate(25, 6)))
  assert [r for r, _ in halved] == list(range(12))
  assert all(abs(r - 2 * g) <= 1 for r, g in halved)


@pytest.mark.parametrize(
  ('reference', 'generated', 'told'),
  [
    (30, 25, 'has 25 frames a second and its reference 30: those nearest'),
    (24, 25, 'has 25 frames a second and its reference 24: those nearest'),
    (25, 25, ''),
    (50, 25, ''),
    (25, 75, ''),
    (Fraction(30_000, 1001), 30, ''),
  ],
)
def test_a_clip_of_another_rate_may_answer_other_moments(reference, generated, told):
  """Also where the limit ends it before the clips do."""
  numbers, notes = matched(frames(rate(reference, 99)), frames(rate(generated, 99)), limit=30)
  assert len(numbers) == 30 and len(notes) == bool(told)
  assert all(note.startswith(told) for note in notes)


def test_irregular_times_are_no_other_rate():
  times = [Fraction(k * k + 20 * k, 600) for k in range(40)]
  numbers, notes = matched(frames(times), frames(times), limit=25)
  assert numbers == [(k, k) for k in range(25)] and not notes


def test_other_lengths_are_told():
  numbers, notes = matched(frames(rate(25, 10)), frames(rate(25, 6)))
  assert numbers == [(k, k) for k in range(6)]
  assert notes == ['ends before its reference: 6 frames compared']
  _, notes = matched(frames(rate(25, 6)), frames(rate(25, 10)))
  assert notes == ['goes on after its reference: 6 frames compared']
  numbers, notes = matched(frames(rate(25, 10)), frames(rate(25, 10)), limit=4)
  assert len(numbers) == 4 and not notes


def test_frames_that_were_left_out_are_not_replaced_by_distant_ones():
  times = rate(25, 40)
  numbers, notes = matched(frames(times), frames(times[:10] + times[30:]))
  assert numbers == [(k, k if k < 10 else k - 20) for k in (*range(10), *range(30, 40))]
  assert notes == ['has no frame at the time of 20 frames of the reference']


def test_without_times_by_number():
  numbers, notes = matched(frames(rate(25, 5)), frames([None] * 5))
  assert numbers == [(k, k) for k in range(5)] and not notes
  aligned = pairing.Aligned(frames([None] * 3), frames(rate(10, 3)), 9)
  np.testing.assert_allclose([match.seconds for match in aligned], [0, 0.1, 0.2])


def test_frames_that_are_not_finite_are_left_out(tmp_path):
  array = np.random.default_rng(0).random((5, 8, 8, 3)).astype(np.float32)
  array[3, 2, 2, 1] = np.nan
  np.save(tmp_path / 'a.npy', array)
  read = list(sequences.read(tmp_path / 'a.npy'))
  assert [f.rgb is None for f in read] == [False, False, False, True, False]
  np.testing.assert_array_equal(read[0].rgb, np.round(array[0] * 255).astype(np.uint8))
  aligned = pairing.Aligned(read, read, 9)
  assert len(list(aligned)) == 4
  assert aligned.notes == ['1 frames are not finite, in it or its reference, and left out']


def test_nearest_agrees_with_the_stream():
  rng = np.random.default_rng(1)
  for _ in range(20):
    r = np.cumsum(rng.uniform(0.01, 0.06, 30))
    g = np.cumsum(rng.uniform(0.01, 0.06, 30))
    exact = [[Fraction(t) for t in times] for times in (r, g)]
    numbers, _ = matched(*map(frames, exact))
    index = pairing.nearest(r - r[0], g - g[0])
    assert [(k, i) for k, i in enumerate(index) if i >= 0] == numbers


def test_a_clip_of_one_frame_is_compared_once():
  numbers, notes = matched(frames(rate(25, 9)), frames(rate(25, 1, 3)))
  assert numbers == [(0, 0)] and 'ends before its reference: 1 frames compared' in notes
  assert matched(frames(rate(25, 1)), frames(rate(25, 9)))[0] == [(0, 0)]
  assert matched(frames(rate(25, 1)), frames(rate(25, 1)))[0] == [(0, 0)]
  assert pairing.nearest(np.arange(9) / 25, np.zeros(1)).tolist() == [0] + 8 * [-1]


def write(folder, *names):
  folder.mkdir()
  for name in names:
    np.save(folder / f'{name}.npy', np.zeros((1, 4, 4, 3), np.uint8))
  return folder


def test_names(tmp_path):
  reference = write(tmp_path / 'reference', 'a', 'b', 'c')
  generated = write(tmp_path / 'generated', 'b', 'x_as_a', 'y--a', 'stray')
  source = write(tmp_path / 'source', 'b', 'x')
  pairs, lines = pairing.pair(reference, generated)
  assert [(p.name, p.reference.stem) for p in pairs] == [('b', 'b'), ('x_as_a', 'a'), ('y--a', 'a')]
  assert lines == [
    f'{generated}: stray has no counterpart in {reference}',
    f'{reference}: c has no counterpart in {generated}',
  ]
  pairs, lines = pairing.pair(reference, generated, source)
  assert [(p.name, p.source.stem) for p in pairs] == [('b', 'b'), ('x_as_a', 'x')]
  assert lines[-1] == f'{generated}: y--a has no counterpart in {source}'
  answers = write(tmp_path / 'answers', 'x_as_a')
  pairs, _ = pairing.pair(answers, generated, source)
  assert [(p.name, p.reference.stem, p.source.stem) for p in pairs] == [('x_as_a', 'x_as_a', 'x')]
  with pytest.raises(InputError, match='no clip can be compared'):
    pairing.pair(write(tmp_path / 'other', 'z'), generated)
  with pytest.raises(InputError, match='no such folder'):
    pairing.pair(tmp_path / 'none', generated)


def test_two_people_who_drive_each_other_are_compared_with_their_drivers(tmp_path):
  reference = write(tmp_path / 'reference', 'a', 'b')
  generated = write(tmp_path / 'generated', 'a_as_b', 'b--a')
  for source in ('', reference):
    pairs, lines = pairing.pair(reference, generated, source)
    assert [(p.reference.stem, p.person) for p in pairs] == [('b', 'a'), ('a', 'b')] and not lines
  assert [p.source.stem for p in pairs] == ['a', 'b']
  with pytest.raises(InputError, match=r'a_as_b.npy: by its name b.npy drives.*--reference-is'):
    pairing.check_answers(pairs)
  # Without its driver a clip is compared with nobody else's.
  (reference / 'b.npy').unlink()
  pairs, lines = pairing.pair(reference, generated)
  assert [p.name for p in pairs] == ['b--a']
  assert lines == [f'{generated}: a_as_b has no counterpart in {reference}']


def test_clips_of_one_person_are_known_as_such(tmp_path):
  reference = write(tmp_path / 'reference', 'ann_d0', 'ann_d1', 'own')
  generated = write(tmp_path / 'generated', 'ann_s0_as_ann_d0', 'ann_s1_as_ann_d1', 'own')
  source = write(tmp_path / 'source', 'ann_s0', 'ann_s1', 'own')
  pairs, _ = pairing.pair(reference, generated, source)
  assert [p.person for p in pairs] == ['ann_s0', 'ann_s1', 'own']
  pairs, _ = pairing.pair(reference, generated, source, lambda name: name.split('_')[0])
  assert [p.person for p in pairs] == ['ann', 'ann', 'own']
  assert pairing.Pair('x', source, source, None).person == 'x'


def pictures(folder, numbers, name='{}.png'):
  """A folder of pictures that carry their number."""
  folder.mkdir()
  for k in numbers:
    stills.write_image(folder / name.format(k), np.full((2, 2, 3), k, np.uint8))
  return folder


def test_pictures_are_in_the_order_of_their_numbers(tmp_path):
  for name in ('{}.png', 'frame {}.jpg', '{}_of.the-clip2.bmp'):
    folder = pictures(tmp_path / name[:4], range(8, 31), name)
    assert [int(f.rgb[0, 0, 0]) for f in sequences.read(folder)] == list(range(8, 31))
  found = [f.number for f in sequences.read(tmp_path / '{}.p')]
  assert found == list(range(8, 31))
  assert {f.number for f in sequences.read(tmp_path / '{}_o')} == {None}


def test_a_missing_picture_is_a_gap_and_no_shift(tmp_path):
  left = [k for k in range(1, 31) if k not in (4, 5)]
  holed = list(sequences.read(pictures(tmp_path / 'holed', left)))
  whole = list(sequences.read(pictures(tmp_path / 'whole', range(30), '{:04}.png')))
  for reference in (whole, frames(rate(25, 30)), frames([None] * 30)):
    aligned = pairing.Aligned(reference, holed, 100)
    matches = list(aligned)
    assert [match.number for match in matches] == [k - 1 for k in left]
    for match in matches:
      assert match.generated[0, 0, 0] == match.reference[0, 0, 0] + 1
    assert aligned.notes == ['has no frame at the time of 2 frames of the reference']
  (tmp_path / 'holed' / '1.png').unlink()
  aligned = pairing.Aligned(whole, sequences.read(tmp_path / 'holed'), 100)
  assert len(list(aligned)) == 27 and aligned.notes[0].startswith('begins 2 frames after its ref')
  aligned = pairing.Aligned(holed, whole, 100)
  assert [match.number for match in aligned] == [k - 1 for k in left] and not aligned.notes


def test_numbers_that_do_not_tell_frames_apart_are_no_clock(tmp_path):
  folder = pictures(tmp_path / 'a', (1, 3))
  stills.write_image(folder / '03.png', np.full((2, 2, 3), 2, np.uint8))
  assert [f.number for f in sequences.read(folder)] == [None] * 3


@pytest.mark.parametrize('times', [(0, 0.08, 0.04), (0, 0.04, 0.04)])
def test_times_that_do_not_increase_are_refused(tmp_path, times):
  folder = pictures(tmp_path / 'a', range(3))
  rows = [f'{k}.png,{time}' for k, time in enumerate(times)]
  (folder / 'timestamps.csv').write_text('\n'.join(['file,seconds', *rows]))
  with pytest.raises(MediaError, match=r'timestamps.csv: 2.png is shown at 0.04 s.*must increase'):
    list(sequences.read(folder))


def test_every_form_of_a_clip_is_read_alike(tmp_path):
  rng = np.random.default_rng(2)
  clip = rng.integers(0, 255, (4, 16, 16, 3), dtype=np.uint8)
  times = [Fraction(k * k, 25) for k in range(4)]
  with video.VideoWriter(
    tmp_path / 'film.mp4', 16, 16, time_base=Fraction(1, 25), codec='ffv1'
  ) as writer:
    for rgb, time in zip(clip, times, strict=True):
      writer.write(rgb, time)
  np.save(tmp_path / 'array.npy', clip)
  for name in ('timed', 'untimed'):
    (tmp_path / name).mkdir()
    for k, rgb in enumerate(clip):
      stills.write_image(tmp_path / name / f'{k:06d}.png', rgb)
  rows = [f'{k:06d}.png,{float(t):.6f},{t}' for k, t in enumerate(times)]
  (tmp_path / 'timed' / 'timestamps.csv').write_text('\n'.join(['file,seconds,exact', *rows]))
  found = sequences.find(tmp_path)
  assert set(found) == {'film', 'array', 'timed', 'untimed'}
  for name, path in found.items():
    read = list(sequences.read(path))
    np.testing.assert_array_equal([frame.rgb for frame in read], clip)
    assert [f.time for f in read] == (times if name in ('film', 'timed') else [None] * 4)
  assert len({sequences.digest(path) for path in found.values()}) == 4
  before = sequences.digest(tmp_path / 'timed')
  (tmp_path / 'timed' / 'deep').mkdir()
  (tmp_path / 'timed' / 'deep' / 'x').write_text('')
  assert sequences.digest(tmp_path / 'timed') != before
  np.save(tmp_path / 'film.npy', clip)
  with pytest.raises(MediaError, match='film.mp4 and film.npy have one name'):
    sequences.find(tmp_path)


def test_an_archive_is_no_array(tmp_path):
  with open(tmp_path / 'a.npy', 'wb') as file:
    np.savez(file, frames=np.zeros((1, 4, 4, 3), np.uint8))
  with pytest.raises(MediaError, match='a.npy: an archive of arrays'):
    list(sequences.read(tmp_path / 'a.npy'))


@pytest.mark.parametrize(
  ('array', 'said'),
  [
    (np.zeros((3, 4, 4), np.uint8), r'frames are \(t, h, w, 3\)'),
    (np.full((1, 4, 4, 3), 200.0), 'values from 200 to 200'),
    (np.zeros((1, 4, 4, 3), np.int64), 'int64'),
    (np.zeros((4, 0, 0, 3), np.uint8), r'uint8 \(4, 0, 0, 3\)'),
    (np.zeros((4, 0, 0, 3)), r'float64 \(4, 0, 0, 3\)'),
  ],
)
def test_other_arrays_are_refused(tmp_path, array, said):
  np.save(tmp_path / 'a.npy', array)
  with pytest.raises(MediaError, match=said):
    list(sequences.read(tmp_path / 'a.npy'))
