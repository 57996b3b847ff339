"""Pickles as symbols, then as values: nothing that a file names is ever called.

A pickle is a program, so it is read in two passes. The first one runs it with nothing but symbols:
each global it names must be in a table of builders and becomes a `Symbol`, which records how it was
called. The second one turns the finished tree of symbols into values, with one builder for each
name. No real function, class or array is ever within reach of the pickle.
"""

import functools
import math
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from hybrid_jax.errors import InputError

# Elements of a tensor that repeats its storage by stride 0: a few bytes could claim exabytes.
_MAX_EXPANDED = 1 << 24

_DTYPES = {
  name: np.dtype(name)
  for name in 'float64 float32 float16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool '
  'complex64 complex128'.split()
} | {'bfloat16': np.dtype(ml_dtypes.bfloat16)}
_STORAGES = {
  'Double': 'float64', 'Float': 'float32', 'Half': 'float16', 'BFloat16': 'bfloat16',
  'Long': 'int64', 'Int': 'int32', 'Short': 'int16', 'Char': 'int8', 'Byte': 'uint8',
  'Bool': 'bool', 'ComplexFloat': 'complex64', 'ComplexDouble': 'complex128', 'Untyped': 'uint8',
}  # fmt: skip
_STORAGE_NAMES = {
  f'{module}.{kind}Storage': _DTYPES[dtype]
  for kind, dtype in _STORAGES.items()
  for module in ('torch', 'torch.cuda', 'torch.storage')
}

# What torch and numpy write at protocols 2 to 5. The extension registry (EXT1..4) and out-of-band
# buffers are left out, and so is all of the textual protocol 0.
_OPCODES = frozenset(
  'PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINBYTES '
  'SHORT_BINBYTES BINSTRING SHORT_BINSTRING BINUNICODE SHORT_BINUNICODE EMPTY_DICT EMPTY_LIST '
  'EMPTY_SET EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 SETITEM SETITEMS APPEND APPENDS ADDITEMS '
  'FROZENSET BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE NEWOBJ '
  'BUILD BINPERSID'.split()
)


class TorchFileError(InputError):
  """A file that cannot or must not be read; one line that names the file and the reason."""


# --- First pass: a pickle to symbols -------------------------------------------------------------


# What a file may name; None where it may be named but not called.
Builders = Mapping[str, 'Callable[[Builder, Symbol], Any] | None']


class Symbol(dict):
  """A recorded call of the global `name`: its arguments, its state, and items set on it.

  `__setstate__` keeps the BUILD opcode from setting attributes: of an instance it stores the state
  unread, of the class itself it fails for want of an argument.
  """

  __slots__ = ('args', 'state')
  name = ''
  build = None

  def __new__(cls, *args):
    self = super().__new__(cls)
    self.args, self.state = args, None
    return self

  def __init__(self, *args):
    pass  # dict's own would take the arguments for items

  def __setstate__(self, state):
    self.state = state


class Storage(Symbol):
  """A persistent id: `args` is (dtype, key, count, view), view as in legacy `view_metadata`."""

  __slots__ = ()


class Unpickler(pickle.Unpickler):
  """Executes a pickle with symbols; `dtypes` collects those of the storages by key."""

  def __init__(self, file: BinaryIO, builders: Builders):
    super().__init__(file, encoding='utf-8')  # of strings by Python 2
    self._builders = builders
    self._symbols: dict[str, type[Symbol]] = {}
    self.dtypes: dict[str, np.dtype] = {}

  def find_class(self, module, name):
    full = f'{module}.{name}'
    key = '__torch__' if module.split('.')[0] == '__torch__' else full  # classes of a TorchScript
    if key not in self._builders:
      raise TorchFileError(
        f'refused {ascii(full)[1:-1][:120]}, which is no plain data and could run code; '
        'if you trust the file, save its state_dict() again with PyTorch'
      )
    if full not in self._symbols:
      # A class of its own for every file: nothing done to it can reach another load.
      build = staticmethod(self._builders[key]) if self._builders[key] else None
      fields = {'__slots__': (), 'name': full, 'build': build}
      self._symbols[full] = type('Symbol', (Symbol,), fields)
    return self._symbols[full]

  def persistent_load(self, pid):
    match pid:  # The location, as 'cpu' or 'cuda:0', does not matter here.
      case ('storage', type() as kind, str(key), str(), int(count), *view) if (
        getattr(kind, 'name', None) in _STORAGE_NAMES and count >= 0 and len(view) < 2
      ):
        self.dtypes[key] = _STORAGE_NAMES[kind.name]
        return Storage(self.dtypes[key], key, count, view[0] if view else None)
    raise TorchFileError('a persistent id that is no storage, so not written by torch.save')


