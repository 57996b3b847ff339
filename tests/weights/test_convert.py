"""Conversion of whole files: what is written gives the reference vectors, and what is refused.

The files are those of tests/golden and shared/reference, in the public formats with fewer channels;
what is wrong with the others is made here.
"""

import hashlib
import os

import jax
import numpy as np
import pytest
import safetensors.numpy
from ml_dtypes import bfloat16
from parity import GOLDEN, error, nhwc
from torch_files import write

from hybrid_jax import convert as command
from hybrid_jax.errors import InputError
from hybrid_jax.method.encoder import Encoder
from hybrid_jax.models import latents
from hybrid_jax.models.perceptual import LPIPS, ArcFace
from hybrid_jax.models.stylegan2 import Generator, ImageDiscriminator, LatentDiscriminator
from hybrid_jax.weights import convert, files, folders, torch_file


def generator_of(manifest, tree):
  facts = manifest['parts']['generator']
  module = Generator(tuple(facts['channels']), facts['w_dim'], facts['mapping_layers'])
  G = tree['generator']

  @jax.jit
  def draw(w_plus):
    noise = tuple(x[None] for x in G['noise_const'])
    styles = module.apply({'params': G['params']}, w_plus, method='to_style_space')
    return module.apply({'params': G['params']}, styles, noise, method='synthesize')

  return module, G, draw


# --- Every file of the reference -----------------------------------------------------------------


@pytest.mark.parametrize(
  ('file', 'kind', 'vectors'),
  [
    ('generator64.pt', 'rosinality', ('wplus', 'image')),
    ('nvlabs64.pt', 'nvlabs', ('ws', 'image_const')),
    ('nvlabs16.pkl', 'nvlabs', ('ws', 'image')),
    ('nvlabs16_module.pt', 'pti', ('ws', 'image')),
  ],
)
def test_generators(convert_to, file, kind, vectors):
  manifest, tree = convert_to(GOLDEN / file)
  stem = file.split('.')[0].removesuffix('_module')
  v = np.load(GOLDEN / f'{stem}_vectors.npz')
  module, G, draw = generator_of(manifest, tree)
  w_plus, image = (v[name] for name in vectors)
  assert manifest['kind'] == kind and manifest['resolution'] == image.shape[-1]
  assert error(draw(w_plus), nhwc(image)) < 1e-5
  assert [x.shape for x in G['noise_const']] == list(latents.noise_shapes(module.channels))
  if 'ws_from_z' in v:
    w = module.apply({'params': G['params']}, v['z'], method='map')
    assert error(w, v['ws_from_z'][:, 0]) < 1e-5


@pytest.mark.parametrize(
  'file', ['nvlabs16.pkl', 'nvlabs_discriminator.pt', 'image_discriminator.pt']
)
def test_image_discriminators(convert_to, file):
  manifest, tree = convert_to(GOLDEN / file)
  D = ImageDiscriminator(tuple(manifest['parts']['discriminator']['channels']))
  v = np.load(GOLDEN / f'{file.split(".")[0]}_vectors.npz')
  x = v['x_u8'].astype(np.float32) / 127.5 - 1 if 'x_u8' in v else v['x']
  assert error(jax.jit(D.apply)(tree['discriminator'], nhwc(x)), v['logits']) < 1e-5


@pytest.mark.parametrize('file', ['latent_discriminator.pt', 'latent_discriminator_legacy.pt'])
def test_latent_discriminators(convert_to, file):
  manifest, tree = convert_to(GOLDEN / file)
  D = LatentDiscriminator(manifest['parts']['critic']['width'])
  v = np.load(GOLDEN / 'latent_discriminator_vectors.npz')
  assert error(D.apply(tree['critic'], v['real_w']), v['real_pred']) < 1e-5


def test_arcface(convert_to):
  manifest, tree = convert_to(GOLDEN / 'arcface_reduced.pt')
  facts = manifest['parts']['arcface']
  assert facts['units'] == [3, 4, 14, 3] and facts['size'] == 112
  v = np.load(GOLDEN / 'arcface_reduced_vectors.npz')
  face = nhwc(v['y256_u8']).astype(np.float32) / 127.5 - 1
  embedding = jax.jit(ArcFace(**facts).apply)(tree['arcface'], face)
  assert error(embedding, v['embedding_face256']) < 1e-5


@pytest.mark.parametrize(('net', 'kind'), [('alex', 'alexnet'), ('vgg', 'vgg16')])
def test_lpips(convert_to, net, kind):
  manifest, tree = convert_to(GOLDEN / f'lpips_{net}_reduced.pt', verify=True)
  assert manifest['kind'] == kind and manifest['keys']['not_needed'] == 0
  v = np.load(GOLDEN / f'lpips_{net}_reduced_vectors.npz')
  x, y = (nhwc(v[name]).astype(np.float32) / 127.5 - 1 for name in ('x0_u8', 'x1_u8'))
  distance = LPIPS(net, manifest['parts']['lpips']['widths']).apply
  assert error(jax.jit(distance)(tree['lpips'], x, y), v['dist'].ravel()) < 1e-5


