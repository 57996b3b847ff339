"""Reads PyTorch modules that were saved whole: keeps their tensors and ignores their code.

NVlabs' classes are pickled with the source of their Python module (stylegan2-ada-pytorch,
torch_utils/persistence.py), which PyTorch's reader executes. TorchScript keeps its source beside
the pickle. Neither is compiled or run here: the state holds all tensors.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.weights.safe_pickle import Builder, Symbol

# Modules may share submodules, so that thirty levels of two references, 5 kB in a file, would claim
# a billion names.
_MAX_TENSORS = 1 << 16


class Module(dict):
  """The tensors of a module by dotted name, as its state_dict().

  Attributes:
    class_name: name of its class.
    made_with: keyword arguments of its constructor, if the file holds them.
  """

  class_name = ''
  made_with: Mapping[str, Any] = {}

  def __init__(self, class_name: str, made_with: Mapping[str, Any] | None = None):
    super().__init__()
    self.class_name, self.made_with = class_name, made_with or {}

  def take(self, items: Iterable[tuple[str, Any]]) -> 'Module':
    """Adds those of `items` that are tensors or modules."""
    # Names are joined by dots, as torch's state_dict() names the tensors of submodules.
    for name, value in items:
      if isinstance(value, np.ndarray):
        self[name] = value
      elif isinstance(value, Module):
        self.update((f'{name}.{key}', x) for key, x in value.items())
      # Inside the loop: `items` of shared modules must not be exhausted first.
      if len(self) > _MAX_TENSORS:
        raise InputError(f'a module of more than {_MAX_TENSORS} tensors')
    return self


def _persistent(build: Builder, x: Symbol) -> Module:
  """{'type', 'version', 'module_src', 'class_name', 'state'}; the state is torch's __dict__."""
  (meta,) = x.args
  # 'module_src' is the code, which is not even built.
  meta = {key: build.value(meta[key]) for key in ('type', 'class_name', 'state')}
  state = meta['state']
  if meta['type'] != 'class' or type(meta['class_name']) is not str or not isinstance(state, dict):
    raise InputError(f'{x.name} called with something else than a module')
  # As torch's state_dict(): buffers that are not persistent are left out.
  module = Module(meta['class_name'][:80], state.get('_init_kwargs'))
  hidden = state.get('_non_persistent_buffers_set', ())
  buffers = ((k, v) for k, v in state['_buffers'].items() if k not in hidden)
  for items in (state['_parameters'].items(), buffers, state['_modules'].items()):
    module.take(items)
  return module


BUILDERS = {
  'torch_utils.persistence._reconstruct_persistent_obj': _persistent,
  'dnnlib.util.EasyDict': lambda build, x: build.items(x),
}


# --- TorchScript ---------------------------------------------------------------------------------


def _script_object(build: Builder, x: Symbol) -> Module:
  if x.args or not isinstance(x.state, dict):
    raise InputError(f'{x.name} has another state than named attributes')
  return Module(x.name).take(build.items(x.state).items())


def _first(build: Builder, x: Symbol) -> Any:
  return build.value(x.args[0])


def script(root: Any, constants: Any) -> Module:
  """The tensors of a TorchScript program; constants of its code are named `CONSTANTS.c0` and on.

  Raises:
    InputError: it is no module, or has no tensor.
  """
  if not isinstance(root, Module) or not isinstance(constants, tuple):
    raise InputError('a TorchScript program that is no module')
  root.take((f'CONSTANTS.c{i}', x) for i, x in enumerate(constants))
  if not root:
    raise InputError('a TorchScript program without a tensor')
  return root


# Wrappers around lists that state the type of their elements: only the list is needed.
SCRIPT_BUILDERS = {
  '__torch__': _script_object,
  'torch.jit._pickle.restore_type_tag': _first,
  **{f'torch.jit._pickle.build_{kind}list': _first for kind in ('int', 'double', 'bool', 'tensor')},
}
