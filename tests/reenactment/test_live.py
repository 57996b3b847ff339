"""Live re-enactment: sources, outputs, what it survives, and its equality with the one of clips."""

import csv
import json
import os
import signal
import socket
import sys
import threading
import time
from fractions import Fraction

import av
import numpy as np
import pytest
from reenacting import frames_of, pixels, run
from small import SIZE, write_clip

from hybrid_jax import live as live_command
from hybrid_jax.errors import InputError
from hybrid_jax.media import stills, video
from hybrid_jax.media.broadcast import StreamWriter, open_source
from hybrid_jax.reenactment.live import run as live_run
from hybrid_jax.reenactment.live.options import Live
from hybrid_jax.reenactment.options import Options

RATE, DOUBLE = 25, (2 * SIZE, 2 * SIZE)


def reenact(model, inputs, output, live=None, stop=None, **options):
  """Runs live; returns (report, lines)."""
  lines, options = [], {'source': inputs[0], 'driving': inputs[1], 'codec': 'ffv1', **options}
  chosen = Options(output=str(output), **options)
  report = live_run.reenact(model, chosen, live or Live(), say=lines.append, stop=stop)
  return report, [*lines, *report.lines()]


def pictures(count, shape=(SIZE, SIZE)):
  """A square that moves."""
  for k in range(count):
    rgb = np.full((*shape, 3), 40, np.uint8)
    rgb[4 : shape[0] // 2, k % 16 : k % 16 + 12] = (200, 150, 90)
    yield rgb


def stream_bytes(folder, count, shape=(SIZE, SIZE)):
  """The bytes of MPEG-TS with `count` frames."""
  path = folder / f'{count}x{shape[0]}x{shape[1]}.ts'
  if not path.exists():
    with av.open(str(path), 'w', format='mpegts') as container:
      stream = container.add_stream('libx264', rate=RATE, options={'tune': 'zerolatency'})
      stream.height, stream.width = shape
      for rgb in pictures(count, shape):
        container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb)))
      container.mux(stream.encode(None))
  return path.read_bytes()


@pytest.fixture
def pipe(tmp_path):
  """A named pipe, and a function that writes into it: chunks of bytes, or seconds to wait."""
  path, threads, over = tmp_path / 'pipe.ts', [], threading.Event()
  os.mkfifo(path)

  def send(*parts):
    def work():
      try:
        with open(path, 'wb') as file:
          for part in parts:
            if isinstance(part, bytes):
              file.write(part)
              file.flush()
            else:
              over.wait(part)
      except BrokenPipeError:
        pass  # the reader has ended

    threads.append(threading.Thread(target=work, daemon=True))
    threads[-1].start()
    return str(path)

  yield send
  over.set()
  for thread in threads:
    thread.join(5)


# --- Equal to the re-enactment of the whole clip -------------------------------------------------


@pytest.mark.parametrize('layout', ['result', 'grid'])
def test_a_file_gives_the_frames_and_times_of_reenact(model, inputs, tmp_path, layout):
  run(model, inputs, tmp_path / 'clip.mp4', codec='ffv1', layout=layout)
  report, _ = reenact(model, inputs, tmp_path / 'live.mp4', Live(min_cutoff=0), layout=layout)
  clip, live = frames_of(tmp_path / 'clip.mp4'), frames_of(tmp_path / 'live.mp4')
  assert [frame.time for frame in clip] == [frame.time for frame in live]
  assert report.figures['frames'] == len(clip) and not report.figures['dropped']
  for a, b in zip(clip, live, strict=True):
    assert np.abs(a.rgb.astype(int) - b.rgb).max() <= 1
  sidecar = json.loads((tmp_path / 'live.mp4.json').read_text())
  assert sidecar['record']['driving']['sha256'] and sidecar['record']['options']['hold'] == 0.5
  assert not (tmp_path / '.live.mp4.parts').exists()


def test_relative_motion_starts_from_the_most_neutral_frame_of_the_first_second(
  model, inputs, tmp_path
):
  frames = frames_of(inputs[1])
  rows = list(model.deformations((frame.rgb for frame in frames), 4))
  first = next(k for k, frame in enumerate(frames) if frame.time >= 1)
  reference = int(np.argmin([np.linalg.norm(row) for row in rows[: first + 1]]))
  options = {'motion': 'relative', 'gain': 1.5}
  run(model, inputs, tmp_path / 'clip.mp4', codec='ffv1', reference=reference, **options)
  reenact(model, inputs, tmp_path / 'live.mp4', **options)
  clip, live = (pixels(tmp_path / name).astype(int) for name in ('clip.mp4', 'live.mp4'))
  assert np.abs(clip[first:] - live[first:]).max() <= 1
  assert not np.ptp(live[:first], 0).any()  # the source's own expression, until then


