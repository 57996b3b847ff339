"""Clips written here, and the real and hostile ones of the reference collection."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from hybrid_jax.media import MediaError
from hybrid_jax.media.video import VideoWriter, probe, read_frames

DRIVING = {
  'drive_01_conan_obrien.mp4': 150,
  'drive_02_vfr_man_suit.mp4': 135,
  'drive_03_woman_glasses.mp4': 122,
  'drive_04_woman_grey_hair.mp4': 125,
  'drive_05_sign_walk.mkv': 89,
  'drive_06_head_turn.gif': 23,
  'drive_07_man_expressive_11.988fps.mp4': 60,
  'drive_08_wda_ocasio_cortez_mpeg4.mp4': 150,
  'drive_09_woman_frown.mov': 120,
  'drive_10_woman_indoor.webm': 100,
}
# frames, height, width
HOSTILE = {
  'single_frame.mp4': (1, 256, 256),
  'no_face_testpattern.mp4': (50, 256, 256),
  'black_start.mp4': (40, 256, 256),
  'face_lost_midway.mp4': (50, 256, 256),
  'two_faces.mp4': (58, 270, 480),
  'vfr.mp4': (60, 256, 256),
  'rotated_display_matrix.mp4': (60, 256, 192),
  'non_square_pixels.mp4': (60, 256, 256),
  'odd_size_yuv444.mp4': (60, 253, 251),
  'hevc_10bit.mp4': (60, 256, 256),
  'late_video_start.mp4': (60, 256, 256),
  'webm_named.mp4': (60, 256, 256),
}
# frames that can be read first, part of the message
BROKEN = {
  'truncated_no_moov.mp4': (0, 'cannot be opened'),
  'truncated_mid.mp4': (30, 'breaks off after 30 frames'),
  'zero_byte.mp4': (0, 'is empty'),
  'text_file.mp4': (0, 'cannot be opened'),
  'garbage_after_ftyp.mp4': (0, 'cannot be opened'),
  'audio_only.mp4': (0, 'no video track'),
}
GREY = np.full((16, 32, 3), 128, np.uint8)


def picture(h=32, w=48):
  """A smooth picture that differs from its mirror images: red grows rightwards, green downwards."""
  y, x = np.mgrid[:h, :w]
  return np.stack((40 + 160 * x / w, 40 + 160 * y / h, 0 * x + 90), -1).astype(np.uint8)


def write(path, times, rgb=None, **options):
  rgb = picture() if rgb is None else rgb
  with VideoWriter(path, *rgb.shape[:2], **options) as writer:
    for time in times:
      writer.write(rgb, time)
  return writer


def times_of(path):
  return [frame.time for frame in read_frames(path)]


def read_all(path):
  """The frames read and the message of the error after them, if any; no other exception passes."""
  frames = []
  try:
    frames.extend(read_frames(path))
  except MediaError as error:
    assert '\n' not in str(error)
    return frames, str(error)
  return frames, ''


def encode(path, frame, codec='ffv1', count=1, tag=None, track=None):
  """Encodes a frame of FFmpeg's as it is, `tag` and `track` setting the codec and the stream."""
  with av.open(str(path), 'w') as container:
    stream = container.add_stream(codec, rate=25)
    stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
    for name, value in (tag or {}).items():
      setattr(stream.codec_context, name, value)
    if track:
      track(stream)
    for number in range(count):
      frame.pts, frame.time_base = number, Fraction(1, 25)
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def encode_tone(path, seconds):
  """A file without pictures: a tone as AAC."""
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('aac', rate=44100, layout='mono')
    for start in range(0, int(44100 * seconds), 1024):
      wave = np.sin(np.arange(start, start + 1024) / 20)[None].astype(np.float32)
      frame = av.AudioFrame.from_ndarray(wave, 'fltp', 'mono')
      frame.sample_rate, frame.pts, frame.time_base = 44100, start, Fraction(1, 44100)
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def audio_packets(path):
  with av.open(str(path)) as container:
    packets = [p for p in container.demux(audio=0) if p.dts is not None]
    return [(p.pts * p.time_base, bytes(p)) for p in packets]


