"""Our networks back in the formats of the PyTorch tools: rosinality's generator, e4e's checkpoint.

The inverse of `key_maps`: names, shapes and values are those of the public files.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.method.networks import Networks
from hybrid_jax.models import latents
from hybrid_jax.weights import files, key_maps, torch_writer
from hybrid_jax.weights.layouts import batched, first_plane

SUFFIXES = ('.pt', '.safetensors')


def generator(G: Mapping, channels: Sequence[int]) -> dict[str, np.ndarray]:
  """The state dict of rosinality's `g_ema`, its noise maps and resampling kernels included."""
  keys = key_maps.rosinality_generator(channels, len(G['params']['mapping']))
  state = key_maps.invert({'params': G['params']}, keys, kind='generator')
  for i, noise in enumerate(G['noise_const']):
    state[f'noises.noise_{i}'] = batched(batched(first_plane)).back(np.asarray(noise))
  tap = np.array([1, 3, 3, 1], np.float32) / 4  # each axis sums to 2, as upsampling asks for
  for i in range(len(channels) - 1):
    state[f'convs.{2 * i}.conv.blur.kernel'] = np.outer(tap, tap)
    state[f'to_rgbs.{i}.upsample.kernel'] = np.outer(tap, tap)
  return state


def rosinality(G: Mapping, channels: Sequence[int]) -> dict[str, Any]:
  """The content of a rosinality checkpoint, {'g_ema', 'latent_avg'}; also of a tuned generator."""
  w_avg = np.asarray(G['w_avg']).reshape(-1, np.shape(G['w_avg'])[-1])
  one = (w_avg == w_avg[0]).all()  # e4e keeps it once for each row of W+
  return {'g_ema': generator(G, channels), 'latent_avg': w_avg[0] if one else w_avg}


def e4e(
  networks: Networks, E: Mapping, G: Mapping, rows: int, config: Mapping = {}
) -> dict[str, Any]:
  """The content of an e4e checkpoint, {'state_dict', 'latent_avg', 'opts'}.

  Identity heads are `encoder.styles.N`. Deformation heads, which e4e has not, are of the same make
  and named `deformation.styles.N`, which e4e passes over; the StyleSpace layers that they add to
  are `opts['deformation_layers']`.

  Args:
    rows: W+ rows that progressive training has switched on. e4e always adds all of them, so that
      the last layers of other heads are written as zeros.
    config: of the training, kept as JSON in `opts['config']`, from which `exported` builds the
      model again.
  """
  hybrid = networks.hybrid
  module, channels = hybrid.encoder, tuple(hybrid.generator.channels)
  sizes = [networks.frame_size // stride for stride in (16, 8, 4)]
  body = key_maps.e4e_encoder(module.units, module.widths, module.identity_split, sizes)
  heads = key_maps.deformation_heads(module.deformation_split, sizes)
  deforms = lambda name: name.startswith('deformation_heads')  # noqa: E731
  encoder, deformation = (
    key_maps.invert(
      {k: {n: x for n, x in E[k].items() if deforms(n) == which} for k in E}, keys, kind='encoder'
    )
    for which, keys in ((False, body), (True, heads))
  )
  for row in range(rows, module.num_ws):
    for name in (f'styles.{row}.linear.weight', f'styles.{row}.linear.bias'):
      encoder[name] = np.zeros_like(encoder[name])
  for name in [name for name in encoder if name.endswith('running_mean')]:
    # A counter that batch normalisation with a fixed momentum never reads.
    encoder[name.replace('running_mean', 'num_batches_tracked')] = np.zeros((), np.int64)
  parts = {'encoder': encoder, 'decoder': generator(G, channels), 'deformation': deformation}
  w_avg = np.asarray(G['w_avg'])
  return {
    'state_dict': {f'{part}.{name}': x for part, s in parts.items() for name, x in s.items()},
    'latent_avg': np.broadcast_to(w_avg, (module.num_ws, module.w_dim)),
    'opts': {
      'encoder_type': 'Encoder4Editing',
      'stylegan_size': latents.style_layers(channels)[-1].resolution,
      'start_from_latent_avg': True,
      'device': 'cpu',
      'deformation_layers': list(hybrid.deformation_layers),
      'deformation_space': 'StyleSpace' if hybrid.hybrid else 'W+',
      'config': json.dumps(config),
    },
  }


def check_path(path: str) -> None:
  """Raises InputError for a name without one of `SUFFIXES`."""
  if pathlib.Path(path).suffix not in SUFFIXES:
    raise InputError(f'{path}: give a name that ends in {" or ".join(SUFFIXES)}')


def write(path: str, content: Mapping[str, Any]) -> None:
  """Writes the content of a checkpoint as `.pt`, or as `.safetensors`.

  A safetensors file is flat: `g_ema.` is put before the names of a generator, those of an e4e
  checkpoint begin with `encoder.`, `decoder.` or `deformation.`; `opts` are JSON in the metadata.

  Raises:
    InputError: another suffix, or a path that cannot be written.
  """
  check_path(path)
  if pathlib.Path(path).suffix == '.pt':
    return torch_writer.save(path, dict(content))
  tensors = {'latent_avg': content['latent_avg'], **content.get('state_dict', {})}
  tensors |= {f'g_ema.{name}': x for name, x in content.get('g_ema', {}).items()}
  files.write_safetensors(path, tensors, {'opts': json.dumps(content.get('opts', {}))})
