"""Packing: layouts of real sets, crops of real clips, the report, and the records read back."""

import io
import json
import pathlib
import shutil
import types

import numpy as np
import pytest
from PIL import Image
from small import small_config, write_clip

from data.face_clips import layouts, pack
from hybrid_jax.errors import InputError
from hybrid_jax.media import clips, faces
from hybrid_jax.training import preflight, sources, triplets

pytest.importorskip('tensorflow_datasets', reason='needs the extra [data]')


def touch(folder, *names):
  folder.mkdir(parents=True, exist_ok=True)
  for name in names:
    (folder / name).write_bytes(b'')
  return str(folder)


# --- Layouts -------------------------------------------------------------------------------------


def hdtf_metadata(folder, **lines):
  for subset in layouts.HDTF_SUBSETS:
    text = '\n'.join(lines.get(subset, []))
    (folder / f'{subset}_annotion_time.txt').write_text(text)
  return str(folder)


def test_hdtf_names_spans_and_people(tmp_path):
  metadata = hdtf_metadata(
    tmp_path,
    WDA=['AmyKlobuchar0.mp4 00:10-04:30', 'AmyKlobuchar1.mp4 00:35-02:45 03:25-04:00', ''],
    RD=['Radio1.mp4 00:20-01:35', 'Radio2.mp4 00:00-00:30'],
  )
  videos = touch(
    tmp_path / 'videos', 'WDA_AmyKlobuchar1_000.mp4', 'AmyKlobuchar0_0.mp4', 'RD_Radio2.mp4'
  )
  table = {c.name: c for c in layouts.hdtf(videos, metadata)}
  assert set(table) == {
    'AmyKlobuchar0_0',
    'AmyKlobuchar1_0',
    'AmyKlobuchar1_1',
    'Radio1_0',
    'Radio2_0',
  }
  assert table['AmyKlobuchar0_0'].identity == table['AmyKlobuchar1_1'].identity == 'AmyKlobuchar'
  assert table['Radio1_0'].identity != table['Radio2_0'].identity
  assert table['AmyKlobuchar1_0'].path.name == 'WDA_AmyKlobuchar1_000.mp4'
  assert table['AmyKlobuchar1_0'].span is None
  assert table['AmyKlobuchar1_1'].path is None and table['Radio1_0'].path is None
  # A raw video is cut at the span.
  assert table['Radio2_0'].path.name == 'RD_Radio2.mp4' and table['Radio2_0'].span == (0, 30)


def test_hdtfs_real_metadata(shared, tmp_path):
  videos = touch(tmp_path, 'WDA_AmyKlobuchar1_000.mp4')
  expected = layouts.hdtf(videos, str(shared('hdtf')))
  lines = [
    line.split()
    for subset in layouts.HDTF_SUBSETS
    for line in shared(f'hdtf/{subset}_annotion_time.txt').read_text().splitlines()
    if line.strip()
  ]
  assert len(expected) == sum(len(line) - 1 for line in lines)
  assert len({c.name for c in expected}) == len(expected)
  people = {c.identity for c in expected}
  assert 250 < len(people) < len(lines) and 'AmyKlobuchar' in people and 'Radio10' in people
  assert [c.name for c in expected if c.path] == ['AmyKlobuchar1_0']


def test_hdtf_metadata_that_cannot_be_read(tmp_path):
  videos = touch(tmp_path / 'videos', 'a_0.mp4')
  with pytest.raises(InputError, match='RD_annotion_time.txt: missing'):
    layouts.hdtf(videos, str(tmp_path))
  for line in ('Radio1.mp4 00:20', 'Radio1.mp4 00:20-00:10', 'Radio1.mp4 a-b'):
    hdtf_metadata(tmp_path, RD=['Radio0.mp4 00:00-00:10', line])
    with pytest.raises(InputError, match="RD_annotion_time.txt, line 2: cannot read 'Radio1"):
      layouts.hdtf(videos, str(tmp_path))


def celebv_json(path):
  box = {'top': 0.1, 'bottom': 0.9, 'left': 0.2, 'right': 0.8}
  clip = lambda video: {  # noqa: E731
    'ytb_id': video,
    'duration': {'start_sec': 1.5, 'end_sec': 3.0},
    'bbox': box,
    'attributes': {},
    'version': 'v0.1',
  }
  names = {'a-_b_0': 'a-_b', 'a-_b_1': 'a-_b', 'xyz_0': 'xyz', 'missing_0': 'missing'}
  clips = {name: clip(video) for name, video in names.items()}
  path.write_text(json.dumps({'meta_info': {}, 'clips': clips}))
  return str(path)