def audio_samples(path):
  with av.open(str(path)) as container:
    return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


@pytest.mark.parametrize('time_base', ['1/90000', '1/15360', '1001/30000', '1/1000000', '1/24'])
@pytest.mark.parametrize('suffix', ['mp4', 'mov'])
def test_times_are_kept_exactly(tmp_path, time_base, suffix):
  time_base = Fraction(time_base)
  ticks = np.cumsum(np.random.default_rng(0).integers(1, 60, 20))  # variable, and not from 0
  times = [int(tick) * time_base for tick in ticks]
  write(tmp_path / f'a.{suffix}', times, time_base=time_base)
  assert times_of(tmp_path / f'a.{suffix}') == times


def test_writer_makes_limited_bt709_and_keeps_duration(tmp_path):
  rate = Fraction(12000, 1001)
  red = GREY * 0 + np.array([255, 0, 0], np.uint8)
  write(tmp_path / 'a.mp4', [i / rate for i in range(7)], red, time_base=Fraction(1, 12000), crf=0)
  info = probe(tmp_path / 'a.mp4')
  assert (info.height, info.width, info.frames) == (16, 32, 7)
  assert (info.duration, info.rate, info.audio) == (7 / rate, rate, None)
  with av.open(str(tmp_path / 'a.mp4')) as container:
    frame = next(container.decode(video=0))
  assert (frame.format.name, frame.colorspace, frame.color_range) == ('yuv420p', 1, 1)
  y, u, v = (np.frombuffer(plane, np.uint8)[8] for plane in frame.planes)
  np.testing.assert_allclose((y, u, v), (63, 102, 240), atol=1)  # BT.601 would be 81, 90, 240
  colours = next(read_frames(tmp_path / 'a.mp4')).rgb
  np.testing.assert_allclose(colours.astype(int), red, atol=2)


def test_pictures_survive(tmp_path):
  write(tmp_path / 'a.mp4', [Fraction(i, 25) for i in range(3)])
  for frame in read_frames(tmp_path / 'a.mp4'):
    assert frame.rgb.dtype == np.uint8 and frame.rgb.flags.c_contiguous
    np.testing.assert_allclose(frame.rgb.astype(int), picture(), atol=8)


