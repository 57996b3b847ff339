"""torch_file against files that torch wrote, and against hostile files.

`tests/golden/torch_files` was written by torch 2.13 on CPU: one tree of tensors of every type and
layout, saved in both formats (`zip.pt`, `legacy.pt`), with the same values as contiguous numpy
arrays in `truth.npz` (bfloat16 as float32), a TorchScript program and a conjugate view.
Hostile files are assembled by `torch_files`, opcode by opcode.
"""

import io
import pathlib
import pickle
import zipfile

import numpy as np
import pytest
from torch_files import ATTACKS, ORDERED, asm, legacy, tensor, zipped

from hybrid_jax.errors import InputError
from hybrid_jax.weights import torch_file

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / 'golden' / 'torch_files'
SHARED = pathlib.Path(__file__).resolve().parents[3] / 'shared'
FORMATS = ('zip', 'legacy')


@pytest.fixture
def load(tmp_path):
  def load_bytes(data: bytes):
    path = tmp_path / 'file.pt'
    path.write_bytes(data)
    return torch_file.load(path)

  return load_bytes


@pytest.fixture
def refusal(load, tmp_path):
  def message(data: bytes) -> str:
    with pytest.raises(InputError) as caught:
      load(data)
    text = str(caught.value)
    assert '\n' not in text and text.startswith(f'{tmp_path}/file.pt: ') and len(text) < 600
    return text.removeprefix(f'{tmp_path}/file.pt: ')

  return message


def leaves(tree):
  if isinstance(tree, dict):
    tree = list(tree.values())
  if not isinstance(tree, list | tuple | set):
    return [tree]
  return [leaf for branch in tree for leaf in leaves(branch)]


# --- Files that torch wrote ----------------------------------------------------------------------


@pytest.mark.parametrize('folder', ['reference', 'models/lpips'])
def test_shared_files_read(folder):
  if not (SHARED / folder).is_dir():
    pytest.skip(f'no shared/{folder} beside this checkout')
  paths = sorted(p for p in (SHARED / folder).iterdir() if p.suffix in ('.pt', '.pth'))
  assert paths
  for path in paths:
    arrays = [x for x in leaves(torch_file.load(path)) if isinstance(x, np.ndarray)]
    assert arrays, path
    assert all(np.isfinite(x).all() for x in arrays), path


def test_shared_legacy_file_equals_the_zip():
  if not (SHARED / 'reference').is_dir():
    pytest.skip('no shared/reference beside this checkout')
  new = torch_file.load(SHARED / 'reference' / 'latent_discriminator.pt')
  old = torch_file.load(SHARED / 'reference' / 'latent_discriminator_legacy.pt')
  assert list(new) == list(old) and len(new) == 8
  for key in new:
    assert new[key].dtype == old[key].dtype
    np.testing.assert_array_equal(new[key], old[key])


def test_shared_generator_is_stored_strided_and_reads_as_the_encoder_copy_of_it():
  if not (SHARED / 'reference').is_dir():
    pytest.skip('no shared/reference beside this checkout')
  strided = torch_file.load(SHARED / 'reference' / 'generator64.pt')['g_ema']
  assert not strided['conv1.conv.weight'].flags.c_contiguous  # trap G12 of the README there
  contiguous = torch_file.load(SHARED / 'reference' / 'e4e_reduced.pt')['state_dict']
  for key, value in strided.items():
    np.testing.assert_array_equal(value, contiguous[f'decoder.{key}'])


@pytest.fixture(scope='module', params=FORMATS)
def golden(request):
  return torch_file.load(GOLDEN / f'{request.param}.pt')


def test_tensors_of_every_type_and_layout(golden):
  found = {**golden['tensors'], **{f'state/{k}': v for k, v in golden['state'].items()}}
  with np.load(GOLDEN / 'truth.npz') as truth:
    assert set(found) == set(truth.files)
    for key, array in found.items():
      kind = 'bfloat16' if key == 'bfloat16' else truth[key].dtype.name
      assert (array.dtype.name, array.shape) == (kind, truth[key].shape), key
      wanted = truth[key].astype(array.dtype)
      np.testing.assert_array_equal(array, wanted, err_msg=key)


def test_layouts_are_views_of_one_storage(golden):
  tensors = golden['tensors']
  assert tensors['conv'].strides != np.empty(tensors['conv'].shape, np.float32).strides
  assert np.shares_memory(tensors['offset'], tensors['shared'])
  assert np.shares_memory(tensors['strided'], tensors['shared'])
  assert golden['again'] is tensors['plain']
  assert not any(x.flags.writeable for x in tensors.values() if x.size)


