"""From weight files to the frozen tree: files in the public format, reduced widths."""

import jax
import numpy as np
import pytest
from parity import GOLDEN, error, nhwc
from torch_files import write

from hybrid_jax.errors import InputError
from hybrid_jax.method import networks
from hybrid_jax.weights import convert, key_maps, load, public, torch_file


@pytest.fixture
def paths(shared):
  lpips = str(GOLDEN / 'lpips_alex_reduced.pt')  # backbone and linear layers in one file
  return {
    'e4e': str(shared('reference/e4e_reduced.pt')),
    'lpips_backbone': lpips,
    'lpips_linear': lpips,
    'arcface': str(GOLDEN / 'arcface_reduced.pt'),
  }


def test_loaded_networks_give_the_reference_latents_and_image(config, paths, shared):
  nets = networks.build(config.model)
  frozen, E = load.load(nets, paths, seed=0)
  v = np.load(shared('reference/e4e_reduced_vectors.npz'))
  image = nhwc(v['x_u8']).astype(np.float32) / 127.5 - 1
  G = frozen['generator']
  W, F = jax.jit(nets.hybrid.encode)(E, G, image)
  assert error(W, v['wplus']) < 1e-5
  assert all(np.all(f == 0) for f in F)  # so that training starts at e4e's inversion
  for reenacted in (nets.hybrid.reenact(G, W, F), nets.hybrid.reenact(G, W, None)):
    assert error(reenacted, nhwc(v['image'])) < 1e-5
  v = np.load(GOLDEN / 'arcface_reduced_vectors.npz')
  face = nhwc(v['y256_u8']).astype(np.float32) / 127.5 - 1
  assert error(nets.arcface.apply(frozen['arcface'], face), v['embedding_face256']) < 1e-5


def test_a_file_of_another_size_or_kind_is_refused(config, paths):
  wide = config.copy_and_resolve_references()
  wide.model.channel_max = 64
  with pytest.raises(InputError, match='e4e_reduced.pt: its generator has channels'):
    load.load(networks.build(wide.model), paths, seed=0)
  nets = networks.build(config.model)
  with pytest.raises(InputError, match='arcface weights, which hold arcface and no generator'):
    load.load(nets, paths | {'e4e': paths['arcface']}, seed=0)
  with pytest.raises(InputError, match='generator64.pt: rosinality weights, .* and no arcface'):
    load.load(nets, paths | {'arcface': str(GOLDEN / 'generator64.pt')}, seed=0)
  with pytest.raises(InputError, match='README.md'):
    load.load(nets, paths | {'lpips_backbone': str(GOLDEN / 'README.md')}, seed=0)


# --- Bad files, all made of golden ones ----------------------------------------------------------


@pytest.fixture
def golden_paths():
  """Files that exist; the one of `e4e` is no e4e checkpoint."""
  lpips = str(GOLDEN / 'lpips_alex_reduced.pt')
  return {
    'e4e': str(GOLDEN / 'generator64.pt'),
    'lpips_backbone': lpips,
    'lpips_linear': lpips,
    'arcface': str(GOLDEN / 'arcface_reduced.pt'),
  }


def test_missing_and_mixed_files_are_reported_at_once(golden_paths, tmp_path):
  bad = {'arcface': 'nowhere.pth', 'lpips_linear': '', 'e4e': str(tmp_path)}
  with pytest.raises(InputError) as caught:
    load.check_files(golden_paths | bad, 'vgg')
  first, *lines = str(caught.value).splitlines()
  assert '3 weight files' in first and len(lines) == 3
  files = f'--file=e4e={tmp_path}', '--file=lpips_vgg=weights/vgg.pth', '--file=arcface=nowhere.pth'
  assert all(file in first for file in files)
  for field, name in (
    ('e4e', 'e4e_ffhq_encode.pt'),
    ('lpips_linear', 'lpips/weights/v0.1/vgg.pth'),
    ('arcface', 'model_ir_se50.pth'),
  ):
    (line,) = (line for line in lines if f"config.weights.{field}='{bad[field]}'" in line)
    assert f': {name} of {public.file_of(field, "vgg").origin} (' in line
  with pytest.raises(InputError, match='random'):
    load.check_files(golden_paths | {'arcface': 'random'})
  assert load.check_files(golden_paths)


def e4e_file(path, latent_avg=None, **changed) -> str:
  """The golden generator as an e4e checkpoint without an encoder; `changed` replaces tensors."""
  file = torch_file.load(GOLDEN / 'generator64.pt')
  state = file['g_ema'] | {name.replace('__', '.'): x for name, x in changed.items()}
  state = {f'decoder.{name}': x for name, x in state.items() if x is not None}
  latent_avg = file['latent_avg'] if latent_avg is None else latent_avg
  return write(path / 'e4e.pt', {'state_dict': state, 'latent_avg': latent_avg})


