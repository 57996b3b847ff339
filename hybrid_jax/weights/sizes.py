"""Reads the sizes of a network from the shapes of its tensors, by their names in public files.

The sizes are arguments of our modules, so that a file of any width builds its own network.
"""

import math
import re
from collections.abc import Mapping

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.models.perceptual import BACKBONES

State = Mapping[str, np.ndarray]
# Limits above every published network: a damaged or hostile file could ask for any number, and the
# loops and modules built from it would not end.
MAX_LEVELS = 11  # 4096 px
_MAX_LAYERS = 256


def shape(state: State, key: str, rank: int, kind: str) -> tuple[int, ...]:
  """The shape of a tensor of `rank` axes, none of them empty.

  Raises:
    InputError: it is missing or of another rank.
  """
  if key not in state:
    raise InputError(f'no {kind}: {key} is missing')
  if state[key].ndim != rank or not state[key].size:
    raise InputError(f'{kind}: {key} has shape {state[key].shape}, not {rank} axes')
  return state[key].shape


def count(state: State, pattern: str, kind: str, limit: int = _MAX_LAYERS) -> int:
  """Counts names that match: {} in `pattern` stands for the numbers 0, 1, ... without a gap.

  Raises:
    InputError: there are `limit` or more.
  """
  number = next(i for i in range(limit + 1) if i == limit or pattern.format(i) not in state)
  if number == limit:
    raise InputError(f'{kind}: more than {limit - 1} of {pattern.format("*")}')
  return number


def rosinality_generator(state: State, kind: str) -> dict:
  """{'resolution', 'channels', 'w_dim', 'mapping_layers'} of a generator in rosinality's layout."""
  # Not by `count`, which ends at a gap: the tensor that is missing there must be named.
  found = sum(bool(re.fullmatch(r'to_rgbs\.\d+\.conv\.weight', key)) for key in state)
  layers = sum(bool(re.fullmatch(r'style\.\d+\.weight', key)) for key in state)
  if found >= MAX_LEVELS:
    raise InputError(f'{kind}: more than {MAX_LEVELS - 1} of to_rgbs.*.conv.weight')
  names = ['to_rgb1', *(f'to_rgbs.{i}' for i in range(found))]
  channels = [shape(state, f'{name}.conv.weight', 5, kind)[2] for name in names]  # 1 3 c 1 1
  w_dim = shape(state, 'style.1.weight', 2, kind)[0]
  return _generator(channels, w_dim, layers)


def nvlabs_generator(state: State, kind: str) -> dict:
  """The same sizes of a generator in stylegan2-ada-pytorch's layout."""
  found = sum(f'synthesis.b{4 << i}.torgb.weight' in state for i in range(MAX_LEVELS))
  # At least one side, so that a file of another kind fails at the first name.
  sides = [4 << i for i in range(max(found, 1))]
  channels = [shape(state, f'synthesis.b{side}.torgb.weight', 4, kind)[1] for side in sides]
  layers = count(state, 'mapping.fc{}.weight', kind)
  w_dim = shape(state, f'mapping.fc{max(layers, 1) - 1}.weight', 2, kind)[0]
  return _generator(channels, w_dim, layers)


def _generator(channels: list[int], w_dim: int, mapping_layers: int) -> dict:
  return {
    'resolution': 4 << (len(channels) - 1),
    'channels': channels,
    'w_dim': w_dim,
    'mapping_layers': mapping_layers,
  }


def discriminator(state: State, kind: str) -> dict:
  """{'channels', 'resolution'} of an image discriminator in either layout."""
  if 'convs.0.0.weight' in state:  # rosinality's, with the largest side first
    levels = sum(f'convs.{i}.conv2.1.weight' in state for i in range(1, MAX_LEVELS))
    names = ['convs.0.0.weight', *(f'convs.{i}.conv2.1.weight' for i in range(1, levels + 1))]
  else:
    sides = [4 << i for i in reversed(range(1, MAX_LEVELS))]
    sides = [side for side in sides if f'b{side}.conv1.weight' in state] or [8]
    names = [f'b{sides[0]}.fromrgb.weight', *(f'b{side}.conv1.weight' for side in sides)]
  channels = [shape(state, name, 4, kind)[0] for name in names][::-1]
  return {'resolution': 4 << (len(channels) - 1), 'channels': channels}


