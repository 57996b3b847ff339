"""Names of the tensors in the public files of FID's and FVD's networks; see `key_maps`."""

from hybrid_jax.models import inception as fid
from hybrid_jax.weights.key_maps import KeyMap, conv, copy

INCEPTION_UNNEEDED = (r'fc\.(weight|bias)', r'AuxLogits\..*')


def _unit(ours: str, conv_name: str, norm_name: str) -> KeyMap:
  """A convolution without bias and its batch normalisation, of images or of videos."""
  return {
    f'params/{ours}/conv/kernel': (f'{conv_name}.weight', conv),
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