def test_backbone_and_linear_layers_apart(convert_to, shared, tmp_path):
  both = torch_file.load(GOLDEN / 'lpips_alex_reduced.pt')
  features = {key: x for key, x in both.items() if key.startswith('features')}
  features['classifier.1.weight'] = np.ones((2, 2), np.float32)
  manifest, tree = convert_to(write(tmp_path / 'a.pt', features))
  assert manifest['kind'] == 'alexnet' and len(tree['lpips']['params']) == 5
  (tmp_path / 'converted').rename(tmp_path / 'backbone')
  manifest, tree = convert_to(shared('models/lpips/squeeze.pth'), verify=True)
  assert manifest['parts']['lpips']['taps'] == [64, 128, 256, 384, 384, 512, 512]
  assert all(check['ok'] for check in manifest['checks'])


def test_e4e(convert_to, shared):
  manifest, tree = convert_to(shared('reference/e4e_reduced.pt'))
  facts = manifest['parts']['encoder']
  assert manifest['kind'] == 'e4e' and facts['identity_split'] == [3, 4, 3]
  v = np.load(shared('reference/e4e_reduced_vectors.npz'))
  image = nhwc(v['x_u8']).astype(np.float32) / 127.5 - 1
  split = facts['identity_split']
  E = Encoder(
    sum(split), facts['w_dim'], (), split, (0, 0, 0), facts['widths'], facts['units'],
    facts['reduction'], facts['head_width'],
  )  # fmt: skip
  W = jax.jit(lambda E_, x: E.apply(E_, x)[0])(tree['encoder'], image) + tree['generator']['w_avg']
  assert error(W, v['wplus']) < 1e-5
  _, _, draw = generator_of(manifest, tree)
  assert error(draw(np.asarray(W)), nhwc(v['image'])) < 1e-5


def e4e_parts(shared, **changed):
  file = torch_file.load(shared('reference/e4e_reduced.pt'))
  return {**file, 'opts': {'encoder_type': 'Encoder4Editing'}, **changed}


def test_encoder_alone_decoder_alone_and_psp(convert_to, shared, tmp_path):
  file = e4e_parts(shared)
  parts = {
    part: {k: x for k, x in file['state_dict'].items() if k.startswith(part)}
    for part in ('encoder', 'decoder')
  }
  path = write(tmp_path / 'a.pt', file | {'state_dict': parts['decoder']})
  manifest, tree = convert_to(path)
  assert manifest['kind'] == 'e4e' and set(tree) == {'generator'}
  (tmp_path / 'converted').rename(tmp_path / 'decoder')
  opts = {'encoder_type': 'GradualStyleEncoder'}
  path = write(tmp_path / 'b.pt', file | {'state_dict': parts['encoder'], 'opts': opts})
  manifest, tree = convert_to(path)
  assert manifest['kind'] == 'psp' and set(tree) == {'encoder', 'latent_avg'}


# --- Directions ----------------------------------------------------------------------------------


def test_real_directions(convert_to, shared, tmp_path):
  for name, shape in (('age', (1, 512)), ('smile', (1, 512)), ('pose', (18, 512))):
    path = shared(f'directions/{name}.pt')
    manifest, tree = convert_to(path, verify=True)
    assert tree['direction'].shape == shape and manifest['kind'] == 'interfacegan'
    np.testing.assert_array_equal(tree['direction'], torch_file.load(path).reshape(shape))
    (tmp_path / 'converted').rename(tmp_path / name)
  manifest, tree = convert_to(shared('directions/ffhq_pca.pt'), verify=True)
  assert tree['ganspace']['components'].shape == (80, 512)
  assert all(check['ok'] for check in manifest['checks'])


def test_npy_direction(convert_to, tmp_path):
  x = np.random.default_rng(0).normal(size=(1, 64))
  np.save(tmp_path / 'boundary.npy', x)
  _, tree = convert_to(tmp_path / 'boundary.npy')
  np.testing.assert_array_equal(tree['direction'], x.astype(np.float32))


@pytest.mark.parametrize('x', [np.zeros((1, 64)), np.array([[np.nan, 1]]), np.ones((3, 4, 5)), 3.0])
def test_npy_that_is_no_direction(refusal, tmp_path, x):
  np.save(tmp_path / 'x.npy', x)
  assert 'InterFaceGAN direction' in refusal(tmp_path / 'x.npy')


