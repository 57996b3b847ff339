"""Packing in shards: killed and resumed, with several workers, without masks; folders and names."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from small import write_clip

from data.face_clips import pack, packing
from hybrid_jax.errors import InputError
from hybrid_jax.media import faces, landmarkers
from hybrid_jax.training import people, sources, triplets

pytest.importorskip('tensorflow_datasets', reason='needs the extra [data]')
ROOT = pathlib.Path(__file__).resolve().parents[2]
FIELDS = dict(
  layout='folder', metadata='', corrections='', face_detector='', size=32, frames=5,
  framing='clip', held_out=0.3,
)  # fmt: skip


def pack_folder(videos, out, **fields):
  """The folder of the packed set."""
  report = pack.pack(videos=str(videos), out=str(out), name='clips', **{**FIELDS, **fields})
  return pathlib.Path(report.splitlines()[-1].removeprefix('packed: '))


def command(videos, out, *options):
  """The command of `pack_folder`."""
  own = ['--size=32', '--frames=5', '--held_out=0.3', *options]
  return [sys.executable, '-m', 'data.face_clips.pack', str(videos), str(out), *own]


def contents(path):
  """All files of a packed set but the index, and the index without its folder."""
  index = json.loads((path / triplets.INDEX).read_text())
  files = {p.name: p.read_bytes() for p in path.iterdir() if p.name != triplets.INDEX}
  return files, index


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  """Eight people and a broken file."""
  folder = tmp_path_factory.mktemp('videos')
  for seed in range(8):
    write_clip(folder / f'person{seed}.mp4', seed, frames=40, shape=(256, 256))
  (folder / 'person8.mp4').write_bytes(b'no video')
  return folder


@pytest.fixture(scope='module')
def packed(videos, tmp_path_factory):
  return pack_folder(videos, tmp_path_factory.mktemp('packed'))


def test_a_killed_run_keeps_what_is_finished(videos, packed, tmp_path):
  run = subprocess.Popen(command(videos, tmp_path, '--workers=1'), cwd=ROOT)
  parts = tmp_path / 'face_clips' / 'clips' / f'{packing.VERSION}.parts'
  while len(finished := list(parts.glob('*.json'))) < 2:
    assert run.poll() is None
    time.sleep(0.01)
  run.send_signal(signal.SIGKILL)
  run.wait()
  finished = list(parts.glob('*.json'))
  assert len(finished) < 9 and not parts.with_name(packing.VERSION).exists()
  (parts / 'stale.array_record').write_bytes(b'of other options')
  written, real = [], packing.records.write_shard
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(packing.records, 'write_shard', lambda s: written.append(s.key) or real(s))
    path = pack_folder(videos, tmp_path)
  assert len(written) == 9 - len(finished) and not {p.stem for p in finished} & set(written)
  assert contents(path) == contents(packed)
  assert [p.name for p in path.parent.iterdir()] == [packing.VERSION]


def test_a_set_joined_half_way_is_joined_again(videos, packed, tmp_path, monkeypatch):
  def killed(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(packing, '_write_metadata', killed)
  with pytest.raises(KeyboardInterrupt):
    pack_folder(videos, tmp_path)
  monkeypatch.undo()
  monkeypatch.setattr(packing.records, '_read', killed)  # all shards are finished
  assert contents(pack_folder(videos, tmp_path)) == contents(packed)


def test_two_workers_write_what_one_writes(videos, packed, tmp_path):
  pytest.importorskip('apache_beam', reason='needs the extra [beam]')
  run = subprocess.run(
    command(videos, tmp_path, '--workers=2'), cwd=ROOT, capture_output=True, text=True
  )
  assert run.returncode == 0, run.stderr
  assert '9 clips expected, 9 found, 8 used' in run.stdout and '/9' in run.stderr  # the bar
  assert contents(pathlib.Path(run.stdout.splitlines()[-1][8:])) == contents(packed)


def test_options_of_beam_stand_after_two_dashes():
  assert pack._split(['a', 'b', '--size=32', '--', '--runner=X']) == (
    ['a', 'b', '--size=32'],
    ['--runner=X'],
  )


def test_workers_without_beam(videos, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(packing, 'has_beam', lambda: False)
  with pytest.raises(InputError, match=r'several workers need the extra \[beam\]'):
    pack_folder(videos, tmp_path, workers=2)
  monkeypatch.setattr(os, 'sched_getaffinity', lambda _: range(8), raising=False)
  assert pack._default_workers(False) == 1 and pack._default_workers(True) == 8
  assert '1 of 8 cores packs' in capsys.readouterr().out


def test_a_full_disk_is_one_line(videos, tmp_path, monkeypatch):
  def full(shard):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(packing.records, 'write_shard', full)
  with pytest.raises(InputError, match='No space left.*run the same command again'):
    pack_folder(videos, tmp_path)


def test_shards_do_not_depend_on_workers_and_are_bounded(tmp_path):
  clip = tmp_path / 'a.mp4'
  clip.write_bytes(b'')
  expected = [packing.Expected(f'{k}', f'p{k % 50}', clip) for k in range(1500)]
  shards = packing.plan(expected, packing.Options(), 0.2, tmp_path)
  assert len(shards) <= 514 and sum(len(s.clips) for s in shards) == 1500
  assert len({shard.key for shard in shards}) == len(shards)
  other = packing.plan(expected, packing.Options(size=64), 0.2, tmp_path)
  assert not {s.key for s in shards} & {s.key for s in other}


# --- Masks ---------------------------------------------------------------------------------------


class Centred:
  """Finds a face in the middle of every picture."""

  def detect(self, rgb, near=None):
    points = np.array([(0.4, 0.4), (0.6, 0.4), (0.5, 0.5), (0.43, 0.62), (0.57, 0.62)])
    side = rgb.shape[0]
    return [faces.Face((0.3 * side, 0.3 * side, 0.4 * side, 0.4 * side), side * points, 0.9)]


def test_masks_are_stored_and_decoded_only_for_stage_2(videos, tmp_path, monkeypatch):
  detector = tmp_path / 'yunet.onnx'
  detector.write_bytes(b'')
  monkeypatch.setattr(landmarkers, 'open_landmarker', lambda path: Centred())
  monkeypatch.setattr(packing.records, '_landmarker', lambda path: Centred())
  fields = dict(face_detector=str(detector), frames=3)
  with_masks = pack_folder(videos, tmp_path / 'a', **fields)
  without = pack_folder(videos, tmp_path / 'b', **fields, masks=False)
  one, other = (triplets.PackedClips(str(path), 'train') for path in (with_masks, without))
  frames, masks = one.read(0, [0, 2])
  assert masks.shape == (2, 32, 32, 4) and masks.max() == 255
  np.testing.assert_array_equal(other.read(0, [0, 2])[0], frames)
  assert one.read(0, [0], masks=False)[1] is None and other.read(0, [0])[1] is None
  data = types.SimpleNamespace(packed=str(without), framing='clip')
  sources.load(data, 32)
  with pytest.raises(InputError, match='has no masks, which stage 2 needs'):
    sources.load(data, 32, masks=True)
  data.packed = str(with_masks)
  sources.load(data, 32, masks=True)


# --- Folders -------------------------------------------------------------------------------------


def folder_data(videos, **fields):
  data = dict(videos=str(videos), packed='', rendered_people=0, frames_per_clip=50)
  return types.SimpleNamespace(**data | dict(face_detector='', framing='clip') | fields)


def test_a_folder_larger_than_a_quarter_of_memory_is_refused(videos, monkeypatch):
  # 40 frames of 32 px, in eight files by their headers; 50 of the file without one.
  needed = (8 * 40 + 50) * 32 * 32 * 3
  monkeypatch.setattr(sources, 'memory', lambda: 4 * needed)
  sources.check_memory(folder_data(videos), 32, masks=False)
  monkeypatch.setattr(sources, 'memory', lambda: 4 * needed - 4)
  with pytest.raises(InputError, match='9 videos take about .* GB.*data.face_clips.pack .*size 32'):
    sources.load(folder_data(videos), 32)
  # Masks take more than the frames, and are kept for stage 2 alone.
  monkeypatch.setattr(sources, 'memory', lambda: 8 * needed)
  with_detector = folder_data(videos, face_detector='yunet.onnx')
  sources.check_memory(with_detector, 32, masks=False)
  with pytest.raises(InputError, match='--face_detector yunet.onnx'):
    sources.check_memory(with_detector, 32, masks=True)


def test_a_large_folder_is_estimated_without_opening_all_files(tmp_path, monkeypatch):
  found = [(f'p{k}', tmp_path / f'dQw4w9WgXcQ_{k}.mp4') for k in range(35_000)]
  monkeypatch.setattr(triplets, 'find_videos', lambda folder: found)
  opened = []
  monkeypatch.setattr(sources, 'frames_in', lambda path: opened.append(path) or 50)
  monkeypatch.setattr(sources, 'memory', lambda: 64 * 10**9)
  with pytest.raises(InputError, match=r'about 5,505.0 GB.*--layout celebv_hq --size 1024'):
    sources.check_memory(folder_data(tmp_path), 1024, masks=False)
  assert len(opened) == 1000


@pytest.mark.parametrize(
  'stem,person',
  [
    ('dQw4w9WgXcQ_0', 'dQw4w9WgXcQ'),
    ('-_abcdefghi_12', '-_abcdefghi'),
    ('WDA_AmyKlobuchar1_000', 'AmyKlobuchar'),
    ('RD_Radio11_000', 'Radio11'),
    ('WRA_Dan', 'Dan'),
    ('person1_0', 'person1_0'),
    ('anna', 'anna'),
    ('007', '007'),
  ],
)
def test_names_of_public_sets_give_the_person(stem, person):
  assert people.of_file(stem) == person


def test_clips_of_one_video_are_one_person_in_a_folder(tmp_path):
  for name in ('dQw4w9WgXcQ_0', 'dQw4w9WgXcQ_1', 'aaaaaaaaaaa_0', 'RD_Radio1_000', 'ann'):
    (tmp_path / f'{name}.mp4').write_bytes(b'')
  found = triplets.find_videos(str(tmp_path))
  assert len(found) == 5 and len({identity for identity, _ in found}) == 4
  assert people.look_like(path for _, path in found) == ''
  (tmp_path / 'AmyKlobuchar0_0.mp4').write_bytes(b'')
  (tmp_path / 'AmyKlobuchar1_0.mp4').write_bytes(b'')
  line = people.look_like(path for _, path in triplets.find_videos(str(tmp_path)))
  assert 'AmyKlobuchar0_0.mp4 and AmyKlobuchar1_0.mp4 look like clips of one person' in line
