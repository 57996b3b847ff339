"""From the paths of a config to the frozen tree and the encoder that training starts from."""

import pathlib
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax

from hybrid_jax.errors import InputError
from hybrid_jax.networks import Networks, init_encoder, random_frozen
from hybrid_jax.weights import key_maps, torch_file

WHAT = {
  'e4e': 'e4e encoder for FFHQ with its StyleGAN2 decoder',
  'lpips_backbone': "torchvision's AlexNet, under LPIPS",
  'lpips_linear': 'LPIPS v0.1 linear layers',
  'arcface': 'ArcFace IR-SE50 identity network',
}


def check_files(paths: Mapping[str, str]) -> bool:
  """True if the weights come from files, False if all are random.

  Raises:
    InputError: files are missing (all are named), or files and random networks are mixed.
  """
  random = [field for field in paths if paths[field] == 'random']
  if len(random) == len(paths):
    return False
  if random:
    raise InputError(f'config.weights: {random} are random and the others are not; give all files')
  missing = [field for field in paths if not pathlib.Path(paths[field]).is_file()]
  if missing:
    lines = (f"  config.weights.{f}='{paths[f]}': {WHAT[f]}" for f in missing)
    raise InputError(
      f'{len(missing)} weight files are missing; give their paths as --config.weights.NAME=FILE:\n'
      + '\n'.join(lines)
    )
  return True


def load(networks: Networks, paths: Mapping[str, str], seed: int) -> tuple[dict, dict | None]:
  """(frozen, encoder variables to start from); the encoder is None for random networks.

  Raises:
    InputError: a file is missing, is not what its field says, or is of another size than the model.
  """
  if not check_files(paths):
    # The same for training and re-enactment: they must meet the same random generator.
    return jax.jit(lambda key: random_frozen(networks, key))(jax.random.key(seed)), None
  features = torch_file.load(paths['lpips_backbone'])
  linear = torch_file.load(paths['lpips_linear'])
  body = networks.arcface
  frozen = {
    'lpips': key_maps.convert(
      {**features, **linear},
      key_maps.lpips(networks.lpips.net),
      kind=f'LPIPS {networks.lpips.net} of {paths["lpips_backbone"]} and {paths["lpips_linear"]}',
      unneeded=key_maps.TORCHVISION_UNNEEDED,
    ),
    'arcface': key_maps.convert(
      torch_file.load(paths['arcface']),
      key_maps.arcface(body.units, body.widths, body.size),
      kind=f'ArcFace of {paths["arcface"]}',
    ),
  }
  frozen['generator'], encoder = load_e4e(networks, paths['e4e'])
  expected = jax.eval_shape(lambda key: random_frozen(networks, key), jax.random.key(0))
  files = {'lpips': 'lpips_backbone', 'arcface': 'arcface', 'generator': 'e4e'}
  for part in frozen:
    _check_shapes(frozen[part], expected[part], paths[files[part]])
  return frozen, encoder


def load_e4e(networks: Networks, path: str) -> tuple[dict, dict]:
  """An e4e checkpoint -> (generator tree, encoder variables with untrained deformation heads)."""
  file = torch_file.load(path)
  if not isinstance(file, Mapping) or not {'state_dict', 'latent_avg'} <= set(file):
    raise InputError(f'{path}: not an e4e checkpoint, it has no state_dict and latent_avg')
  state = file['state_dict']
  decoder = key_maps.with_prefix(state, 'decoder.')
  generator, channels = key_maps.generator(decoder, file['latent_avg'])
  if channels != tuple(networks.hybrid.generator.channels):
    raise InputError(
      f'{path}: its generator has channels {channels}, config.model asks for '
      f'{tuple(networks.hybrid.generator.channels)}'
    )
  module = networks.hybrid.encoder
  sizes = [networks.frame_size // stride for stride in (16, 8, 4)]
  loaded = key_maps.convert(
    key_maps.with_prefix(state, 'encoder.'),
    key_maps.e4e_encoder(module.units, module.widths, module.identity_split, sizes),
    kind=f'e4e encoder of {path}',
  )
  fresh = jax.jit(lambda key: init_encoder(networks, key))(jax.random.key(0))
  flat = flax.traverse_util.flatten_dict(loaded)
  encoder = flax.traverse_util.flatten_dict(fresh) | flat  # deformation heads stay fresh
  encoder = flax.traverse_util.unflatten_dict(encoder)
  _check_shapes(encoder, fresh, path)
  return generator, encoder


def _check_shapes(tree: Any, expected: Any, path: str) -> None:
  """Raises InputError at the first array whose shape is not the model's."""
  if 'w_avg' in tree:  # (d,) in a generator file, (l, d) in an e4e checkpoint: both broadcast
    tree, expected = ({k: v for k, v in t.items() if k != 'w_avg'} for t in (tree, expected))
  actual = jax.tree_util.tree_leaves_with_path(tree)
  wanted = dict(jax.tree_util.tree_leaves_with_path(expected))
  for key, value in actual:
    if value.shape != wanted[key].shape:
      raise InputError(
        f'{path}: {jax.tree_util.keystr(key)} is {value.shape}, '
        f'the model of this config has {wanted[key].shape}'
      )