def refusal(function, *args) -> str:
  with pytest.raises(InputError) as caught:
    function(*args)
  text = str(caught.value)
  assert '\n' not in text and len(text) < 500
  return text


def test_the_generator_loads_without_the_encoder_and_the_other_files(config, tmp_path):
  paths = {'e4e': e4e_file(tmp_path), 'arcface': 'nowhere', 'lpips_linear': 'random'}
  tree = load.load_generator(networks.build(config.model), paths, seed=0)
  file = torch_file.load(GOLDEN / 'generator64.pt')
  expected, _ = key_maps.generator(file['g_ema'], file['latent_avg'])
  assert set(tree) == {'params', 'noise_const', 'w_avg'}
  jax.tree.map(np.testing.assert_array_equal, tree, expected)


def test_a_random_generator_is_the_same_with_and_without_the_rest(config, monkeypatch):
  def random_frozen(nets, key):  # the real one takes ten seconds to compile
    return {part: {'x': jax.random.normal(key, (3,))} for part in ('generator', 'lpips', 'arcface')}

  monkeypatch.setattr(load, 'random_frozen', random_frozen)
  nets = networks.build(config.model)
  frozen, E = load.load(nets, config.weights, 3)
  assert E is None
  jax.tree.map(np.testing.assert_array_equal, frozen, random_frozen(None, jax.random.key(3)))
  alone = load.load_generator(nets, config.weights, 3)
  jax.tree.map(np.testing.assert_array_equal, alone, frozen['generator'])
  losses = load.load_losses(nets, config.weights, 3)
  assert set(losses) == {'lpips', 'arcface'}
  jax.tree.map(np.testing.assert_array_equal, losses, {name: frozen[name] for name in losses})


ONE = np.ones(1, np.float32)


@pytest.mark.parametrize(
  ('file', 'says'),
  [
    ([ONE], 'it holds a list, not named entries'),
    (ONE, 'interfacegan weights, which hold direction and no generator'),
    ('text', 'it holds a str, not named entries'),
    ({'latent_avg': ONE}, 'it has no state_dict'),
    ({'state_dict': {}}, 'it has no encoder or decoder'),
    ({'state_dict': {'decoder.a': ONE}}, 'it has no latent_avg'),
    ({'state_dict': [ONE], 'latent_avg': ONE}, 'not a state dict but of type list'),
    ({'state_dict': {'a': 'text'}, 'latent_avg': ONE}, "'a' is str, not a tensor"),
    ({'state_dict': {'a': {'b': ONE}}, 'latent_avg': ONE}, "'a' is dict, not a tensor"),
    ({'state_dict': {3: ONE}, 'latent_avg': ONE}, 'it has a key of type int'),
    ({'state_dict': {'a': ONE}, 'latent_avg': ONE}, "1 tensors have no place here, first ['a']"),
    ({'state_dict': {'decoder.a': ONE}, 'latent_avg': ONE}, 'to_rgb1.conv.weight is missing'),
    ({'state_dict': {'encoder.a': ONE}, 'latent_avg': ONE}, 'its heads have [] convolutions'),
    (
      {'state_dict': {'decoder.a': ONE}, 'latent_avg': None},
      "'latent_avg' is NoneType, not a tensor",
    ),
  ],
)
def test_an_e4e_file_of_another_structure(config, tmp_path, file, says):
  nets, path = networks.build(config.model), write(tmp_path / 'e4e.pt', file)
  for call in (load.load_generator, load.load_e4e):
    text = refusal(call, nets, *(({'e4e': path}, 0) if call is load.load_generator else (path,)))
    assert path in text and says in text