def test_celebv_hq_cut_and_raw(tmp_path):
  metadata = celebv_json(tmp_path / 'celebvhq_info.json')
  videos = touch(tmp_path / 'videos', 'a-_b_0.mp4', 'xyz.mp4')
  table = {c.name: c for c in layouts.celebv_hq(videos, metadata)}
  assert table['a-_b_0'].path.name == 'a-_b_0.mp4' and table['a-_b_0'].box is None
  assert table['a-_b_1'].path is None and table['missing_0'].path is None
  assert table['xyz_0'].span == (1.5, 3.0) and table['xyz_0'].box == (0.1, 0.9, 0.2, 0.8)
  assert table['a-_b_0'].identity == table['a-_b_1'].identity == 'a-_b'
  # Without the JSON, what is there.
  assert {c.name: c.identity for c in layouts.celebv_hq(videos, '')}['a-_b_0'] == 'a-_b'
  (tmp_path / 'other.json').write_text('[]')
  with pytest.raises(InputError, match='is not celebvhq_info.json'):
    layouts.celebv_hq(videos, str(tmp_path / 'other.json'))


def test_corrections(tmp_path):
  videos = touch(tmp_path / 'videos', 'a.mp4', 'b.mp4', 'c.mp4')
  file = tmp_path / 'people.csv'
  file.write_text('# comment\na,same\nb,same\nc,\n')
  fixed = layouts.read_layout('folder', videos, '', str(file))
  assert {c.name: c.identity for c in fixed} == {'a': 'same', 'b': 'same'}
  file.write_text('absent,x\n')
  with pytest.raises(InputError, match='no clip or identity is named absent'):
    layouts.read_layout('folder', videos, '', str(file))
  file.write_text('a\n')
  with pytest.raises(InputError, match="needs lines of 'name,identity'"):
    layouts.read_layout('folder', videos, '', str(file))
  with pytest.raises(InputError, match="no layout 'x'; choose from folder, celebv_hq, hdtf"):
    layouts.read_layout('x', videos, '', '')


# --- Reading clips -------------------------------------------------------------------------------


@pytest.mark.parametrize('total', [1, 5, 16, 17, 100, 1000])
def test_thinning_is_even_and_bounded(total):
  kept = clips.Thinning(8)
  most = 0
  for k in range(total):
    kept.add(k if kept.wants() else None)
    most = max(most, len(kept.kept))
  chosen = kept.chosen()
  assert len(chosen) == min(8, total) and most <= 16 and None not in chosen
  assert chosen[0] == 0 and len(set(chosen)) == len(chosen)
  if total > 8:
    gaps = np.diff(chosen)
    assert gaps.max() <= 2.5 * total / 8 and chosen[-1] >= total * 0.8


def test_span_and_box_are_applied(tmp_path):
  times = write_clip(tmp_path / 'a.mp4', 1, frames=12, shape=(64, 96))
  whole = dict(size=32, count=20, detector=None, kind='clip')
  span = (float(times[3]), float(times[9]))
  clip = clips.read_clip(tmp_path / 'a.mp4', **whole, span=span, box=(0, 1, 0, 2 / 3))
  np.testing.assert_allclose(clip.times, [float(t) for t in times[3:9]], rtol=1e-6)
  assert clip.frames.shape == (6, 32, 32, 3) and clip.landmarks is clip.masks is None
  with pytest.raises(InputError, match='96x64 is not square'):
    clips.read_clip(tmp_path / 'a.mp4', **whole)
  with pytest.raises(InputError, match='1 frame'):
    clips.read_clip(tmp_path / 'a.mp4', **whole, span=(span[0], span[0] + 1e-3), box=(0, 1, 0, 1))


def test_real_clips_are_cropped_about_the_face(shared):
  detector = faces.FaceDetector(shared('models/yunet_n_dynamic.onnx'))
  for path in sorted(shared('faces/driving').iterdir()):
    clip = clips.read_clip(path, size=64, count=5, detector=detector, kind='clip')
    assert clip.frames.shape[1:] == (64, 64, 3) and clip.masks.shape[1:] == (64, 64, 4)
    assert (np.diff(clip.times) > 0).all()
    eyes = clip.landmarks[:, :2].mean((0, 1))
    assert 0.4 < eyes[0] < 0.6 and 0.42 < eyes[1] < 0.54, path.name  # FFHQ: 0.5, 0.47