def irse(state: State, kind: str) -> dict:
  """{'widths', 'units', 'reduction'} of an IR-SE body."""
  blocks = count(state, 'body.{}.res_layer.1.weight', kind)
  if not blocks:
    raise InputError(f'no {kind}: body.0.res_layer.1.weight is missing')
  # Blocks are numbered through; a stage begins where the width changes.
  outs = [shape(state, f'body.{i}.res_layer.1.weight', 4, kind)[0] for i in range(blocks)]
  widths = [width for i, width in enumerate(outs) if i == 0 or width != outs[i - 1]]
  starts = [i for i, width in enumerate(outs) if i == 0 or width != outs[i - 1]]
  if len(widths) != 4:
    raise InputError(f'{kind}: its body has {len(widths)} stages, not 4')
  # The first convolution of squeeze-and-excite has `reduction` times fewer channels than its block.
  squeezed = shape(state, 'body.0.res_layer.5.fc1.weight', 4, kind)[0]
  units = [int(n) for n in np.diff([*starts, blocks])]
  return {'widths': widths, 'units': units, 'reduction': max(1, widths[0] // squeezed)}


def encoder(state: State, kind: str) -> dict:
  """The sizes of `irse`, and 'frame_size', 'identity_split', 'head_width' and 'w_dim'."""
  # A head halves its level to 1 px, so that its depth is log2 of the level's side: 4, 5 and 6 at
  # the coarse, medium and fine level of 256 px frames.
  depths = _depths(state, kind)
  coarse = min(depths, default=0)
  if not coarse or depths != sorted(depths) or depths[-1] > coarse + 2:
    raise InputError(f'no {kind}: its heads have {sorted(set(depths))} convolutions')
  return {
    **irse(state, kind),
    'frame_size': 16 << coarse,  # the coarse level has stride 16
    'identity_split': [depths.count(coarse + i) for i in range(3)],
    'head_width': shape(state, 'styles.0.convs.0.weight', 4, kind)[0],
    'w_dim': shape(state, 'styles.0.linear.weight', 2, kind)[0],
  }


def deformation(state: State, frame_size: int, kind: str) -> dict:
  """{'deformation_split', 'deformation_widths'} of the heads that `export` puts beside e4e's."""
  depths, coarse = _depths(state, kind), frame_size.bit_length() - 5  # log2(frame_size / 16)
  widths = [shape(state, f'styles.{i}.linear.weight', 2, kind)[0] for i in range(len(depths))]
  return {
    'deformation_split': [depths.count(coarse + i) for i in range(3)],
    'deformation_widths': widths,
  }


def _depths(state: State, kind: str) -> list[int]:
  """Number of convolutions of each head, `styles.0` and on."""
  rows = [int(match[1]) for key in state if (match := re.match(r'styles\.(\d{1,9})\.', key))]
  number = 1 + max(rows, default=-1)
  if number > _MAX_LAYERS:
    raise InputError(f'{kind}: it has a head number {number - 1}')
  return [
    sum(f'styles.{row}.convs.{2 * i}.weight' in state for i in range(MAX_LEVELS))
    for row in range(number)
  ]


def arcface(state: State, kind: str) -> dict:
  """The sizes of `irse`, and 'size' (px) and 'embedding'."""
  body = irse(state, kind)
  embedding, flat = shape(state, 'output_layer.3.weight', 2, kind)
  side = math.isqrt(flat // body['widths'][-1])  # of the map that the dense layer flattens
  if not side or side * side * body['widths'][-1] != flat:
    raise InputError(f'{kind}: output_layer.3.weight has {flat} inputs, which are no square map')
  return {**body, 'size': 16 * side, 'embedding': embedding}


def backbone(state: State, net: str, kind: str) -> list[int]:
  """Channels of a torchvision backbone: one for each width that `models.perceptual` can vary."""
  # Convolutions that share a width index are equally wide; `check_network` finds those that are
  # not.
  table, widths = BACKBONES[net]
  found = list(widths)
  for entry in table:
    if entry != 'tap' and entry[1] == 'conv':
      found[entry[2][0]] = shape(state, f'features.{entry[0]}.weight', 4, kind)[0]
  return found


def inception(state: State, kind: str) -> dict:
  """{'divisor'} of FID's Inception: how many times narrower than the public one it is.

  Raises:
    InputError: it is torchvision's, by its number of classes.
  """
  # FID's weights come from TensorFlow, whose classes are numbered otherwise than torchvision's
  # 1000.
  if 'fc.bias' in state and (classes := shape(state, 'fc.bias', 1, kind)[0]) != 1008:
    raise InputError(f"{kind}: it has {classes} classes, FID's has 1008; torchvision's is another")
  return {'divisor': max(1, 32 // shape(state, 'Conv2d_1a_3x3.conv.weight', 4, kind)[0])}


def i3d(state: State, kind: str) -> dict:
  """{'classes', 'divisor'} of an I3D in either layout."""
  stem, logits = 'Conv3d_1a_7x7', 'logits'
  # hassony2's names are lower case.
  if 'conv3d_1a_7x7.conv3d.weight' in state:
    stem, logits = 'conv3d_1a_7x7', 'conv3d_0c_1x1'
  width = shape(state, f'{stem}.conv3d.weight', 5, kind)[0]
  classes = shape(state, f'{logits}.conv3d.bias', 1, kind)[0]
  return {'classes': classes, 'divisor': max(1, 64 // width)}