# --- Sources -------------------------------------------------------------------------------------


def test_a_pipe_with_every_frame(model, inputs, pipe, tmp_path):
  """Standard input, and the frames of the same bytes as a file."""
  data = stream_bytes(tmp_path, 12)
  reader = os.open(pipe(data), os.O_RDONLY)
  before = os.dup(0)
  os.dup2(reader, 0)
  try:
    given = {'driving': '-'}
    report, _ = reenact(model, inputs, tmp_path / 'pipe.mp4', Live(realtime=False), **given)
  finally:
    os.dup2(before, 0)
    os.close(before)
    os.close(reader)
  reenact(model, inputs, tmp_path / 'file.mp4', driving=str(tmp_path / f'12x{SIZE}x{SIZE}.ts'))
  piped, filed = frames_of(tmp_path / 'pipe.mp4'), frames_of(tmp_path / 'file.mp4')
  assert len(piped) == 12 and report.figures['dropped'] == 0
  assert (
    [f.time for f in piped] == [f.time for f in filed] == [Fraction(k, RATE) for k in range(12)]
  )
  np.testing.assert_array_equal([f.rgb for f in piped], [f.rgb for f in filed])


def test_an_unplugged_source_leaves_a_finished_file(model, inputs, pipe, tmp_path):
  """Bytes that end in the middle of a frame; held pictures follow their own clock."""
  data = stream_bytes(tmp_path, 25)
  driving = pipe(data[: len(data) // 2 + 77])
  report, _ = reenact(model, inputs, tmp_path / 'a.mp4', Live(realtime=False), driving=driving)
  assert 5 < report.figures['frames'] < 25
  assert len(frames_of(tmp_path / 'a.mp4')) == report.figures['frames']
  assert (tmp_path / 'a.mp4.json').is_file()


def test_a_stream_that_is_joined_in_its_middle(pipe, tmp_path):
  """What cannot be decoded is left out, up to the next key frame."""
  data = stream_bytes(tmp_path, 12)
  driving = pipe(data[len(data) // 2 + 77 :] + stream_bytes(tmp_path, 8, DOUBLE))
  sizes = [frame.read().shape[0] for frame in open_source(driving).frames(5)]
  assert sizes[-8:] == [2 * SIZE] * 8


def test_a_stalled_source_is_held_faded_and_given_up(model, inputs, pipe, tmp_path):
  driving = pipe(stream_bytes(tmp_path, 40), 60)
  live = Live(wait=1.5, hold=0.2, fade=0.3, log=str(tmp_path / 'log.csv'))
  report, _ = reenact(model, inputs, tmp_path / 'a.mp4', live, driving=driving)
  # MPEG-TS shows where a frame ends by the beginning of the next one.
  assert 36 <= report.figures['frames'] + report.figures['dropped'] <= 40
  assert report.figures['held'] > 3
  assert report.broken.endswith('sends nothing for 1.5 s')
  shown = frames_of(tmp_path / 'a.mp4')
  assert len(shown) == report.figures['frames'] + report.figures['held']
  assert all(a.time < b.time for a, b in zip(shown, shown[1:], strict=False))
  # Faded to the neutral expression, which relative motion never shows here.
  neutral = next(model.images(model.identity(head_of(inputs)), [0 * row_of(model)], 1))
  assert np.abs(shown[-1].rgb.astype(int) - neutral).max() <= 1
  rows = list(csv.DictReader(open(tmp_path / 'log.csv')))
  assert (
    int(rows[-1]['held']) == report.figures['held'] and float(rows[-1]['latency_median_ms']) > 0
  )


def head_of(inputs):
  return stills.read_image(inputs[0])


def row_of(model):
  return np.zeros(sum(model.widths), np.float32)


def test_a_size_that_changes_midway(model, inputs, pipe, tmp_path):
  """Without a detector a square is taken whole; the result keeps its size."""
  driving = pipe(stream_bytes(tmp_path, 8) + stream_bytes(tmp_path, 8, DOUBLE))
  report, _ = reenact(model, inputs, tmp_path / 'a.mp4', Live(realtime=False), driving=driving)
  shown = frames_of(tmp_path / 'a.mp4')
  assert report.figures['frames'] == len(shown) == 16
  assert shown[0].rgb.shape == shown[-1].rgb.shape == (SIZE, SIZE, 3)
  assert all(a.time < b.time for a, b in zip(shown, shown[1:], strict=False))


def test_a_stream_that_breaks_off_is_opened_again(model, inputs, tmp_path):
  """Its clock begins anew; the times of the result go on."""
  data = stream_bytes(tmp_path, 12)
  with socket.create_server(('127.0.0.1', 0)) as server:

    def send():
      for _ in range(2):
        with server.accept()[0] as connection:
          connection.sendall(data)
      server.close()

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    live, driving = Live(realtime=False, wait=1.0), f'tcp://127.0.0.1:{server.getsockname()[1]}'
    report, _ = reenact(model, inputs, tmp_path / 'a.mp4', live, driving=driving)
    thread.join(5)
  assert report.figures['frames'] == 24 and report.figures['reopened'] >= 1
  assert [f.time for f in frames_of(tmp_path / 'a.mp4')] == [Fraction(k, RATE) for k in range(24)]
  assert driving in report.broken


def free_port():
  with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def test_from_the_network_to_the_network(model, inputs, tmp_path):
  """UDP in both directions: the newest frame wins, and a viewer receives pictures meanwhile."""
  given, shown = (f'udp://127.0.0.1:{free_port()}' for _ in range(2))
  stop, received = threading.Event(), []

  def send():
    with StreamWriter(given, SIZE, SIZE) as writer:
      for k, rgb in enumerate(pictures(2000)):
        if stop.is_set():
          return
        writer.write(rgb, Fraction(k, RATE))
        time.sleep(1 / RATE)

  def view():
    with av.open(shown, options={'fpsprobesize': '0'}, timeout=60) as container:
      for frame in container.decode(video=0):
        received.append(frame.to_ndarray(format='rgb24'))
        if len(received) == 3:
          stop.set()
          return

  threads = [threading.Thread(target=each, daemon=True) for each in (send, view)]
  for thread in threads:
    thread.start()
  report, lines = reenact(model, inputs, shown, Live(wait=20), stop=stop, driving=given)
  for thread in threads:
    thread.join(10)
  assert len(received) == 3 and received[0].shape == (SIZE, SIZE, 3)
  assert 'the newest frame wins' in lines[0] and report.figures['frames'] > 3
  assert report.figures['latency_worst_ms'] >= report.figures['latency_median_ms'] > 0


def test_a_file_in_real_time_drops_what_comes_too_late(model, inputs, tmp_path):
  """By its own clock: 1.5 s of a clip take 1.5 s, and pictures keep their times."""
  began = time.monotonic()
  report, _ = reenact(model, inputs, tmp_path / 'a.mp4', Live(realtime=True))
  assert time.monotonic() - began >= float(inputs[2][-1])
  assert report.figures['frames'] + report.figures['dropped'] == len(inputs[2])
  assert {frame.time for frame in frames_of(tmp_path / 'a.mp4')} <= set(inputs[2])


# --- The end -------------------------------------------------------------------------------------


def test_an_interrupt_finishes_the_file(model, inputs, pipe, tmp_path):
  """A real signal; the handlers are put back."""
  driving = pipe(stream_bytes(tmp_path, 40), 60)
  before = signal.getsignal(signal.SIGINT)

  def interrupt():
    while not (tmp_path / '.a.mp4.parts').exists():
      time.sleep(0.02)
    time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGINT)

  threading.Thread(target=interrupt, daemon=True).start()
  with live_run.stopped_by_signals() as stop:
    report, _ = reenact(model, inputs, tmp_path / 'a.mp4', stop=stop, driving=driving)
    assert stop.is_set()
  assert signal.getsignal(signal.SIGINT) is before
  figures = report.figures
  assert len(frames_of(tmp_path / 'a.mp4')) == figures['frames'] + figures['held'] > 0
  assert not (tmp_path / '.a.mp4.parts').exists()


@pytest.mark.filterwarnings('ignore:overflow')
def test_an_error_midway_leaves_what_was_made(model, inputs, tmp_path):
  """Motion that overflows, as soon as relative motion has its reference."""
  with pytest.raises(FloatingPointError, match='not finite'):
    reenact(model, inputs, tmp_path / 'a.mp4', motion='relative', gain=1e300)
  made = [frame.time for frame in frames_of(tmp_path / 'a.mp4')]
  assert made == inputs[2][: len(made)] and 0.9 < made[-1] < inputs[2][-1]


def broken_clip(folder):
  """A clip in Matroska without its last third."""
  path = folder / 'broken.mkv'
  with video.VideoWriter(path, SIZE, SIZE, time_base=Fraction(1, RATE)) as writer:
    for k, rgb in enumerate(pictures(40)):
      writer.write(rgb, Fraction(k, RATE))
  path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
  return path


def test_a_file_that_breaks_off_ends_the_command_with_an_error(
  model, inputs, tmp_path, monkeypatch, capsys
):
  driving, out = broken_clip(tmp_path), tmp_path / 'a.mp4'
  argv = ['live', f'--source={inputs[0]}', f'--driving={driving}', f'--output={out}']
  monkeypatch.setattr(sys, 'argv', argv)
  monkeypatch.setattr(live_command, 'load_model', lambda workdir: model)
  with pytest.raises(SystemExit, match=r'^error: .*broken.mkv: breaks off after \d+ frames'):
    live_command.main()
  shown = capsys.readouterr().out
  assert 'frames dropped' in shown and 'breaks off' not in shown  # once, as the error
  assert 5 < len(frames_of(out)) < 40 and (tmp_path / 'a.mp4.json').is_file()


def test_a_size_that_nothing_can_crop_is_an_error(model, inputs, pipe, tmp_path):
  """And not a face that was lost, which would be held without a word."""
  wide = stream_bytes(tmp_path, 8, (SIZE, 2 * SIZE))
  driving = pipe(stream_bytes(tmp_path, 8) + wide)
  with pytest.raises(InputError, match=f'{2 * SIZE}x{SIZE} is not square; give --face-detector'):
    reenact(model, inputs, tmp_path / 'a.mp4', Live(realtime=False), driving=driving)
  assert len(frames_of(tmp_path / 'a.mp4')) == 8


# --- Refused -------------------------------------------------------------------------------------


def test_what_cannot_be_read_or_written_is_one_line(model, inputs, tmp_path, monkeypatch):
  monkeypatch.delenv('DISPLAY', raising=False)
  (tmp_path / 'note.txt').write_text('no clip')
  wide = tmp_path / 'wide.mp4'
  write_clip(wide, 1, frames=2, shape=(SIZE, 2 * SIZE))
  out = str(tmp_path / 'a.mp4')
  cases = [
    ({'driving': 'nowhere.mp4'}, out, 'nowhere.mp4: no such file, device or address'),
    ({'driving': str(tmp_path)}, out, 'is no clip, device, pipe or address'),
    ({'driving': str(tmp_path / 'note.txt')}, out, 'note.txt'),
    ({'driving': os.devnull}, out, 'null: cannot be opened .*check the address or the device'),
    ({'driving': str(wide)}, out, 'is not square; give --face-detector'),
    ({'driving': 'udp://127.0.0.1:9'}, out, 'udp://127.0.0.1:9'),
    ({'source': 'nobody.png'}, out, 'nobody.png: no such file'),
    ({'source': inputs[1]}, out, 'live mode takes a picture'),
    ({'crop': 'ffhq'}, out, 'needs --face-detector'),
    ({}, inputs[1], 'is an input'),
    ({}, str(tmp_path / 'a.xyz'), 'a.xyz'),
    ({}, 'window', 'no window can be opened'),
    ({}, 'nothing://x', 'nothing://x: cannot be written'),
    ({'driving': 'tcp://127.0.0.1:9'}, f'udp://127.0.0.1:{free_port()}', 'tcp://127.0.0.1:9'),
  ]
  for options, output, message in cases:
    with pytest.raises(InputError, match=message) as raised:
      reenact(model, inputs, output, Live(wait=0.4), **options)
    assert '\n' not in str(raised.value)
    assert not os.path.exists(out) and not (tmp_path / '.a.mp4.parts').exists(), message


def test_what_is_missing_is_refused_before_the_model_is_loaded(inputs, tmp_path, monkeypatch):
  monkeypatch.delenv('DISPLAY', raising=False)
  (tmp_path / 'note.txt').write_text('no clip')
  cases = [
    ('/dev/video77', 'a.mp4', '/dev/video77: no such file, device or address'),
    (os.devnull, 'a.mp4', 'null: cannot be opened'),
    (str(tmp_path / 'note.txt'), 'a.mp4', 'note.txt'),
    (inputs[1], 'window', 'no window can be opened .*; give a file or an address'),
  ]
  for driving, output, message in cases:
    with pytest.raises(InputError, match=message) as raised:
      live_run.check(Options(inputs[0], driving, output), Live())
    assert '\n' not in str(raised.value)
