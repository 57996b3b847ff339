"""Name maps of the public files: which tensor of a PyTorch state dict goes where in a Flax tree.

A map is a dict `our path: (their key, layout)`, with our path written `params/layers_3/kernel`.
Only axes move (OIHW to HWIO, (o, i) to (i, o)): no kernel is flipped and no value is rescaled,
because our networks apply the equalised learning rate and the gains as the PyTorch code does.
Generators, e4e's encoder, ArcFace and LPIPS are here; others in `discriminator_key_maps` and
`metric_key_maps`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from hybrid_jax.errors import InputError
from hybrid_jax.models import latents
from hybrid_jax.models.perceptual import BACKBONES
from hybrid_jax.weights import sizes
from hybrid_jax.weights.layouts import (
  Layout,
  batched,
  broadcast,
  conv,
  copy,
  dense,
  dense_of_map,
  first_plane,
  flat,
  image,
  scalar,
)

KeyMap = dict[str, tuple[str, Layout]]


def convert(
  state: Mapping[str, np.ndarray], keys: KeyMap, *, kind: str, unneeded: Iterable[str] = ()
) -> dict:
  """Moves every tensor of `state` to its place in a nested tree of float32 arrays.

  Args:
    state: tensors by their PyTorch name.
    keys: the map of this kind of file.
    kind: label of the file in messages.
    unneeded: patterns (full match) of tensors that the file may have and that are not used.

  Raises:
    InputError: a tensor is missing, one is left over that `unneeded` does not name, or one has
      a shape that its layout cannot take.
  """
  # Missing before left over: a file of another network has both, and the first names the network.
  missing = [theirs for theirs, _ in keys.values() if theirs not in state]
  if missing:
    raise InputError(f'no {kind}: {len(missing)} tensors are missing, first {missing[:3]}')
  used = {theirs for theirs, _ in keys.values()}
  # Every batch normalisation of PyTorch counts its batches; only momentum=None would use it.
  known = re.compile('|'.join(f'(?:{p})' for p in (r'.*num_batches_tracked', *unneeded)))
  extra = [key for key in state if key not in used and not known.fullmatch(key)]
  if extra:
    raise InputError(f'{kind}: {len(extra)} tensors have no place here, first {extra[:3]}')
  tree: dict = {}
  for ours, (theirs, layout) in keys.items():
    *parents, leaf = ours.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[leaf] = _laid_out(layout, state, theirs, kind)
  return tree


def invert(tree: Mapping, keys: KeyMap, *, kind: str) -> dict[str, np.ndarray]:
  """The inverse of `convert`: the tensors of a file, under their names there.

  Raises:
    InputError: the tree has other arrays than the map.
  """
  leaves = flatten_dict(tree, sep='/')
  if set(leaves) != set(keys):
    differ = sorted(set(leaves) ^ set(keys))
    raise InputError(f'{kind}: {len(differ)} arrays are missing or too many, first {differ[:3]}')
  return {theirs: layout.back(np.asarray(leaves[ours])) for ours, (theirs, layout) in keys.items()}


def _laid_out(layout: Layout, state: Mapping[str, np.ndarray], key: str, kind: str) -> np.ndarray:
  """One tensor as a float32 array in our layout."""
  try:
    # A copy, also of float32 in the right order: a view would keep the whole storage in memory.
    return np.array(layout(state[key]), np.float32, order='C')
  except (ValueError, IndexError) as error:
    raise InputError(
      f'{kind}: {key} has shape {state[key].shape}, which is not that of its layer'
    ) from error


def tensors(tree: Any, kind: str) -> Mapping[str, np.ndarray]:
  """Returns `tree` after checking that it is a flat mapping of names to tensors of real numbers.

  Raises:
    InputError: it is anything else.
  """
  if not isinstance(tree, Mapping):
    raise InputError(f'{kind}: not a state dict but of type {type(tree).__name__}')
  for key, value in tree.items():
    if not isinstance(key, str):  # the message leaves it out: its text can have any length
      raise InputError(f'{kind}: not a state dict, it has a key of type {type(key).__name__}')
    if not isinstance(value, np.ndarray) or value.dtype.kind == 'c':
      what = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
      raise InputError(f'{kind}: {ascii(key)[:80]} is {what}, not a tensor of real numbers')
  return tree


def with_prefix(state: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
  """The tensors whose key starts with `prefix`, without it."""
  return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def matches(state: Iterable[str], pattern: str) -> list[str]:
  """The names that match `pattern` as a whole."""
  return [key for key in state if re.fullmatch(pattern, key)]


# --- StyleGAN2 -----------------------------------------------------------------------------------


def _layer_names(channels: tuple[int, ...], kind: str) -> list[str]:
  """Module name of each StyleSpace entry in rosinality's or NVlabs' generator."""
  # Both libraries order layers by resolution, but rosinality numbers convolutions and toRGB layers
  # apart, and gives the first of each a name without a number.
  names, conv_index, rgb_index = [], 0, 0
  for layer in latents.style_layers(channels):
    if kind == 'nvlabs':
      part = {'up_conv': 'conv0', 'conv': 'conv1', 'to_rgb': 'torgb'}[layer.kind]
      names.append(f'synthesis.b{layer.resolution}.{part}')
    elif layer.kind == 'to_rgb':
      names.append('to_rgb1' if rgb_index == 0 else f'to_rgbs.{rgb_index - 1}')
      rgb_index += 1
    else:
      names.append('conv1' if conv_index == 0 else f'convs.{conv_index - 1}')
      conv_index += 1
  return names


def rosinality_generator(channels: tuple[int, ...], mapping_layers: int = 8) -> KeyMap:
  """Keys of rosinality's `g_ema` (also e4e's and pSp's `decoder.`) without the noise buffers."""
  keys: KeyMap = {'params/const': ('input.input', batched(image))}
  for i in range(mapping_layers):
    # Index 0 of rosinality's mapping is the normalisation of z, which has no tensors.
    keys[f'params/mapping/dense_{i}/kernel'] = (f'style.{i + 1}.weight', dense)
    keys[f'params/mapping/dense_{i}/bias'] = (f'style.{i + 1}.bias', copy)
  table = latents.style_layers(channels)
  for i, (layer, name) in enumerate(zip(table, _layer_names(channels, 'rosinality'), strict=True)):
    keys[f'params/affines_{i}/kernel'] = (f'{name}.conv.modulation.weight', dense)
    keys[f'params/affines_{i}/bias'] = (f'{name}.conv.modulation.bias', copy)
    keys[f'params/layers_{i}/kernel'] = (f'{name}.conv.weight', batched(conv))
    # toRGB layers have no noise, and their bias has the axes of a map.
    if layer.kind == 'to_rgb':
      keys[f'params/layers_{i}/bias'] = (f'{name}.bias', broadcast)
    else:
      keys[f'params/layers_{i}/bias'] = (f'{name}.activate.bias', flat)
      keys[f'params/layers_{i}/noise_strength'] = (f'{name}.noise.weight', batched(scalar))
  return keys


