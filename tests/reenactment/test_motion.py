"""Motion: files, relative, smoothed, at another frame rate, and frames without a face."""

import dataclasses
from fractions import Fraction

import jax
import numpy as np
import pytest
from reenacting import frames_of, pixels, run

from hybrid_jax import environment, extract_motion
from hybrid_jax.errors import InputError
from hybrid_jax.media import align, stills, video
from hybrid_jax.reenactment import motion as motion_stage
from hybrid_jax.reenactment import motion_file


def test_a_motion_file_drives_as_the_clip_does(model, inputs, tmp_path):
  path = tmp_path / 'motion.safetensors'
  arguments = ['--driving', inputs[1], '--output', str(path), '--batch-size', '4']
  count = extract_motion.extract_motion(model, extract_motion.parse_args(arguments))
  motion = motion_file.read(path)
  assert count == len(motion) == len(inputs[2])
  assert [motion.time(k) for k in range(count)] == inputs[2]
  assert motion.driving == environment.sha256(inputs[1]) and motion.model == model.digest()
  run(model, inputs, tmp_path / 'a.mkv', codec='ffv1')
  run(model, inputs, tmp_path / 'b.mkv', codec='ffv1', driving=str(path))
  np.testing.assert_array_equal(pixels(tmp_path / 'a.mkv'), pixels(tmp_path / 'b.mkv'))

  with pytest.raises(InputError, match='shows the driving clip, and a motion file has no pictures'):
    run(model, inputs, tmp_path / 'c.mkv', driving=str(path), layout='grid')
  other = dataclasses.replace(model, E=jax.tree.map(lambda x: x + 1, model.E))
  with pytest.raises(InputError, match='another model'):
    run(other, inputs, tmp_path / 'c.mkv', driving=str(path))
  path.write_bytes(path.read_bytes()[:-9])
  with pytest.raises(InputError, match='damaged'):
    run(model, inputs, tmp_path / 'c.mkv', driving=str(path))


def test_relative_motion_begins_at_the_sources_own(model, inputs, tmp_path):
  source, driving, _ = inputs
  options = {'codec': 'ffv1', 'motion': 'relative'}
  run(model, inputs, tmp_path / 'a.mkv', reference=7, **options)
  run(model, inputs, tmp_path / 'still.mkv', gain=0.0, **options)
  head = stills.read_image(source)
  W_S, own = model.identity(head), next(model.deformations([head], 4))
  F = list(model.deformations((frame.rgb for frame in video.read_frames(driving)), 4))
  expected = list(model.images(W_S, [own + (row - F[7]) for row in F], 4))
  np.testing.assert_array_equal(pixels(tmp_path / 'a.mkv'), expected)
  alone = next(model.images(W_S, [own], 4))
  assert (pixels(tmp_path / 'still.mkv') == alone).all()
  with pytest.raises(InputError, match='frames 0 to 22'):
    run(model, inputs, tmp_path / 'c.mkv', motion='relative', reference=23)


def test_relative_motion_begins_at_the_most_neutral_frame(model, inputs, tmp_path, capsys):
  heads = (frame.rgb for frame in video.read_frames(inputs[1]))
  calmest = int(np.argmin(np.linalg.norm(list(model.deformations(heads, 4)), axis=1)))
  options = {'codec': 'ffv1', 'motion': 'relative', 'gain': 1.5}
  run(model, inputs, tmp_path / 'a.mkv', **options)
  assert f'relative to frame {calmest} at' in capsys.readouterr().out
  run(model, inputs, tmp_path / 'b.mkv', reference=calmest, **options)
  np.testing.assert_array_equal(pixels(tmp_path / 'a.mkv'), pixels(tmp_path / 'b.mkv'))


def test_smoothed_motion_and_its_jitter(model, inputs, tmp_path, capsys):
  source, driving, times = inputs
  run(model, inputs, tmp_path / 'a.mkv', codec='ffv1', smooth_motion=0.2)
  F = np.stack(list(model.deformations((f.rgb for f in video.read_frames(driving)), 4)))
  rows = list(align.smoothed(F, np.array([float(t) for t in times]), 0.2))
  W_S = model.identity(stills.read_image(source))
  made = np.stack(list(model.images(W_S, [row.astype(np.float32) for row in rows], 4)))
  assert np.abs(pixels(tmp_path / 'a.mkv').astype(int) - made).max() <= 1
  jitter = lambda x: (np.square(np.diff(x, 2, 0)).sum() / np.square(np.diff(x, 1, 0)).sum()) ** 0.5  # noqa: E731
  line = f'jitter of the motion: {jitter(np.stack(rows)):.2f}, {jitter(F):.2f} before smoothing'
  assert line in capsys.readouterr().out
  assert jitter(np.stack(rows)) < 0.8 * jitter(F)


