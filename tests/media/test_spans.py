"""Spans of long files, decoded from the key frame before them: frames as decoded from the start."""

from fractions import Fraction

import av
import numpy as np
import pytest

from hybrid_jax.media import MediaError, clips, clock, containers, video

RATE, COUNT = 25, 120


def write_long(path, codec='libx264', options=None, start=0, gop=20):
  """Noise that moves, with a key frame every `gop` frames and B-frames."""
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 255, (48, 64 + COUNT, 3), dtype=np.uint8)
  with av.open(str(path), 'w') as container:
    stream = container.add_stream(codec, rate=RATE, options=options or {})
    stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
    stream.codec_context.gop_size = gop
    for k in range(COUNT):
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(noise[:, k : k + 64]), 'rgb24')
      frame.pts, frame.time_base = k + start * RATE, Fraction(1, RATE)
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  return path


X264 = {'x264-params': 'scenecut=0:bframes=3:keyint=20'}
OPEN = {'x264-params': 'scenecut=0:bframes=3:keyint=20:open-gop=1'}
FILES = {
  'a.mp4': ('libx264', X264, 0),
  'open.mp4': ('libx264', OPEN, 0),
  'late.mp4': ('libx264', X264, 700),
  'a.mkv': ('libx264', X264, 0),
  'open.mkv': ('libx264', OPEN, 0),
  'a.mov': ('mpeg4', {'bf': '2'}, 0),
  'a.webm': ('libvpx-vp9', {'deadline': 'realtime', 'cpu-used': '8'}, 0),
  'a.avi': ('mpeg4', {'bf': '2'}, 0),
  'a.ts': ('libx264', OPEN, 0),
}


@pytest.mark.parametrize('name', FILES)
def test_a_span_has_the_frames_of_the_whole_file(tmp_path, name):
  path = write_long(tmp_path / name, *FILES[name])
  whole = list(video.read_frames(path))
  assert len(whole) == COUNT
  first = float(whole[0].time)
  for start in (0.01, 0.7, 0.8, 2.41, 4.72, 99.0):
    span = first + start, first + start + 0.5
    wanted = [frame for frame in whole if span[0] <= float(frame.time) < span[1]]
    found = list(clips.read_span(path, span))
    assert [frame.time for frame in found] == [frame.time for frame in wanted]
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(found, wanted, strict=True))


def test_decoding_begins_at_the_key_frame_before(tmp_path):
  for name in ('a.mp4', 'late.mp4', 'a.mkv', 'a.webm'):
    path = write_long(tmp_path / name, *FILES[name])
    start = FILES[name][2] + 4.5
    with containers.open_clip(path) as container:
      stream = containers.video_stream(container, path)
      container.seek(clock.key_frame_before(container, stream, start), stream=stream)
      _, time = next(clock.timed_frames(container, stream))
      assert start - 20 / RATE <= time <= start, name


def test_formats_without_an_index_are_decoded_from_the_start(tmp_path):
  path = write_long(tmp_path / 'a.ts', *FILES['a.ts'])
  with containers.open_clip(path) as container:
    stream = containers.video_stream(container, path)
    assert clock.key_frame_before(container, stream, 4.0) is None


def test_frames_that_are_not_needed_are_not_converted(tmp_path):
  path, asked = write_long(tmp_path / 'a.mp4'), []
  needed = lambda: asked.append(0) or len(asked) % 5 == 1  # noqa: E731
  frames = list(video.read_frames(path, needed=needed, threads=1))
  assert len(frames) == len(asked) == COUNT
  assert [frame.rgb is not None for frame in frames] == [k % 5 == 0 for k in range(COUNT)]


def test_a_span_of_a_file_that_breaks_off(tmp_path):
  path = write_long(tmp_path / 'a.mkv', *FILES['a.mkv'])
  path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
  with pytest.raises(MediaError, match='breaks off'):
    list(clips.read_span(path, (1.0, 9.0)))


class Watching:
  """Finds the same face in every frame; notes the sizes of the frames searched."""

  def __init__(self, side):
    self.side, self.sizes = side, []

  def detect(self, rgb, near=None):
    self.sizes.append(rgb.shape[:2])
    scale = rgb.shape[1] / 1000
    x, y, side = 300 * scale, 100 * scale, self.side * scale
    points = np.array([(x + side * a, y + side * b) for a, b in
                       ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))])  # fmt: skip
    return [clips.faces.Face((x, y, side, side), points, 0.9)]


@pytest.mark.parametrize('side,searched', [(400, (250, 500)), (150, (500, 1000))])
def test_a_large_face_is_followed_in_reduced_frames(side, searched):
  detector = Watching(side)
  follower = clips._follower(detector, 'clip', None)
  for _ in range(3):
    face = follower(np.zeros((500, 1000, 3), np.uint8))
    np.testing.assert_allclose(face.box, (300, 100, side, side), atol=1e-6)
    np.testing.assert_allclose(face.landmarks[2], (300 + side / 2, 100 + 0.6 * side), atol=1e-6)
  assert detector.sizes == [(500, 1000), searched, searched]
