"""Starts an encoder of larger frames from the shipped 64 px one, where shapes agree.

A larger frame has the same layers and one more convolution in each head, as a head halves its level
down to one pixel.
"""

from collections.abc import Mapping

import flax.traverse_util
import jax
import jax.numpy as jnp

from hybrid_jax.method import networks
from hybrid_jax.weights import shipped


def warm_start(nets: networks.Networks, key: jax.Array, name: str = 'inversion_64') -> dict:
  """Encoder variables {'params', 'batch_stats'}: fresh ones with those of a shipped encoder.

  Heads that the smaller encoder lacks start at zero: the rows of W+ that the larger generator adds
  are then the base row, as all were when the generator was trained.
  """
  return merged(shipped.load(name), networks.init_encoder(nets, key))


def merged(old: Mapping, fresh: Mapping) -> dict:
  """`fresh` with every array that `old` has by the same path and shape."""
  old, fresh = (flax.traverse_util.flatten_dict(tree) for tree in (old, fresh))
  heads = {path[1] for path in old}
  result = {}
  for path, x in fresh.items():
    is_head = path[1].startswith(('identity_heads', 'deformation_heads'))
    if path in old and old[path].shape == x.shape:
      result[path] = jnp.asarray(old[path])
    elif is_head and path[1] in heads and path[2].startswith('conv') and path[3] == 'kernel':
      result[path] = _averaging(x)
    elif is_head and path[1] not in heads and path[2] == 'dense':
      result[path] = jnp.zeros_like(x)
    else:
      result[path] = x
  return flax.traverse_util.unflatten_dict(result)


def _averaging(kernel: jax.Array) -> jax.Array:
  """A strided 3x3 kernel of the same shape that averages each 2x2 block of each map."""
  k, _, i, o = kernel.shape
  if k != 3 or i != o:
    raise ValueError(f'a head gained a convolution of shape {kernel.shape}')
  # Padded by one and strided by two, tap 1 is the first pixel of a block and tap 2 the second.
  return jnp.zeros_like(kernel).at[1:, 1:].set(jnp.eye(i) / 4)
