"""From the paths of a config to the frozen tree and the encoder that training starts from.

Every path may be a file or a folder that `python -m hybrid_jax.convert` made of one.
"""

import os
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.method.networks import Networks, init_encoder, random_frozen
from hybrid_jax.weights import files, folders, key_maps, public_formats, shapes, shipped

WHAT = {
  'e4e': 'e4e encoder for FFHQ with its StyleGAN2 decoder',
  'lpips_backbone': "torchvision's AlexNet, under LPIPS",
  'lpips_linear': 'LPIPS v0.1 linear layers',
  'arcface': 'ArcFace IR-SE50 identity network',
}


def check_files(paths: Mapping[str, str]) -> bool:
  """True if the weights come from files, False if all are random or all shipped.

  Raises:
    InputError: files are missing (all are named), or files and other networks are mixed.
  """
  for kind in ('random', 'shipped'):
    fields = [field for field in paths if paths[field] == kind]
    if len(fields) == len(paths):
      return False
    if fields:
      raise InputError(f'config.weights: {fields} are {kind} and the others are not')
  missing = [field for field in paths if not is_there(paths[field])]
  if missing:
    lines = (f"  config.weights.{f}='{paths[f]}': {WHAT[f]}" for f in missing)
    raise InputError(
      f'{len(missing)} weight files are missing; give their paths as --config.weights.NAME=FILE:\n'
      + '\n'.join(lines)
    )
  return True


def load(networks: Networks, paths: Mapping[str, str], seed: int) -> tuple[dict, dict | None]:
  """(frozen, encoder variables to start from); the encoder is None without an e4e file.

  Raises:
    InputError: a file is missing, is not what its field says, or is of another size than the model.
  """
  if not check_files(paths):
    if paths['e4e'] == 'shipped':
      frozen = shipped.frozen()
      expected = jax.eval_shape(lambda key: random_frozen(networks, key), jax.random.key(0))
      for part in ('generator', 'lpips', 'arcface'):
        shapes.check(frozen[part], expected[part], f'the shipped {part}', ('w_samples',))
      return frozen, load_inversion(networks)
    generator = load_generator(networks, paths, seed)
    return _random(networks, seed, ('lpips', 'arcface')) | {'generator': generator}, None
  backbone, linear, arcface, e4e = (
    paths[field] for field in ('lpips_backbone', 'lpips_linear', 'arcface', 'e4e')
  )
  names = f'{backbone} and {linear}'
  frozen = {
    'lpips': _lpips(networks, backbone, linear),
    'arcface': _arcface(networks, arcface),
  }
  expected = jax.eval_shape(lambda key: random_frozen(networks, key), jax.random.key(0))
  shapes.check(frozen['lpips'], expected['lpips'], names)
  shapes.check(frozen['arcface'], expected['arcface'], arcface)
  frozen['generator'], encoder = load_e4e(networks, e4e)
  return frozen, encoder


def load_generator(networks: Networks, paths: Mapping[str, str], seed: int) -> dict:
  """The generator alone, {'params', 'noise_const', 'w_avg'}: all that inference needs of the files.

  A random one is the same for training and re-enactment, which must meet the same.

  Raises:
    InputError: the e4e file is missing, is none, or is of another size than the model.
  """
  path = paths['e4e']
  if path == 'shipped':
    return shipped.generator()
  if path == 'random':
    return _random(networks, seed, ('generator',))['generator']
  if not is_there(path):
    raise InputError(f"config.weights.e4e='{path}': no such file ({WHAT['e4e']}); put it there")
  if os.path.isdir(path):
    manifest, tree = folders.read(path, 'generator')
    return _of_model(networks, path, tree['generator'], manifest['parts']['generator']['channels'])
  return _generator(networks, path, *_read_e4e(path))


def load_e4e(networks: Networks, path: str) -> tuple[dict, dict]:
  """An e4e checkpoint -> (generator tree, encoder variables).

  Deformation heads, which only `export` writes, are fresh where the file has none.

  Raises:
    InputError: the file is no e4e checkpoint, or of another size than the model.
  """
  generator, encoder = _read_encoder(networks, path)
  return generator, _with_heads(networks, encoder, path)


def load_inversion(networks: Networks) -> dict:
  """The shipped encoder of the rendered world that has the role of e4e, with untrained heads."""
  return _with_heads(networks, shipped.load('inversion_64'), 'the shipped inversion encoder')


def _with_heads(networks: Networks, encoder: dict, name: str) -> dict:
  """Encoder variables of the model's shapes; deformation heads that are not there are fresh."""
  if not any(map(_deforms, encoder['params'])):
    fresh = lambda key: init_encoder(networks, key)['params'].items()  # noqa: E731
    heads = jax.jit(lambda key: {name: x for name, x in fresh(key) if _deforms(name)})
    encoder['params'] |= heads(jax.random.key(0))
  expected = jax.eval_shape(lambda key: init_encoder(networks, key), jax.random.key(0))
  shapes.check(encoder, expected, name)
  return encoder


def _deforms(name: str) -> bool:
  return name.startswith('deformation_heads')


