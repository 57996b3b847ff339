"""The paper model's sizes, the public files' names and shapes, and the order of imports."""

import ast
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from parity import GOLDEN

import hybrid_jax
from configs import common
from hybrid_jax.method import networks
from hybrid_jax.models import latents
from hybrid_jax.models.i3d import I3D
from hybrid_jax.models.inception import Inception
from hybrid_jax.models.perceptual import LPIPS
from hybrid_jax.models.stylegan2 import ImageDiscriminator
from hybrid_jax.weights import discriminator_key_maps, key_maps, metric_key_maps


class Config(dict):
  def __getattr__(self, name):
    value = self[name]
    return Config(value) if isinstance(value, dict) else value


def paper():
  nets = networks.build(Config(common.paper()).model)
  frozen = jax.eval_shape(lambda key: networks.random_frozen(nets, key), jax.random.key(0))
  encoder = jax.eval_shape(lambda key: networks.init_encoder(nets, key), jax.random.key(0))
  return nets, frozen, encoder


def count(tree, only=''):
  return sum(int(np.prod(x.shape)) for k, x in flatten_dict(tree, sep='/').items() if only in k)


def test_parameter_counts():
  _, frozen, encoder = paper()
  generator = frozen['generator']['params']
  assert count(generator, 'mapping') == 2_101_248
  assert count(generator) == 30_370_060
  deformation = count(encoder['params'], 'deformation')
  assert deformation == 125_336_576
  assert count(encoder['params']) - deformation == 267_136_704
  assert count(encoder['params'], 'identity_heads') == 235_988_992


def keys_of(name):
  return json.loads((GOLDEN / 'keys' / f'{name}.json').read_text())


def zeros(shapes):
  """Arrays of these shapes that take no memory."""
  return {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}


def assert_fills(tree, expected):
  """Every parameter of the model is filled, with its shape, and nothing else is."""
  actual = {k: x.shape for k, x in flatten_dict(tree, sep='/').items()}
  wanted = {k: x.shape for k, x in flatten_dict(expected, sep='/').items()}
  assert actual == wanted


def test_public_generator_and_e4e_files():
  _, frozen, encoder = paper()
  expected = {'params': frozen['generator']['params']}
  state = zeros(keys_of('rosinality_generator_1024')['keys'])
  tree, channels = key_maps.generator(state, np.zeros(512))
  assert channels == latents.config_f_channels(1024)
  assert_fills({'params': tree['params']}, expected)
  assert [n.shape for n in tree['noise_const']] == list(latents.noise_shapes(channels))

  nvlabs = zeros(keys_of('nvlabs_ada_G_ema_1024')['keys'])
  tree, channels = key_maps.generator_nvlabs(nvlabs)
  assert channels == latents.config_f_channels(1024)
  assert_fills({'params': tree['params']}, expected)

  state = zeros(keys_of('e4e_1024')['keys'])
  keys = key_maps.e4e_encoder((3, 4, 14, 3), (64, 128, 256, 512), (3, 4, 11), (16, 32, 64))
  # Too large to copy here: shapes through the map's layouts are enough.
  shapes = {
    ours: layout(state[f'encoder.{theirs}']).shape for ours, (theirs, layout) in keys.items()
  }
  wanted = {k: x.shape for k, x in flatten_dict(encoder, sep='/').items() if 'deformation' not in k}
  assert shapes == wanted
  used = {f'encoder.{theirs}' for theirs, _ in keys.values()}
  left = {k for k in state if k.startswith('encoder.') and k not in used}
  assert all(k.endswith('num_batches_tracked') for k in left)


def test_public_arcface_and_lpips_files():
  _, frozen, _ = paper()
  state = zeros(keys_of('arcface_ir_se50')['keys'])
  tree = key_maps.convert(
    state, key_maps.arcface((3, 4, 14, 3), (64, 128, 256, 512)), kind='arcface'
  )
  assert_fills(tree, frozen['arcface'])
  files = keys_of('lpips_vgg16_alexnet')
  for net, backbone in (('alex', 'alexnet'), ('vgg', 'vgg16')):
    state = zeros({k: s for k, s in files[backbone].items() if k.startswith('features')})
    state |= zeros(files[f'lpips_v0.1_{net}'])
    tree = key_maps.convert(state, key_maps.lpips(net), kind=net)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    assert_fills(tree, jax.eval_shape(LPIPS(net).init, jax.random.key(0), image, image))