@pytest.mark.parametrize(
  'pixels, colorspace, color_range, weights',
  [
    ('yuv420p', 1, 1, (0.2126, 0.0722)),
    ('yuv420p', 5, 1, (0.299, 0.114)),
    ('yuv444p', 6, 2, (0.299, 0.114)),
    ('yuv420p', 2, 1, (0.299, 0.114)),  # untagged and small
    ('yuv420p10le', 1, 1, (0.2126, 0.0722)),
    ('yuv420p10le', 9, 2, (0.2627, 0.0593)),
  ],
)
def test_matrix_range_and_depth_are_obeyed(tmp_path, pixels, colorspace, color_range, weights):
  y, u, v = 120, 100, 160
  depth = 10 if '10' in pixels else 8
  frame = av.VideoFrame(64, 64, pixels)
  for plane, value in zip(frame.planes, (y, u, v), strict=True):
    value <<= depth - 8
    dtype = np.uint16 if depth == 10 else np.uint8
    plane.update(np.full(plane.buffer_size // dtype().nbytes, value, dtype).tobytes())
  frame.colorspace, frame.color_range = colorspace, color_range
  tags = {'colorspace': colorspace, 'color_range': color_range}
  encode(tmp_path / 'a.mkv', frame, tag=tags)

  red, blue = weights
  luma, chroma = ((y - 16) / 219, 224) if color_range == 1 else (y / 255, 255)
  r = luma + 2 * (1 - red) * (v - 128) / chroma
  b = luma + 2 * (1 - blue) * (u - 128) / chroma
  g = (luma - red * r - blue * b) / (1 - red - blue)
  rgb = next(read_frames(tmp_path / 'a.mkv')).rgb
  np.testing.assert_allclose(rgb.reshape(-1, 3).mean(0), 255 * np.array([r, g, b]), atol=1.5)


def test_jpeg_range(tmp_path):
  frame = av.VideoFrame.from_ndarray(GREY * 0 + 40, 'rgb24').reformat(
    format='yuvj420p', dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.JPEG
  )
  encode(tmp_path / 'a.avi', frame, codec='mjpeg', tag={'color_range': 2})
  rgb = next(read_frames(tmp_path / 'a.avi')).rgb
  assert abs(rgb.mean() - 40) < 2  # 28 if taken for limited range


@pytest.mark.skipif(
  not hasattr(av.VideoStream, 'set_display_rotation'), reason='this PyAV writes no display matrix'
)
@pytest.mark.parametrize('hflip', [False, True])
@pytest.mark.parametrize('degrees', [0, 90, 180, 270])
def test_display_matrix_is_obeyed(tmp_path, degrees, hflip):
  stored = av.VideoFrame.from_ndarray(picture(), 'rgb24').reformat(format='yuv444p')
  encode(
    tmp_path / 'a.mp4', stored, 'libx264', track=lambda s: s.set_display_rotation(degrees, hflip)
  )
  upright = np.rot90(picture(), degrees // 90)
  upright = upright[:, ::-1] if hflip else upright
  info, rgb = probe(tmp_path / 'a.mp4'), next(read_frames(tmp_path / 'a.mp4')).rgb
  assert rgb.shape == upright.shape == (info.height, info.width, 3)
  np.testing.assert_allclose(rgb.astype(int), upright, atol=12)


def test_square_pixels_and_odd_sizes(tmp_path):
  stored = av.VideoFrame.from_ndarray(picture(33, 25), 'rgb24').reformat(format='yuv444p')
  encode(tmp_path / 'a.mp4', stored, 'libx264', tag={'sample_aspect_ratio': Fraction(2)})
  rgb = next(read_frames(tmp_path / 'a.mp4')).rgb
  assert rgb.shape == (33, 50, 3)
  np.testing.assert_allclose(rgb[:, ::2].astype(int), picture(33, 25), atol=12)


def test_gif_transparency_lies_over_white(tmp_path):
  frames = [Image.new('RGBA', (16, 16), (200, 0, 0, alpha)) for alpha in (0, 255)]
  frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:], duration=[80, 90])
  first, second = read_frames(tmp_path / 'a.gif')
  assert (first.time, second.time) == (0, Fraction(8, 100))
  assert (first.rgb == 255).all() and (second.rgb == (200, 0, 0)).all()


def test_missing_time_stamps_follow_the_average_rate(tmp_path):
  frame = av.VideoFrame.from_ndarray(picture(), 'rgb24').reformat(format='yuv420p')
  encode(tmp_path / 'a.h264', frame, 'libx264', count=6)
  times = times_of(tmp_path / 'a.h264')
  assert len(times) == 6 and np.all(np.diff(times) > 0)


@pytest.mark.parametrize('suffix', ['mp4', 'mkv'])
@pytest.mark.parametrize('kept', [0.3, 0.6, 0.95])
def test_a_cut_file_gives_its_frames_and_says_so(tmp_path, suffix, kept):
  noise = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), np.uint8)
  with av.open(str(tmp_path / f'a.{suffix}'), 'w', options={'movflags': 'faststart'}) as container:
    stream = container.add_stream('libx264', rate=25)
    stream.width = stream.height = 64
    for rgb in noise:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, 'rgb24')))
    container.mux(stream.encode(None))
  assert len(read_all(tmp_path / f'a.{suffix}')[0]) == 20
  whole = (tmp_path / f'a.{suffix}').read_bytes()
  (tmp_path / f'cut.{suffix}').write_bytes(whole[: int(len(whole) * kept)])
  frames, message = read_all(tmp_path / f'cut.{suffix}')
  assert 0 < len(frames) < 20
  assert f'breaks off after {len(frames)} frames' in message


