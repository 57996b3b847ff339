"""Reads PyTorch `.pt` and `.pth` files without torch, and without running anything they contain.

Format: pytorch/pytorch, torch/serialization.py and torch/_utils.py. A pickle of the object, whose
tensors refer by key to raw storages: members of the same uncompressed zip (torch >= 1.6), or bytes
that follow in the same file (legacy).

A pickle is a program, so it is read in two passes. The first one runs it with nothing but symbols:
each global it names must be in `_BUILDERS` and becomes a `_Symbol`, which records how it was
called. The second one turns the finished tree of symbols into values, with one builder for each
name. No real function, class or array is ever within reach of the pickle.
"""

import functools
import io
import math
import os
import pickle
import pickletools
import re
import sys
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from hybrid_jax.errors import InputError

_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
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


def load(path: str | os.PathLike) -> Any:
  """Reads a `.pt` or `.pth` file.

  Returns:
    The saved object: dict (also for OrderedDict and Namespace), list, tuple (also for torch.Size),
    set, str, bytes and scalars, with numpy arrays for tensors and parameters, numpy dtypes for
    torch's and a str for a device. An array is a read-only view of its storage, strided as it was
    in torch, and keeps that storage in memory: copy what is to be changed or to outlive the rest.

  Raises:
    TorchFileError: the file is missing, damaged, no checkpoint, or names anything not listed here.
  """
  try:
    with open(path, 'rb') as file:
      return _read(file)
  except TorchFileError as error:
    raise TorchFileError(f'{path}: {error}') from None
  except OSError as error:
    raise TorchFileError(f'{path}: cannot be read ({error.strerror or error})') from error
  except Exception as error:  # Damaged bytes can provoke any error of pickle, zipfile or numpy.
    why = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
    raise TorchFileError(f'{path}: truncated or damaged, or no checkpoint ({why})') from error


# --- First pass: a pickle to symbols -------------------------------------------------------------


class _Symbol(dict):
  """A recorded call of the global `name`: its arguments, its state, and items set on it.

  `__setstate__` keeps the BUILD opcode from setting attributes: of an instance it stores the state
  unread, of the class itself it fails for want of an argument.
  """

  __slots__ = ('args', 'state')
  name = ''

  def __new__(cls, *args):
    self = super().__new__(cls)
    self.args, self.state = args, None
    return self

  def __init__(self, *args):
    pass  # dict's own would take the arguments for items

  def __setstate__(self, state):
    self.state = state


class _Storage(_Symbol):
  """A persistent id: `args` is (dtype, key, count, view), view as in legacy `view_metadata`."""

  __slots__ = ()


class _Unpickler(pickle.Unpickler):
  """Executes a pickle with symbols; `dtypes` collects those of the storages by key."""

  def __init__(self, data: bytes):
    super().__init__(io.BytesIO(data), encoding='utf-8')  # of strings by Python 2
    self._symbols: dict[str, type[_Symbol]] = {}
    self.dtypes: dict[str, np.dtype] = {}

  def find_class(self, module, name):
    full = f'{module}.{name}'
    if full not in _BUILDERS:
      raise TorchFileError(
        f'refused {ascii(full)[1:-1][:120]}, which is no plain data and could run code; '
        'if you trust the file, save its state_dict() again with PyTorch'
      )
    if full not in self._symbols:
      # A class of its own for every file: nothing done to it can reach another load.
      self._symbols[full] = type('Symbol', (_Symbol,), {'__slots__': (), 'name': full})
    return self._symbols[full]

  def persistent_load(self, pid):
    match pid:  # The location, as 'cpu' or 'cuda:0', does not matter here.
      case ('storage', type() as kind, str(key), str(), int(count), *view) if (
        getattr(kind, 'name', None) in _STORAGE_NAMES and count >= 0 and len(view) < 2
      ):
        self.dtypes[key] = _STORAGE_NAMES[kind.name]
        return _Storage(self.dtypes[key], key, count, view[0] if view else None)
    raise TorchFileError('a persistent id that is no storage, so not written by torch.save')


def _execute(file: BinaryIO) -> tuple[Any, dict[str, np.dtype]]:
  """Executes the pickle that starts here; leaves `file` at its end. Returns (tree, dtypes)."""
  start = file.tell()
  for opcode, arg, at in pickletools.genops(file):
    # An index far beyond the pickle's own length would make the C memo fill the memory.
    if opcode.name not in _OPCODES or (opcode.name == 'LONG_BINPUT' and arg > at):
      raise TorchFileError(f'refused pickle opcode {opcode.name} at byte {at}: not torch.save')
  end = file.tell()
  file.seek(start)
  unpickler = _Unpickler(file.read(end - start))
  return unpickler.load(), unpickler.dtypes


# --- Second pass: symbols to values --------------------------------------------------------------


class _Builder:
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
    if isinstance(x, _Storage):
      return self.storage(x)
    if isinstance(x, _Symbol) and _BUILDERS[x.name]:
      return _BUILDERS[x.name](self, x)
    if isinstance(x, type) and (name := x.name.removeprefix('torch.')) in _DTYPES:
      return _DTYPES[name]
    kind = x.name if hasattr(x, 'name') else type(x).__name__
    raise TorchFileError(f'refused {kind} in an unexpected place: not written by torch.save')

  def items(self, x: dict) -> dict:
    return {self.value(k): self.value(v) for k, v in x.items()}

  def storage(self, x: _Storage, dtype: np.dtype | None = None) -> np.ndarray:
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