def execute(file: BinaryIO, builders: Builders) -> tuple[Any, dict[str, np.dtype]]:
  """Executes the pickle that starts here; leaves `file` at its end. Returns (tree, dtypes).

  Raises:
    TorchFileError: it names what has no builder, or has an opcode that torch does not write.
  """
  start = file.tell()
  for opcode, arg, at in pickletools.genops(file):
    # An index far beyond the pickle's own length would make the C memo fill the memory.
    if opcode.name not in _OPCODES or (opcode.name == 'LONG_BINPUT' and arg > at):
      raise TorchFileError(f'refused pickle opcode {opcode.name} at byte {at}: not torch.save')
  end = file.tell()
  file.seek(start)
  unpickler = Unpickler(file, builders)
  tree = unpickler.load()
  file.seek(end)  # pickle may have read ahead
  return tree, unpickler.dtypes


# --- Second pass: symbols to values --------------------------------------------------------------


class Builder:
  """Turns symbols into values; `raw` reads a storage, `swap` says that its bytes are reversed."""

  def __init__(self, raw: Callable[[str], bytes], swap: bool):
    self._raw, self._swap = functools.cache(raw), swap
    # By id(), as the tree outlives the builder. Shared things stay shared: nested references
    # would otherwise multiply.
    self._values: dict[int, Any] = {}

  def value(self, x: Any) -> Any:
    if x is None or type(x) in (bool, int, float, str, bytes):
      return x
    if id(x) not in self._values:
      self._values[id(x)] = self._value(x)
    return self._values[id(x)]

  def _value(self, x: Any) -> Any:
    if type(x) is dict:
      return self.items(x)
    if type(x) in (list, tuple, set, frozenset):
      return type(x)(map(self.value, x))
    if isinstance(x, Storage):
      return self.storage(x)
    if isinstance(x, Symbol) and x.build:
      return x.build(self, x)
    if isinstance(x, type) and (name := x.name.removeprefix('torch.')) in _DTYPES:
      return _DTYPES[name]
    kind = x.name if hasattr(x, 'name') else type(x).__name__
    raise TorchFileError(f'refused {kind} in an unexpected place: not written by torch.save')

  def items(self, x: dict) -> dict:
    return {self.value(k): self.value(v) for k, v in x.items()}

  def storage(self, x: Storage, dtype: np.dtype | None = None) -> np.ndarray:
    stored, key, count, view = x.args
    raw = np.frombuffer(self._raw(key), np.uint8)
    size = count * stored.itemsize
    if size > raw.size:
      raise TorchFileError(f'storage {key} holds {raw.size} of {size} bytes: truncated or damaged')
    raw, dtype = raw[:size], dtype or stored
    if self._swap:  # Complex numbers swap by part.
      raw = raw.view(f'u{dtype.itemsize // (2 if dtype.kind == "c" else 1)}').byteswap()
    # A bool that is neither 0 nor 1 makes numpy's operations disagree.
    array = raw != 0 if dtype.kind == 'b' else raw.view(dtype)
    if view is not None:
      _, offset, length = view
      if not 0 <= offset <= offset + length <= array.size:
        raise TorchFileError(f'a view reaches outside storage {key}')
      array = array[offset : offset + length]
    array.flags.writeable = False
    return array


