"""Reads pickles without calling anything that they name.

A pickle is a program, so it is read in two passes. The first executes it on symbols only: each
global that it names must be in a table of builders and becomes a `Symbol`, which records its calls.
The second turns the finished tree of symbols into values, with one builder for each name. The
pickle never reaches a real function, class or array.
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

# Elements of a tensor that repeats its storage by stride 0. Without a limit, a few bytes could
# claim exabytes.
_MAX_EXPANDED = 1 << 24

_DTYPES = {
  name: np.dtype(name)
  for name in 'float64 float32 float16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool '
  'complex64 complex128'.split()
} | {'bfloat16': np.dtype(ml_dtypes.bfloat16)}
# torch names storages after C types. It has none for uint16 and larger unsigned types: their
# tensors refer to untyped bytes and bring their type along (`_rebuild_tensor_v3`).
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

# What torch and numpy write at protocols 2 to 5. Left out are the extension registry (EXT1..4),
# which names a global by number, out-of-band buffers, and the textual protocol 0.
_OPCODES = frozenset(
  'PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINBYTES '
  'SHORT_BINBYTES BINSTRING SHORT_BINSTRING BINUNICODE SHORT_BINUNICODE EMPTY_DICT EMPTY_LIST '
  'EMPTY_SET EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 SETITEM SETITEMS APPEND APPENDS ADDITEMS '
  'FROZENSET BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE NEWOBJ '
  'BUILD BINPERSID'.split()
)


# --- First pass: a pickle to symbols -------------------------------------------------------------


# What a file may name. None: it may be named, as the type of a storage, but not called.
Builders = Mapping[str, 'Callable[[Builder, Symbol], Any] | None']


class Symbol(dict):
  """A recorded call of the global `name`: its arguments, its state, and items set on it.

  It is a dict, so that the opcode SETITEMS works on it as on an OrderedDict. `__setstate__` keeps
  the opcode BUILD from setting attributes: on an instance it stores the state unread, on the class
  itself it fails because an argument is missing.
  """

  __slots__ = ('args', 'state')
  name = ''
  build = None

  def __new__(cls, *args):
    """A call with these arguments: by REDUCE, or by NEWOBJ, which skips __init__."""
    self = super().__new__(cls)
    self.args, self.state = args, None
    return self

  def __init__(self, *args):
    pass  # dict's own would take the arguments for items

  def __setstate__(self, state):
    """Stores the state of the opcode BUILD for the builder."""
    self.state = state


class Storage(Symbol):
  """A persistent id: `args` is (dtype, key, count, view), view as in legacy `view_metadata`."""

  __slots__ = ()


class Unpickler(pickle.Unpickler):
  """Executes a pickle with symbols.

  Attributes:
    dtypes: types of the storages that it refers to, by key.
  """

  def __init__(self, file: BinaryIO, builders: Builders):
    super().__init__(file, encoding='utf-8')  # of strings by Python 2
    self._builders = builders
    self._symbols: dict[str, type[Symbol]] = {}
    self.dtypes: dict[str, np.dtype] = {}

  def find_class(self, module, name):
    """The symbol of a global, in place of the global itself; called by the opcodes GLOBAL."""
    full = f'{module}.{name}'
    # Each TorchScript program has classes of its own below this name; one builder serves all.
    key = '__torch__' if module.split('.')[0] == '__torch__' else full
    if key not in self._builders:
      # Escaped and cut: the name comes from the file and is printed to a terminal.
      raise InputError(
        f'refused {ascii(full)[1:-1][:120]}, which is no plain data and could run code; '
        'if you trust the file, save its state_dict() again with PyTorch'
      )
    if full not in self._symbols:
      # A new class for every file: nothing that a pickle does to it can reach another load.
      build = staticmethod(self._builders[key]) if self._builders[key] else None
      fields = {'__slots__': (), 'name': full, 'build': build}
      self._symbols[full] = type('Symbol', (Symbol,), fields)
    return self._symbols[full]

  def persistent_load(self, pid):
    """The symbol of a storage that the file keeps outside of the pickle."""
    match pid:  # The fourth entry is the device, as 'cuda:0', which does not matter here.
      case ('storage', type() as kind, str(key), str(), int(count), *view) if (
        getattr(kind, 'name', None) in _STORAGE_NAMES and count >= 0 and len(view) < 2
      ):
        self.dtypes[key] = _STORAGE_NAMES[kind.name]
        return Storage(self.dtypes[key], key, count, view[0] if view else None)
    raise InputError('a persistent id that is no storage, so not written by torch.save')


def execute(file: BinaryIO, builders: Builders) -> tuple[Any, dict[str, np.dtype]]:
  """Executes the pickle at the position of `file`, and leaves it at the pickle's end.

  Returns:
    The tree of symbols, and the types of its storages by key.

  Raises:
    InputError: it names what has no builder, or has an opcode that torch does not write.
  """
  start = file.tell()
  # pickletools parses without executing, so that nothing runs before every opcode is allowed.
  for opcode, arg, at in pickletools.genops(file):
    # The memo of the C unpickler is an array: an index of 4 billion would fill the memory. No
    # honest pickle has stored more objects than it has bytes.
    if opcode.name not in _OPCODES or (opcode.name == 'LONG_BINPUT' and arg > at):
      raise InputError(f'refused pickle opcode {opcode.name} at byte {at}: not torch.save')
  end = file.tell()
  file.seek(start)
  unpickler = Unpickler(file, builders)
  tree = unpickler.load()
  file.seek(end)  # pickle may have read ahead
  return tree, unpickler.dtypes


# --- Second pass: symbols to values --------------------------------------------------------------


class Builder:
  """Turns symbols into values.

  Args:
    raw: reads the bytes of a storage by its key.
    swap: whether the bytes of each number are reversed on this machine.
  """

  def __init__(self, raw: Callable[[str], bytes], swap: bool):
    # Each storage is read once: tensors that shared memory in torch share it here.
    self._raw, self._swap = functools.cache(raw), swap
    # By id(), which is safe because the tree outlives the builder. Each object is built once: with
    # nested references, a pickle of 1 kB can refer to one object 2^100 times.
    self._values: dict[int, Any] = {}

  def value(self, x: Any) -> Any:
    """The value of a symbol, or of a container of symbols.

    Raises:
      InputError: a symbol stands where torch.save does not write one.
    """
    # Exact types: a Symbol is a dict as well, and a subclass may have methods of its own.
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
    raise InputError(f'refused {kind} in an unexpected place: not written by torch.save')

  def items(self, x: dict) -> dict:
    """The values of the items of a dict, or of those set on a symbol."""
    return {self.value(k): self.value(v) for k, v in x.items()}

  def storage(self, x: Storage, dtype: np.dtype | None = None) -> np.ndarray:
    """The numbers (n,) of a storage, read-only; `dtype` replaces the type it is declared with.

    Raises:
      InputError: it is shorter than declared, or a view reaches outside.
    """
    stored, key, count, view = x.args
    raw = np.frombuffer(self._raw(key), np.uint8)
    size = count * stored.itemsize
    if size > raw.size:
      raise InputError(f'storage {key} holds {raw.size} of {size} bytes: truncated or damaged')
    raw, dtype = raw[:size], dtype or stored
    if self._swap:  # a complex number is two numbers, each reversed
      raw = raw.view(f'u{dtype.itemsize // (2 if dtype.kind == "c" else 1)}').byteswap()
    # A bool that is neither 0 nor 1 makes numpy's operations disagree.
    array = raw != 0 if dtype.kind == 'b' else raw.view(dtype)
    if view is not None:
      _, offset, length = view
      if not 0 <= offset <= offset + length <= array.size:
        raise InputError(f'a view reaches outside storage {key}')
      array = array[offset : offset + length]
    # Several tensors may share it: a change of one would change the others.
    array.flags.writeable = False
    return array


def _tensor(build: Builder, x: Symbol) -> np.ndarray:
  """Arguments: storage, offset, size, stride, requires_grad, hooks[, dtype if v3][, metadata]."""
  storage, offset, size, stride, *rest = x.args
  size, stride = build.value(size), build.value(stride)
  dtype = build.value(rest.pop(2)) if x.name.endswith('_v3') else None
  # The metadata of a conjugate or negative view: its bytes are those of the tensor it was made of.
  if len(rest) > 2 and rest[2]:
    raise InputError('a conjugate or negative view: save tensor.resolve_conj().resolve_neg()')
  if isinstance(storage, Storage) and isinstance(dtype, np.dtype | None):
    base = build.storage(storage, dtype)
  else:
    base = build.value(storage)  # of a legacy stream inside the pickle, see `torch_file`
    if not isinstance(base, np.ndarray) or base.ndim != 1 or dtype is not None:
      raise InputError(f'{x.name} called without a storage')
  # Only the name goes into the message: the text of a nested value can have exponential length.
  if not len(size) == len(stride) <= 32 or not all(
    type(n) is int and 0 <= n < 1 << 62 for n in (offset, *size, *stride)
  ):
    raise InputError(f'{x.name} called with an impossible size, stride or offset')
  if not (count := math.prod(size)):
    return np.zeros(size, base.dtype)
  # as_strided checks nothing, so the last element must be proved to lie inside. An axis of length 1
  # may have any stride.
  steps = [s if n > 1 else 0 for n, s in zip(size, stride, strict=True)]
  last = offset + sum((n - 1) * s for n, s in zip(size, steps, strict=True))
  if last >= base.size or count > max(base.size, _MAX_EXPANDED):
    raise InputError(
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
  # No 'O', whose elements are pickles, and no 'V', whose fields could overlap.
  if not isinstance(x.args[0], str) or not re.fullmatch(r'[biufc]\d{1,2}', x.args[0]):
    name = ascii(x.args[0])[:40] if isinstance(x.args[0], str) else 'of a strange kind'
    raise InputError(f'refused numpy dtype {name}: only arrays of numbers are read')
  order = x.state[1] if x.state else '|'
  return np.dtype(x.args[0]).newbyteorder(order if order in ('<', '>') else '|')


def _numpy_array(build: Builder, x: Symbol) -> np.ndarray:
  # np.ndarray raises if `raw` is shorter than the shape asks for.
  _, shape, dtype, fortran, raw = build.value(x.state)
  return np.ndarray(shape, dtype, buffer=raw, order='F' if fortran else 'C')


# Every global that a file of torch.save may name. A builder gets the symbol and returns plain data:
# extend the table only with builders that call nothing from the file.
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
for _builtins in ('builtins', '__builtin__'):  # protocol 2 spells builtins as Python 2 did
  BUILDERS[f'{_builtins}.set'] = lambda build, x: set(*map(build.value, x.args))
  BUILDERS[f'{_builtins}.frozenset'] = lambda build, x: frozenset(*map(build.value, x.args))
  BUILDERS[f'{_builtins}.complex'] = lambda build, x: complex(*map(build.value, x.args))
BUILDERS |= dict.fromkeys([*_STORAGE_NAMES, *(f'torch.{name}' for name in _DTYPES)])
