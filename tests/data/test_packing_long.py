"""Packing as large as a test can be: pytest -m slow tests/data/test_packing_long.py, 10 minutes.

Writes experiments/results/packing.json.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from small import write_clip
from test_packing import contents

from data.face_clips import layouts, packing
from experiments import script
from hybrid_jax.media import clips

pytestmark = pytest.mark.slow
pytest.importorskip('tensorflow_datasets', reason='needs the extra [data]')
ROOT = pathlib.Path(__file__).resolve().parents[2]
WORKERS = 2 if packing.has_beam() else 1
CLIPS = 120  # so many that seconds to start processes do not count
COMMAND = 'python -m pytest -n0 -m slow tests/data/test_packing_long.py'


def start(videos, out, *options):
  command = [sys.executable, '-m', 'data.face_clips.pack', str(videos), str(out), *options]
  return subprocess.Popen(
    command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
  )


def finish(run):
  """The folder of the set."""
  output = run.communicate()[0]
  assert run.returncode == 0, output[-2000:]
  return pathlib.Path(output.splitlines()[-1].removeprefix('packed: '))


def write_result(name, value):
  path = script.RESULTS / 'packing.json'
  result, run = json.loads(path.read_text()) if path.is_file() else {}, script.record()
  measured = {key: run[key] for key in ('commit', 'date', 'device')}
  measured |= {'command': COMMAND, 'load_average': round(os.getloadavg()[0], 1)}
  script.write_json(path, result | {name: value | {'measured': measured}})


def celebv_hq(folder):
  """200 clips of 70 videos under names of the set: 190 cut, 10 to cut; 5 more are missing."""
  rng, clips_of, metadata = np.random.default_rng(0), {}, folder / 'celebvhq_info.json'
  letters = list('abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_')
  videos = [''.join(rng.choice(letters, 11)) for _ in range(70)]
  (folder / 'videos').mkdir(parents=True)
  for k in range(205):
    video, number = videos[k % 70], k // 70
    clips_of[f'{video}_{number}'] = {
      'ytb_id': video,
      'duration': {'start_sec': 0.2, 'end_sec': 0.9},
      'bbox': {'top': 0.1, 'bottom': 0.7, 'left': 0.2, 'right': 0.6},
    }
    if 190 <= k < 200:
      write_clip(folder / 'videos' / f'{video}.mp4', k, frames=24, shape=(96, 144))
    elif k < 190:
      write_clip(folder / 'videos' / f'{video}_{number}.mp4', k, frames=16, shape=(96, 96))
  metadata.write_text(json.dumps({'meta_info': {}, 'clips': clips_of}))
  return ('--layout=celebv_hq', f'--metadata={metadata}'), 200


def hdtf(folder, metadata):
  """60 clips under names of the set, with and without the subset in front."""
  (folder / 'videos').mkdir(parents=True)
  written = 0
  for subset in layouts.HDTF_SUBSETS:
    for line in (metadata / f'{subset}_annotion_time.txt').read_text().split('\n')[:12]:
      video, *spans = line.split()
      for number in range(min(2, len(spans))):
        if written < 60:
          name = f'{video.removesuffix(".mp4")}_{number}'
          name = f'{subset}_{name[:-1]}{number:03d}' if written % 3 else name
          write_clip(folder / 'videos' / f'{name}.mp4', written, frames=16, shape=(96, 96))
          written += 1
  return ('--layout=hdtf', f'--metadata={metadata}'), written


@pytest.mark.parametrize('layout', ['celebv_hq', 'hdtf'])
def test_packed_twice_once_killed(shared, tmp_path, layout):
  layout_options, count = (
    celebv_hq(tmp_path) if layout == 'celebv_hq' else hdtf(tmp_path, shared('hdtf'))
  )
  options = [*layout_options, '--size=64', '--frames=8', f'--workers={WORKERS}']
  began = time.time()
  whole = finish(start(tmp_path / 'videos', tmp_path / 'a', *options))
  seconds = time.time() - began
  # Killed alone: the workers are left to themselves, as after a crash.
  run = start(tmp_path / 'videos', tmp_path / 'b', *options)
  parts = tmp_path / 'b' / 'face_clips' / 'clips' / f'{packing.VERSION}.parts'
  while len(list(parts.glob('*.json'))) < count // 2:
    assert run.poll() is None
    time.sleep(0.01)
  run.send_signal(signal.SIGKILL)
  run.wait()
  kept = {path.name: path.stat().st_mtime_ns for path in parts.glob('*.json')}
  began = time.time()
  resumed = finish(start(tmp_path / 'videos', tmp_path / 'b', *options))
  files, index = contents(whole)
  assert contents(resumed) == (files, index)
  used = sum(len(rows) for rows in index['splits'].values())
  assert used == count and len(kept) < count
  write_result(
    f'{layout}_killed_and_resumed',
    {
      'clips': count,
      'workers': WORKERS,
      'people': len({row['identity'] for rows in index['splits'].values() for row in rows}),
      'finished_when_killed': len(kept),
      'identical_records_index_and_metadata': True,
      'seconds_uninterrupted': round(seconds, 1),
      'seconds_resumed': round(time.time() - began, 1),
    },
  )


def test_two_workers_against_one(shared, tmp_path):
  pytest.importorskip('apache_beam', reason='needs the extra [beam]')
  drivers = sorted(shared('faces/driving').iterdir())
  (tmp_path / 'videos').mkdir()
  for k in range(CLIPS):
    driver = drivers[k % len(drivers)]
    (tmp_path / 'videos' / f'person{k}{driver.suffix}').symlink_to(driver)
  detector = f'--face_detector={shared("models/yunet_n_dynamic.onnx")}'
  seconds, found = {}, []
  for workers in (1, 2):
    began = time.time()
    run = start(tmp_path / 'videos', tmp_path / str(workers), detector, f'--workers={workers}')
    found.append(contents(finish(run)))
    seconds[workers] = time.time() - began
  assert found[0] == found[1]
  write_result(
    'workers',
    {
      'clips': CLIPS,
      'of': 'the driving clips of the shared faces, in turn, with YuNet',
      'seconds_by_workers': {k: round(value, 1) for k, value in seconds.items()},
      'speed_up': round(seconds[1] / seconds[2], 2),
    },
  )


def write_uncut(path, minutes):
  """1920x1080 with a key frame every two seconds, which are encoded once and repeated."""
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 255, (1080, 1920 + 100, 3), dtype=np.uint8)
  scene = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 8), None, 0, 255, cv2.NORM_MINMAX)
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=25, options={'preset': 'ultrafast', 'bf': '0'})
    stream.width, stream.height, stream.pix_fmt = 1920, 1080, 'yuv420p'
    stream.codec_context.gop_size = 50
    stream.time_base = stream.codec_context.time_base = Fraction(1, 25)
    packets = []
    for k in range(50):
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(scene[:, k : k + 1920]), 'rgb24')
      frame.pts, frame.time_base = k, Fraction(1, 25)
      packets += stream.encode(frame)
    packets += stream.encode(None)
    contents = [(bytes(p), p.pts, p.is_keyframe) for p in packets]
    for second in range(0, minutes * 60, 2):
      for data, pts, key in contents:
        packet = av.Packet(data)
        packet.pts = packet.dts = pts + 25 * second
        packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 25), stream, key
        container.mux(packet)


def test_a_span_far_into_a_file_starts_at_once(tmp_path):
  write_uncut(tmp_path / 'a.mp4', minutes=11)
  seconds = {}
  # At a key frame, and just before the next one.
  for start_at in (600.0, 601.9):
    began, cpu = time.time(), time.process_time()
    frame = next(clips.read_span(tmp_path / 'a.mp4', (start_at, start_at + 5), threads=1))
    seconds[start_at] = {'wall': time.time() - began, 'cpu': time.process_time() - cpu}
    assert abs(float(frame.time) - start_at) < 0.04
  write_result(
    'first_frame_at',
    {
      'picture': '1920x1080, 25 fps, H.264, a key frame every 2 s',
      'seconds_by_start': {
        k: {name: round(x, 2) for name, x in v.items()} for k, v in seconds.items()
      },
    },
  )
  # One thread: the CPU time is what it takes on a machine that does nothing else.
  assert max(v['cpu'] for v in seconds.values()) < 1
