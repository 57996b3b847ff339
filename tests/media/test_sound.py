"""Sound that is copied, transcoded or left out, for the layouts, formats and rates people have."""

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest

from hybrid_jax.media import MediaError, segments, sound
from hybrid_jax.media.segments import VideoTarget
from hybrid_jax.media.video import probe

DEFAULT = av.stream.Disposition.default
# container, encoder, rate, layout
SOURCES = [
  ('avi', 'adpcm_ms', 22050, 'stereo'),
  ('avi', 'pcm_u8', 11025, 'mono'),  # states the number of channels alone
  ('mov', 'pcm_s24le', 96000, 'stereo'),
  ('mkv', 'pcm_f32le', 8000, 'quad'),
  ('mkv', 'flac', 48000, '5.1(side)'),
  ('ts', 'ac3', 48000, '5.1(side)'),
  ('wmv', 'wmav2', 44100, 'stereo'),
]


def tone(layout, rate, seconds=0.5, volume=0.3):
  channels = av.AudioLayout(layout).nb_channels
  wave = volume * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)
  packed = np.repeat(wave.astype(np.float32)[:, None], channels, 1).reshape(1, -1)
  frame = av.AudioFrame.from_ndarray(packed, 'flt', layout)
  frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
  return frame


def write_tracks(path, *tracks):
  """A file of tones; a track is (codec, rate, layout, volume, disposition)."""
  with av.open(str(path), 'w') as file:
    streams = []
    for codec, rate, layout, _, disposition in tracks:
      streams.append(file.add_stream(codec, rate=rate, layout=layout))
      streams[-1].disposition, streams[-1].bit_rate = disposition, 128_000  # WMA has no default
    for stream, (_, rate, layout, volume, _) in zip(streams, tracks, strict=True):
      context = stream.codec_context
      resampler = av.AudioResampler(
        context.format, context.layout, context.rate, context.frame_size or 1024
      )
      tones = resampler.resample(tone(layout, rate, volume=volume)) + resampler.resample(None)
      for part in itertools.chain(tones, (None,)):
        file.mux(stream.encode(part))
  return path


def join(path, driving):
  """Writes half a second of black with the sound of a clip; returns the note."""
  codec = 'libvpx-vp9' if path.suffix == '.webm' else 'libx264'
  target = VideoTarget(path, Fraction(1, 90000), codec=codec, audio_from=driving)
  parts = path.with_suffix('.parts')
  parts.mkdir()
  with target.segment(parts, 0, (16, 32)) as write:
    for number in range(5):
      write(np.zeros((16, 32, 3), np.uint8), Fraction(number, 10))
  note = target.finish(parts, 1)
  assert probe(path).frames in (5, None)  # the pictures are complete whatever the sound
  return note


def heard(path):
  """(seconds, standard deviation of the samples in units of full scale)"""
  with av.open(str(path)) as file:
    track = file.streams.audio[0]
    resampler = av.AudioResampler('flt', 'mono', 48000)
    kind = track.codec_context.layout.name
    frames = list(file.decode(track))
    # As a player would: without places the channels cannot be mixed.
    parts = [] if 'channels' in kind else itertools.chain.from_iterable(
      map(resampler.resample, frames)
    )  # fmt: skip
    samples = np.concatenate([part.to_ndarray()[0] for part in parts] or [[0, 1]])
    seconds = sum(frame.samples for frame in frames) / frames[0].sample_rate
  return seconds, samples.std()


@pytest.mark.parametrize('suffix', ['.mp4', '.mov', '.mkv', '.webm'])
@pytest.mark.parametrize('container, codec, rate, layout', SOURCES)
def test_sound_is_heard_in_every_container(tmp_path, container, codec, rate, layout, suffix):
  source = write_tracks(tmp_path / f'a.{container}', (codec, rate, layout, 0.3, DEFAULT))
  expected = sound.outlook(source, f'b{suffix}')
  assert join(tmp_path / f'b{suffix}', source) == expected
  assert 'left out' not in expected and ('opus' in expected) == (suffix == '.webm')
  seconds, deviation = heard(tmp_path / f'b{suffix}')
  # An encoder's lead and last frame; three of six channels reach a mono mix at full strength.
  assert 0.4 < seconds < 0.65 and deviation > 0.1


def test_the_default_track_is_taken(tmp_path):
  silent, loud = ('aac', 48000, 'stereo', 0, 0), ('aac', 48000, 'mono', 0.3, 0)
  default = (*loud[:4], DEFAULT)
  for k, (tracks, number) in enumerate(
    [((silent, default), 2), ((default, silent), 1), ((loud, silent), 1)]
  ):
    source = write_tracks(tmp_path / 'a.mkv', *tracks)
    assert f'track {number} of 2' in join(tmp_path / f'b{k}.mp4', source)
    assert heard(tmp_path / f'b{k}.mp4')[1] > 0.1


def test_pictures_are_kept_if_the_sound_fails_all_the_same(tmp_path, monkeypatch):
  source = write_tracks(tmp_path / 'a.avi', ('adpcm_ms', 22050, 'stereo', 0.3, DEFAULT))
  monkeypatch.setattr(sound, '_plan', lambda name, suffix: (True, ''))  # MP4 refuses its header
  note = join(tmp_path / 'b.mp4', source)
  assert 'left out its audio' in note and '\n' not in note
  assert probe(tmp_path / 'b.mp4').audio is None
  # What is no fault of the sound is reported as such.
  monkeypatch.setattr(segments, 'open_target', lambda *_: av.open(str(tmp_path / 'no' / 'b'), 'w'))
  with pytest.raises(MediaError, match='c.mp4: cannot be written'):
    join(tmp_path / 'c.mp4', source)


def test_sound_that_cannot_be_decoded_is_left_out(tmp_path, monkeypatch):
  source = write_tracks(tmp_path / 'a.avi', ('adpcm_ms', 22050, 'stereo', 0.3, DEFAULT))
  monkeypatch.setattr(sound, '_obstacle', lambda *_, **__: 'no such codec')
  assert 'cannot be transcoded (no such codec)' in join(tmp_path / 'b.mp4', source)
  assert probe(tmp_path / 'b.mp4').audio is None


@pytest.mark.parametrize('name', ['a_stereo.wmv', 'a_spx.flv', 'twoaudio.mp4'])
@pytest.mark.parametrize('suffix', ['.mp4', '.webm'])
def test_files_that_ended_a_finished_render(shared, tmp_path, name, suffix):
  note = join(tmp_path / f'a{suffix}', shared(f'failing/{name}'))
  assert ('track 2 of 2' if name == 'twoaudio.mp4' else 'transcoded from') in note
  seconds, deviation = heard(tmp_path / f'a{suffix}')
  assert seconds == pytest.approx(2, abs=0.1) and deviation > 0.05