def test_plain_containers(golden):
  np.testing.assert_array_equal(golden['parameter'], golden['state']['0.weight'])
  assert type(golden['opts']) is dict and type(golden['ordered']) is type(golden['state']) is dict
  assert golden['opts'] == {
    'lr': 1e-4, 'name': 'e4e', 'sizes': [256, 1024], 'nested': {'a': (1, None, True)}
  }  # fmt: skip
  assert list(golden['ordered'].items()) == [('b', 1), ('a', -(2**40))]
  assert type(golden['size']) is tuple and golden['size'] == (2, 3)
  assert (golden['device'], golden['dtype']) == ('cpu', np.float16)
  assert (golden['set'], golden['complex'], golden['bytes']) == ({1, 2}, 1 + 2j, b'\x00\xff')
  assert golden['text'] == 'énoncé' and golden['numpy_scalar'] == np.float64(0.1)
  np.testing.assert_array_equal(golden['numpy'], np.arange(6, dtype=np.float32).reshape(2, 3).T)


# --- Details of the formats ----------------------------------------------------------------------


@pytest.mark.parametrize(
  ('kind', 'dtype'), [('Float', '>f4'), ('Long', '>i8'), ('ComplexFloat', '>c8'), ('Byte', 'u1')]
)
def test_big_endian_zip(load, kind, dtype):
  data = np.arange(1, 5).astype(dtype)
  x = tensor(4, 0, (2, 2), (1, 2), kind=f'torch.{kind}Storage')
  np.testing.assert_array_equal(
    load(zipped(x, data.tobytes(), byteorder=b'big')), data.reshape(2, 2).T
  )


def test_unknown_byte_order(refusal):
  assert 'byte order' in refusal(zipped(1, byteorder=b'middle'))
  assert 'big-endian legacy' in refusal(legacy(1, little=False))


def test_legacy_views_of_a_storage(load, refusal):
  data = np.arange(10, dtype=np.float32)
  view = tensor(10, 1, (2,), (1,), extra=[('7', 4, 3)])
  np.testing.assert_array_equal(load(legacy(view, data)), data[5:7])
  assert 'outside' in refusal(legacy(tensor(10, 2, (2,), (1,), extra=[('7', 4, 3)]), data))
  for bad in [('7', 8, 3), ('7', -2, 3), ('7', 3, -1)]:
    assert 'a view reaches outside storage 0' in refusal(
      legacy(tensor(10, 0, (1,), (1,), extra=[bad]), data)
    )


def test_storages_are_read_once_and_only_when_used(load):
  x = {'a': tensor(2, 0, (2,), (1,)), 'b': tensor(2, 1, (), ())}
  data = zipped(x, np.float32([3, 4]).tobytes(), b'unused')
  tree = load(data.replace(b'unused', b'broken', 1))  # with the wrong checksum from now on
  assert np.shares_memory(tree['a'], tree['b']) and tree['b'] == 4


def test_bool_bytes_are_normalised(load):
  x = load(zipped(tensor(3, 0, (3,), (1,), kind='torch.BoolStorage'), b'\x00\x02\xff'))
  assert x.view(np.uint8).tolist() == [0, 1, 1]


@pytest.mark.parametrize('write', [zipped, legacy])
@pytest.mark.parametrize(
  ('offset', 'size', 'stride'),
  [
    (0, (5,), (1,)),
    (4, (), ()),
    (1, (4,), (1,)),
    (0, (2, 2), (3, 1)),
    (0, (2,), (2**61,)),
    (0, (2,), (2**62,)),
    (0, (2,), (-1,)),
    (-1, (1,), (1,)),
    (0, (-1,), (1,)),
    (0, (2,), (1, 1)),
    (0, (2**40,), (0,)),
    (0, (2**61, 2**61), (0, 0)),
    (0, (True,), (1,)),
    (0, (1.0,), (1,)),
    (0, 'ab', 'cd'),
    (0, (1,) * 65, (1,) * 65),
  ],
)
def test_tensors_never_reach_outside_their_storage(refusal, write, offset, size, stride):
  data = np.arange(4, dtype=np.float32)
  text = refusal(
    write(tensor(4, offset, size, stride), data.tobytes() if write is zipped else data)
  )
  assert 'reaches outside its storage' in text or 'impossible size' in text


def test_storages_shorter_than_declared(refusal):
  assert '12 of 16 bytes' in refusal(zipped(tensor(4, 0, (1,), (1,)), bytes(12)))
  assert '12 of 16 bytes' in refusal(legacy(tensor(4, 0, (1,), (1,)), np.zeros(3, np.float32)))
  assert '0 of 4000' in refusal(zipped(tensor(10**18, 0, (1,), (1,)), b''))
  assert 'data/0' in refusal(zipped(tensor(4, 0, (1,), (1,))))
  endless = legacy(tensor(4, 0, (1,), (1,)), np.zeros(4, np.float32))
  endless = endless[:-24] + (2**63 - 1).to_bytes(8, 'little') + endless[-16:]
  assert 'beyond the end' in refusal(endless)


def test_zip_bombs(refusal):
  bomb = zipped(tensor(1 << 20, 0, (1,), (1,)), bytes(4 << 20), compression=zipfile.ZIP_DEFLATED)
  assert 'compressed or overlap' in refusal(bomb)
  honest = zipped(tensor(4, 0, (1,), (1,)), b'0123456789abcdef')
  assert honest.count((16).to_bytes(4, 'little') * 2) == 2
  lying = honest.replace((16).to_bytes(4, 'little') * 2, (1 << 30).to_bytes(4, 'little') * 2)
  assert 'compressed or overlap' in refusal(lying)


