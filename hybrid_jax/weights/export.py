"""Our networks back in the formats of the PyTorch tools: rosinality's generator, e4e's checkpoint.

The inverse of `key_maps`: names and shapes are those of the public files.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from hybrid_jax import latents
from hybrid_jax.errors import InputError
from hybrid_jax.media import replacing
from hybrid_jax.networks import Networks
from hybrid_jax.weights import key_maps, torch_writer


def state_dict(tree: Mapping, keys: key_maps.KeyMap) -> dict[str, np.ndarray]:
  """Tensors by their PyTorch name: what `key_maps.convert` would turn into `tree`."""
  flat = flax.traverse_util.flatten_dict(jax.device_get(dict(tree)), sep='/')
  return {
    theirs: np.ascontiguousarray(layout.theirs(np.asarray(flat[ours])))
    for ours, (theirs, layout) in keys.items()
  }


def generator(G: Mapping, channels: tuple[int, ...]) -> dict[str, np.ndarray]:
  """Rosinality's `g_ema` with all its buffers: noise maps and resampling kernels."""
  layers = len(G['params']['mapping'])
  keys = key_maps.rosinality_generator(channels, layers)
  state = state_dict({'params': G['params']}, keys)
  for i, noise in enumerate(G['noise_const']):
    state[f'noises.noise_{i}'] = np.ascontiguousarray(
      key_maps.first_plane.theirs(np.asarray(noise, np.float32))
    )
  tap = np.array([1, 3, 3, 1], np.float32) / 4  # of an upsampling kernel: each axis sums to 2
  kernel = np.outer(tap, tap)
  for i in range(len(channels) - 1):
    state[f'convs.{2 * i}.conv.blur.kernel'] = kernel
    state[f'to_rgbs.{i}.upsample.kernel'] = kernel
  return state


def rosinality(G: Mapping, channels: tuple[int, ...]) -> dict[str, Any]:
  """The object of a rosinality checkpoint, `{'g_ema', 'latent_avg'}`."""
  w_avg = np.asarray(G['w_avg'], np.float32)
  return {'g_ema': generator(G, channels), 'latent_avg': w_avg.reshape(-1, w_avg.shape[-1])[0]}


def e4e(networks: Networks, E: Mapping, G: Mapping) -> dict[str, Any]:
  """The object of an e4e checkpoint, `{'state_dict', 'latent_avg', 'opts'}`.

  Identity heads are e4e's `encoder.styles.N`. Deformation heads, which e4e has not, are
  `encoder.deformation_styles.N` of the same make: tools that load strictly must leave them out.
  """
  module = networks.hybrid.encoder
  sizes = [networks.frame_size // stride for stride in (16, 8, 4)]
  body = key_maps.e4e_encoder(module.units, module.widths, module.identity_split, sizes)
  heads = key_maps.map2style(
    'deformation_heads', 'deformation_styles', module.deformation_split, sizes
  )
  encoder = state_dict(E, body | heads)
  for key in [k for k in encoder if k.endswith('running_mean')]:
    encoder[key.replace('running_mean', 'num_batches_tracked')] = np.zeros((), np.int64)
  channels = tuple(networks.hybrid.generator.channels)
  rows, w_avg = latents.num_ws(channels), np.asarray(G['w_avg'], np.float32)
  state = {f'encoder.{key}': x for key, x in encoder.items()}
  state |= {f'decoder.{key}': x for key, x in generator(G, channels).items()}
  return {
    'state_dict': state,
    'latent_avg': np.ascontiguousarray(np.broadcast_to(w_avg, (rows, w_avg.shape[-1]))),
    'opts': {
      'encoder_type': 'Encoder4Editing',
      'stylegan_size': 4 << (len(channels) - 1),
      'start_from_latent_avg': True,
      'device': 'cpu',
    },
  }


def write(path: str, checkpoint: Mapping[str, Any]) -> None:
  """To `.pt` as it is, or to `.safetensors` with the names joined by dots, `opts` as metadata.

  Raises:
    InputError: another suffix, or a path that cannot be written.
  """
  suffix = pathlib.Path(path).suffix
  try:
    if suffix == '.pt':
      torch_writer.save(path, dict(checkpoint))
    elif suffix == '.safetensors':
      from safetensors.numpy import save_file

      opts = json.dumps(checkpoint.get('opts', {}))
      tensors = {k: v for k, v in checkpoint.items() if k != 'opts'}
      flat = flax.traverse_util.flatten_dict(tensors, sep='.')
      with replacing(pathlib.Path(path)) as part:
        save_file(flat, part, metadata={'format': 'pt', 'opts': opts})
    else:
      raise InputError(f'{path}: give a name that ends in .pt or .safetensors')
  except OSError as error:
    raise InputError(f'{path}: cannot be written ({error.strerror or error})') from error
