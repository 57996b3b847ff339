"""Reads directions of W: InterFaceGAN's boundaries and GANSpace's principal components.

Each function is a converter, see `conversion`.
"""

from typing import Any

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.weights import key_maps, sizes
from hybrid_jax.weights.conversion import Conversion, require_entries


def interfacegan(content: Any, label: str) -> Conversion:
  """The part 'direction': of W (1, d), or with one row for each layer of W+ (l, d)."""
  if not isinstance(content, np.ndarray) or content.dtype.kind not in 'fiu':
    raise InputError(f'no {label}: it holds no array of real numbers')
  rows = content.size // content.shape[-1] if content.ndim and content.size else 0
  # A copy: a view would keep the storage of the file in memory.
  direction = np.array(content, np.float32)
  most = 2 * sizes.MAX_LEVELS  # rows of W+ of the largest generator
  if not rows or rows > most or content.ndim > 3 or max(content.shape[:-2], default=1) > 1:
    raise InputError(f'{label}: its shape {content.shape} is not (d,), (1, d) or (rows, d)')
  # Both would pass unseen: an edit along a zero direction changes nothing.
  if not np.isfinite(direction).all() or not direction.any():
    raise InputError(f'{label}: it is zero or not finite')
  direction = direction.reshape(rows, -1)
  facts = {'w_dim': direction.shape[1], 'rows': rows}
  return Conversion({'direction': direction}, {'direction': facts})


def ganspace(content: Any, label: str) -> Conversion:
  """The part 'ganspace': `comp` (k, d), `mean` (d,) and `std` (k,) of W."""
  require_entries(content, label, 'comp mean std')
  state = key_maps.tensors(content, label)
  std = np.array(state['std'], np.float32).reshape(-1)
  mean = np.array(state['mean'], np.float32).reshape(-1)
  # GANSpace saves them with axes of length 1 for its batches: (k, 1, d), (1, d) and (k,).
  comp = np.array(state['comp'], np.float32)
  if not comp.size or comp.size != std.size * mean.size or comp.shape[0] != std.size:
    raise InputError(
      f'{label}: comp {comp.shape}, mean {mean.shape} and std {std.shape} do not agree'
    )
  tree = {'components': comp.reshape(std.size, mean.size), 'mean': mean, 'std': std}
  return Conversion({'ganspace': tree}, {'ganspace': {'w_dim': mean.size, 'components': std.size}})