def test_npy_of_objects_is_refused(refusal, tmp_path):
  np.save(tmp_path / 'x.npy', np.array([{'a': print}], object), allow_pickle=True)
  assert 'no array of numbers' in refusal(tmp_path / 'x.npy')


# --- safetensors ---------------------------------------------------------------------------------


def test_safetensors_in(convert_to, tmp_path):
  file = torch_file.load(GOLDEN / 'generator64.pt')
  flat = {f'g_ema.{key}': x for key, x in file['g_ema'].items()}
  files.write_safetensors(tmp_path / 'g.safetensors', flat | {'latent_avg': file['latent_avg']})
  manifest, tree = convert_to(tmp_path / 'g.safetensors')
  (tmp_path / 'converted').rename(tmp_path / 'one')
  _, same = convert_to(GOLDEN / 'generator64.pt')
  assert manifest['kind'] == 'rosinality'
  jax.tree.map(np.testing.assert_array_equal, tree, same)


def test_safetensors_of_every_type(tmp_path):
  names = 'float64 float32 float16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool'
  x = {name: np.arange(6).reshape(2, 3).T.astype(name) for name in names.split()}
  x['bfloat16'] = np.arange(6).reshape(2, 3).astype(bfloat16)
  files.write_safetensors(tmp_path / 'x.safetensors', x, {'kind': 'test'})
  for found in (
    files.read(tmp_path / 'x.safetensors'),
    safetensors.numpy.load_file(tmp_path / 'x.safetensors'),
  ):
    assert {k: a.dtype for k, a in found.items()} == {k: a.dtype for k, a in x.items()}
    for key in x:
      np.testing.assert_array_equal(found[key], x[key])


# --- The manifest and the folder -----------------------------------------------------------------


def test_manifest(convert_to):
  path = GOLDEN / 'generator64.pt'
  manifest, _ = convert_to(path)
  data = path.read_bytes()
  assert manifest['source'] == {
    'name': 'generator64.pt',
    'bytes': len(data),
    'sha256': hashlib.sha256(data).hexdigest(),
  }
  assert manifest['parts']['generator']['channels'] == [32, 32, 32, 32, 16]
  keys = manifest['keys']
  assert keys['in_file'] == 100 and keys['used'] + keys['not_needed'] == 100
  assert keys['not_needed'] == 8  # FIR kernels
  assert 'non-commercial' in manifest['licence']


@pytest.fixture
def refusal(tmp_path):
  """Message of a conversion that must fail and leave nothing."""

  def message(path, kind='auto'):
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(InputError) as caught:
      convert.convert(str(path), str(tmp_path / 'out'), kind)
    assert sorted(os.listdir(tmp_path)) == before
    text = str(caught.value)
    assert '\n' not in text and len(text) < 700
    return text

  return message


def test_what_is_there_is_never_overwritten(tmp_path):
  (tmp_path / 'out').mkdir()
  with pytest.raises(InputError, match='exists already'):
    convert.convert(str(GOLDEN / 'generator64.pt'), str(tmp_path / 'out'))
  assert not os.listdir(tmp_path / 'out')