def test_memo_bomb(refusal):
  assert 'LONG_BINPUT' in refusal(zipped(b'Nr\xff\xff\xff\xff'))


def test_shared_references_do_not_multiply(load):
  pair = b'](h\x00h\x00eq\x00'  # a list of twice what is at 0, put at 0 in its turn
  tree = load(zipped(b']q\x00' + 100 * pair))
  for _ in range(100):
    assert tree[0] is tree[1]
    tree = tree[0]


# --- What is no checkpoint -----------------------------------------------------------------------


@pytest.mark.parametrize(
  ('data', 'says'),
  [
    (b'', 'empty'),
    (b'<!DOCTYPE html><html>', "not a PyTorch file: it starts with b'<!DOCTYPE html>"),
    (b'version https://git-lfs.github.com/spec/v1', 'not a PyTorch file'),
    (b'\x80', 'not a PyTorch file'),
    (b'PK\x03\x04', 'truncated or damaged'),
    (b'PK\x03\x04' + bytes(500), 'truncated or damaged'),
    (zipped(1, root='a/b'), 'no data.pkl'),
    (zipped(b''), 'truncated or damaged'),
    (zipped(b'(' * 10), 'truncated or damaged'),
    (zipped(b']q\x00h\x00a'), 'RecursionError'),
  ],
)
def test_no_checkpoint(refusal, data, says):
  assert says in refusal(data)


def test_missing_file_and_folder(tmp_path):
  for path in (tmp_path / 'none.pt', tmp_path):
    with pytest.raises(InputError, match='cannot be read'):
      torch_file.load(path)


@pytest.mark.parametrize(
  ('file', 'says'), [('script.pt', 'TorchScript program'), ('conj.pt', 'conjugate')]
)
def test_refused_golden_files(file, says):
  with pytest.raises(InputError, match=says):
    torch_file.load(GOLDEN / file)


# --- Attacks -------------------------------------------------------------------------------------


@pytest.mark.parametrize('write', [zipped, legacy])
@pytest.mark.parametrize('attack', ATTACKS)
def test_attacks_are_refused_by_name(refusal, tmp_path, monkeypatch, write, attack):
  monkeypatch.chdir(tmp_path)
  opcodes, offender = ATTACKS[attack]
  assert offender in refusal(write({'state_dict': opcodes}))
  assert not (tmp_path / 'MARKER').exists()


def test_the_marker_would_show_an_attack(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pickle.loads(b'\x80\x02' + ATTACKS['reduce'][0] + b'.')
  assert (tmp_path / 'MARKER').exists()


def test_a_state_is_never_set_as_attributes(load):
  hostile = ORDERED + asm((None, {'args': 1, '__class__': 2})) + b'b'
  assert load(zipped(hostile)) == {}
  assert load(zipped(tensor(1, 0, (), ()) + asm({'name': 'x'}) + b'b', bytes(4))) == 0


# --- Mutations -----------------------------------------------------------------------------------


def flipped(data: bytes, seed: int) -> bytes:
  rng = np.random.default_rng(seed)
  mutant = np.frombuffer(data, np.uint8).copy()
  mutant[rng.integers(0, len(data), rng.integers(1, 6))] = rng.integers(0, 256)
  return mutant.tobytes()


def loads_or_refuses(load, data: bytes) -> None:
  try:
    tree = load(data)
  except InputError as error:
    assert '\n' not in str(error)
  else:
    with np.errstate(all='ignore'):
      for leaf in leaves(tree):
        np.sum(leaf) if isinstance(leaf, np.ndarray) else repr(leaf)  # reads every element


@pytest.mark.parametrize('eighth', range(8))
@pytest.mark.parametrize('file', FORMATS)
def test_truncated(refusal, file, eighth):
  data = (GOLDEN / f'{file}.pt').read_bytes()
  refusal(data[: max(1, len(data) * eighth // 8)])
  refusal(data[: -1 - eighth])


@pytest.mark.parametrize('seed', range(14))
@pytest.mark.parametrize('file', FORMATS)
def test_flipped_bytes(load, file, seed):
  loads_or_refuses(load, flipped((GOLDEN / f'{file}.pt').read_bytes(), seed))


@pytest.mark.parametrize('seed', range(20))
def test_flipped_bytes_of_the_pickle(load, seed):
  """The checksums of a zip would catch these, were they not made anew."""
  with zipfile.ZipFile(GOLDEN / 'zip.pt') as archive:
    members = {key: archive.read(key) for key in archive.namelist()}
  members['zip/data.pkl'] = flipped(members['zip/data.pkl'], seed)
  out = io.BytesIO()
  with zipfile.ZipFile(out, 'w') as archive:
    for key, data in members.items():
      archive.writestr(key, data)
  loads_or_refuses(load, out.getvalue())
