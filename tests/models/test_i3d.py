"""FVD's I3D against piergiaj/pytorch-i3d and hassony2/kinetics_i3d_pytorch.

The network has a sixteenth of the width and 20 classes. The clips are small blocks of 8 x 8 equal
pixels, 9 frames (the least, odd at every stride) and 17 (two steps of time to average).
"""

import jax
import numpy as np
import pytest
from parity import GOLDEN, error, nhwc

from hybrid_jax.models.i3d import I3D, fvd_input
from hybrid_jax.weights import key_maps, metric_key_maps, torch_file

NET = I3D(classes=20, divisor=16)
FILES = ('i3d_reduced.pt', 'i3d_kinetics_reduced.pt')


def tree_of(file):
  state = torch_file.load(GOLDEN / file)
  return key_maps.convert(state, metric_key_maps.i3d(state), kind='I3D')


def clip(v, frames):
  return np.kron(v[f'clip{frames}_u8'], np.ones((8, 8, 1))).astype(np.float32) / 127.5 - 1


@pytest.fixture(scope='module')
def tree():
  return tree_of(FILES[0])


def test_blocks_and_features(tree, golden):
  v = golden('i3d_reduced_vectors')
  apply = lambda x: NET.apply(tree, x, capture_intermediates=True, mutable='intermediates')  # noqa: E731
  features, state = jax.jit(apply)(clip(v, 9))
  names = [name.removesuffix('_mean') for name in v if name.endswith('_mean')]
  assert len(names) == 8
  for name in names:
    (x,) = state['intermediates'][name]['__call__']
    assert error(x.mean((1, 2, 3)), v[f'{name}_mean']) < 1e-5, name
    assert error(x.std((1, 2, 3)), v[f'{name}_std']) < 1e-5, name
  assert error(features, v['features9']) < 1e-5


def test_logits_are_averaged_over_time(tree, golden):
  v = golden('i3d_reduced_vectors')
  assert v['logits17'].shape == (1, 20, 2)
  features = jax.jit(NET.apply)(tree, clip(v, 17))
  assert error(features, v['features17']) < 1e-5
  assert error(features, v['logits17'].mean(-1)) < 1e-5


def test_both_layouts_are_the_same_network(tree):
  other = tree_of(FILES[1])
  jax.tree.map(np.testing.assert_array_equal, tree, other)


@pytest.mark.parametrize('file', FILES)
def test_the_map_leads_back_to_the_tensors_of_the_file(tree, file):
  state = torch_file.load(GOLDEN / file)
  back = key_maps.invert(tree, metric_key_maps.i3d(state), kind='I3D')
  assert len(back) == 287
  for key, x in back.items():
    np.testing.assert_array_equal(x, state[key])


def test_resize(golden):
  v = golden('i3d_reduced_vectors')
  resized = fvd_input(v['resize_u8'].astype(np.float32) / 255)
  assert resized.shape == (1, 2, 224, 224, 3)
  assert error((resized[0, :, 100] + 1) / 2, nhwc(v['resized_row'])) < 1e-6


def test_frames_of_the_right_size_stay_and_shrinking_does_not_low_pass():
  frames = np.random.default_rng(0).random((1, 1, 448, 448, 3), np.float32)
  means = frames.reshape(1, 1, 224, 2, 224, 2, 3).mean((3, 5))
  assert error((fvd_input(frames) + 1) / 2, means) < 1e-6
  np.testing.assert_allclose(fvd_input(means), 2 * means - 1, atol=1e-6)


@pytest.mark.parametrize('shape', [(1, 8, 224, 224, 3), (1, 9, 256, 224, 3), (9, 224, 224, 3)])
def test_clips_that_are_too_short_or_of_another_size_are_refused(tree, shape):
  with pytest.raises(ValueError, match=r'I3D takes \(n, 9 or more, 224, 224, 3\)'):
    NET.apply(tree, np.zeros(shape, np.float32))