def test_a_failing_write_leaves_nothing(tmp_path, monkeypatch):
  """The disk fills up while the tree is written."""

  def full(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(folders, 'write', full)
  with pytest.raises(InputError, match='No space left'):
    convert.convert(str(GOLDEN / 'latent_discriminator.pt'), str(tmp_path / 'out'))
  assert not os.listdir(tmp_path)


def rosinality(tmp_path, **changed):
  file = torch_file.load(GOLDEN / 'generator64.pt')
  state = file['g_ema'] | {name.replace('__', '.'): x for name, x in changed.items()}
  state = {name: x for name, x in state.items() if x is not None}
  return write(tmp_path / 'g.pt', {'g_ema': state, 'latent_avg': file['latent_avg']})


@pytest.mark.parametrize(
  ('changed', 'says'),
  [
    ({'more__weight': np.ones(1)}, "1 tensors have no place here, first ['more.weight']"),
    ({'conv1__activate__bias': None}, "1 tensors are missing, first ['conv1.activate.bias']"),
    ({'conv1__activate__bias': np.ones(5)}, 'layers_0/bias is (5,), the network'),
    ({'conv1__conv__weight': np.ones((1, 32, 32, 5, 5))}, 'layers_0/kernel is (5, 5, 32, 32)'),
    ({'noises__noise_0': np.ones((1, 1, 8, 8))}, 'noise_const/0 is (8, 8, 1)'),
    ({'to_rgb1__conv__weight': np.ones(3)}, 'to_rgb1.conv.weight has shape (3,), not 5 axes'),
    ({'style__1__weight': np.ones((0, 64))}, 'style.1.weight has shape (0, 64)'),
    ({'style__9__weight': np.ones((64, 64))}, "first ['style.9.bias']"),
  ],
)
def test_tensors_without_a_place_are_named(refusal, tmp_path, changed, says):
  assert says in refusal(rosinality(tmp_path, **changed))


def test_entries_without_a_place_are_named(refusal, tmp_path):
  file = torch_file.load(GOLDEN / 'generator64.pt')
  assert "first 'more'" in refusal(write(tmp_path / 'a.pt', file | {'more': {}}))
  assert 'has no latent_avg' in refusal(write(tmp_path / 'b.pt', {'g_ema': file['g_ema']}))
  state = {f'decoder.{k}': x for k, x in file['g_ema'].items()}
  text = refusal(write(tmp_path / 'c.pt', {'state_dict': state}))
  assert 'has no latent_avg' in text
  state = {'state_dict': state | {'other.x': file['latent_avg']}, 'latent_avg': file['latent_avg']}
  assert "first ['other.x']" in refusal(write(tmp_path / 'd.pt', state))


@pytest.mark.parametrize('kind', ['rosinality', 'e4e', 'arcface', 'vgg16', 'lpips', 'ganspace'])
def test_a_file_of_another_kind(refusal, kind):
  assert 'nvlabs64.pt' in refusal(GOLDEN / 'nvlabs64.pt', kind)


def test_contents_of_no_kind(refusal, tmp_path):
  for content in ({'a': np.ones(3)}, {}, [np.ones(3)], 'text'):
    assert 'of none of the kinds' in refusal(write(tmp_path / 'x.pt', content))


def test_command(tmp_path, capsys):
  command.main([str(GOLDEN / 'latent_discriminator.pt'), '--output', str(tmp_path / 'a')])
  assert '8 of 8 tensors used' in capsys.readouterr().out
  command.main(
    ['latent_discriminator', str(GOLDEN / 'latent_discriminator.pt'), f'--output={tmp_path / "b"}']
  )
  with pytest.raises(SystemExit) as caught:
    command.main(['e4e', str(GOLDEN / 'latent_discriminator.pt'), f'--output={tmp_path / "c"}'])
  assert str(caught.value).startswith('error: no e4e checkpoint')


# --- Invariants ----------------------------------------------------------------------------------


def sound(tmp_path) -> dict:
  """The golden generator with its true mean latent and images of the range of images."""
  file = torch_file.load(GOLDEN / 'generator64.pt')
  state = dict(file['g_ema'])
  for key in state:
    if key.startswith('to_rgb') and ('conv.weight' in key or key.endswith('.bias')):
      if 'modulation' not in key:
        state[key] = state[key] * np.float32(0.1)
  path = write(tmp_path / 'start.pt', {'g_ema': state, 'latent_avg': file['latent_avg']})
  convert.convert(path, str(tmp_path / 'start'))
  manifest, tree = folders.read(tmp_path / 'start')
  module, G, _ = generator_of(manifest, tree)
  z = jax.random.normal(jax.random.key(7), (4096, 64))
  w_avg = np.asarray(module.apply({'params': G['params']}, z, method='map')).mean(0)
  return {'g_ema': state, 'latent_avg': w_avg}


def test_checks_pass_on_a_sound_file_and_name_what_is_wrong(convert_to, tmp_path, capsys):
  file = sound(tmp_path)
  manifest, _ = convert_to(write(tmp_path / 'sound.pt', file), verify=True)
  assert all(check['ok'] for check in manifest['checks']), manifest['checks']
  assert (tmp_path / 'converted' / 'samples.png').stat().st_size > 1000

  # The mapping's weights as they would be if strides were not honoured.
  scrambled = {k: x.T if k == 'style.3.weight' else x for k, x in file['g_ema'].items()}
  for name, bad, says in (
    ('average', file | {'latent_avg': file['latent_avg'] + 1}, 'stored latent average'),
    ('scrambled', file | {'g_ema': scrambled}, 'stored latent average'),
    (
      'loud',
      file
      | {
        'g_ema': {k: x * 50 if 'to_rgbs.3.bias' in k else x for k, x in file['g_ema'].items()}
        | {'to_rgbs.3.bias': np.full((1, 3, 1, 1), 3, np.float32)}
      },
      'mean of the images',
    ),
    (
      'nan',
      file | {'g_ema': file['g_ema'] | {'input.input': np.full((1, 32, 4, 4), np.nan)}},
      'not finite',
    ),
  ):
    path = write(tmp_path / f'{name}.pt', bad)
    with pytest.raises(SystemExit) as caught:
      command.main([path, f'--output={tmp_path / name}', '--verify'])
    assert 'converted, but' in str(caught.value)
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith('FAIL')]
    assert any(says in line for line in failed), failed