@pytest.mark.parametrize(
  ('changed', 'says'),
  [
    ({'to_rgb1__conv__weight': np.ones(3)}, 'to_rgb1.conv.weight has shape (3,), not 5 axes'),
    ({'conv1__conv__weight': np.ones((2, 3))}, 'conv1.conv.weight has shape (2, 3), which is not'),
    ({'conv1__noise__weight': np.ones(2)}, 'conv1.noise.weight has shape (2,), which is not'),
    ({'input__input': np.ones(3)}, 'params/const is (3, 1), the network'),
    ({'noises__noise_3': np.ones(5)}, 'noise_const/3 is (5, 1), the network'),
    ({'noises__noise_0': np.ones((1, 1, 8, 8))}, 'noise_const/0 is (8, 8, 1), the network'),
    ({'conv1__activate__bias': np.ones(5)}, 'params/layers_0/bias is (5,), the network'),
    ({'conv1__conv__modulation__weight': np.ones((2, 2, 2))}, 'affines_0/kernel is (2, 2, 2)'),
    ({'conv1__activate__bias': None}, '1 tensors are missing, first'),
    ({'more__weight': np.ones(1)}, '1 tensors have no place here, first'),
    ({'to_rgbs__1__conv__weight': None}, 'to_rgbs.1.conv.weight is missing'),
    (
      {'latent_avg': np.ones(3)},
      'latent_avg has shape (3,), its generator needs (64,) or (10, 64)',
    ),
    ({'latent_avg': np.ones((7, 64))}, 'latent_avg has shape (7, 64)'),
  ],
)
def test_an_e4e_file_with_tensors_of_other_shapes(config, tmp_path, changed, says):
  path = e4e_file(tmp_path, **changed)
  text = refusal(load.load_generator, networks.build(config.model), {'e4e': path}, 0)
  assert path in text and says in text


def test_extra_and_missing_layers_are_named(config, tmp_path):
  paths = {'e4e': e4e_file(tmp_path)}
  layers = config.model.mapping_layers
  for count, says in (
    (
      layers - 1,
      f'has arrays that the model of this config has not: 2, first params/mapping/dense_'
      f'{layers - 1}/bias',
    ),
    (
      layers + 1,
      f'lacks arrays of the model of this config: 2, first params/mapping/dense_{layers}',
    ),
  ):
    config.model.mapping_layers = count
    text = refusal(load.load_generator, networks.build(config.model), paths, 0)
    assert paths['e4e'] in text and says in text


def test_the_generator_of_inference_needs_its_file(config, tmp_path):
  nets = networks.build(config.model)
  for path in ('nowhere.pt', '', str(tmp_path)):
    text = refusal(load.load_generator, nets, {'e4e': path}, 0)
    assert text.startswith(f"config.weights.e4e='{path}': no such file")


@pytest.mark.parametrize(
  ('field', 'name', 'says'),
  [
    ('arcface', 'generator64.pt', '{}: rosinality weights, which hold generator, discriminator'),
    ('arcface', 'latent_discriminator.pt', '{}: latent_discriminator weights, which hold critic'),
    ('arcface', 'ranger_trajectories.npz', '{}: a zip, but not one of torch.save'),
    ('arcface', 'torch_files/zip.pt', "ArcFace {}: 'tensors' is dict, not a tensor"),
    ('lpips_backbone', 'lpips_vgg_reduced.pt', "{}: the LPIPS backbone 'vgg', config.model.lpips"),
    ('lpips_backbone', 'torch_files/script.pt', '{}: a TorchScript program'),
    ('lpips_linear', 'arcface_reduced.pt', '{}: arcface weights, which hold arcface and no lpips'),
    ('e4e', 'latent_discriminator.pt', '{}: latent_discriminator weights, which hold critic and'),
    (
      'e4e',
      'image_discriminator.pt',
      '{}: rosinality weights, which hold generator, discriminator and no encoder',
    ),
  ],
)
def test_a_golden_file_in_the_place_of_another(config, golden_paths, field, name, says):
  path = str(GOLDEN / name)
  text = refusal(load.load, networks.build(config.model), golden_paths | {field: path}, 0)
  assert path in text and says.format(path) in text


@pytest.mark.parametrize('file', [[ONE], ONE, 'text', {'state_dict': {'a': ONE}}, {'a': ONE}])
@pytest.mark.parametrize('field', ['arcface', 'lpips_backbone', 'lpips_linear'])
def test_files_of_another_structure(config, golden_paths, tmp_path, field, file):
  path = write(tmp_path / 'file.pt', file)
  assert path in refusal(load.load, networks.build(config.model), golden_paths | {field: path}, 0)


def test_arcface_of_another_size_or_rank(config, golden_paths, tmp_path):
  state = torch_file.load(golden_paths['arcface'])
  nets = networks.build(config.model)
  for name, x, says in (
    (
      'output_layer.3.weight',
      np.ones((64, 5)),
      'output_layer.3.weight has 5 inputs, which are no square map',
    ),
    ('body.0.res_layer.1.weight', np.ones(7), 'body.0.res_layer.1.weight has shape (7,)'),
    ('output_layer.3.bias', np.ones(7), 'params/dense/bias is (7,), the network'),
    ('input_layer.2.weight', np.ones((8, 1)), 'params/backbone/stem_prelu/slope is (8, 1)'),
  ):
    path = write(tmp_path / 'arcface.pt', state | {name: x})
    text = refusal(load.load, nets, golden_paths | {'arcface': path}, 0)
    assert path in text and says in text