def nvlabs_generator(channels: tuple[int, ...], mapping_layers: int = 8) -> KeyMap:
  """Keys of stylegan2-ada-pytorch's `G_ema` without noise buffers and `w_avg`."""
  # The same network as rosinality's, with other names and fewer axes of length 1.
  keys: KeyMap = {'params/const': ('synthesis.b4.const', image)}
  for i in range(mapping_layers):
    keys[f'params/mapping/dense_{i}/kernel'] = (f'mapping.fc{i}.weight', dense)
    keys[f'params/mapping/dense_{i}/bias'] = (f'mapping.fc{i}.bias', copy)
  table = latents.style_layers(channels)
  for i, (layer, name) in enumerate(zip(table, _layer_names(channels, 'nvlabs'), strict=True)):
    keys[f'params/affines_{i}/kernel'] = (f'{name}.affine.weight', dense)
    keys[f'params/affines_{i}/bias'] = (f'{name}.affine.bias', copy)
    keys[f'params/layers_{i}/kernel'] = (f'{name}.weight', conv)
    keys[f'params/layers_{i}/bias'] = (f'{name}.bias', copy)
    if layer.kind != 'to_rgb':
      keys[f'params/layers_{i}/noise_strength'] = (f'{name}.noise_strength', scalar)
  return keys


