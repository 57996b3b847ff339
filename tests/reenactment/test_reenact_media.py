"""The re-enactment command on clips with other clocks, sound tracks and kinds."""

from fractions import Fraction

import numpy as np
import pytest
from reenacting import frames_of, packets, run
from small import SIZE

from hybrid_jax.errors import InputError
from hybrid_jax.media import video
from hybrid_jax.media.segments import VideoTarget
from hybrid_jax.reenactment.api import reenact
from hybrid_jax.world.films import write_sound


def write_at(path, start, sound=None, count=5):
  """A clip whose clock starts at `start`, in the container of the path's suffix."""
  with video.VideoWriter(
    path, SIZE, SIZE, time_base=Fraction(1, 90000), audio_from=sound
  ) as writer:
    for k in range(count):
      writer.write(np.full((SIZE, SIZE, 3), 40 * k, np.uint8), start + Fraction(k, 25))
  return str(path)


def test_a_broadcast_clock_becomes_0(model, inputs, tmp_path):
  far = write_at(tmp_path / 'far.ts', Fraction(36000))
  run(model, inputs, tmp_path / 'a.mp4', driving=far)
  times = [Fraction(k, 25) for k in range(5)]
  assert [time for time, _ in packets(tmp_path / 'a.mp4', 'video')] == times
  run(model, inputs, tmp_path / 'b.mp4', driving=far, fps=Fraction(50))
  assert [frame.time for frame in frames_of(tmp_path / 'b.mp4')][:2] == [0, Fraction(1, 50)]
  # In Python, and from a name that says nothing, or something else.
  renamed = tmp_path / 'far.png'
  renamed.write_bytes((tmp_path / 'far.ts').read_bytes())
  result = reenact(model, str(renamed), far, quality=False, batch_size=4)
  np.testing.assert_allclose(result.times, np.arange(5) / 25)


def test_what_is_rendered_is_used_again_without_sound(model, inputs, tmp_path, monkeypatch, capsys):
  write_sound(tmp_path / 'hum.m4a', np.arange(16_000, dtype=np.int16))
  driving = write_at(tmp_path / 'spoken.mp4', Fraction(0), tmp_path / 'hum.m4a')

  def fails(self, folder, count):
    raise InputError('the disk is full')

  with monkeypatch.context() as patch, pytest.raises(InputError):
    patch.setattr(VideoTarget, 'finish', fails)
    run(model, inputs, tmp_path / 'a.mp4', driving=driving)
  run(model, inputs, tmp_path / 'a.mp4', driving=driving, audio=False)
  assert '5 of them were rendered by an earlier run' in capsys.readouterr().out
  assert video.probe(tmp_path / 'a.mp4').audio is None


@pytest.mark.parametrize('name, note', [
  ('ts_far.ts', ''),
  ('a_stereo.wmv', 'sound transcoded from wmav2 to aac'),
  ('twoaudio.mp4', 'track 2 of 2 audio tracks'),
])  # fmt: skip
def test_real_faults_end_to_end(model, inputs, shared, tmp_path, capsys, name, note):
  driving = shared(f'failing/{name}')
  given = frames_of(driving)
  assert run(model, inputs, tmp_path / 'a.mp4', driving=str(driving)) == 50
  # Said before the work, and again in the report.
  assert capsys.readouterr().out.count(note) == 2 or not note
  start = given[0].time if name == 'ts_far.ts' else 0
  written, sound = (packets(tmp_path / 'a.mp4', kind) for kind in ('video', 'audio'))
  assert [time for time, _ in written] == [frame.time - start for frame in given]
  assert 1.9 < sound[-1][0] < 2.1 and abs(sound[0][0]) < 0.1