def test_nvlabs_files_of_another_structure():
  state = torch_file.load(GOLDEN / 'nvlabs64.pt')
  left_out = lambda key: {k: v for k, v in state.items() if k != key}  # noqa: E731
  for bad, says in (
    ({}, 'synthesis.b4.torgb.weight is missing'),
    (left_out('synthesis.b8.torgb.weight'), 'synthesis.b8.torgb.weight is missing'),
    (left_out('mapping.w_avg'), "first ['mapping.w_avg']"),
    (left_out('synthesis.b8.conv0.noise_const'), "first ['synthesis.b8.conv0.noise_const']"),
    (state | {'synthesis.b4.torgb.weight': ONE}, 'has shape (1,), not 4 axes'),
  ):
    assert says in refusal(key_maps.generator_nvlabs, bad)


# --- Converted folders ---------------------------------------------------------------------------


def test_converted_folders_load_as_their_files_do(config, golden_paths, tmp_path):
  nets = networks.build(config.model)
  lpips, arcface = golden_paths['lpips_backbone'], golden_paths['arcface']
  folders = [str(tmp_path / name) for name in ('lpips', 'arcface', 'generator')]
  for file, folder in zip((lpips, arcface, e4e_file(tmp_path)), folders, strict=True):
    convert.convert(file, folder)
  for backbone, linear in ((folders[0], folders[0]), (folders[0], lpips), (lpips, folders[0])):
    found = load._lpips(nets, backbone, linear)
    jax.tree.map(np.testing.assert_array_equal, found, load._lpips(nets, lpips, lpips))
  found, expected = (load.load_arcface(nets, path) for path in (folders[1], arcface))
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  found, expected = (
    load.load_generator(nets, {'e4e': path}, 0) for path in (folders[2], e4e_file(tmp_path))
  )
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  assert load.check_files(golden_paths | {'e4e': folders[2]})


def test_converted_folders_of_another_kind_or_size(config, golden_paths, tmp_path):
  nets = networks.build(config.model)
  folder = str(tmp_path / 'arcface')
  convert.convert(golden_paths['arcface'], folder)
  text = refusal(load.load_generator, nets, {'e4e': folder}, 0)
  assert folder in text and 'arcface weights, which hold arcface and no generator' in text
  assert 'no lpips' in refusal(load.load, nets, golden_paths | {'lpips_linear': folder}, 0)
  folder = str(tmp_path / 'nvlabs16')
  convert.convert(str(GOLDEN / 'nvlabs16.pkl'), folder)
  text = refusal(load.load_generator, nets, {'e4e': folder}, 0)
  assert 'its generator has channels (8, 8, 8)' in text
  (tmp_path / 'nvlabs16' / 'manifest.json').write_text('{"format": 2}')
  assert 'no converted weights' in refusal(load.load_generator, nets, {'e4e': folder}, 0)


def test_a_converted_encoder_loads_as_its_file_does_but_not_for_psp(config, paths, tmp_path):
  nets = networks.build(config.model)
  for kind in ('e4e', 'psp'):
    convert.convert(paths['e4e'], str(tmp_path / kind), kind)
  found, expected = (
    load.parts(path, 'generator', 'encoder') for path in (str(tmp_path / 'e4e'), paths['e4e'])
  )
  jax.tree.map(np.testing.assert_array_equal, found[1], expected[1])
  file = torch_file.load(paths['e4e']) | {'opts': {'encoder_type': 'GradualStyleEncoder'}}
  for psp in (str(tmp_path / 'psp'), write(tmp_path / 'psp.pt', file)):
    text = refusal(load.load_e4e, nets, psp)
    assert 'a pSp encoder, whose heads give whole rows' in text
    assert load.load_generator(nets, {'e4e': psp}, 0)['w_avg'].shape == (10, 64)


def test_a_generator_of_another_file_serves_inference(config, tmp_path):
  convert.convert(str(GOLDEN / 'nvlabs64.pt'), str(tmp_path / 'nvlabs'))
  nets = networks.build(config.model)
  tree = load.load_generator(nets, {'e4e': str(tmp_path / 'nvlabs')}, 0)
  expected, _ = key_maps.generator_nvlabs(torch_file.load(GOLDEN / 'nvlabs64.pt'))
  jax.tree.map(np.testing.assert_array_equal, tree, expected)
