"""Configs and workdirs that cannot be used: one line each, before any work."""

import functools
import json
import os
import pathlib

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict
from small import small_config

from configs import common
from hybrid_jax.errors import InputError
from hybrid_jax.training import checkpoint, config_check, parallel, triplets
from hybrid_jax.training.state import TrainState, empty_pool


def refusal(function, *args) -> str:
  """The one line with which a call refuses its input."""
  with pytest.raises(InputError) as caught:
    function(*args)
  text = str(caught.value)
  assert '\n' not in text and 20 < len(text) < 500
  return text


# --- The config ----------------------------------------------------------------------------------


class Fields(dict):
  """A dict with its items as attributes: a config without ml_collections."""

  def __getattr__(self, name):
    return Fields(self[name]) if isinstance(self[name], dict) else self[name]


def test_the_configs_of_ours_are_accepted():
  for make in (common.paper, common.tiny):
    config_check.check(ConfigDict(make()))
    config_check.check(Fields(make()))
  config_check.check(small_config())
  wide = ConfigDict(common.paper())
  wide.model.update(deformation_layers=tuple(range(10)), frame_size=512, half_dtype='float16')
  wide.loss.update(pool_size=0, resolution=128)
  wide.progressive.every_steps = 0
  config_check.check(wide)


def test_loss_names_are_those_of_the_config():
  loss = common.finetune(common.paper())['loss']  # stage 2 has one more than stage 1
  for field, names in config_check.LOSS_NAMES.items():
    assert set(loss[field.removeprefix('loss.')]) == set(names.split())


BAD_FIELDS = [
  *(('model.resolution', x, 'a power of two from 8 to 1024') for x in (48, 4, 0, -64, 2048, 64.0)),
  *(
    ('model.deformation_layers', x, 'StyleSpace entries 0 to 13, increasing')
    for x in ((), (0, 2, 99), (-1, 2), (0, 2, 2), (2, 0), ('a',), 'ab', 3)
  ),
  *(
    ('model.identity_split', x, 'sum to 10, the rows of W+ at 64 px')
    for x in ((3, 4, 11), (3, 7), (5, 6, -1), (10,), (1, 2, 3, 4))
  ),
  *(('model.deformation_split', x, 'sum to 7') for x in ((2, 4, 4), (3, 4), (7, 1, -1))),
  *(('model.frame_size', x, 'a power of two of at least 16') for x in (48, 8, 224, 0)),
  ('model.lpips_net', 'resnet', "one of 'alex', 'vgg', 'squeeze'"),
  ('model.lpips_widths', (8, 24), 'empty or 5 channel counts'),
  ('model.half_dtype', 'float8', "one of '', 'bfloat16', 'float16'"),
  ('model.encoder_widths', (8, 16, 32), '4 channel counts'),
  ('model.encoder_units', (2, 2, 2, 2, 2), '4 block counts'),
  ('model.encoder_units', (2, 0, 2, 2), '4 block counts'),
  ('model.encoder_reduction', 16, 'at most 8'),
  ('model.arcface_widths', (), '4 channel counts'),
  ('model.arcface_units', (1, 1), '4 block counts'),
  *(('model.arcface_size', x, 'a multiple of 16') for x in (100, 0, -16)),
  ('model.channel_base', 32, 'at least 64'),
  *(('loss.resolution', x, 'take 64 or less') for x in (128, 96, 48)),
  ('loss.resolution', 16, 'at least 32'),
  *(
    (field, x, 'a whole number of at least 1')
    for field in (
      'model.head_width',
      'model.w_dim',
      'model.mapping_layers',
      'data.batch_size',
      'loss.r1_steps',
      'train.num_steps',
      'train.log_steps',
      'train.sample_steps',
      'train.checkpoint_steps',
    )
    for x in (0, -1)
  ),
  ('data.batch_size', True, 'a whole number'),
  ('data.batch_size', 2.5, 'a whole number'),
  ('data.frames_per_clip', 1, 'at least 2'),
  ('loss.pool_size', -1, 'at least 0'),
  ('progressive.start_steps', -1, 'at least 0'),
  ('progressive.every_steps', -5, 'at least 0'),
  ('data.framing', 'square', "one of 'clip', 'fomm', 'ffhq'"),
  ('loss.weights', {'adversarial': 1.0, 'lpip': 1.0}, 'has lpip, which is no loss'),
  ('loss.reconstruction', {'l1': 1.0}, 'has l1, which is no loss; take of l2 lpips'),
]


