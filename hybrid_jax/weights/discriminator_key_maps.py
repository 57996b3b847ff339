"""Name maps of discriminators in the public files; see `key_maps`.

Our blocks are named after the side of their input, as NVlabs': `b64_conv0` takes 64 px.
"""

from hybrid_jax.weights.key_maps import KeyMap
from hybrid_jax.weights.layouts import conv, copy, dense, dense_of_map


def rosinality(channels: tuple[int, ...]) -> KeyMap:
  """Keys of rosinality's image discriminator `d`."""
  keys: KeyMap = {
    'params/from_rgb/kernel': ('convs.0.0.weight', conv),
    'params/from_rgb/bias': ('convs.0.1.bias', copy),
  }
  # rosinality numbers blocks from the largest side down; index 0 is the layer from RGB.
  for block, i in enumerate(reversed(range(1, len(channels))), start=1):
    ours, theirs = f'params/b{4 << i}', f'convs.{block}'
    keys[f'{ours}_conv0/kernel'] = (f'{theirs}.conv1.0.weight', conv)
    keys[f'{ours}_conv0/bias'] = (f'{theirs}.conv1.1.bias', copy)
    # Index 0 of a downsampling layer is its blur, a constant of ours.
    keys[f'{ours}_conv1/kernel'] = (f'{theirs}.conv2.1.weight', conv)
    keys[f'{ours}_conv1/bias'] = (f'{theirs}.conv2.2.bias', copy)
    keys[f'{ours}_skip/kernel'] = (f'{theirs}.skip.1.weight', conv)
  keys |= {
    'params/b4_conv/kernel': ('final_conv.0.weight', conv),
    'params/b4_conv/bias': ('final_conv.1.bias', copy),
    # The last map, 4 x 4, is flattened: channels first there, last here.
    'params/b4_dense/kernel': ('final_linear.0.weight', dense_of_map(channels[0], 4)),
    'params/b4_dense/bias': ('final_linear.0.bias', copy),
    'params/logits/kernel': ('final_linear.1.weight', dense),
    'params/logits/bias': ('final_linear.1.bias', copy),
  }
  return keys


def nvlabs(channels: tuple[int, ...]) -> KeyMap:
  """Keys of stylegan2-ada-pytorch's `D`: the same network as rosinality's."""
  # Only the block of the largest side has a layer from RGB.
  top = f'b{4 << (len(channels) - 1)}'
  keys: KeyMap = {
    'params/from_rgb/kernel': (f'{top}.fromrgb.weight', conv),
    'params/from_rgb/bias': (f'{top}.fromrgb.bias', copy),
  }
  for name in (f'b{4 << i}' for i in range(1, len(channels))):
    for part in ('conv0', 'conv1'):
      keys[f'params/{name}_{part}/kernel'] = (f'{name}.{part}.weight', conv)
      keys[f'params/{name}_{part}/bias'] = (f'{name}.{part}.bias', copy)
    keys[f'params/{name}_skip/kernel'] = (f'{name}.skip.weight', conv)
  keys |= {
    'params/b4_conv/kernel': ('b4.conv.weight', conv),
    'params/b4_conv/bias': ('b4.conv.bias', copy),
    'params/b4_dense/kernel': ('b4.fc.weight', dense_of_map(channels[0], 4)),
    'params/b4_dense/bias': ('b4.fc.bias', copy),
    'params/logits/kernel': ('b4.out.weight', dense),
    'params/logits/bias': ('b4.out.bias', copy),
  }
  return keys


def latent(num_layers: int = 4) -> KeyMap:
  """Keys of e4e's LatentCodesDiscriminator: `mlp.0`, `mlp.2`, ... with activations between."""
  keys: KeyMap = {}
  for i in range(num_layers):
    keys[f'params/dense_{i}/kernel'] = (f'mlp.{2 * i}.weight', dense)
    keys[f'params/dense_{i}/bias'] = (f'mlp.{2 * i}.bias', copy)
  return keys
