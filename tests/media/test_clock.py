"""Clocks that start anywhere, wrap, or have decoding times only."""

from fractions import Fraction

import av
import numpy as np
import pytest

from hybrid_jax.media.clock import start_of
from hybrid_jax.media.segments import VideoTarget
from hybrid_jax.media.video import read_frames

RATE = 25
WRAP = Fraction(2**33, 90000)  # s, where the 33 bits of MPEG's clock begin again


def write_clip(path, start, heard=None, codec='mpeg4', count=12, **options):
  """Frames from `start` and half a second of AAC from `heard`, seconds; None is silent."""
  kept = {'mpegts_copyts': '1'} if path.suffix == '.ts' else {}
  with av.open(str(path), 'w', options=kept) as file:
    video = file.add_stream(codec, rate=RATE, options=options)
    video.width, video.height, video.pix_fmt = 32, 16, 'yuv420p'
    audio = None if heard is None else file.add_stream('aac', rate=48000, layout='mono')
    file.start_encoding()
    # Interleaved by hand: far clocks would fill the muxer's buffer otherwise.
    for k in range(count):
      frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 20 * k, np.uint8), 'rgb24')
      frame.pts, frame.time_base = k + round(start * RATE), Fraction(1, RATE)
      file.mux(video.encode(frame))
    file.mux(video.encode(None))
    for k in range(24 if audio else 0):
      frame = av.AudioFrame.from_ndarray(np.full((1, 1024), 0.1, np.float32), 'fltp', 'mono')
      frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
      frame.pts = 1024 * k + round(heard * 48000)
      file.mux(audio.encode(frame))
    if audio:
      file.mux(audio.encode(None))
  return path


def clock_of(path):
  """Times of the frames, and of the first audio packet (None without any), seconds."""
  times = [frame.time for frame in read_frames(path)]
  with av.open(str(path)) as file:
    sound = next((p.pts * p.time_base for p in file.demux(audio=0)), None)
  return times, sound


def moved(folder, source, suffix):
  """Joins black pictures at the moved times of a clip to its sound; returns the output's clock."""
  times, start = [frame.time for frame in read_frames(source)], start_of(source)
  target = VideoTarget(folder / f'out{suffix}', Fraction(1, 90000), audio_from=source)
  parts = folder / f'parts{suffix}'
  parts.mkdir()
  with target.segment(parts, 0, (16, 32)) as write:
    for time in times:
      write(np.zeros((16, 32, 3), np.uint8), time - start)
  assert 'left out its audio' not in target.finish(parts, 1)
  return clock_of(folder / f'out{suffix}')


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv'])
@pytest.mark.parametrize(
  'name, start, heard',
  [
    ('a.ts', Fraction(7, 5), Fraction(7, 5)),
    ('a.ts', Fraction(36000), Fraction(36000) + Fraction(1, 5)),
    ('a.ts', WRAP - Fraction(1, 5), WRAP - Fraction(1, 5)),  # wraps in the middle
    ('a.mkv', Fraction(100), Fraction(100)),
    ('a.mp4', Fraction(100), Fraction(100)),
  ],
)
def test_an_output_starts_at_the_first_frame(tmp_path, name, start, heard, suffix):
  source = write_clip(tmp_path / name, start, heard)
  times, sound = moved(tmp_path, source, suffix)
  np.testing.assert_allclose([float(t) for t in times], np.arange(12) / RATE, atol=6e-4)
  # To less than two frames of AAC, since those before the first picture are left out.
  assert abs(sound - (heard - start)) < 0.045


def test_a_clock_that_starts_at_0_is_kept(tmp_path):
  """The picture begins half a second after the sound, and stays late."""
  source = write_clip(tmp_path / 'a.mp4', Fraction(12, 25), 0)
  assert start_of(source) == 0
  times, _ = moved(tmp_path, source, '.mp4')
  assert times[0] == Fraction(12, 25)
  assert start_of(write_clip(tmp_path / 'b.mp4', Fraction(12, 25))) == Fraction(12, 25)


def test_sound_before_the_first_frame_is_reported(tmp_path):
  source = write_clip(tmp_path / 'a.ts', Fraction(1001, 1), Fraction(2002, 2) - Fraction(1, 4))
  target = VideoTarget(tmp_path / 'b.mp4', Fraction(1, 90000), audio_from=source)
  (tmp_path / 'parts').mkdir()
  with target.segment(tmp_path / 'parts', 0, (16, 32)) as write:
    write(np.zeros((16, 32, 3), np.uint8), Fraction(0))
  assert 'the first 0.27 s of the sound' in target.finish(tmp_path / 'parts', 1)


@pytest.mark.parametrize('codec', ['mpeg4', 'mpeg2video', 'libx264'])
def test_b_frames_in_avi_are_on_time_and_in_order(tmp_path, codec):
  source = write_clip(tmp_path / 'a.avi', 0, codec=codec, bf='2')
  frames = list(read_frames(source))
  assert [frame.time for frame in frames] == [Fraction(k, RATE) for k in range(12)]
  assert (np.diff([frame.rgb.mean() for frame in frames]) > 0).all()


@pytest.mark.parametrize('name', ['ts_plain.ts', 'ts_far.ts', 'h264b.avi'])
def test_files_of_wrong_length_or_delay(shared, tmp_path, name):
  times, sound = moved(tmp_path, shared(f'failing/{name}'), '.mp4')
  assert times == [Fraction(k, RATE) for k in range(50)]
  assert abs(sound) < 0.03
