"""Weights out again: a torch file of ours is read as it was written, exports equal their source."""

import collections
import json
import zipfile

import grain
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors
from parity import GOLDEN
from small import small_config

from hybrid_jax import export
from hybrid_jax.errors import InputError
from hybrid_jax.method import networks
from hybrid_jax.reenactment.model import load_model
from hybrid_jax.training import checkpoint
from hybrid_jax.training.state import TrainState, empty_pool
from hybrid_jax.weights import (
  convert,
  exported,
  files,
  key_maps,
  load,
  shipped,
  torch_file,
  torch_writer,
)
from hybrid_jax.weights import export as formats


def assert_same(actual, expected):
  """The same names, types, shapes and bits."""
  assert set(actual) == set(expected)
  for name, x in expected.items():
    assert actual[name].dtype == x.dtype and actual[name].shape == x.shape, name
    assert np.ascontiguousarray(actual[name]).tobytes() == np.ascontiguousarray(x).tobytes(), name


# --- The writer ----------------------------------------------------------------------------------


def test_a_torch_file_is_read_back_as_it_was_written(tmp_path):
  rng = np.random.default_rng(0)
  numbers = rng.normal(size=(3, 4, 5)) * 100
  names = 'float64 float32 float16 int64 int32 int16 int8 uint8 bool complex64 complex128'
  tensors = {name: numbers.astype(name) for name in names.split()}
  tensors |= {
    'bfloat16': numbers.astype(ml_dtypes.bfloat16),
    'scalar': np.array(3.5, np.float32),
    'empty': np.zeros((2, 0, 3), np.float32),
    'swapped': numbers.astype('>f4'),
    'transposed': numbers.T,
    'every other': numbers[::2, ::-1],
    'broadcast': np.broadcast_to(np.float32(2), (4, 2)),
  }
  rest = {
    'list': [1, -(1 << 40), True, None, 'ü', 2.5, [], ()],
    'nested': {'a': ({'b': [np.arange(3)]},), 7: {}},
  }
  ordered = collections.OrderedDict(x=1, y=np.ones(2))
  path = tmp_path / 'all.pt'
  torch_writer.save(path, {'tensors': tensors, **rest, 'ordered': ordered})
  read = torch_file.load(path)
  native = {name: x.astype(x.dtype.newbyteorder('=')) for name, x in tensors.items()}
  assert_same(read['tensors'], native)
  assert read['list'] == rest['list']
  np.testing.assert_array_equal(read['nested']['a'][0]['b'][0], np.arange(3))
  assert read['nested'][7] == {} and list(read['ordered']) == ['x', 'y']

  with zipfile.ZipFile(path) as archive:
    assert archive.testzip() is None and archive.namelist()[0] == 'archive/data.pkl'
  before = path.read_bytes()
  torch_writer.save(path, {'tensors': tensors, **rest, 'ordered': ordered})
  assert path.read_bytes() == before


@pytest.mark.parametrize(
  'thing', [np.array(['a']), np.zeros(2, np.uint16), {1, 2}, np.float64(1), b'x', object()]
)
def test_what_has_no_place_in_a_torch_file_is_refused(tmp_path, thing):
  (tmp_path / 'x.pt').write_bytes(b'before')
  with pytest.raises(TypeError, match='no place for'):
    torch_writer.save(tmp_path / 'x.pt', {'a': [thing]})
  assert [p.read_bytes() for p in tmp_path.iterdir()] == [b'before']


def test_paths_that_cannot_be_written(tmp_path):
  content = {'g_ema': {}, 'latent_avg': np.zeros(2, np.float32)}
  for name, says in (
    ('x.bin', 'give a name that ends in .pt or .safetensors'),
    ('no/x.pt', 'does not exist'),
    ('no/x.safetensors', 'does not exist'),
  ):
    with pytest.raises(InputError, match=says):
      formats.write(str(tmp_path / name), content)
  assert not list(tmp_path.iterdir())