# --- The packed set ------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def packed(tmp_path_factory):
  """Six people of one square clip each, a broken file and one that is too short."""
  folder = tmp_path_factory.mktemp('videos')
  for seed in range(6):
    write_clip(folder / f'person{seed}.mp4', seed, frames=9)
  (folder / 'broken.mp4').write_bytes(b'no video')
  out = tmp_path_factory.mktemp('packed')
  fields = dict(layout='folder', metadata='', corrections='', face_detector='', size=32)
  fields |= dict(frames=6, framing='clip', held_out=0.3)
  report = pack.pack(videos=str(folder), out=str(out), name='clips', **fields)
  path = pathlib.Path(report.splitlines()[-1].removeprefix('packed: '))
  return folder, path, report, fields


def test_the_report_lists_clips_used_and_skipped(packed):
  _, path, report, _ = packed
  assert '7 clips expected, 7 found, 6 used' in report
  assert 'skipped broken' in report
  index = json.loads((path / triplets.INDEX).read_text())
  rows = [row for split in index['splits'].values() for row in split]
  assert len(rows) == 6 and all(row['frames'] == 6 and len(row['sha256']) == 64 for row in rows)
  assert len(index['skipped']) == 1 and index['missing'] == []


def test_splits_share_no_person(packed):
  _, path, _, _ = packed
  splits = json.loads((path / triplets.INDEX).read_text())['splits']
  people = {split: {row['identity'] for row in rows} for split, rows in splits.items()}
  assert not people['train'] & people['validation'] and len(people['validation']) >= 2


def test_packed_frames_are_the_clips_to_jpeg(packed):
  folder, path, _, _ = packed
  source = triplets.PackedClips(str(path), 'train')
  assert len(source.identities) == len(source.lengths)
  for index, name in enumerate(source.identities):
    clip = clips.read_clip(folder / f'{name}.mp4', size=32, count=6, detector=None, kind='clip')
    frames, masks = source.read(index, [4, 1])
    assert np.abs(frames.astype(int) - clip.frames[[4, 1]]).mean() < 3
    assert masks is None  # without a detector


def test_only_drawn_frames_are_decoded(packed, monkeypatch):
  _, path, _, _ = packed
  opened = []
  real = Image.open
  monkeypatch.setattr(Image, 'open', lambda file: opened.append(file) or real(file))
  source = triplets.PackedClips(str(path), 'train')
  source.read(0, [2])
  assert len(opened) == 1 and all(isinstance(file, io.BytesIO) for file in opened)


def test_packing_again_keeps_what_is_there(packed):
  folder, path, _, fields = packed
  before = (path / triplets.INDEX).stat().st_mtime_ns
  report = pack.pack(videos=str(folder), out=str(path.parents[2]), name='clips', **fields)
  assert 'packed already' in report and (path / triplets.INDEX).stat().st_mtime_ns == before


def test_packed_and_in_memory_triplets_are_the_same(packed):
  """Same interface, same draws: a memory source of the packed frames gives the same batches."""
  _, path, _, _ = packed
  source = triplets.PackedClips(str(path), 'train')
  memory = triplets.MemoryClips(
    [
      triplets.Clip(name, name, *source.read(k, list(range(n))))
      for k, (name, n) in enumerate(zip(source.identities, source.lengths, strict=True))
    ]
  )
  draw = lambda clips: iter(triplets.triplets(clips, batch_size=4, seed=5))  # noqa: E731
  for a, b, _ in zip(draw(source), draw(memory), range(3), strict=False):
    assert set(a) == set(triplets.shapes(32, masks=False))
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


def test_processes_side_by_side_draw_the_batches_of_one(packed):
  _, path, _, _ = packed
  source = triplets.PackedClips(str(path), 'train')
  draw = lambda process: iter(  # noqa: E731
    triplets.triplets(source, batch_size=6, seed=2, process=process)
  )
  one, first, second = draw((0, 1)), draw((0, 2)), draw((1, 2))
  for _ in range(4):
    whole, a, b = next(one), next(first), next(second)
    for name in whole:
      np.testing.assert_array_equal(whole[name], np.concatenate((a[name], b[name])))
  with pytest.raises(InputError, match='cannot be divided among 4 processes'):
    draw((0, 4))


def test_split_people_keeps_people_together_and_is_stable():
  names = [f'p{k}' for k in range(50)]
  split = triplets.split_people(names * 3, 0.2)
  assert len(split['validation']) == 10 and not split['train'] & split['validation']
  assert split == triplets.split_people(names[::-1], 0.2)
  with pytest.raises(InputError, match='3 people: training and validation need two each'):
    triplets.split_people(['a', 'b', 'c', 'c'], 0.2)