def test_damaged_bytes_raise_nothing_else(tmp_path):
  write(tmp_path / 'a.mp4', [Fraction(i, 25) for i in range(5)])
  whole = np.frombuffer((tmp_path / 'a.mp4').read_bytes(), np.uint8)
  rng = np.random.default_rng(0)
  for _ in range(60):
    damaged = whole.copy()
    damaged[rng.integers(0, len(whole), 8)] = rng.integers(0, 256, 8)
    (tmp_path / 'b.mp4').write_bytes(damaged.tobytes())
    read_all(tmp_path / 'b.mp4')


@pytest.mark.parametrize(
  'name, content, message',
  [
    ('missing.mp4', None, 'No such file'),
    ('empty.mp4', b'', 'is empty'),
    ('text.mp4', b'no clip\n' * 99, 'cannot be opened'),
    ('text.txt', b'FFmpeg would draw this\n' * 99, 'is text'),
    ('list.m3u8', b'#EXTM3U\n#EXTINF:9,\nhttp://localhost/a.ts\n', 'cannot be opened'),
  ],
)
def test_files_that_are_no_clips(tmp_path, name, content, message):
  if content is not None:
    (tmp_path / name).write_bytes(content)
  for reader in (probe, lambda path: list(read_frames(path))):
    with pytest.raises(MediaError, match=message) as raised:
      reader(tmp_path / name)
    assert name in str(raised.value) and '\n' not in str(raised.value)


def test_odd_names(tmp_path):
  path = tmp_path / 'a:b %03d é.mp4'
  write(path, [Fraction(0), Fraction(1, 25)])
  assert len(times_of(path)) == 2


def test_nothing_is_left_of_a_failed_clip(tmp_path):
  path = tmp_path / 'a.mp4'
  path.write_bytes(b'the clip before')
  with pytest.raises(KeyError), VideoWriter(path, 16, 32) as writer:
    writer.write(GREY, Fraction(0))
    assert len(list(tmp_path.iterdir())) == 2  # the temporary file is beside it
    raise KeyError
  with pytest.raises(MediaError, match='no frame'), VideoWriter(path, 16, 32):
    pass
  assert [p.name for p in tmp_path.iterdir()] == ['a.mp4']
  assert path.read_bytes() == b'the clip before'
  write(path, [Fraction(0)])
  assert [p.name for p in tmp_path.iterdir()] == ['a.mp4'] and len(times_of(path)) == 1


@pytest.mark.parametrize(
  'name, options, times, message',
  [
    ('a.mp4', {'codec': 'no_such'}, [0], 'cannot be written'),
    ('a.xyz', {}, [0], 'cannot be written'),
    ('a.webm', {}, [0], 'cannot be written'),  # no H.264 in WebM: an error of the header
    ('missing/a.mp4', {}, [0], 'does not exist'),
    ('.', {}, [0], 'is a folder'),
    ('a.mp4', {}, [1, 1], 'not after'),
    ('a.mp4', {}, [-1], 'not after'),
    ('a.mp4', {'audio_from': 'missing.mp4'}, [0], 'missing.mp4'),
  ],
)
def test_what_cannot_be_written(tmp_path, name, options, times, message):
  with pytest.raises(MediaError, match=message):
    write(tmp_path / name, [Fraction(t) for t in times], **options)
  assert not list(tmp_path.iterdir())


def test_frames_of_another_kind_are_refused(tmp_path):
  for height, width in ((15, 32), (16, 33), (0, 0)):
    with pytest.raises(MediaError, match='even'):
      VideoWriter(tmp_path / 'a.mp4', height, width)
  for rgb in (GREY[:8], GREY.astype(np.float32), GREY[..., 0]):
    with pytest.raises(MediaError, match='frames are uint8'):
      with VideoWriter(tmp_path / 'a.mp4', 16, 32) as writer:
        writer.write(rgb, Fraction(0))


