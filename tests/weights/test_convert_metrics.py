"""Conversion of the networks of FID and FVD, and of files that are nearly those."""

import jax
import numpy as np
import pytest
from parity import GOLDEN, error, nhwc
from torch_files import write

from hybrid_jax.errors import InputError
from hybrid_jax.models.i3d import I3D
from hybrid_jax.models.inception import Inception, fid_input
from hybrid_jax.weights import convert, torch_file


def test_inception(convert_to, shared):
  manifest, tree = convert_to(shared('reference/fid_inception_reduced.pt'), verify=True)
  assert manifest['kind'] == 'inception'
  assert manifest['keys']['not_needed'] == 94  # num_batches_tracked, one for each convolution
  assert all(check['ok'] for check in manifest['checks'])
  v = np.load(shared('reference/fid_inception_reduced_vectors.npz'))
  frames = fid_input(nhwc(v['x_u8']).astype(np.float32) / 255)
  module = Inception(**manifest['parts']['inception'])
  assert error(jax.jit(module.apply)(tree['inception'], frames), v['pool3']) < 2e-4


@pytest.mark.parametrize('file', ['i3d_reduced.pt', 'i3d_kinetics_reduced.pt'])
def test_i3d(convert_to, file):
  manifest, tree = convert_to(GOLDEN / file, verify=True)
  assert manifest['kind'] == 'i3d' and manifest['parts']['i3d'] == {'classes': 20, 'divisor': 16}
  assert all(check['ok'] for check in manifest['checks'])
  v = np.load(GOLDEN / 'i3d_reduced_vectors.npz')
  clip = np.kron(v['clip9_u8'], np.ones((8, 8, 1))).astype(np.float32) / 127.5 - 1
  module = I3D(**manifest['parts']['i3d'])
  assert error(jax.jit(module.apply)(tree['i3d'], clip), v['features9']) < 1e-5


def test_constants_of_a_traced_i3d_are_not_needed(convert_to, tmp_path):
  """Tracing leaves numbers of the code beside the tensors, as torch_file.load names them."""
  state = torch_file.load(GOLDEN / 'i3d_reduced.pt')
  write(tmp_path / 'traced.pt', {**state, 'CONSTANTS.c0': np.zeros((1, 1), np.float32)})
  manifest, _ = convert_to(tmp_path / 'traced.pt')
  assert manifest['keys']['not_needed'] == 1 + sum('num_batches_tracked' in key for key in state)


def test_networks_of_other_metrics_are_refused(shared, tmp_path):
  """torchvision's Inception has FID's names and other weights; a flow I3D has two channels."""
  state = torch_file.load(shared('reference/fid_inception_reduced.pt'))
  flow = torch_file.load(GOLDEN / 'i3d_reduced.pt')
  stem = 'Conv3d_1a_7x7.conv3d.weight'
  for content, says in (
    (state | {'fc.bias': np.zeros(1000, np.float32)}, "has 1000 classes, FID's has 1008"),
    (state | {'AuxLogits.fc.bias': np.zeros(9, np.float32)}, 'no place here, first.*AuxLogits'),
    (flow | {stem: flow[stem][:, :2]}, 'Conv3d_1a_7x7'),
    ({k: x for k, x in flow.items() if k != 'logits.conv3d.bias'}, 'logits.conv3d.bias is missing'),
    (flow | {'logits.conv3d.weight': np.zeros((20, 64, 2, 1, 1), np.float32)}, 'logits'),
  ):
    write(tmp_path / 'x.pt', content)
    with pytest.raises(InputError, match=says):
      convert.convert(str(tmp_path / 'x.pt'), str(tmp_path / 'out'))
    assert [path.name for path in tmp_path.iterdir()] == ['x.pt']