def _tensor(build: Builder, x: Symbol) -> np.ndarray:
  """Arguments: storage, offset, size, stride, requires_grad, hooks[, dtype if v3][, metadata]."""
  storage, offset, size, stride, *rest = x.args
  size, stride = build.value(size), build.value(stride)
  dtype = build.value(rest.pop(2)) if x.name.endswith('_v3') else None
  if len(rest) > 2 and rest[2]:
    raise TorchFileError('a conjugate or negative view: save tensor.resolve_conj().resolve_neg()')
  if isinstance(storage, Storage) and isinstance(dtype, np.dtype | None):
    base = build.storage(storage, dtype)
  else:
    base = build.value(storage)  # that of a stream inside the pickle
    if not isinstance(base, np.ndarray) or base.ndim != 1 or dtype is not None:
      raise TorchFileError(f'{x.name} called without a storage')
  # Nothing else is put in a message: the text of a nested value can be of exponential length.
  if not len(size) == len(stride) <= 32 or not all(
    type(n) is int and 0 <= n < 1 << 62 for n in (offset, *size, *stride)
  ):
    raise TorchFileError(f'{x.name} called with an impossible size, stride or offset')
  if not (count := math.prod(size)):
    return np.zeros(size, base.dtype)
  steps = [s if n > 1 else 0 for n, s in zip(size, stride, strict=True)]
  last = offset + sum((n - 1) * s for n, s in zip(size, steps, strict=True))
  if last >= base.size or count > max(base.size, _MAX_EXPANDED):
    raise TorchFileError(
      f'a tensor of size {size}, stride {stride}, offset {offset} reaches outside its storage '
      f'of {base.size} elements'
    )
  return np.lib.stride_tricks.as_strided(
    base[offset:], size, [s * base.itemsize for s in steps], writeable=False
  )


def _ordered_dict(build: Builder, x: Symbol) -> dict:
  # Python 2 passed the items as a list; the state is the attribute `_metadata` of a state dict.
  return dict(*map(build.value, x.args)) | build.items(x)


def _numpy_dtype(build: Builder, x: Symbol) -> np.dtype:
  if not isinstance(x.args[0], str) or not re.fullmatch(r'[biufc]\d{1,2}', x.args[0]):
    name = ascii(x.args[0])[:40] if isinstance(x.args[0], str) else 'of a strange kind'
    raise TorchFileError(f'refused numpy dtype {name}: only arrays of numbers are read')
  order = x.state[1] if x.state else '|'
  return np.dtype(x.args[0]).newbyteorder(order if order in ('<', '>') else '|')


def _numpy_array(build: Builder, x: Symbol) -> np.ndarray:
  _, shape, dtype, fortran, raw = build.value(x.state)
  return np.ndarray(shape, dtype, buffer=raw, order='F' if fortran else 'C')


# Every global that a file of torch.save may name. A pickle of protocol 2 spells builtins as
# Python 2 did.
BUILDERS: dict[str, Callable[[Builder, Symbol], Any] | None] = {
  'collections.OrderedDict': _ordered_dict,
  'argparse.Namespace': lambda build, x: dict(build.value(x.state or {})),
  'torch._utils._rebuild_tensor': _tensor,
  'torch._utils._rebuild_tensor_v2': _tensor,
  'torch._utils._rebuild_tensor_v3': _tensor,
  'torch._utils._rebuild_parameter': lambda build, x: build.value(x.args[0]),
  'torch.Size': lambda build, x: tuple(build.value(x.args[0])),
  'torch.device': lambda build, x: ':'.join(str(arg) for arg in x.args if type(arg) in (str, int)),
  '_codecs.encode': lambda build, x: x.args[0].encode('latin1'),  # bytes, at protocol 2
  'numpy.ndarray': None,
  'numpy.dtype': _numpy_dtype,
}
for _core in ('numpy.core', 'numpy._core'):
  BUILDERS[f'{_core}.multiarray._reconstruct'] = _numpy_array
  BUILDERS[f'{_core}.multiarray.scalar'] = lambda build, x: np.ndarray(
    (), build.value(x.args[0]), buffer=build.value(x.args[1])
  )[()]
for _builtins in ('builtins', '__builtin__'):
  BUILDERS[f'{_builtins}.set'] = lambda build, x: set(*map(build.value, x.args))
  BUILDERS[f'{_builtins}.frozenset'] = lambda build, x: frozenset(*map(build.value, x.args))
  BUILDERS[f'{_builtins}.complex'] = lambda build, x: complex(*map(build.value, x.args))
BUILDERS |= dict.fromkeys([*_STORAGE_NAMES, *(f'torch.{name}' for name in _DTYPES)])