def test_public_discriminator_files():
  channels = latents.config_f_channels(1024)
  image = jax.ShapeDtypeStruct((4, 1024, 1024, 3), np.float32)
  expected = jax.eval_shape(ImageDiscriminator(channels).init, jax.random.key(0), image)
  assert count(expected) == 29_012_513
  for name, keys, unneeded in (
    ('rosinality_discriminator_1024', discriminator_key_maps.rosinality, r'.*\.kernel'),
    ('nvlabs_ada_D_1024', discriminator_key_maps.nvlabs, r'.*resample_filter'),
  ):
    state = zeros(keys_of(name)['keys'])
    tree = key_maps.convert(state, keys(channels), kind=name, unneeded=(unneeded,))
    assert_fills(tree, expected)


def test_public_files_of_the_metrics():
  frame = jax.ShapeDtypeStruct((1, 299, 299, 3), np.float32)
  expected = jax.eval_shape(Inception().init, jax.random.key(0), frame)
  assert count(expected['params']) == 21_785_568
  state = zeros(keys_of('fid_inception_v3')['keys'])
  unneeded = metric_key_maps.INCEPTION_UNNEEDED
  tree = key_maps.convert(state, metric_key_maps.inception(), kind='FID', unneeded=unneeded)
  assert_fills(tree, expected)

  clip = jax.ShapeDtypeStruct((1, 16, 224, 224, 3), np.float32)
  expected = jax.eval_shape(I3D().init, jax.random.key(0), clip)
  assert count(expected['params']) == 12_697_264
  for layout in ('pytorch_i3d', 'kinetics_i3d_pytorch'):
    state = zeros(keys_of('i3d_kinetics400')[layout])
    assert_fills(key_maps.convert(state, metric_key_maps.i3d(state), kind=layout), expected)


def test_style_space_table_of_the_reference():
  table = latents.style_layers(latents.config_f_channels(1024))
  reference = json.loads((GOLDEN / 'keys' / 'stylespace_table_1024.json').read_text())
  for layer, row in zip(table, reference, strict=True):
    assert (layer.kind == 'to_rgb') == (row['kind'] == 'toRGB')
    assert (layer.resolution, layer.w_row, layer.width, layer.features) == (
      row['resolution'],
      row['wplus_index'],
      row['s_channels'],
      row['out_channels'],
    )


# Imports go from a row to rows above it. Modules of the last row are commands.
ORDER = [
  {'errors', 'environment', 'progress', 'models'},
  {'media'},
  {'world', 'method'},
  {'weights'},
  {'training'},
  {'evaluation', 'provenance'},
  {'reenactment'},
  {'jobs'},
  {'cli'},
  {
    'main', 'reenact', 'evaluate', 'convert', 'export', 'doctor', 'verify', 'extract_motion',
    'edit_sheet', 'advise',
  },
]  # fmt: skip


def imported(path):
  """Dotted names below hybrid_jax that a file imports, and the top-level names of the rest."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def test_imports_only_go_up():
  level = {name: i for i, names in enumerate(ORDER) for name in names}
  root = pathlib.Path(hybrid_jax.__file__).parent
  for path in root.rglob('*.py'):
    here = path.relative_to(root).with_suffix('').parts[0]
    if here == '__init__':
      continue
    # The __main__ of a package is a command, too.
    height = len(ORDER) if path.name == '__main__.py' else level[here]
    for name in imported(path):
      assert name.split('.')[0] != 'torch', path
      if name.split('.')[0] == 'hybrid_jax' and name != 'hybrid_jax.__version__':
        other = name.split('.')[1]
        assert level[other] < height or other == here, f'{path} imports {name}'


def test_accelerator_script_needs_only_jax_flax_optax_numpy():
  """Its golden part runs, and passes, where the project's other dependencies cannot be imported."""
  code = (
    'import sys, runpy\n'
    'for name in ("ml_collections", "grain", "tensorflow_datasets", "clu", "av", "cv2", "orbax",'
    ' "tensorflow", "PIL", "imageio", "tqdm", "platformdirs", "absl", "matplotlib", "jinja2",'
    ' "safetensors"): sys.modules[name] = None\n'
    'sys.argv = ["accelerator", "--worker", "--parts=golden"]\n'
    'runpy.run_module("experiments.cost.accelerator", run_name="__main__", alter_sys=True)\n'
  )
  root = pathlib.Path(hybrid_jax.__file__).parents[1]
  result = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True)
  assert result.returncode == 0, result.stderr
  lines = [json.loads(line[7:]) for line in result.stdout.splitlines() if line.startswith('RESULT')]
  assert len(lines) == 5 and all(line['ok'] for line in lines)