def _tensor(build: _Builder, x: _Symbol) -> np.ndarray:
  """Arguments: storage, offset, size, stride, requires_grad, hooks[, dtype if v3][, metadata]."""
  storage, offset, size, stride, *rest = x.args
  size, stride = build.value(size), build.value(stride)
  dtype = build.value(rest.pop(2)) if x.name.endswith('_v3') else None
  if len(rest) > 2 and rest[2]:
    raise TorchFileError('a conjugate or negative view: save tensor.resolve_conj().resolve_neg()')
  if not isinstance(storage, _Storage) or not isinstance(dtype, np.dtype | None):
    raise TorchFileError(f'{x.name} called without a storage')
  base = build.storage(storage, dtype)
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


def _ordered_dict(build: _Builder, x: _Symbol) -> dict:
  # Python 2 passed the items as a list; the state is the attribute `_metadata` of a state dict.
  return dict(*map(build.value, x.args)) | build.items(x)


def _numpy_dtype(build: _Builder, x: _Symbol) -> np.dtype:
  if not isinstance(x.args[0], str) or not re.fullmatch(r'[biufc]\d{1,2}', x.args[0]):
    name = ascii(x.args[0])[:40] if isinstance(x.args[0], str) else 'of a strange kind'
    raise TorchFileError(f'refused numpy dtype {name}: only arrays of numbers are read')
  order = x.state[1] if x.state else '|'
  return np.dtype(x.args[0]).newbyteorder(order if order in ('<', '>') else '|')


def _numpy_array(build: _Builder, x: _Symbol) -> np.ndarray:
  _, shape, dtype, fortran, raw = build.value(x.state)
  return np.ndarray(shape, dtype, buffer=raw, order='F' if fortran else 'C')


# Every global a file may name; None where it may be named but not called. A pickle of protocol 2
# spells builtins as Python 2 did.
_BUILDERS: dict[str, Callable[[_Builder, _Symbol], Any] | None] = {
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
  _BUILDERS[f'{_core}.multiarray._reconstruct'] = _numpy_array
  _BUILDERS[f'{_core}.multiarray.scalar'] = lambda build, x: np.ndarray(
    (), build.value(x.args[0]), buffer=build.value(x.args[1])
  )[()]
for _builtins in ('builtins', '__builtin__'):
  _BUILDERS[f'{_builtins}.set'] = lambda build, x: set(*map(build.value, x.args))
  _BUILDERS[f'{_builtins}.frozenset'] = lambda build, x: frozenset(*map(build.value, x.args))
  _BUILDERS[f'{_builtins}.complex'] = lambda build, x: complex(*map(build.value, x.args))
_BUILDERS |= dict.fromkeys([*_STORAGE_NAMES, *(f'torch.{name}' for name in _DTYPES)])


# --- Containers ----------------------------------------------------------------------------------


def _read(file: BinaryIO) -> Any:
  head = file.read(64)
  size = file.seek(0, io.SEEK_END)
  file.seek(0)
  if not head:
    raise TorchFileError('the file is empty')
  if head.startswith(b'PK\x03\x04'):
    return _read_zip(file, size)
  if _MAGIC.to_bytes(10, 'little') in head:
    return _read_legacy(file, size)
  if re.match(rb'\x80[\x02-\x05]', head):
    raise TorchFileError(
      'a plain pickle (as the .pkl of NVlabs, modules with their source code), not a torch '
      'checkpoint: save its state_dict() with PyTorch'
    )
  raise TorchFileError(f'not a PyTorch file: it starts with {head[:16]!r}')


def _read_zip(file: BinaryIO, size: int) -> Any:
  with zipfile.ZipFile(file) as archive:
    members = archive.infolist()
    names = {member.filename for member in members}
    roots = [name[:-8] for name in names if re.fullmatch(r'[^/]*/data\.pkl', name)]
    if len(roots) != 1:
      raise TorchFileError('a zip, but not one of torch.save: it has no data.pkl in one folder')
    (root,) = roots
    if any(name.startswith((f'{root}constants.pkl', f'{root}code/')) for name in names):
      raise TorchFileError('a TorchScript program, not a checkpoint: save its state_dict() instead')
    # torch stores its members as they are, so that more bytes than the file has mean a zip bomb.
    if any(m.compress_type for m in members) or sum(m.file_size for m in members) > size:
      raise TorchFileError('its members are compressed or overlap, so not as torch.save wrote them')
    order = archive.read(f'{root}byteorder') if f'{root}byteorder' in names else b'little'
    if order not in (b'little', b'big'):
      raise TorchFileError(f'unknown byte order {order[:16]!r}')
    tree, _ = _execute(io.BytesIO(archive.read(f'{root}data.pkl')))
    swap = order.decode() != sys.byteorder
    return _Builder(lambda key: archive.read(f'{root}data/{key}'), swap).value(tree)


def _read_legacy(file: BinaryIO, size: int) -> Any:
  (magic, version, system) = (_execute(file)[0] for _ in range(3))
  if magic != _MAGIC or version != _LEGACY_VERSION or system['little_endian'] is not True:
    raise TorchFileError(f'unknown or big-endian legacy format, version {version!r}')
  tree, dtypes = _execute(file)
  keys, _ = _execute(file)
  places = {}
  for key in keys:
    count = int.from_bytes(file.read(8), 'little')
    places[key] = file.tell(), count * dtypes[key].itemsize
    if sum(places[key]) > size:
      raise TorchFileError(f'storage {key} reaches beyond the end of the file: truncated')
    file.seek(sum(places[key]))

  def raw(key: str) -> bytes:
    start, length = places[key]
    file.seek(start)
    return file.read(length)

  return _Builder(raw, sys.byteorder != 'little').value(tree)
