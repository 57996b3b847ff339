"""State dicts of models that PyTorch's wrappers have renamed."""

import numpy as np
import pytest
from parity import GOLDEN
from torch_files import write

from hybrid_jax.errors import InputError
from hybrid_jax.weights import files, public_formats, torch_file
from hybrid_jax.weights.torch_modules import Module
from hybrid_jax.weights.wrappers import unwrapped

WRAPPED = ('module.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.', 'module.module.')
CRITIC = GOLDEN / 'latent_discriminator.pt'


@pytest.mark.parametrize('prefix', WRAPPED)
@pytest.mark.parametrize('suffix', ['.pt', '.safetensors'])
def test_a_wrapped_model_is_read_as_the_model_inside(tmp_path, prefix, suffix):
  state = torch_file.load(CRITIC)
  path, renamed = tmp_path / f'wrapped{suffix}', {prefix + key: x for key, x in state.items()}
  if suffix == '.pt':
    write(path, renamed)
  else:
    files.write_safetensors(path, renamed)
  content = files.read(path)
  assert public_formats.recognise(content, path) == 'latent_discriminator'
  read = public_formats.convert(content, str(path), 'latent_discriminator')
  want = public_formats.convert(state, 'critic', 'latent_discriminator')
  for a, b in zip(
    read.parts['critic']['params'].values(), want.parts['critic']['params'].values(), strict=True
  ):
    np.testing.assert_array_equal(a['kernel'], b['kernel'])


def test_wrapped_parts_of_a_checkpoint_and_averaged_models():
  x = np.zeros(1)
  content = {'state_dict': {'encoder.module.a.b': x, '_orig_mod.decoder._orig_mod.c': x}, 'opts': 1}
  assert unwrapped(content, 'f') == {'state_dict': {'encoder.a.b': x, 'decoder.c': x}, 'opts': 1}
  assert set(unwrapped({'n_averaged': x, 'module.a': x}, 'f')) == {'a'}
  plain = {'submodule.a': x, 'n_averaged': x, 'a.module': x, 3: x}
  assert unwrapped(plain, 'f') is not None and set(unwrapped(plain, 'f')) == set(plain)
  whole = Module('G', {'z_dim': 8}).take([('module.a', x)])
  inside = unwrapped(whole, 'f')
  assert isinstance(inside, Module) and inside == {'a': x} and inside.made_with == {'z_dim': 8}
  with pytest.raises(InputError, match="f: has 'module.a', of a wrapped model, and the same"):
    unwrapped({'module.a': x, 'a': x}, 'f')