def with_field(config, field, value):
  *parents, leaf = field.split('.')
  functools.reduce(lambda node, name: node[name], parents, config)[leaf] = value
  return config


@pytest.mark.parametrize(('field', 'value', 'says'), BAD_FIELDS)
def test_bad_fields_are_named(field, value, says):
  text = refusal(config_check.check, Fields(with_field(common.tiny(), field, value)))
  assert text.startswith(f'config.{field}') and says in text


def test_the_ablation_has_no_more_deformation_layers_than_rows():
  config = common.tiny()
  config['model'] |= {'deformation_layers': tuple(range(12)), 'deformation_split': (4, 4, 4)}
  config_check.check(Fields(config))
  config['model']['hybrid'] = False
  text = refusal(config_check.check, Fields(config))
  assert text.startswith('config.model.deformation_layers') and 'at most 10 entries' in text


# --- The config of a workdir ---------------------------------------------------------------------


def test_a_workdir_goes_on_with_the_same_model_only(tmp_path):
  workdir = str(tmp_path / 'a' / 'run')
  checkpoint.check_config(workdir, common.tiny())
  assert not list(tmp_path.iterdir())
  checkpoint.write_config(workdir, common.tiny())
  assert os.listdir(workdir) == [checkpoint.CONFIG]

  def check(**fields):
    config = common.tiny()
    for field, value in fields.items():
      with_field(config, field.replace('__', '.'), value)
    checkpoint.check_config(workdir, config)
    return config

  longer = check(
    train__num_steps=7, model__half_dtype='bfloat16', model__remat_from=32, data__videos='x'
  )
  checkpoint.write_config(workdir, longer)
  assert checkpoint.read_config(workdir) == json.loads(json.dumps(longer))

  text = refusal(lambda: check(model__w_dim=32, model__identity_split=(2, 5, 3)))
  assert 'holds checkpoints of another model (w_dim 64 -> 32; identity_split [3, 4, 3] ->' in text
  text = refusal(lambda: check(weights__e4e='e4e.pt'))
  assert 'was trained with other weights (e4e random -> e4e.pt)' in text
  text = refusal(lambda: check(train__seed=3))
  assert 'was trained with other weights (train.seed 0 -> 3)' in text

  fields = json.loads(pathlib.Path(workdir, checkpoint.CONFIG).read_text())
  del fields['model']['head_width']
  pathlib.Path(workdir, checkpoint.CONFIG).write_text(json.dumps(fields))
  assert 'head_width None -> 64' in refusal(check)


def test_a_workdir_goes_on_with_the_same_framing_only(tmp_path):
  config = common.tiny()
  config['data'] |= {'videos': 'a', 'face_detector': 'yunet.onnx', 'framing': 'fomm'}
  checkpoint.write_config(str(tmp_path), config)
  checkpoint.check_config(str(tmp_path), config)
  other = common.merged(config, {'data': {'framing': 'clip'}})
  text = refusal(lambda: checkpoint.check_config(str(tmp_path), other))
  assert 'trained on crops of another framing (data.framing fomm -> clip)' in text
  config['data'] = {'crop_scale': 1.8} | config['data']
  del config['data']['framing']
  checkpoint.write_config(str(tmp_path), config)
  text = refusal(lambda: checkpoint.check_config(str(tmp_path), other))
  assert 'data.framing 1.8 face boxes -> clip' in text
  other['data'] |= {'videos': '', 'rendered_people': 4}
  checkpoint.check_config(str(tmp_path), other)


def test_the_seed_is_free_where_the_weights_are_files(tmp_path):
  config = common.paper()
  checkpoint.write_config(str(tmp_path), config)
  config['train']['seed'] = 1
  checkpoint.check_config(str(tmp_path), config)


@pytest.mark.parametrize(
  ('content', 'says'),
  [
    (json.dumps(common.tiny())[:500], 'truncated or damaged'),
    ('', 'truncated or damaged'),
    (b'\xff\xfe\x00', 'truncated or damaged'),
    ('[1, 2]', "no 'model' section"),
    ('{"model": 3}', "no 'model' section"),
    ('{"model": {}}', "no 'weights' section"),
  ],
)
def test_a_config_that_is_damaged_or_not_ours(tmp_path, content, says):
  content = content if isinstance(content, bytes) else content.encode()
  (tmp_path / checkpoint.CONFIG).write_bytes(content)
  for call in (
    functools.partial(checkpoint.check_config, str(tmp_path), common.tiny()),
    functools.partial(checkpoint.read_config, str(tmp_path)),
  ):
    text = refusal(call)
    assert text.startswith(f'{tmp_path}/config.json: ') and says in text