def generator(
  state: Mapping[str, np.ndarray], w_avg: np.ndarray, kind: str = 'rosinality generator'
) -> tuple[dict, tuple[int, ...]]:
  """A rosinality generator -> ({'params', 'noise_const', 'w_avg'}, channel table).

  Files without noise buffers (e4e loads `g_ema` leniently) get zero maps, not random ones: their
  images are then those without noise, and the same on every machine.

  Raises:
    InputError: a tensor is missing, left over or of an impossible shape.
  """
  facts = sizes.rosinality_generator(state, kind)
  channels = tuple(facts['channels'])
  tree = convert(
    state,
    rosinality_generator(channels, facts['mapping_layers']),
    kind=kind,
    # FIR kernels are constants of our layers; the noise buffers are read below.
    unneeded=(r'.*\.kernel', r'noises\.noise_\d+'),
  )
  names = {f'noises.noise_{i}': shape for i, shape in enumerate(latents.noise_shapes(channels))}
  tree['noise_const'] = tuple(
    _laid_out(first_plane, state, n, kind) if n in state else np.zeros(shape, np.float32)
    for n, shape in names.items()
  )
  # It is not in the state dict: rosinality and e4e keep it beside, as `latent_avg`.
  tree['w_avg'] = np.asarray(w_avg, np.float32)
  return tree, channels


def generator_nvlabs(
  state: Mapping[str, np.ndarray], kind: str = 'stylegan2-ada-pytorch generator'
) -> tuple[dict, tuple[int, ...]]:
  """NVlabs' `G_ema` state -> the same tree as `generator`.

  Raises:
    InputError: a tensor is missing, left over or of an impossible shape.
  """
  facts = sizes.nvlabs_generator(state, kind)
  channels = tuple(facts['channels'])
  tree = convert(
    state,
    nvlabs_generator(channels, facts['mapping_layers']),
    kind=kind,
    unneeded=(r'.*resample_filter', r'.*noise_const', r'mapping\.w_avg'),
  )
  names = [name for name in _layer_names(channels, 'nvlabs') if not name.endswith('torgb')]
  # Buffers that inference needs, so that unlike rosinality's they must be there.
  buffers = ['mapping.w_avg', *(f'{name}.noise_const' for name in names)]
  missing = [key for key in buffers if key not in state]
  if missing:
    raise InputError(f'no {kind}: {len(missing)} tensors are missing, first {missing[:3]}')
  tree['noise_const'] = tuple(_laid_out(first_plane, state, key, kind) for key in buffers[1:])
  tree['w_avg'] = np.asarray(state['mapping.w_avg'], np.float32)
  return tree, channels


# --- IR-SE50: e4e's encoder and ArcFace ----------------------------------------------------------


def _norm(ours: str, theirs: str) -> KeyMap:
  """Keys of a batch normalisation with its running statistics."""
  return {
    f'params/{ours}/scale': (f'{theirs}.weight', copy),
    f'params/{ours}/bias': (f'{theirs}.bias', copy),
    f'batch_stats/{ours}/mean': (f'{theirs}.running_mean', copy),
    f'batch_stats/{ours}/var': (f'{theirs}.running_var', copy),
  }


def irse_body(units: Iterable[int], widths: Iterable[int], prefix: str = '') -> KeyMap:
  """Keys of the IR-SE body as InsightFace_Pytorch, pSp and e4e name them."""
  ours_root = 'backbone'
  # Indices are positions in their nn.Sequential: of input_layer (conv, norm, PReLU) and of each
  # res_layer (norm, conv, PReLU, conv, norm, squeeze-and-excite).
  keys: KeyMap = {
    f'params/{ours_root}/stem_conv/kernel': (f'{prefix}input_layer.0.weight', conv),
    f'params/{ours_root}/stem_prelu/slope': (f'{prefix}input_layer.2.weight', copy),
    **_norm(f'{ours_root}/stem_norm', f'{prefix}input_layer.1'),
  }
  widths = list(widths)
  block, before = 0, widths[0]
  for width, count in zip(widths, units, strict=True):
    for _ in range(count):
      ours, theirs = f'{ours_root}/body_{block}', f'{prefix}body.{block}'
      keys |= _norm(f'{ours}/norm0', f'{theirs}.res_layer.0')
      keys[f'params/{ours}/conv0/kernel'] = (f'{theirs}.res_layer.1.weight', conv)
      keys[f'params/{ours}/prelu/slope'] = (f'{theirs}.res_layer.2.weight', copy)
      keys[f'params/{ours}/conv1/kernel'] = (f'{theirs}.res_layer.3.weight', conv)
      keys |= _norm(f'{ours}/norm1', f'{theirs}.res_layer.4')
      keys[f'params/{ours}/squeeze/kernel'] = (f'{theirs}.res_layer.5.fc1.weight', conv)
      keys[f'params/{ours}/excite/kernel'] = (f'{theirs}.res_layer.5.fc2.weight', conv)
      # Only where the width changes is the shortcut a convolution; else it is a strided slice.
      if width != before:
        keys[f'params/{ours}/shortcut_conv/kernel'] = (f'{theirs}.shortcut_layer.0.weight', conv)
        keys |= _norm(f'{ours}/shortcut_norm', f'{theirs}.shortcut_layer.1')
      block, before = block + 1, width
  return keys