def test_bad_packed_folders(tmp_path, packed):
  with pytest.raises(InputError, match='no clips.json in it'):
    triplets.PackedClips(str(tmp_path), 'train')
  with pytest.raises(InputError, match="its split 'test' has no clip"):
    triplets.PackedClips(str(packed[1]), 'test')


def test_frames_of_another_size_are_wrong_and_no_step_is_compiled(packed, tmp_path):
  config = small_config()
  config.data.packed, config.model.frame_size = str(packed[1]), 64
  *_, data, devices, codecs = preflight.examine(config)  # the step would follow
  assert (devices.name, codecs.name, data.status) == ('devices', 'codecs', 'wrong')
  assert 'packed at 32 px; config.model.frame_size is 64: pack again with --size=64' in data.message
  config.data.packed = str(tmp_path)
  (data,) = preflight.check_data(config)
  assert data.status == 'missing' and 'no clips.json in it' in data.message


def test_heads_must_be_packed_as_the_config_frames_them(packed, tmp_path):
  """Clips that were taken whole fit any framing; those of earlier versions fit none."""
  _, path, _, fields = packed
  data = types.SimpleNamespace(packed=str(tmp_path / 'p'), framing='clip')
  shutil.copytree(path, data.packed)
  index = json.loads((path / triplets.INDEX).read_text())
  assert index['config']['framing'] == 'clip' and not fields['face_detector']
  assert sources.load(data, 32)[0].framing == ''
  for packing, message in (
    ({'framing': 'fomm'}, "packed with framing 'fomm'; config.data.framing is 'clip'"),
    ({'crop_scale': 1.8}, "packed with framing '1.8 face boxes'.*pack again with --framing=clip"),
  ):
    index['config'] = {'face_detector': 'yunet.onnx', **packing}
    (tmp_path / 'p' / triplets.INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match=message):
      sources.load(data, 32)
  data.framing, index['config']['framing'] = 'fomm', 'fomm'
  (tmp_path / 'p' / triplets.INDEX).write_text(json.dumps(index))
  assert sources.load(data, 32)[0].framing == 'fomm'


def test_an_unknown_framing_is_refused_before_packing(packed, tmp_path):
  folder, _, _, fields = packed
  with pytest.raises(InputError, match='--framing=square: choose from clip, fomm, ffhq'):
    pack.pack(videos=str(folder), out=str(tmp_path), name='a', **{**fields, 'framing': 'square'})
  assert not any(tmp_path.iterdir())


def test_an_hdtf_folder_of_rendered_people(tmp_path):
  """Names of the real set, clips written here: people and splits are right."""
  videos = tmp_path / 'videos'
  videos.mkdir()
  names = ['Ann0_0', 'Ann1_0', 'Bob_0', 'Bob_1', 'Cid_0', 'Radio1_0', 'Radio2_0']
  for seed, name in enumerate(names):
    write_clip(videos / f'{name}.mp4', seed, frames=4)
  shutil.copy(videos / 'Cid_0.mp4', videos / 'WRA_Dan_000.mp4')
  metadata = hdtf_metadata(
    tmp_path,
    RD=['Radio1.mp4 00:00-00:10', 'Radio2.mp4 00:00-00:10'],
    WDA=['Ann0.mp4 00:00-00:10', 'Ann1.mp4 00:00-00:10', 'Bob.mp4 00:00-00:10 00:20-00:30'],
    WRA=['Cid.mp4 00:00-00:10', 'Dan.mp4 00:00-00:10', 'Gone.mp4 00:00-00:10'],
  )
  report = pack.pack(
    videos=str(videos), out=str(tmp_path / 'out'), name='hdtf', layout='hdtf', metadata=metadata,
    corrections='', face_detector='', size=32, frames=3, framing='clip', held_out=0.3,
  )  # fmt: skip
  assert '9 clips expected, 8 found, 8 used' in report
  path = pathlib.Path(report.splitlines()[-1].removeprefix('packed: '))
  index = json.loads((path / triplets.INDEX).read_text())
  people = [{row['identity'] for row in rows} for rows in index['splits'].values()]
  assert set.union(*people) == {'Ann', 'Bob', 'Cid', 'Dan', 'Radio1', 'Radio2'}
  assert not set.intersection(*people) and index['missing'] == ['Gone_0']
