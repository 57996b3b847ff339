"""Undoes the names that wrappers of PyTorch write into the state dict of the model inside.

DataParallel and DDP name it `module`, torch.compile `_orig_mod`, FSDP and activation checkpoints
likewise. A wrapper may hold another one, the whole model, or a part of it: `encoder.module.x`.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

from hybrid_jax.errors import InputError
from hybrid_jax.weights.torch_modules import Module

# As a whole part of a dotted name; no network that is read here has a layer of such a name.
_PART = re.compile(
  r'(?:(?<=\.)|^)(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.'
)
_COUNTER = 'n_averaged'  # beside the tensors of torch.optim.swa_utils.AveragedModel


def unwrapped(content: Any, path: str | os.PathLike) -> Any:
  """Returns the content of a file with the names of the models inside of wrappers.

  State dicts are the content itself, or its entries; anything else is returned unchanged.

  Raises:
    InputError: two tensors have one name without the wrappers.
  """
  if not isinstance(content, Mapping):
    return content
  entries = {key: _state(value, path) for key, value in content.items() if isinstance(value, dict)}
  return _state({**content, **entries} if type(content) is dict else content, path)


def _state(state: dict, path: str | os.PathLike) -> dict:
  """A state dict without the names of wrappers; the same object if it has none."""
  names = {key: _PART.sub('', key) for key in state if isinstance(key, str)}
  wrapped = [key for key, name in names.items() if name != key]
  if not wrapped:
    return state
  left = {key: value for key, value in state.items() if key != _COUNTER}
  result = {names.get(key, key): value for key, value in left.items()}
  if len(result) < len(left):
    raise InputError(
      f'{path}: has {ascii(wrapped[0])[:80]}, of a wrapped model, and the same without the wrapper'
    )
  if not isinstance(state, Module):
    return result
  # A module saved whole keeps what it says of its class.
  module = Module(state.class_name, state.made_with)
  module.update(result)
  return module