def e4e_encoder(
  units: Iterable[int], widths: Iterable[int], identity_split: Iterable[int], sizes: Iterable[int]
) -> KeyMap:
  """Keys of e4e's (and pSp's) encoder: body, pyramid and one `styles.i` per W+ row.

  `sizes` are the side lengths of the three pyramid levels, (16, 32, 64) for 256 px frames.
  """
  keys = irse_body(units, widths)
  for ours, theirs in (('lateral_medium', 'latlayer1'), ('lateral_fine', 'latlayer2')):
    keys[f'params/{ours}/kernel'] = (f'{theirs}.weight', conv)
    keys[f'params/{ours}/bias'] = (f'{theirs}.bias', copy)
  return keys | _heads('identity_heads', identity_split, sizes)


def deformation_heads(split: Iterable[int], sizes: Iterable[int]) -> KeyMap:
  """Keys of our deformation heads, which e4e does not have, below the prefix `deformation.`.

  They have the layers of e4e's heads, and the names of those: `styles.0` and on.
  """
  return _heads('deformation_heads', split, sizes)


def _heads(name: str, split: Iterable[int], sizes: Iterable[int]) -> KeyMap:
  """Keys of heads: `split` counts those of each pyramid level, `sizes` are the sides in px."""
  keys: KeyMap = {}
  levels = [size for size, count in zip(sizes, split, strict=True) for _ in range(count)]
  for row, size in enumerate(levels):
    ours, theirs = f'params/{name}_{row}', f'styles.{row}'
    # Each convolution halves the side, down to 1 px; odd indices are the activations between them.
    for i in range(int(np.log2(size))):
      keys[f'{ours}/conv_{i}/kernel'] = (f'{theirs}.convs.{2 * i}.weight', conv)
      keys[f'{ours}/conv_{i}/bias'] = (f'{theirs}.convs.{2 * i}.bias', copy)
    keys[f'{ours}/dense/kernel'] = (f'{theirs}.linear.weight', dense)
    keys[f'{ours}/dense/bias'] = (f'{theirs}.linear.bias', copy)
  return keys


def arcface(units: Iterable[int], widths: Iterable[int], size: int = 112) -> KeyMap:
  """Keys of `model_ir_se50.pth`."""
  widths = list(widths)
  return {
    **irse_body(units, widths),
    **_norm('body_norm', 'output_layer.0'),
    **_norm('out_norm', 'output_layer.4'),
    # The body has stride 16. Indices 1 and 2 of output_layer are dropout and flattening.
    'params/dense/kernel': ('output_layer.3.weight', dense_of_map(widths[-1], size // 16)),
    'params/dense/bias': ('output_layer.3.bias', copy),
  }


# --- LPIPS ---------------------------------------------------------------------------------------

# LPIPS compares features; torchvision's files also have the layers that classify.
TORCHVISION_UNNEEDED = (r'classifier\..*',)


def lpips(net: str, lin: str = 'lin{}.model.1.weight', features: str = 'features.') -> KeyMap:
  """Keys of a torchvision backbone together with LPIPS' linear layers.

  Args:
    net: 'alex', 'vgg' or 'squeeze'.
    lin: name of a linear layer; {} is its number. In the public files, index 0 of `model` is a
      dropout.
    features: prefix of the backbone's layers.
  """
  keys: KeyMap = {}
  table, _ = BACKBONES[net]
  for entry in table:
    if entry == 'tap' or entry[1] == 'pool':
      continue
    index, kind, _ = entry
    for part in ('squeeze', 'expand1x1', 'expand3x3') if kind == 'fire' else ('',):
      ours = '/'.join(filter(None, (f'params/features_{index}', part)))
      theirs = '.'.join(filter(None, (f'{features}{index}', part)))
      keys[f'{ours}/kernel'] = (f'{theirs}.weight', conv)
      keys[f'{ours}/bias'] = (f'{theirs}.bias', copy)
  for i in range(table.count('tap')):
    keys[f'params/lin{i}'] = (lin.format(i), broadcast)
  return keys
