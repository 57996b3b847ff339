"""Reads e4e's and pSp's checkpoints: encoder, StyleGAN2 decoder, latent average; e4e's critic.

Each function is a converter, see `conversion`. Names of the tensors: `key_maps.e4e_encoder`. The
encoder becomes the variables of `method.encoder.Encoder`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.method.encoder import Encoder
from hybrid_jax.models.stylegan2 import LatentDiscriminator
from hybrid_jax.weights import discriminator_key_maps, key_maps, read_stylegan2, sizes
from hybrid_jax.weights.conversion import Conversion, check_network, require_entries
from hybrid_jax.weights.exported import config_text

# Entries of a checkpoint that only resuming e4e's training needs.
TRAINING = (
  'global_step epoch optimizer best_val_loss discriminator_state_dict '
  'discriminator_optimizer_state_dict'
)


def e4e(content: Any, label: str) -> Conversion:
  """`encoder.*`, `decoder.*` or both, of e4e or pSp.

  The parts are 'generator' and 'encoder'; 'latent_avg' is a part of its own without a decoder.
  pSp's tensors have e4e's names and another meaning: each of its heads gives a row of W+, e4e's
  give the first row and offsets from it.
  """
  require_entries(content, label, 'state_dict', f'latent_avg opts {TRAINING}')
  state = key_maps.tensors(content['state_dict'], label)
  names = ('encoder', 'decoder', 'deformation')
  # `deformation` is ours: heads that `export` writes beside e4e's encoder.
  other = [key for key in state if not key.startswith(tuple(f'{name}.' for name in names))]
  if other:
    raise InputError(f'{label}: {len(other)} tensors have no place here, first {other[:3]}')
  encoder, decoder, heads = (key_maps.with_prefix(state, f'{name}.') for name in names)
  if not state or ('latent_avg' not in content and decoder):
    raise InputError(f'no {label}: it has no {"latent_avg" if state else "encoder or decoder"}')
  result = Conversion({}, {})
  average = read_stylegan2.latent_avg(content, label) if 'latent_avg' in content else None
  if decoder:
    result |= read_stylegan2.generator(decoder, average, f'StyleGAN2 decoder of {label}')
  if encoder:
    result |= _encoder(encoder, heads, f'encoder of {label}')
    result.sizes['encoder'] |= {'config': config_text(content)}
    if average is not None and not decoder:
      result.parts['latent_avg'] = np.array(average, np.float32)
  # Numbers and names of a training are not worth a report; optimizers hold tensors.
  left_out = tuple(key for key in TRAINING.split() if isinstance(content.get(key), Mapping))
  return dataclasses.replace(result, left_out=left_out)


def without_encoder(content: Any) -> Any:
  """The content of a checkpoint without its encoder, for a reader of the generator.

  Converting copies every tensor, and the encoder has nine tenths of the bytes of a public file.
  Anything that is no checkpoint is returned unchanged, for the converter to refuse.
  """
  state = content.get('state_dict') if isinstance(content, Mapping) else None
  if not isinstance(state, Mapping):
    return content
  encoder = lambda key: isinstance(key, str) and key.startswith(('encoder.', 'deformation.'))  # noqa: E731
  decoder = {key: x for key, x in state.items() if not encoder(key)}
  # A checkpoint of an encoder alone keeps it: the error then says which part is missing.
  return {**content, 'state_dict': decoder} if decoder else content


def _encoder(
  state: Mapping[str, np.ndarray], heads: Mapping[str, np.ndarray], label: str
) -> Conversion:
  """The part 'encoder': e4e's encoder, and deformation heads if `export` wrote them beside it."""
  facts = sizes.encoder(state, label)
  split, frame = facts['identity_split'], facts['frame_size']
  levels = [frame // stride for stride in (16, 8, 4)]  # px, coarse to fine
  keys = key_maps.e4e_encoder(facts['units'], facts['widths'], split, levels)
  tree = key_maps.convert(state, keys, kind=label)
  if heads:
    heads_label = f'deformation heads of {label}'
    facts |= sizes.deformation(heads, frame, heads_label)
    keys = key_maps.deformation_heads(facts['deformation_split'], levels)
    tree['params'] |= key_maps.convert(heads, keys, kind=heads_label)['params']
  module = Encoder(
    sum(split), facts['w_dim'], facts.get('deformation_widths', ()), split,
    facts.get('deformation_split', (0, 0, 0)), facts['widths'], facts['units'],
    facts['reduction'], facts['head_width'],
  )  # fmt: skip
  check_network(tree, module, (1, frame, frame, 3), label=label)
  return Conversion({'encoder': tree}, {'encoder': facts})


def latent_discriminator(content: Any, label: str) -> Conversion:
  """The part 'critic': the latent discriminator of e4e's training."""
  state = key_maps.tensors(content, label)
  layers = len(key_maps.matches(state, r'mlp\.\d+\.weight'))
  # Layers are 0, 2, 4, ... with activations between; all but the last are as wide as W.
  width = sizes.shape(state, 'mlp.0.weight', 2, label)[0]
  tree = key_maps.convert(state, discriminator_key_maps.latent(layers), kind=label)
  check_network(tree, LatentDiscriminator(width, layers), (1, width), label=label)
  return Conversion({'critic': tree}, {'critic': {'width': width, 'layers': layers}})
