"""Modules that were saved whole: their tensors are kept, and nothing of their code.

NVlabs' classes are pickled with the source of their Python module (stylegan2-ada-pytorch,
torch_utils/persistence.py), which a reader is meant to execute. TorchScript keeps its source beside
the pickle. Neither is ever compiled or run here: the state is all we need.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hybrid_jax.weights.safe_pickle import Builder, Symbol, TorchFileError

# Modules may share submodules, so that a few bytes could claim any number of names.
_MAX_TENSORS = 1 << 16


class Module(dict):
  """The tensors of a module by dotted name, as its state_dict().

  Attributes:
    class_name: what it was an instance of.
    made_with: keyword arguments that it was made with, where the file tells.
  """

  class_name = ''
  made_with: Mapping[str, Any] = {}

  def __init__(self, class_name: str, made_with: Mapping[str, Any] | None = None):
    super().__init__()
    self.class_name, self.made_with = class_name, made_with or {}

  def take(self, items: Iterable[tuple[str, Any]]) -> 'Module':
    """Adds those of `items` that are tensors or modules."""
    for name, value in items:
      if isinstance(value, np.ndarray):
        self[name] = value
      elif isinstance(value, Module):
        self.update((f'{name}.{key}', x) for key, x in value.items())
      if len(self) > _MAX_TENSORS:
        raise TorchFileError(f'a module of more than {_MAX_TENSORS} tensors')
    return self


def _persistent(build: Builder, x: Symbol) -> Module:
  """{'type', 'version', 'module_src', 'class_name', 'state'}; the state is torch's __dict__."""
  (meta,) = x.args
  meta = {key: build.value(meta[key]) for key in ('type', 'class_name', 'state')}  # not module_src
  state = meta['state']
  if meta['type'] != 'class' or type(meta['class_name']) is not str or not isinstance(state, dict):
    raise TorchFileError(f'{x.name} called with something else than a module')
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
    raise TorchFileError(f'{x.name} has another state than named attributes')
  return Module(x.name).take(build.items(x.state).items())


def _first(build: Builder, x: Symbol) -> Any:
  return build.value(x.args[0])


def script(root: Any, constants: Any) -> Module:
  """The tensors of a TorchScript program; those written into its code are `CONSTANTS.c0` and on."""
  if not isinstance(root, Module) or not isinstance(constants, tuple):
    raise TorchFileError('a TorchScript program that is no module')
  root.take((f'CONSTANTS.c{i}', x) for i, x in enumerate(constants))
  if not root:
    raise TorchFileError('a TorchScript program without a tensor')
  return root


SCRIPT_BUILDERS = {
  '__torch__': _script_object,
  'torch.jit._pickle.restore_type_tag': _first,
  **{f'torch.jit._pickle.build_{kind}list': _first for kind in ('int', 'double', 'bool', 'tensor')},
}
