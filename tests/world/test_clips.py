"""Rendered clips as data: in memory, through the triplets, and as files of the command."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from hybrid_jax.media import stills, video
from hybrid_jax.training import triplets
from hybrid_jax.world import clips, people
from hybrid_jax.world.films import voice
from hybrid_jax.world.parameters import MOTION


def heads(*args):
  return subprocess.run(
    [sys.executable, '-m', 'hybrid_jax.world', *map(str, args)], capture_output=True, text=True
  )


@pytest.fixture(scope='module')
def rendered():
  return list(clips.iterate('train', persons=2, clips=2, frames=4, size=64))


def test_clips_carry_their_truth(rendered):
  first, second, third, _ = rendered
  assert first.identity == second.identity != third.identity
  assert first.frames.shape == (4, 64, 64, 3) and first.frames.dtype == np.uint8
  assert first.masks.shape == (4, 64, 64, 4) and first.points.shape == (4, 68, 2)
  np.testing.assert_array_equal(first.identity_vector, second.identity_vector)
  assert np.abs(first.scene - second.scene).max() > 0.05
  again = clips.Renderer(64).clip(0, 0, first.times[[2, 2, 0, 3]])
  np.testing.assert_allclose(again.motion, first.motion[[2, 2, 0, 3]], atol=1e-5)
  assert np.abs(again.frames.astype(int) - first.frames[[2, 2, 0, 3]]).max() <= 3


def test_triplets_of_rendered_clips(rendered):
  batch = next(iter(triplets.triplets(triplets.MemoryClips(rendered), batch_size=8, seed=0)))
  assert {name: x.shape for name, x in batch.items()} == {
    name: (8, 64, 64, 3) for name in ('source', 'driving', 'other')
  }
  of = {f.tobytes(): c.identity for c in rendered for f in c.frames}
  for source, driving, other in zip(batch['source'], batch['driving'], batch['other'], strict=True):
    assert of[source.tobytes()] == of[driving.tobytes()] != of[other.tobytes()]
    assert (source != driving).any()


def test_the_command_writes_portraits_clips_and_true_answers(tmp_path):
  out = tmp_path / 'out'
  result = heads(out, '--people=1', '--clips=1', '--size=64', '--seconds=0.5', '--fps=20')
  assert result.returncode == 0, result.stderr
  assert '1 portraits, 1 driving clips' in result.stdout and 'frame/s' in result.stderr
  texts = ('starting', 'compiling the renderer', 'driving clip 0')
  shown = [result.stderr.find(text) for text in texts]
  assert 0 <= shown[0] < shown[1] < shown[2]
  portrait = stills.read_image(out / 'portraits' / 'person_0.png')
  assert portrait.shape == (64, 64, 3) and portrait.std() > 10

  driving = list(video.read_frames(out / 'driving' / 'clip_0.mp4'))
  assert [f.time for f in driving] == [Fraction(k, 20) for k in range(10)]
  assert video.probe(out / 'driving' / 'clip_0.mp4').audio == 'aac'
  truth = np.load(out / 'driving' / 'clip_0.npz')
  assert truth['motion'].shape == (10, len(MOTION)) and truth['landmarks'].shape == (10, 68, 2)

  # The answer is one more render: the portrait's person and scene with the driver's motion.
  person, driver = people.SPLITS['test'], people.SPLITS['test'] + 1
  identity, _, scene = clips.vectors(person, 0, truth['times'])
  _, motion, _ = clips.vectors(driver, 0, truth['times'])
  np.testing.assert_allclose(truth['motion'], motion, atol=1e-5)
  answers = list(video.read_frames(out / 'answers' / 'person_0_as_clip_0.mp4'))
  renderer = clips.Renderer(64)
  for frame, m, own in zip(answers, motion, driving, strict=True):
    expected = renderer(identity, m, scene)[0].astype(float)
    wrong = np.abs(own.rgb - expected).mean()
    assert np.abs(frame.rgb - expected).mean() < 0.3 * wrong


def test_the_voice_is_as_loud_as_the_mouth_is_open():
  motion = np.zeros((10, len(MOTION)), np.float32)
  motion[5:, list(MOTION).index('jaw_open')] = 1
  sound = voice(motion, fps=10).astype(float)
  assert len(sound) == 16_000
  assert np.abs(sound[:6000]).max() == 0 and sound[10_000:].std() > 1000
  assert np.abs(sound).max() < 32_767


@pytest.mark.parametrize(
  ('argument', 'told'),
  [
    ('--people=0', '--people=0: must be above zero'),
    ('--size=31', '--size=31: must be a multiple of 8'),
    ('--fps=1000', '--fps=1000: at most 120'),
  ],
)
def test_bad_options_are_one_line(tmp_path, argument, told):
  result = heads(tmp_path / 'out', argument)
  assert result.returncode == 1 and result.stderr.count('\n') == 1
  assert result.stderr.startswith(f'error: {told}')


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
  (tmp_path / 'file').write_text('')
  result = heads(tmp_path / 'file', '--size=64')
  assert result.returncode == 1 and result.stderr.count('\n') == 1
  assert 'cannot be written' in result.stderr
