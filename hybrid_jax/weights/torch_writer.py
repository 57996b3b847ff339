"""Writes `.pt` files in torch's zip format, without torch.

A file is an archive of `data.pkl`, the pickled tree, and one member for the bytes of each tensor.
The pickle is assembled from the opcodes that `torch.load(weights_only=True)` accepts. The same tree
gives the same bytes.
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

# torch has no storage type for larger unsigned integers: those raise TypeError.
_STORAGES = {
  'float64': 'Double', 'float32': 'Float', 'float16': 'Half', 'bfloat16': 'BFloat16',
  'int64': 'Long', 'int32': 'Int', 'int16': 'Short', 'int8': 'Char', 'uint8': 'Byte',
  'bool': 'Bool', 'complex64': 'ComplexFloat', 'complex128': 'ComplexDouble',
}  # fmt: skip
_ROOT = 'archive'
_ALIGNMENT = 64  # bytes, as torch's own, so that a file can be mapped into memory
_HEADER = 30  # bytes of a zip member's header without its name


def save(path: str | os.PathLike, tree: Any) -> None:
  """Writes a tree that `torch.load` and `torch_file.load` read back, through a temporary file.

  Args:
    path: the file to write.
    tree: dict, OrderedDict, list and tuple of numpy arrays, None, bool, int, float and str. Arrays
      become contiguous tensors of their type.

  Raises:
    InputError: the file cannot be written.
    TypeError: anything else in the tree, or an array of a type without a torch storage.
  """
  storages: list[np.ndarray] = []
  # Before the file is opened: a tree that cannot be written must not touch what is there.
  program = b'\x80\x02' + _opcodes(tree, storages) + b'.'  # PROTO 2 ... STOP
  # A reader of `path` sees the old file or the whole new one.
  with replacing(path) as part:
    try:
      with zipfile.ZipFile(part, 'w') as archive:
        _member(archive, 'data.pkl', program)
        _member(archive, 'byteorder', sys.byteorder.encode())
        for key, x in enumerate(storages):
          # One at a time: a contiguous copy of every tensor would double the memory.
          native = np.ascontiguousarray(x, x.dtype.newbyteorder('='))
          _member(archive, f'data/{key}', native.reshape(-1).view(np.uint8).data)
        _member(archive, 'version', b'3\n')
    except OSError as error:
      raise InputError(f'{path}: cannot be written ({reason(error)})') from error


def _member(archive: zipfile.ZipFile, name: str, data: bytes | memoryview) -> None:
  """One uncompressed member, whose bytes begin at a multiple of `_ALIGNMENT`."""
  info = zipfile.ZipInfo(f'{_ROOT}/{name}')  # dated 1980: the same tree gives the same bytes
  # torch pads with an extra field 'FB': two bytes of name and two of length, then the padding.
  padding = -(archive.fp.tell() + _HEADER + len(info.filename) + 4) % _ALIGNMENT
  info.extra = b'FB' + padding.to_bytes(2, 'little') + bytes(padding)
  archive.writestr(info, data)


def _opcodes(x: Any, storages: list[np.ndarray]) -> bytes:
  """The pickle opcodes that push `x`; appends its arrays to `storages`.

  The letters are those of `pickletools`: ( MARK, ] EMPTY_LIST, e APPENDS, t TUPLE, } EMPTY_DICT,
  u SETITEMS, ) EMPTY_TUPLE, R REDUCE, c GLOBAL, Q BINPERSID.
  """
  push = lambda *values: b''.join(_opcodes(value, storages) for value in values)  # noqa: E731
  # `type(x) in`, not isinstance: a numpy scalar is a float and pickles as a call.
  if x is None or type(x) in (bool, int, float, str):
    return pickle.dumps(x, 2)[2:-1]  # without PROTO and STOP
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
      # Arguments of `_rebuild_tensor_v2`: storage, offset, size, stride, requires_grad, hooks.
      storage = _global(f'torch.{_STORAGES[x.dtype.name]}Storage')
      key = str(len(storages))
      storages.append(x)  # its bytes are written after the pickle, in this order
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
  """Strides of a contiguous tensor, in elements; torch counts an empty axis as one of length 1."""
  strides = np.cumprod([1, *(max(n, 1) for n in reversed(shape[1:]))]) if shape else []
  return tuple(int(n) for n in reversed(strides))