def test_jitter_of_known_motion():
  noise = np.random.default_rng(0).standard_normal((4000, 3))
  for rows, expected in (
    (np.arange(12.0)[:, None], 0),
    (noise.cumsum(0), 2**0.5),
    (noise, 3**0.5),
    (np.ones((5, 2)), 0),
  ):
    measured = motion_stage.Jitter()
    assert len(list(measured(rows))) == len(rows)
    assert measured.value == pytest.approx(expected, abs=0.03)


def missing_clip(tmp_path, inputs):
  """Options with landmarks of the driver's blob, missing in frames 0, 5, 6 and 7."""
  points = np.array([(10, 12), (22, 12), (16, 16), (11, 22), (21, 22)], float)
  points = np.stack([points + 0.2 * k for k in range(len(inputs[2]))])
  points[[0, 5, 6, 7]] = np.nan
  np.savez(tmp_path / 'points.npz', landmarks=points)
  return {'driving_landmarks': str(tmp_path / 'points.npz'), 'codec': 'ffv1', 'crop': 'ffhq'}


def test_frames_without_a_face(model, inputs, tmp_path, capsys):
  options = missing_clip(tmp_path, inputs)
  made = {}
  for rule in ('hold', 'interpolate', 'skip'):
    run(model, inputs, tmp_path / 'a.mp4', on_missing=rule, **options)
    made[rule] = frames_of(tmp_path / 'a.mp4')
    assert f'no face in 4 of 23 frames (0, 5-7): {rule}' in capsys.readouterr().out
  times = [frame.time for frame in made['hold']]
  assert times == [frame.time for frame in made['interpolate']] == inputs[2]
  kept = [k for k in range(23) if k not in (0, 5, 6, 7)]
  assert [frame.time for frame in made['skip']] == [inputs[2][k] for k in kept]
  held, between = (np.stack([f.rgb for f in made[rule]]) for rule in ('hold', 'interpolate'))
  np.testing.assert_array_equal(held[kept], np.stack([f.rgb for f in made['skip']]))
  np.testing.assert_array_equal(held[kept], between[kept])
  for frames in (held, between):
    np.testing.assert_array_equal(frames[0], frames[1])
  assert (held[5:8] == held[4]).all() and (between[6] != held[4]).any()
  with pytest.raises(InputError, match='no face in frame 0 .0.00 s. and 3 more'):
    run(model, inputs, tmp_path / 'b.mp4', on_missing='fail', **options)
  assert not (tmp_path / 'b.mp4').exists()


def test_a_new_rate_shows_what_the_driver_shows_then(model, inputs, tmp_path):
  rate = Fraction(30000, 1001)
  run(model, inputs, tmp_path / 'a.mkv', codec='ffv1')
  run(model, inputs, tmp_path / 'b.mp4', codec='ffv1', fps=rate)
  whole, made = frames_of(tmp_path / 'a.mkv'), frames_of(tmp_path / 'b.mp4')
  times = inputs[2]
  assert [frame.time for frame in made] == [k / rate for k in range(len(made))]
  end = 2 * times[-1] - times[-2]
  assert made[-1].time < end <= made[-1].time + 1 / rate
  for frame in made:
    shown = max(k for k, time in enumerate(times) if time <= frame.time)
    np.testing.assert_array_equal(frame.rgb, whole[shown].rgb)


@pytest.mark.parametrize('rate', ['25', '30000/1001', '7/3', '240'])
@pytest.mark.parametrize('first', [0, 11])
def test_what_is_shown_at_a_new_rate(rate, first):
  rng, rate = np.random.default_rng(0), Fraction(rate)
  ticks = first + np.concatenate(([0], rng.integers(1, 90, 40).cumsum()))
  motion = motion_file.Motion(None, ticks, Fraction(1001, 90000), (), (0,), '', '')
  plan = motion_stage.plan(motion, rate)
  times = [motion.time(k) for k in range(len(motion))]
  made, k = [], 0
  while (time := times[0] + k / rate) < 2 * times[-1] - times[-2]:
    made.append((max(j for j, t in enumerate(times) if t <= time), time))
    k += 1
  assert [(int(plan.rows[k]), plan.time(k)) for k in range(len(plan))] == made
  alone = motion_file.Motion(None, ticks[:1], Fraction(1, 600), (), (0,), '', '')
  assert len(motion_stage.plan(alone, rate)) == len(motion_stage.plan(alone, None)) == 1
