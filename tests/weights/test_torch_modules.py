"""Modules that were saved whole, by NVlabs' code and by TorchScript.

`nvlabs16.pkl` and `nvlabs16_module.pt` were pickled by stylegan2-ada-pytorch's own persistence code
under torch 2.13 (a 16 px generator and discriminator, random weights), with a line that makes a
file in the place of the module source. `script_module.pt` was scripted there, with such lines as
code.
"""

import io
import zipfile

import numpy as np
import pytest
from parity import GOLDEN
from torch_files import (
  SOURCE,
  asm,
  binary,
  call,
  legacy,
  module,
  name,
  nested,
  plain,
  state,
  stream,
  zipped,
)

from hybrid_jax.errors import InputError
from hybrid_jax.weights import torch_file


@pytest.fixture
def read(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)

  def read(data: bytes):
    (tmp_path / 'file.pkl').write_bytes(data)
    try:
      return torch_file.load(tmp_path / 'file.pkl')
    finally:
      assert not (tmp_path / 'MARKER').exists()

  return read


@pytest.mark.parametrize(
  'file', ['nvlabs16.pkl', 'nvlabs16_module.pt', 'torch_files/script_module.pt']
)
def test_no_source_of_a_module_is_run(file, read):
  data = (GOLDEN / file).read_bytes()
  read(data)
  if file.endswith('pkl'):
    assert b"open('MARKER', 'w')" in data


def test_nvlabs_pickle():
  file = torch_file.load(GOLDEN / 'nvlabs16.pkl')
  assert list(file) == ['G', 'D', 'G_ema', 'training_set_kwargs', 'augment_pipe']
  G = file['G_ema']
  assert G.class_name == 'Generator' and len(G) == 56
  assert G.made_with['synthesis_kwargs']['conv_clamp'] == 256
  whole = torch_file.load(GOLDEN / 'nvlabs16_module.pt')
  assert list(whole) == list(G) and whole.made_with == G.made_with
  for key in G:
    np.testing.assert_array_equal(G[key], whole[key], err_msg=key)
  assert file['training_set_kwargs']['xflip'] is True and file['augment_pipe'] is None


def test_script_module():
  found = torch_file.load(GOLDEN / 'torch_files' / 'script_module.pt')
  with np.load(GOLDEN / 'torch_files' / 'script_truth.npz') as truth:
    assert set(found) == set(truth.files) and len(found) == 21
    for key in truth.files:
      assert found[key].dtype == truth[key].dtype
      np.testing.assert_array_equal(found[key], truth[key], err_msg=key)


def test_streams_inside_a_pickle(read):
  x = np.arange(4, dtype=np.float32)
  tree = read(plain({'a': module(state({'w': nested(stream(x))}))}))
  np.testing.assert_array_equal(tree['a']['w'], x)
  inner = module(state({'w': nested(stream(x))}))
  tree = read(plain(module(state({}, {'b': inner, 'c': b'N'}))))
  assert list(tree) == ['b.w']


@pytest.mark.parametrize(
  ('opcodes', 'says'),
  [
    (module(call('os.system', 'touch MARKER')), 'os.system'),
    (module(state({'w': call('builtins.eval', SOURCE)})), 'builtins.eval'),
    (module(call('builtins.getattr', call('builtins.__import__', 'os'), 'x')), 'builtins.getattr'),
    (module({}, type='code'), 'something else than a module'),
    (module([]), 'something else than a module'),
    (module({}), "KeyError: '_buffers'"),
    (nested(b'\x80\x02cos\nsystem\n)R.'), 'os.system'),
    (nested(stream(np.ones(3, np.float32))), 'reaches outside its storage'),
    (nested(b''), 'truncated or damaged'),
    (call('torch.storage._load_from_bytes', 'text'), 'without bytes'),
    (name('torch.nn.modules.linear.Linear') + b')\x81', 'torch.nn.modules.linear.Linear'),
    (name('__torch__.M') + b')\x81' + asm({}) + b'b', '__torch__.M'),
  ],
)
def test_hostile_modules_are_refused_by_name(read, opcodes, says):
  with pytest.raises(InputError) as caught:
    read(plain({'G_ema': opcodes}))
  assert says in str(caught.value) and '\n' not in str(caught.value)


def test_a_stream_holds_no_further_stream(read):
  inner = binary(stream(np.ones(1, np.float32)))
  deeper = legacy(call('torch.storage._load_from_bytes', inner))
  with pytest.raises(InputError, match='_load_from_bytes'):
    read(plain(nested(deeper)))


def test_shared_modules_do_not_multiply(read):
  """Thirty levels of a module that holds the one below twice: a billion tensors in 5 KB."""
  opcodes = module(state({'w': nested(stream(np.ones(4, np.float32)))})) + b'q\x00'
  for level in range(30):
    key = bytes([level])
    opcodes = module(state({}, {'a': opcodes, 'b': b'h' + key})) + b'q' + bytes([level + 1])
  with pytest.raises(InputError, match='more than 65536 tensors'):
    read(plain(opcodes))


def test_script_attacks(read):
  def script(x, constants=b')') -> bytes:
    out = io.BytesIO(zipped(x))
    with zipfile.ZipFile(out, 'a') as archive:
      archive.writestr('a b.c/constants.pkl', b'\x80\x02' + constants + b'.')
      archive.writestr('a b.c/code/x.py', SOURCE, zipfile.ZIP_DEFLATED)
    return out.getvalue()

  def thing(attributes):
    return name('__torch__.M') + b')\x81' + asm(attributes) + b'b'

  for x, says in (
    (thing({'a': call('os.system', 'touch MARKER')}), 'os.system'),
    (call('__torch__.M', SOURCE) + asm({}) + b'b', '__torch__.M has another state'),
    (thing((1, 2)), '__torch__.M has another state'),
    (asm({'a': 1}), 'no module'),
    (thing({'a': 1}), 'without a tensor'),
  ):
    with pytest.raises(InputError, match=says):
      read(script(x))
  with pytest.raises(InputError, match='builtins.eval'):
    read(script(thing({}), call('builtins.eval', SOURCE)))
