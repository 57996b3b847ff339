"""Reads StyleGAN2 files: rosinality's, stylegan2-ada-pytorch's (NVlabs) and PTI's.

Each function is a converter, see `conversion`. The trees are those of `models.stylegan2`: a
generator is {'params', 'noise_const', 'w_avg'}, a discriminator the variables of
`ImageDiscriminator`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.models import latents
from hybrid_jax.models.stylegan2 import Generator, ImageDiscriminator
from hybrid_jax.weights import discriminator_key_maps, key_maps, shapes, sizes
from hybrid_jax.weights.conversion import Conversion, check_network, require_entries
from hybrid_jax.weights.torch_modules import Module


def rosinality(content: Any, label: str) -> Conversion:
  """`g_ema`, `latent_avg`, and `d` if the file has it; or a file of `d` alone."""
  if isinstance(content, Mapping) and set(content) == {'d'}:
    return _discriminator(content['d'], f'discriminator of {label}')
  require_entries(content, label, 'g_ema latent_avg', 'g d g_optim d_optim args ada_aug_p')
  result = generator(content['g_ema'], latent_avg(content, label), label)
  if 'd' in content:
    result |= _discriminator(content['d'], f'discriminator of {label}')
  # The generator to use is the moving average of the one that was trained, `g`.
  left_out = tuple(key for key in ('g', 'g_optim', 'd_optim') if key in content)
  return dataclasses.replace(result, left_out=left_out)


def nvlabs(content: Any, label: str) -> Conversion:
  """`G_ema` and `D`; or one generator or discriminator, as a module or its state dict."""
  if isinstance(content, Mapping) and 'b4.fc.weight' in content:
    return _discriminator(content, f'discriminator of {label}')
  if not isinstance(content, Mapping) or 'G_ema' not in content:
    return _nvlabs_generator(content, label)
  require_entries(content, label, 'G_ema', 'G D training_set_kwargs augment_pipe')
  result = _nvlabs_generator(content['G_ema'], label)
  if content.get('D') is not None:
    result |= _discriminator(content['D'], f'discriminator of {label}')
  # As above: G_ema is the moving average of G.
  left_out = tuple(key for key in ('G', 'augment_pipe') if content.get(key) is not None)
  return dataclasses.replace(result, left_out=left_out)


def pti(content: Any, label: str) -> Conversion:
  """A generator tuned by PTI: saved whole, as its state dict, or in rosinality's layout."""
  if isinstance(content, Mapping) and 'g_ema' in content:
    return rosinality(content, label)
  return nvlabs(content, label)


def latent_avg(content: Mapping, label: str) -> np.ndarray:
  """The tensor `latent_avg` of a checkpoint: (d,), (1, d) or (l, d)."""
  return key_maps.tensors({'latent_avg': content['latent_avg']}, label)['latent_avg']


def generator(state: Any, w_avg: np.ndarray, label: str) -> Conversion:
  """The part 'generator' of a state dict in rosinality's layout, which e4e and pSp share."""
  facts = sizes.rosinality_generator(key_maps.tensors(state, label), label)
  tree, channels = key_maps.generator(state, w_avg, label)
  # e4e loads `g_ema` leniently, so that its files may lack the noise maps.
  zeros = sum(f'noises.noise_{i}' not in state for i in range(len(latents.noise_shapes(channels))))
  return _checked(tree, facts, label, zeros)


def _nvlabs_generator(state: Any, label: str) -> Conversion:
  facts = sizes.nvlabs_generator(key_maps.tensors(state, label), label)
  tree, _ = key_maps.generator_nvlabs(state, label)
  # Networks trained in half precision clamp their activations; a state dict does not say so.
  options = state.made_with if isinstance(state, Module) else {}
  synthesis = options.get('synthesis_kwargs') if isinstance(options, Mapping) else None
  clamp = synthesis.get('conv_clamp') if isinstance(synthesis, Mapping) else None
  facts['clamp'] = clamp if isinstance(clamp, int | float) else None
  return _checked(tree, facts, label)


def _checked(tree: dict, facts: dict, label: str, zeros: int = 0) -> Conversion:
  """The conversion of a generator, after comparing its shapes with a network of its sizes."""
  channels, width = tuple(facts['channels']), facts['w_dim']
  module = Generator(channels, width, facts['mapping_layers'])
  check_network({'params': tree['params']}, module, (1, width), label=label)
  noise = [jax.ShapeDtypeStruct(shape, np.float32) for shape in latents.noise_shapes(channels)]
  shapes.check(
    {'noise_const': tree['noise_const']},
    {'noise_const': noise},
    label,
    model='the network that its tensors describe',
  )
  # e4e stores its average once for each row of W+, rosinality's tools once.
  rows = latents.num_ws(channels)
  if tree['w_avg'].shape not in ((width,), (1, width), (rows, width)):
    raise InputError(
      f'{label}: latent_avg has shape {tree["w_avg"].shape}, its generator needs ({width},) or '
      f'({rows}, {width})'
    )
  return Conversion({'generator': tree}, {'generator': facts}, zeros)


def _discriminator(state: Any, label: str) -> Conversion:
  """The part 'discriminator' of a state dict in either layout."""
  facts = sizes.discriminator(key_maps.tensors(state, label), label)
  channels, side = tuple(facts['channels']), facts['resolution']
  rosinality_layout = 'convs.0.0.weight' in state
  keys = discriminator_key_maps.rosinality if rosinality_layout else discriminator_key_maps.nvlabs
  # The FIR kernels are the same [1, 3, 3, 1] in all files; our layers hold them as constants.
  not_needed = (r'.*\.kernel', r'.*resample_filter')
  tree = key_maps.convert(state, keys(channels), kind=label, unneeded=not_needed)
  check_network(tree, ImageDiscriminator(channels), (1, side, side, 3), label=label)
  return Conversion({'discriminator': tree}, {'discriminator': facts})