def test_audio_is_copied_on_its_own_clock(tmp_path):
  encode_tone(tmp_path / 'tone.m4a', 1)
  times = [Fraction(1, 2) + Fraction(i, 25) for i in range(10)]  # sound half a second ahead
  write(tmp_path / 'a.mp4', times)
  writer = write(tmp_path / 'b.mp4', times, audio_from=tmp_path / 'tone.m4a')
  assert writer.audio_note == '' and probe(tmp_path / 'b.mp4').audio == 'aac'
  assert audio_packets(tmp_path / 'b.mp4') == audio_packets(tmp_path / 'tone.m4a')
  assert times_of(tmp_path / 'b.mp4') == times
  silent = write(tmp_path / 'c.mp4', times, audio_from=tmp_path / 'a.mp4')
  assert 'no audio track' in silent.audio_note and probe(tmp_path / 'c.mp4').audio is None


def test_audio_is_transcoded_where_the_container_demands_it(tmp_path):
  encode_tone(tmp_path / 'tone.m4a', 1)
  times = [Fraction(i, 25) for i in range(25)]
  options = {'audio_from': tmp_path / 'tone.m4a', 'codec': 'libvpx-vp9', 'crf': 40}
  writer = write(tmp_path / 'a.webm', times, **options)
  assert 'from aac to opus' in writer.audio_note and probe(tmp_path / 'a.webm').audio == 'opus'
  assert len(times_of(tmp_path / 'a.webm')) == 25
  samples = audio_samples(tmp_path / 'a.webm')
  assert len(samples) == pytest.approx(48000, abs=2000)  # an AAC frame more, Opus's lead less
  crossings = np.flatnonzero(np.diff(np.sign(samples[4800:43200])) > 0)
  assert np.diff(crossings).mean() == pytest.approx(48000 / 44100 * 40 * np.pi, rel=2e-3)


def test_ffv1_keeps_every_value_at_every_size(tmp_path):
  noise = np.random.default_rng(0).integers(0, 256, (3, 31, 33, 3), np.uint8)
  with VideoWriter(tmp_path / 'a.mkv', 31, 33, codec='ffv1') as writer:
    for number, rgb in enumerate(noise):
      writer.write(rgb, Fraction(number, 25))
  np.testing.assert_array_equal([frame.rgb for frame in read_frames(tmp_path / 'a.mkv')], noise)


@pytest.mark.parametrize('name', DRIVING)
def test_driving_clips(shared, name):
  path = shared(f'faces/driving/{name}')
  info, count, last = probe(path), 0, Fraction(-1)
  for frame in read_frames(path):
    assert frame.rgb.shape == (info.height, info.width, 3) and frame.time > last
    count, last = count + 1, frame.time
  assert count == DRIVING[name] and info.frames in (None, count)


@pytest.mark.parametrize('name', ['drive_01_conan_obrien.mp4', 'drive_02_vfr_man_suit.mp4'])
def test_times_of_real_clips_are_kept(shared, tmp_path, name):
  path = shared(f'faces/driving/{name}')
  with av.open(str(path)) as container:
    packets = [p for p in container.demux(video=0) if p.pts is not None]
    times = sorted(p.pts * p.time_base for p in packets)
  write(tmp_path / 'a.mp4', times, GREY, time_base=probe(path).time_base, audio_from=path)
  assert times_of(tmp_path / 'a.mp4') == times
  assert audio_packets(tmp_path / 'a.mp4') == audio_packets(path)


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_clips_that_play(shared, name):
  frames, message = read_all(shared(f'faces/hostile/{name}'))
  info = probe(shared(f'faces/hostile/{name}'))
  assert (len(frames), *frames[0].rgb.shape[:2], message) == (*HOSTILE[name], '')
  assert (info.height, info.width) == HOSTILE[name][1:]
  if name == 'late_video_start.mp4':
    assert frames[0].time == Fraction(1, 2)


@pytest.mark.parametrize('name', BROKEN)
def test_hostile_clips_that_do_not(shared, name):
  frames, message = read_all(shared(f'faces/hostile/{name}'))
  assert len(frames) == BROKEN[name][0] and BROKEN[name][1] in message
