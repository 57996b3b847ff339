"""Reads PyTorch `.pt`, `.pth` and `.pkl` files without torch, and runs nothing they contain.

Formats (pytorch/pytorch, torch/serialization.py and torch/_utils.py): a pickle of the object, whose
tensors refer by key to raw storages. These are members of the same uncompressed zip (torch >= 1.6),
or bytes that follow in the same file (legacy). A TorchScript program is such a zip with its own
classes (torch/csrc/jit/serialization). In a plain pickle, as NVlabs' `.pkl`, every storage is a
legacy stream of its own. How pickles are read safely: `safe_pickle`.
"""

import io
import os
import re
import sys
import zipfile
from typing import Any, BinaryIO

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.weights import torch_modules
from hybrid_jax.weights.safe_pickle import BUILDERS, Builder, Symbol, execute

# First pickle of a legacy file, of torch/serialization.py; a zip has its own magic number.
_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001


def load(path: str | os.PathLike) -> Any:
  """Reads a `.pt`, `.pth` or `.pkl` file.

  Returns:
    The saved object: dict (also for OrderedDict and Namespace), list, tuple (also for torch.Size),
    set, str, bytes and scalars, with numpy arrays for tensors and parameters, numpy dtypes for
    torch's, a str for a device, and `torch_modules.Module` for a module saved whole. An array is a
    read-only view of its storage, strided as it was in torch, and keeps that storage in memory:
    copy an array that is changed or kept longer than the rest.

  Raises:
    InputError: the file is missing, damaged, no checkpoint, or names a global that is not in the
      tables of `safe_pickle` and `torch_modules`.
  """
  try:
    with open(path, 'rb') as file:
      return _read(file)
  except InputError as error:
    raise InputError(f'{path}: {error}') from None
  except OSError as error:
    raise InputError(f'{path}: cannot be read ({error.strerror or error})') from error
  except Exception as error:  # damaged bytes can provoke any error of pickle, zipfile or numpy
    detail = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
    raise InputError(f'{path}: truncated or damaged, or no checkpoint ({detail})') from error


# --- Containers ----------------------------------------------------------------------------------


def _read(file: BinaryIO) -> Any:
  head = file.read(64)
  size = file.seek(0, io.SEEK_END)
  file.seek(0)
  if not head:
    raise InputError('the file is empty')
  if head.startswith(b'PK\x03\x04'):
    return _read_zip(file, size)
  # A legacy file begins with the pickle of its magic number, whose protocol may vary.
  if _MAGIC.to_bytes(10, 'little') in head:
    return _read_legacy(file, size)
  if re.match(rb'\x80[\x02-\x05]', head):
    return _read_plain(file)
  raise InputError(f'not a PyTorch file: it starts with {head[:16]!r}')


def _read_zip(file: BinaryIO, size: int) -> Any:
  with zipfile.ZipFile(file) as archive:
    sizes = {member.filename: member.file_size for member in archive.infolist()}
    roots = [name[:-8] for name in sizes if re.fullmatch(r'[^/]*/data\.pkl', name)]
    if len(roots) != 1:
      raise InputError('a zip, but not one of torch.save: it has no data.pkl in one folder')
    (root,) = roots
    # torch stores its members uncompressed, except source code, which is not read here. Members
    # that are compressed, or have more bytes together than the file, mean a zip bomb.
    data = [m for m in archive.infolist() if not m.filename.startswith(f'{root}code/')]
    if any(m.compress_type for m in data) or sum(m.file_size for m in data) > size:
      raise InputError('its members are compressed or overlap, so not as torch.save wrote them')
    # Newer torch writes this member; before, files of big-endian machines could not be recognised.
    order = archive.read(f'{root}byteorder') if f'{root}byteorder' in sizes else b'little'
    if order not in (b'little', b'big'):
      raise InputError(f'unknown byte order {order[:16]!r}')

    def unpickled(name: str, builders) -> Any:
      tree, _ = execute(io.BytesIO(archive.read(f'{root}{name}.pkl')), builders)
      raw = lambda key: archive.read(f'{root}{name}/{key}')  # noqa: E731
      return Builder(raw, order.decode() != sys.byteorder).value(tree)

    if f'{root}constants.pkl' not in sizes:
      return unpickled('data', _BUILDERS)
    names = BUILDERS | torch_modules.SCRIPT_BUILDERS
    return torch_modules.script(unpickled('data', names), unpickled('constants', names))


def _read_legacy(file: BinaryIO, size: int, data: bytes | None = None) -> Any:
  """The object of a legacy file; `data` is the whole file if it is in memory already."""
  (magic, version, system) = (execute(file, BUILDERS)[0] for _ in range(3))
  if magic != _MAGIC or version != _LEGACY_VERSION or system['little_endian'] is not True:
    raise InputError(f'unknown or big-endian legacy format, version {version!r}')
  tree, dtypes = execute(file, BUILDERS if data is not None else _BUILDERS)
  keys, _ = execute(file, BUILDERS)
  # The storages follow in the order of `keys`, each after its number of elements.
  places = {}
  for key in keys:
    count = int.from_bytes(file.read(8), 'little')
    places[key] = file.tell(), count * dtypes[key].itemsize
    if sum(places[key]) > size:
      raise InputError(f'storage {key} reaches beyond the end of the file: truncated')
    file.seek(sum(places[key]))

  # A storage is read when a tensor asks for it: an entry that is dropped costs no memory.
  def raw(key: str) -> bytes | memoryview:
    start, length = places[key]
    if data is not None:
      return memoryview(data)[start : start + length]
    file.seek(start)
    return file.read(length)

  return Builder(raw, sys.byteorder != 'little').value(tree)


def _read_plain(file: BinaryIO) -> Any:
  tree, _ = execute(file, _BUILDERS | {'torch.storage._load_from_bytes': _nested})
  return Builder(lambda key: b'', False).value(tree)


def _nested(build: Builder, x: Symbol) -> np.ndarray:
  """A storage that torch saved as bytes: a legacy stream, which may hold no further one."""
  data = build.value(*x.args)  # bytes, or text recoded by `_codecs.encode` at protocol 2
  if type(data) is not bytes:
    raise InputError(f'{x.name} called without bytes')
  storage = _read_legacy(io.BytesIO(data), len(data), data)
  if not isinstance(storage, np.ndarray):
    raise InputError(f'{x.name} called with no storage in its bytes')
  return storage


# NVlabs' modules may stand in a zip, legacy or plain file; TorchScript's classes in their own only.
_BUILDERS = BUILDERS | torch_modules.BUILDERS