def _read_encoder(networks: Networks, path: str) -> tuple[dict, dict]:
  """(generator tree, encoder variables) of a file or folder; deformation heads if it has any."""
  if os.path.isdir(path):
    manifest, tree = folders.read(path, 'generator', 'encoder')
    if manifest['kind'] == 'psp':
      raise InputError(
        f'{path}: a pSp encoder, whose heads give whole rows of W+; the model needs e4e, whose '
        'heads give offsets from the first row'
      )
    channels = manifest['parts']['generator']['channels']
    return _of_model(networks, path, tree['generator'], channels), tree['encoder']
  state, w_avg = _read_e4e(path)
  generator = _generator(networks, path, state, w_avg)
  module = networks.hybrid.encoder
  sizes = [networks.frame_size // stride for stride in (16, 8, 4)]
  encoder = key_maps.convert(
    key_maps.with_prefix(state, 'encoder.'),
    key_maps.e4e_encoder(module.units, module.widths, module.identity_split, sizes),
    kind=f'e4e encoder of {path}',
  )
  if heads := key_maps.with_prefix(state, 'deformation.'):
    keys = key_maps.deformation_heads(module.deformation_split, sizes)
    kind = f'deformation heads of {path}'
    encoder['params'] |= key_maps.convert(heads, keys, kind=kind)['params']
  return generator, encoder


def load_arcface(networks: Networks, path: str) -> dict:
  """The identity network alone, of a file or folder.

  Raises:
    InputError: no such file, no ArcFace, or of another size than the model.
  """
  tree = _arcface(networks, path)
  expected = jax.eval_shape(lambda key: random_frozen(networks, key)['arcface'], jax.random.key(0))
  shapes.check(tree, expected, path)
  return tree


def load_encoder(networks: Networks, path: str) -> dict:
  """Encoder variables from an .npz tree, as the package ships them.

  Raises:
    InputError: no such file, no tree of weights, or of another model.
  """
  encoder = shipped.read(path)
  expected = jax.eval_shape(lambda key: init_encoder(networks, key), jax.random.key(0))
  shapes.check(encoder, expected, path)
  return encoder


def _random(networks: Networks, seed: int, parts: Sequence[str]) -> dict:
  """Parts of `random_frozen`; what they do not need is not computed."""
  init = lambda key: {part: random_frozen(networks, key)[part] for part in parts}  # noqa: E731
  return jax.jit(init)(jax.random.key(seed))


def is_there(path: str) -> bool:
  """Whether a path is that of a file, or of a folder of converted weights."""
  return os.path.isfile(path) or folders.is_converted(path)


def _lpips(networks: Networks, backbone: str, linear: str) -> dict:
  """LPIPS of two files, two converted folders or one of each."""
  net = networks.lpips.net
  if os.path.isfile(backbone) and os.path.isfile(linear):
    state = {path: _tensors(path, f'LPIPS {net}') for path in (backbone, linear)}
    return key_maps.convert(
      state[backbone] | state[linear],
      key_maps.lpips(net),
      kind=f'LPIPS {net} of {backbone} and {linear}',
      unneeded=key_maps.TORCHVISION_UNNEEDED,
    )
  params: dict = {}
  for path in (backbone, linear):
    params |= part(path, 'lpips')[0]['params']
  return {'params': params}


def _arcface(networks: Networks, path: str) -> dict:
  if os.path.isdir(path):
    return part(path, 'arcface')[0]
  body = networks.arcface
  return key_maps.convert(
    _tensors(path, 'ArcFace'),
    key_maps.arcface(body.units, body.widths, body.size),
    kind=f'ArcFace of {path}',
  )


def part(path: str, name: str) -> tuple[dict, dict]:
  """(tree, sizes) of a part of a converted folder, or of a file that is converted here.

  Raises:
    InputError: no such file, damaged, or of a kind that holds no such part.
  """
  if os.path.isdir(path):
    manifest, tree = folders.read(path, name)
    return tree[name], manifest['parts'][name]
  content = files.read(path)
  kind = public_formats.recognise(content, path)
  made = public_formats.KINDS[kind].convert(content, f'{kind} {path}')
  if name not in made.parts:
    raise InputError(f'{path}: a file of kind {kind}, which holds no {name}')
  return made.parts[name], made.sizes[name]


def _tensors(path: str, kind: str) -> Mapping[str, np.ndarray]:
  return key_maps.tensors(files.read(path), f'{kind} of {path}')


def _read_e4e(path: str) -> tuple[Mapping[str, np.ndarray], np.ndarray]:
  """(state_dict, latent_avg) of an e4e checkpoint."""
  file = files.read(path)
  if not isinstance(file, Mapping) or not {'state_dict', 'latent_avg'} <= set(file):
    raise InputError(f'{path}: not an e4e checkpoint, it has no state_dict and latent_avg')
  kind = f'e4e checkpoint {path}'
  w_avg = key_maps.tensors({'latent_avg': file['latent_avg']}, kind)['latent_avg']
  return key_maps.tensors(file['state_dict'], kind), w_avg


def _generator(
  networks: Networks, path: str, state: Mapping[str, np.ndarray], w_avg: np.ndarray
) -> dict:
  """The generator tree of an e4e checkpoint, of the model's size."""
  decoder = key_maps.with_prefix(state, 'decoder.')
  tree, channels = key_maps.generator(decoder, w_avg, kind=f'StyleGAN2 decoder of {path}')
  return _of_model(networks, path, tree, channels)


def _of_model(networks: Networks, path: str, tree: dict, channels: Sequence[int]) -> dict:
  """The tree of a generator, once it is known to be of the model's size."""
  module, w_avg = networks.hybrid.generator, tree['w_avg']
  if tuple(channels) != tuple(module.channels):
    raise InputError(
      f'{path}: its generator has channels {tuple(channels)}, config.model asks for '
      f'{tuple(module.channels)}'
    )
  # One latent average, or one for each row of W+.
  rows, width = networks.hybrid.encoder.num_ws, module.w_dim
  if w_avg.shape not in ((width,), (1, width), (rows, width)):
    raise InputError(
      f'{path}: latent_avg has shape {w_avg.shape}, the model of this config has ({width},) or '
      f'({rows}, {width})'
    )
  expected = jax.eval_shape(
    lambda key: random_frozen(networks, key)['generator'], jax.random.key(0)
  )
  shapes.check(tree, expected | {'w_avg': w_avg}, path)
  return tree
