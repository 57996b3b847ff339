"""What other systems are trained on and measured with: export, pairs, protocol."""

import csv
import json

import numpy as np
import pytest

from experiments.paper import baselines, pairs, tables
from experiments.world import export_clips
from hybrid_jax.errors import InputError
from hybrid_jax.media import stills

OPTIONS = {'people': 2, 'held_out': 1, 'clips': 1, 'frames': 4, 'size': 64}


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  """An export of two people of training and one of each other split."""
  folder = tmp_path_factory.mktemp('world')
  assert export_clips.export(folder, OPTIONS, {}) == 4
  return folder


def test_an_export_has_frames_landmarks_and_motion_by_people(world):
  index = json.loads((world / 'world.json').read_text())
  assert index['people']['validation'] == ['id1000000'] and len(index['people']['train']) == 2
  clips = export_clips.read(world, 'train')
  assert [clip.name for clip in clips] == ['id0000000#0', 'id0000001#0']
  # Public loaders take every entry of a split as a clip, and every file of a clip as a frame.
  assert sorted(p.name for p in (world / 'train').iterdir()) == [clip.name for clip in clips]
  assert sorted((world / 'train' / clips[0].name).iterdir()) == list(clips[0].frames)
  motion = export_clips.read_motion(world / 'motion' / 'train' / 'id0000000#0.csv')
  drawn = export_clips.clips.Renderer(64).clip(0, 0, export_clips.clips.spread_times(4))
  np.testing.assert_allclose(motion, drawn.motion, atol=1e-6)
  np.testing.assert_array_equal(stills.read_image(clips[0].frames[2]), drawn.frames[2])
  with open(world / 'landmarks' / 'train' / 'id0000000#0.csv') as file:
    row = list(csv.DictReader(file))[2]
  points = np.array([[row[f'x{k}'], row[f'y{k}']] for k in range(68)], float)
  np.testing.assert_allclose(points, 64 * drawn.points[2], atol=1e-3)


def test_an_export_goes_on_where_it_was_stopped(world, monkeypatch):
  missing = world / 'train' / 'id0000001#0'
  before = {p.name: p.read_bytes() for p in missing.iterdir()}
  for path in missing.iterdir():
    path.unlink()
  missing.rmdir()
  with pytest.raises(InputError, match='train/id0000001#0 is missing'):
    export_clips.read(world, 'train')
  drawn, draw = [], export_clips.clips.Renderer.clip

  def counted(renderer, *args):
    drawn.append(args[:2])
    return draw(renderer, *args)

  monkeypatch.setattr(export_clips.clips.Renderer, 'clip', counted)
  export_clips.export(world, OPTIONS, {})
  assert drawn == [(1, 0)] and {p.name: p.read_bytes() for p in missing.iterdir()} == before


@pytest.mark.parametrize(
  ('change', 'said'),
  [
    ({'frames': 1}, '--frames=1: at least 2'),
    ({'held_out': 0}, '--held-out=0: at least 1'),
    ({'size': 60}, '--size=60: must be a multiple of 8'),
    ({'frames': 5}, 'was begun with people 2, held_out 1, clips 1, frames 4, size 64'),
  ],
)
def test_an_export_with_other_options_is_refused(world, change, said):
  with pytest.raises(InputError, match=said):
    export_clips.export(world, OPTIONS | change, {})


def test_a_folder_that_is_no_export_is_refused(tmp_path):
  with pytest.raises(InputError, match='no export of the rendered world'):
    export_clips.read(tmp_path, 'train')
  (tmp_path / 'mine.txt').write_text('')
  with pytest.raises(InputError, match='holds other files'):
    export_clips.export(tmp_path, OPTIONS, {})


@pytest.fixture
def kept(tmp_path):
  """A folder of --keep with two pairs, of clips of three frames."""
  for name in ('a', 'b'):
    (tmp_path / 'sources').mkdir(exist_ok=True)
    stills.write_image(tmp_path / 'sources' / f'{name}.png', np.zeros((16, 16, 3), np.uint8))
  np.save(tmp_path / 'd.npy', np.zeros((3, 16, 16, 3), np.uint8))
  driving = tmp_path / 'd.npy'
  wanted = [pairs.Pair(f'{n}_as_d', tmp_path / 'sources' / f'{n}.png', driving) for n in 'ab']
  pairs.write(tmp_path, wanted)
  return tmp_path


def answers(folder, shapes):
  """Writes a clip of each name and shape as another system would."""
  folder.mkdir()
  for name, shape in shapes.items():
    np.save(folder / f'{name}.npy', np.zeros(shape, np.uint8))
  return folder


GOOD = (3, 16, 16, 3)


@pytest.mark.parametrize(
  ('shapes', 'said'),
  [
    ({'a_as_d': GOOD, 'b_as_d': GOOD}, ''),
    ({'a_as_d': GOOD}, r'--method=X=.*: 1 of 2 clips are missing: b_as_d; render every pair'),
    ({'a': GOOD, 'b': GOOD}, '2 of 2 clips are missing: a_as_d, b_as_d'),
    ({'a_as_d': GOOD, 'b_as_d': (3, 16, 32, 3)}, r'b_as_d.npy: 32 x 16 px, and its source 16 x 16'),
    ({'a_as_d': (2, 16, 16, 3), 'b_as_d': GOOD}, r'a_as_d.npy: 2 frames, and its driving clip 3'),
  ],
)
def test_answers_are_checked_before_the_long_work(kept, shapes, said):
  wanted = pairs.read(kept)
  methods = {'X': str(answers(kept / 'x', shapes))}
  if not said:
    return pairs.check(methods, wanted)
  with pytest.raises(InputError, match=said) as error:
    pairs.check(methods, wanted)
  assert '\n' not in str(error.value)


def test_pairs_of_another_folder_are_refused(kept, tmp_path_factory):
  with pytest.raises(InputError, match='no clips of a table'):
    pairs.read(tmp_path_factory.mktemp('empty'))
  (kept / 'd.npy').unlink()
  with pytest.raises(InputError, match='d.npy: missing, but'):
    pairs.read(kept)


@pytest.mark.parametrize(
  ('option', 'said'),
  [
    ('FOMM', 'give NAME=DIR'),
    ('=.', 'give NAME=DIR'),
    ('FOMM=nowhere', 'no such folder nowhere'),
    ('true answer=.', 'there is a row of that name'),
  ],
)
def test_misspelled_methods_are_one_line(option, said):
  with pytest.raises(InputError, match=said):
    tables.methods([option])


def test_every_system_of_the_paper_has_an_entry_with_the_same_budget():
  protocol = baselines.PROTOCOL
  budget = protocol['budget']
  per_step = budget['batch'] * budget['frames_of_a_sample']
  assert budget['steps'] * per_step == budget['frames_seen'] == (5000 + 1500) * 8 * 3
  assert budget['whole_budget']['steps'] * per_step == budget['whole_budget']['frames_seen']
  found = {row.split(' (')[0].split(',')[0] for row in baselines.rows()}
  assert found == {'FOMM', 'PIRenderer', 'LIA', 'fs-vid2vid', 'StyleHEAT'}
  needed = {'source', 'commit', 'licence', 'settings', 'public', 'signal', 'rows', 'deviations'}
  assert all(needed <= set(system) for system in protocol['systems'].values())
  assert baselines.stated('FOMM, relative, seed 1')['row'].startswith('keypoints relative')
  assert baselines.stated('FOMM, seed 1')['row'] == 'absolute keypoints'
  assert baselines.stated('mine') == {}
