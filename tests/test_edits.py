"""Edits: how they are written, the real FFHQ directions, and what they add."""

import numpy as np
import pytest

from hybrid_jax import edits, latents
from hybrid_jax.errors import InputError

CHANNELS = latents.config_f_channels(1024)
ROWS, WIDTH = 18, 512


@pytest.fixture(scope='module')
def W_S():
  return np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)


def test_strengths_and_curves_are_read():
  (age, constant), (smile, curve), (pose, last) = edits.parse('age=+2, smile=0@0s,3@4s,1@5,pose=-1')
  assert (age, smile, pose) == ('age', 'smile', 'pose')
  seconds = np.array([-1, 0, 2, 4, 4.5, 9])
  np.testing.assert_allclose(constant(seconds), 2)
  np.testing.assert_allclose(curve(seconds), [0, 0, 1.5, 3, 2, 1])
  np.testing.assert_allclose(last(seconds), -1)


@pytest.mark.parametrize(
  'text', ['', 'age', '3', 'age=', 'age=much', '=3', 'age=1@0s,2', 'age=1@2s,2@1s', 'age=1.2.3']
)
def test_what_cannot_be_read_is_told(text):
  with pytest.raises(InputError, match='--edit: '):
    edits.parse(text)


def test_the_real_directions(shared, W_S):
  folder = shared('directions')
  age, pose = edits.resolve('age=2,pose=-1', str(folder), {}, CHANNELS, W_S)
  assert (age.direction == age.direction[0]).all()  # one vector, added to every row
  assert edits.read_direction('age', folder).shape == (1, WIDTH)
  assert edits.read_direction('pose', folder).shape == (ROWS, WIDTH)
  seconds = np.array([0.0, 1.0])
  added = edits.dW_edit([age, pose], seconds, W_S.shape)
  np.testing.assert_allclose(added[1], 2 * age.direction - pose.direction, rtol=1e-5)
  assert all(not x.any() for x in edits.style_edit([age], seconds, CHANNELS))
  with pytest.raises(InputError, match="no direction 'beard' in .*there are: age, ffhq_pca, pose"):
    edits.resolve('beard=1', str(folder), {}, CHANNELS, W_S)
  with pytest.raises(InputError, match='does not fit W\\+ of \\(10, 64\\)'):
    edits.resolve('age=1', str(folder), {}, CHANNELS, np.zeros((10, 64)))


def test_ganspace_moves_the_source_to_the_strength_that_is_asked(shared, tmp_path, W_S):
  """As the public code does: afterwards the source's first row lies at that deviation."""
  (tmp_path / 'ganspace.pt').symlink_to(shared('directions/ffhq_pca.pt'))
  (edit,) = edits.resolve('ganspace:3:2-6=1.5', str(tmp_path), {}, CHANNELS, W_S)
  added = edits.dW_edit([edit], np.zeros(1), W_S.shape)[0]
  assert not added[:2].any() and not added[7:].any()
  np.testing.assert_array_equal(added[2], added[6])
  from hybrid_jax.weights import torch_file

  content = torch_file.load(tmp_path / 'ganspace.pt')
  comp, std = content['comp'].reshape(content['std'].size, -1)[3], content['std'].reshape(-1)[3]
  mean = content['mean'].reshape(-1)
  assert (W_S[0] + added[2] - mean) @ comp / std == pytest.approx(1.5, abs=1e-3)


def test_sefa_finds_what_changes_the_styles_most():
  rng = np.random.default_rng(1)
  channels = latents.config_f_channels(16, 256, 16)
  strong = rng.normal(size=16)
  strong /= np.linalg.norm(strong)
  G = {'params': {}}
  for i, layer in enumerate(latents.style_layers(channels)):
    kernel = np.outer(strong, rng.normal(size=layer.width)) + 0.05 * rng.normal(
      size=(16, layer.width)
    )
    G['params'][f'affines_{i}'] = {'kernel': kernel}
  directions = edits.sefa(G, channels, np.arange(6))
  assert directions.shape == (16, 16) and abs(directions[0] @ strong) > 0.99
  np.testing.assert_allclose(directions @ directions.T, np.eye(16), atol=1e-5)
  (edit,) = edits.resolve('sefa:0:1-2=2', '.', G, channels, np.zeros((6, 16)))
  np.testing.assert_array_equal(np.abs(edit.direction).sum(1) > 0, [0, 1, 1, 0, 0, 0])


def test_a_style_channel_is_moved_alone():
  (edit,) = edits.resolve('style:5:7=4@0s,0@2s', '.', {}, CHANNELS, np.zeros((ROWS, WIDTH)))
  offsets = edits.style_edit([edit], np.array([0.0, 1.0, 2.0]), CHANNELS)
  np.testing.assert_allclose(offsets[5][:, 7], [4, 2, 0])
  offsets[5][:, 7] = 0
  assert all(not x.any() for x in offsets)
  for text, why in (('style:99:0=1', 'layers are 0 to 25'), ('style:25:900=1', '32 channels')):
    with pytest.raises(InputError, match=why):
      edits.resolve(text, '.', {}, CHANNELS, np.zeros((ROWS, WIDTH)))