def test_workdirs_that_cannot_be_used(tmp_path):
  file = tmp_path / 'file'
  file.touch()
  for workdir in (file, file / 'run'):
    assert f'{file} is not a folder' in refusal(
      checkpoint.check_config, str(workdir), common.tiny()
    )
    assert 'cannot be written' in refusal(checkpoint.write_config, str(workdir), common.tiny())
    assert 'nothing was trained there' in refusal(checkpoint.read_config, str(workdir))
  (tmp_path / 'odd' / checkpoint.CONFIG).mkdir(parents=True)
  assert 'cannot be read' in refusal(checkpoint.read_config, str(tmp_path / 'odd'))


def test_a_workdir_without_write_permission(tmp_path, monkeypatch):
  monkeypatch.setattr(os, 'access', lambda path, mode: False)  # root may write anywhere
  text = refusal(checkpoint.check_config, str(tmp_path / 'run'), common.tiny())
  assert f'no permission to write in {tmp_path}' in text


# --- Checkpoints ---------------------------------------------------------------------------------


def a_state(width=4, pool=2):
  variables = {'params': {'a': jnp.arange(1.0 * width)}, 'batch_stats': {'b': jnp.ones(2)}}
  return TrainState(
    step=jnp.asarray(3),
    key=jax.random.key(5),
    encoder=variables,
    encoder_opt=(jnp.ones(width),),
    critic={},
    critic_opt=None,
    r1=jnp.zeros(()),
    pool_real=empty_pool(pool, width),
    pool_fake=empty_pool(pool, width),
  )


def an_iterator():
  return triplets.Batches(grain.MapDataset.range(100), workers=0)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('checkpoints')
  iterator = an_iterator()
  next(iterator)
  with checkpoint.manager(str(workdir)) as checkpoints:
    checkpoint.save(checkpoints, a_state(), iterator)
  return workdir


@pytest.mark.parametrize('abstract', [False, True])
def test_a_state_is_restored_to_arrays_or_shapes_alike(saved, abstract):
  sharding = NamedSharding(parallel.make_mesh(4), PartitionSpec())
  state, iterator = a_state(), an_iterator()
  if abstract:
    template = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), jax.eval_shape(a_state)
    )
  else:
    template = jax.device_put(jax.tree.map(jnp.zeros_like, state.replace(key=None)), sharding)
    template = template.replace(key=jax.device_put(jax.random.key(0), sharding))
  with checkpoint.manager(str(saved)) as checkpoints:
    restored = checkpoint.restore(checkpoints, template, iterator)
  assert jax.tree.structure(restored) == jax.tree.structure(state)
  assert restored.key.dtype == state.key.dtype
  assert all(x.sharding == sharding for x in jax.tree.leaves(restored))
  data = lambda s: s.replace(key=jax.random.key_data(s.key))  # noqa: E731
  jax.tree.map(np.testing.assert_array_equal, data(restored), data(state))
  assert next(iterator) == 1


def test_a_state_of_other_shapes_is_refused(saved):
  with checkpoint.manager(str(saved)) as checkpoints:
    text = refusal(checkpoint.restore, checkpoints, a_state(pool=3), an_iterator())
  assert '(pool_real.latents is (2, 4), not (3, 4))' in text


def test_an_encoder_is_restored_without_touching_the_workdir(saved):
  files = sorted((p, p.stat().st_mtime_ns) for p in saved.rglob('*'))
  expected = a_state().encoder
  step, encoder = checkpoint.restore_encoder(str(saved), jax.eval_shape(lambda: expected))
  assert step == 3
  jax.tree.map(np.testing.assert_array_equal, encoder, expected)
  for bad in (
    a_state(width=5).encoder,
    {'params': expected['params']},
    {**expected, 'more': jnp.zeros(2)},
  ):
    text = refusal(checkpoint.restore_encoder, str(saved), bad)
    assert text.startswith(f'{saved}/checkpoints/3: not a checkpoint of this config, or damaged')
  assert files == sorted((p, p.stat().st_mtime_ns) for p in saved.rglob('*'))


def test_a_workdir_without_checkpoints_stays_as_it_is(tmp_path):
  for workdir in (tmp_path, tmp_path / 'nowhere'):
    text = refusal(checkpoint.restore_encoder, str(workdir), a_state().encoder)
    assert text.startswith(f'{workdir}: no checkpoint in it')
  assert not list(tmp_path.iterdir())
