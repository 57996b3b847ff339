"""Writes our networks in the formats of PyTorch tools: e4e's checkpoint, rosinality's generator.

The inverse of `read_e4e` and `read_stylegan2`: names, shapes and values are those of the public
files.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.media import refuse_target
from hybrid_jax.method.networks import Networks
from hybrid_jax.models import latents
from hybrid_jax.weights import exported, files, key_maps, torch_writer
from hybrid_jax.weights.layouts import batched, first_plane

SUFFIXES = ('.pt', '.safetensors')


def rosinality_file(networks: Networks, G: Mapping) -> tuple[dict[str, Any], str]:
  """The content of a file of the generator alone, and its description for the user."""
  channels = tuple(networks.hybrid.generator.channels)
  return rosinality(G, channels), f'rosinality generator of {_side(channels)} px'


def e4e_file(
  networks: Networks, E: Mapping, G: Mapping, rows: int, config: Mapping
) -> tuple[dict[str, Any], str]:
  """The content of an e4e checkpoint, and its description for the user; arguments as `e4e`'s."""
  content = e4e(networks, E, G, rows, exported.portable(config))
  what = f'e4e encoder and decoder of {_side(networks.hybrid.generator.channels)} px'
  total = networks.hybrid.encoder.num_ws
  if rows < total:
    what += f'; W+ rows {rows} to {total - 1} are not trained yet, their heads are zero'
  return content, what


def generator(G: Mapping, channels: Sequence[int]) -> dict[str, np.ndarray]:
  """The state dict of rosinality's `g_ema`, its noise maps and resampling kernels included."""
  # The maps that read a public file, inverted: a generator comes back bit for bit.
  keys = key_maps.rosinality_generator(channels, len(G['params']['mapping']))
  state = key_maps.invert({'params': G['params']}, keys, kind='generator')
  for i, noise in enumerate(G['noise_const']):
    state[f'noises.noise_{i}'] = batched(batched(first_plane)).back(np.asarray(noise))
  # [1, 3, 3, 1] along each axis. It sums to 2, not 1: upsampling first puts zeros between pixels.
  tap = np.array([1, 3, 3, 1], np.float32) / 4
  for i in range(len(channels) - 1):
    state[f'convs.{2 * i}.conv.blur.kernel'] = np.outer(tap, tap)
    state[f'to_rgbs.{i}.upsample.kernel'] = np.outer(tap, tap)
  return state


def rosinality(G: Mapping, channels: Sequence[int]) -> dict[str, Any]:
  """The content of a rosinality checkpoint, {'g_ema', 'latent_avg'}; also of a tuned generator."""
  w_avg = np.asarray(G['w_avg']).reshape(-1, np.shape(G['w_avg'])[-1])
  # e4e repeats one average for each row of W+; rosinality's tools expect it once.
  is_one = (w_avg == w_avg[0]).all()
  return {'g_ema': generator(G, channels), 'latent_avg': w_avg[0] if is_one else w_avg}


def e4e(
  networks: Networks, E: Mapping, G: Mapping, rows: int, config: Mapping = {}
) -> dict[str, Any]:
  """The content of an e4e checkpoint, {'state_dict', 'latent_avg', 'opts'}.

  Identity heads are `encoder.styles.N`. Deformation heads, which e4e has not, have the same layers
  and are named `deformation.styles.N`, which e4e ignores; the StyleSpace layers that they add to
  are `opts['deformation_layers']`.

  Args:
    networks: of the model.
    E: variables of the encoder.
    G: tree of the generator.
    rows: W+ rows that progressive training has switched on.
    config: of the training, kept as JSON in `opts['config']`, from which `exported` builds the
      model again.
  """
  hybrid = networks.hybrid
  state = {
    **_with_prefix('encoder.', _encoder(networks, E, rows)),
    **_with_prefix('decoder.', generator(G, tuple(hybrid.generator.channels))),
    **_with_prefix('deformation.', _deformation(networks, E)),
  }
  # The options that e4e's loading code reads, and ours for `exported`. JSON keeps the config out of
  # reach of the pickle allow-lists.
  options = {
    'encoder_type': 'Encoder4Editing',
    'stylegan_size': _side(hybrid.generator.channels),
    'start_from_latent_avg': True,
    'device': 'cpu',
    'deformation_layers': list(hybrid.deformation_layers),
    'deformation_space': 'StyleSpace' if hybrid.hybrid else 'W+',
    'config': json.dumps(config),
  }
  # e4e's code adds the average to all rows at once and expects one for each.
  average = np.broadcast_to(np.asarray(G['w_avg']), (hybrid.encoder.num_ws, hybrid.encoder.w_dim))
  return {'state_dict': state, 'latent_avg': average, 'opts': options}


def _side(channels: Sequence[int]) -> int:
  """Side of the images of a generator, px."""
  return latents.style_layers(tuple(channels))[-1].resolution


def _levels(networks: Networks) -> list[int]:
  """Sides of the encoder's three pyramid levels, px, coarse to fine."""
  return [networks.frame_size // stride for stride in (16, 8, 4)]


def _with_prefix(prefix: str, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  return {f'{prefix}{name}': x for name, x in state.items()}


def _encoder(networks: Networks, E: Mapping, rows: int) -> dict[str, np.ndarray]:
  """The state dict of e4e's encoder, with zeros for the heads of rows not yet trained."""
  module = networks.hybrid.encoder
  keys = key_maps.e4e_encoder(module.units, module.widths, module.identity_split, _levels(networks))
  state = key_maps.invert(_heads_apart(E, deformation=False), keys, kind='encoder')
  # e4e adds the offsets of all rows whatever its training stage: zero is no offset.
  for row in range(rows, module.num_ws):
    for name in (f'styles.{row}.linear.weight', f'styles.{row}.linear.bias'):
      state[name] = np.zeros_like(state[name])
  for name in [name for name in state if name.endswith('running_mean')]:
    # The public files have this counter; batch normalisation with a fixed momentum never reads it.
    state[name.replace('running_mean', 'num_batches_tracked')] = np.zeros((), np.int64)
  return state


def _deformation(networks: Networks, E: Mapping) -> dict[str, np.ndarray]:
  """The state dict of the deformation heads."""
  split = networks.hybrid.encoder.deformation_split
  keys = key_maps.deformation_heads(split, _levels(networks))
  return key_maps.invert(_heads_apart(E, deformation=True), keys, kind='encoder')


def _heads_apart(E: Mapping, deformation: bool) -> dict:
  """The variables of the deformation heads alone, or all others."""
  wanted = lambda name: name.startswith('deformation_heads') == deformation  # noqa: E731
  return {kind: {name: x for name, x in E[kind].items() if wanted(name)} for kind in E}


def check_path(path: str) -> None:
  """Raises InputError for a name without one of `SUFFIXES`, or where no file can be written."""
  if pathlib.Path(path).suffix not in SUFFIXES:
    raise InputError(f'{path}: give a name that ends in {" or ".join(SUFFIXES)}')
  refuse_target(path)


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
  # Prefixes in place of nesting, as `files.read` undoes them.
  tensors = {'latent_avg': content['latent_avg'], **content.get('state_dict', {})}
  tensors |= {f'g_ema.{name}': x for name, x in content.get('g_ema', {}).items()}
  files.write_safetensors(path, tensors, {'opts': json.dumps(content.get('opts', {}))})