# --- Round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize('suffix', formats.SUFFIXES)
def test_a_generator_comes_back_bit_for_bit(tmp_path, suffix):
  source = torch_file.load(GOLDEN / 'generator64.pt')
  tree, channels = key_maps.generator(source['g_ema'], source['latent_avg'])
  path = tmp_path / f'generator{suffix}'
  formats.write(str(path), formats.rosinality(tree, channels))
  again = files.read(path)
  assert_same(again['g_ema'], source['g_ema'])
  assert_same({'': again['latent_avg']}, {'': source['latent_avg']})

  per_row = {**tree, 'w_avg': np.tile(tree['w_avg'], (10, 1))}
  assert_same({'': formats.rosinality(per_row, channels)['latent_avg']}, {'': tree['w_avg']})
  per_row['w_avg'][3] += 1  # cannot be one vector
  assert formats.rosinality(per_row, channels)['latent_avg'].shape == (10, 64)


@pytest.mark.parametrize('suffix', formats.SUFFIXES)
def test_an_e4e_checkpoint_comes_back_bit_for_bit(config, shared, tmp_path, suffix):
  source = torch_file.load(shared('reference/e4e_reduced.pt'))
  nets = networks.build(config.model)
  generator, encoder = load.load_e4e(nets, str(shared('reference/e4e_reduced.pt')))
  path = tmp_path / f'e4e{suffix}'
  formats.write(str(path), formats.e4e(nets, encoder, generator, rows=10))
  again = files.read(path)
  counters = {k: x for k, x in again['state_dict'].items() if k.endswith('num_batches_tracked')}
  ours = {k: x for k, x in again['state_dict'].items() if k.startswith('deformation.')}
  assert len(counters) == 52 and all(x.shape == () and x == 0 for x in counters.values())
  assert len(ours) == sum(2 * (n + 1) for n in (4, 4, 5, 5, 5, 5, 6))
  left = {k: x for k, x in again['state_dict'].items() if k not in counters and k not in ours}
  assert set(source['state_dict']) == set(left) | set(counters)
  assert_same(left, {k: x for k, x in source['state_dict'].items() if k not in counters})
  assert_same({'': again['latent_avg']}, {'': source['latent_avg']})


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A workdir with a random encoder at step 3, and what is in it."""
  workdir, small = tmp_path_factory.mktemp('run'), small_config()
  nets = networks.build(small.model)
  shapes = jax.eval_shape(lambda key: networks.init_encoder(nets, key), jax.random.key(0))
  rng = np.random.default_rng(0)
  draw = lambda x: rng.normal(size=x.shape).astype(np.float32)  # noqa: E731
  encoder = jax.tree.map(draw, shapes)
  pool = empty_pool(2, 2)
  state = TrainState(
    np.asarray(3), jax.random.key(5), encoder, (), {'x': np.ones(1)}, (), np.zeros(()), pool, pool
  )
  checkpoint.write_config(str(workdir), small.to_dict())
  with checkpoint.manager(str(workdir)) as checkpoints:
    iterator = iter(grain.MapDataset.source([0]).to_iter_dataset())
    checkpoint.save(checkpoints, state, iterator)
  return workdir, nets, encoder, load.load_generator(nets, small.weights, small.train.seed)


@pytest.mark.parametrize('suffix', formats.SUFFIXES)
def test_the_command_writes_an_encoder_that_is_read_again(trained, tmp_path, capsys, suffix):
  workdir, nets, encoder, generator = trained
  path = tmp_path / f'e4e{suffix}'
  export.main(['--workdir', str(workdir), '--output', str(path)])
  assert 'W+ rows 3 to 7 are not trained yet' in capsys.readouterr().out
  read_generator, read = load.load_e4e(nets, str(path))
  flat = lambda tree: {  # noqa: E731
    jax.tree_util.keystr(k, simple=True, separator='/'): np.asarray(x)
    for k, x in jax.tree_util.tree_leaves_with_path(tree)
  }
  read, wrote = flat(read), flat(encoder)
  for row in range(3, 8):
    for name in ('kernel', 'bias'):
      key = f'params/identity_heads_{row}/dense/{name}'
      assert not read.pop(key).any() and wrote.pop(key).any()
  assert_same(read, wrote)
  generator = {**generator, 'w_avg': np.tile(generator['w_avg'], (8, 1))}
  assert_same(flat(read_generator), flat(generator))

  if suffix == '.safetensors':
    with safetensors.safe_open(path, 'np') as file:
      opts = json.loads(file.metadata()['opts'])
  else:
    opts = torch_file.load(path)['opts']
  assert (opts['stylegan_size'], opts['encoder_type']) == (32, 'Encoder4Editing')
  assert opts['deformation_layers'] == list(nets.hybrid.deformation_layers)


def test_one_file_is_enough_to_reenact_with(tmp_path):
  for suffix in formats.SUFFIXES:
    export.main([f'--output={tmp_path}/model{suffix}'])
  convert.convert(f'{tmp_path}/model.safetensors', f'{tmp_path}/model')
  expected = load_model('')
  head = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
  motion, W_S = list(expected.deformations([head], 1)), expected.identity(head)
  image = next(expected.images(W_S, motion, 1))
  for name in ('model.pt', 'model'):
    model = load_model(f'{tmp_path}/{name}')
    assert model.digest() == expected.digest() and model.crop == expected.crop
    # Numpy arrays would be sent to the device with every batch.
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves((model.E, model.G)))
    np.testing.assert_array_equal(model.identity(head), W_S)
    np.testing.assert_array_equal(list(model.deformations([head], 1)), motion)
    np.testing.assert_array_equal(next(model.images(W_S, motion, 1)), image)


def test_a_file_that_does_not_say_how_it_was_trained_is_refused(trained, tmp_path):
  _, nets, encoder, generator = trained
  whole = shipped.config()
  lacking = [whole | {section: {}} for section in exported.SECTIONS]
  for k, config in enumerate(({}, {'model': 3}, *lacking)):
    path = tmp_path / f'{k}.pt'
    formats.write(str(path), formats.e4e(nets, encoder, generator, 8, config))
    with pytest.raises(InputError, match='not a model that .* wrote'):
      load_model(str(path))


def test_the_command_writes_the_generator_alone(trained, tmp_path):
  workdir, nets, _, generator = trained
  export.main(['--workdir', str(workdir), '--part=generator', f'--output={tmp_path}/g.pt'])
  read = torch_file.load(tmp_path / 'g.pt')
  tree, channels = key_maps.generator(read['g_ema'], read['latent_avg'])
  assert channels == nets.hybrid.generator.channels
  jax.tree.map(np.testing.assert_array_equal, tree, jax.device_get(generator))


def test_what_cannot_be_exported_is_reported_in_one_line(trained, tmp_path):
  for workdir, output, says in (
    (tmp_path, 'x.pt', 'nothing was trained there'),
    (trained[0], 'x.bin', 'give a name that ends in'),
    (trained[0], 'no/x.pt', 'does not exist'),
  ):
    with pytest.raises(SystemExit) as caught:
      export.main(['--workdir', str(workdir), '--output', str(tmp_path / output)])
    text = str(caught.value.code)
    assert text.startswith('error: ') and says in text and '\n' not in text
  assert not list(tmp_path.iterdir())


def test_deformation_heads_of_another_model_are_refused(trained, tmp_path):
  workdir, nets, encoder, generator = trained
  content = formats.e4e(nets, encoder, generator, 8)
  key = 'deformation.styles.4.linear.weight'
  for state, says in (
    ({k: x for k, x in content['state_dict'].items() if k != key}, 'missing'),
    (content['state_dict'] | {'deformation.more': np.ones(1, np.float32)}, 'no place here'),
  ):
    formats.write(str(tmp_path / 'e4e.pt'), {**content, 'state_dict': state})
    with pytest.raises(InputError, match=f'deformation heads of .*{says}'):
      load.load_e4e(nets, str(tmp_path / 'e4e.pt'))
