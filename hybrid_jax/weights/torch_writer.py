"""Writes `.pt` files in torch's zip format, without torch.

A file is an archive of `data.pkl`, the pickled tree, and one member for the bytes of each tensor.
The pickle is assembled opcode by opcode, of those that `torch.load(weights_only=True)` allows; the
same tree gives the same bytes.
"""

import collections
import os
import pickle
import sys
import zipfile
from typing import Any

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.media import reason, replacing

_STORAGES = {
  'float64': 'Double', 'float32': 'Float', 'float16': 'Half', 'bfloat16': 'BFloat16',
  'int64': 'Long', 'int32': 'Int', 'int16': 'Short', 'int8': 'Char', 'uint8': 'Byte',
  'bool': 'Bool', 'complex64': 'ComplexFloat', 'complex128': 'ComplexDouble',
}  # fmt: skip
_ROOT = 'archive'
_ALIGNMENT = 64  # bytes, as torch's own, so that a file can be mapped into memory
_HEADER = 30  # of a zip member, bytes without its name


def save(path: str | os.PathLike, tree: Any) -> None:
  """Writes a tree that `torch.load` and `torch_file.load` read back, through a temporary file.

  Args:
    path: of the file.
    tree: dict, OrderedDict, list and tuple of numpy arrays, None, bool, int, float and str. Arrays
      become contiguous tensors of their type.

  Raises:
    InputError: the file cannot be written.
    TypeError: anything else in the tree, or an array of a type that torch has no storage of.
  """
  storages: list[np.ndarray] = []
  program = b'\x80\x02' + _opcodes(tree, storages) + b'.'
  with replacing(path) as part:
    try:
      with zipfile.ZipFile(part, 'w') as archive:
        _member(archive, 'data.pkl', program)
        _member(archive, 'byteorder', sys.byteorder.encode())
        for key, x in enumerate(storages):
          native = np.ascontiguousarray(x, x.dtype.newbyteorder('='))
          _member(archive, f'data/{key}', native.reshape(-1).view(np.uint8).data)
        _member(archive, 'version', b'3\n')
    except OSError as error:
      raise InputError(f'{path}: cannot be written ({reason(error)})') from error


def _member(archive: zipfile.ZipFile, name: str, data: bytes | memoryview) -> None:
  """One stored member, of a fixed date, whose bytes begin at a multiple of `_ALIGNMENT`."""
  info = zipfile.ZipInfo(f'{_ROOT}/{name}')
  padding = -(archive.fp.tell() + _HEADER + len(info.filename) + 4) % _ALIGNMENT
  info.extra = b'FB' + padding.to_bytes(2, 'little') + bytes(padding)
  archive.writestr(info, data)


def _opcodes(x: Any, storages: list[np.ndarray]) -> bytes:
  """The pickle opcodes that push `x`; appends its arrays to `storages`."""
  push = lambda *values: b''.join(_opcodes(value, storages) for value in values)  # noqa: E731
  if x is None or type(x) in (bool, int, float, str):
    return pickle.dumps(x, 2)[2:-1]
  match x:
    case list():
      return b'](' + push(*x) + b'e'
    case tuple():
      return b'(' + push(*x) + b't'
    case dict():
      ordered = isinstance(x, collections.OrderedDict)
      empty = _global('collections.OrderedDict') + b')R' if ordered else b'}'
      return empty + b'(' + b''.join(push(*item) for item in x.items()) + b'u'
    case np.ndarray() if x.dtype.name in _STORAGES:
      storage = _global(f'torch.{_STORAGES[x.dtype.name]}Storage')
      key = str(len(storages))
      storages.append(x)
      return (
        _global('torch._utils._rebuild_tensor_v2')
        + b'(('
        + push('storage')
        + storage
        + push(key, 'cpu', x.size)
        + b'tQ'
        + push(0, x.shape, _strides(x.shape), False, collections.OrderedDict())
        + b'tR'
      )
  kind = f'array of {x.dtype}' if isinstance(x, np.ndarray) else type(x).__name__
  raise TypeError(f'no place for a {kind} in a torch file')


def _global(name: str) -> bytes:
  module, _, attribute = name.rpartition('.')
  return f'c{module}\n{attribute}\n'.encode()


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
  """Of a contiguous tensor, in elements, as torch counts them."""
  strides = np.cumprod([1, *(max(n, 1) for n in reversed(shape[1:]))]) if shape else []
  return tuple(int(n) for n in reversed(strides))
