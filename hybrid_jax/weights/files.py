"""Reads files of PyTorch, safetensors and numpy (.npy), recognised by their first bytes.

File names are ignored: public files have the suffixes .pt, .pth, .pkl and .bin in any format.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from hybrid_jax.errors import InputError
from hybrid_jax.media import reason, replacing
from hybrid_jax.weights import torch_file
from hybrid_jax.weights.wrappers import unwrapped

# A safetensors file is flat. The entries of a .pt that hold state dicts are prefixes of its names.
_ENTRIES = ('g_ema', 'g', 'd', 'G_ema', 'G', 'D', 'state_dict')
_NPY = b'\x93NUMPY'


def read(path: str | os.PathLike) -> Any:
  """The content of a file: what `torch_file.load` returns, a dict of arrays, or an array (.npy).

  Names that wrappers have put before those of a model, as `module.`, are undone.

  Raises:
    InputError: the file is missing, damaged, in another format, or refers to code.
  """
  try:
    with open(path, 'rb') as file:
      head = file.read(16)
  except OSError as error:
    raise InputError(f'{path}: cannot be read ({error.strerror or error})') from error
  if head.startswith(_NPY):
    return _read_npy(path)
  # safetensors has no magic number: 8 bytes with the length of a JSON header, then the header.
  if head[8:9] == b'{':
    return _read_safetensors(path)
  return unwrapped(torch_file.load(path), path)


def _read_npy(path: str | os.PathLike) -> np.ndarray:
  try:
    return np.load(path, allow_pickle=False)  # arrays of objects are pickles
  except Exception as error:  # numpy evaluates the header as a literal, which can fail in any way
    raise InputError(f'{path}: no array of numbers, or damaged ({reason(error)})') from error


def _read_safetensors(path: str | os.PathLike) -> dict:
  try:
    with safetensors.safe_open(path, 'np') as file:
      opts = (file.metadata() or {}).get('opts')
      tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except Exception as error:  # its own errors, and those of types that numpy does not have
    raise InputError(f'{path}: truncated or damaged safetensors ({reason(error)})') from error
  # Nested as the .pt of the same content is, so that one converter reads both.
  tree: dict = {}
  for name, x in unwrapped(tensors, path).items():
    entry, _, rest = name.partition('.')
    if entry in _ENTRIES and rest:
      tree.setdefault(entry, {})[rest] = x
    elif entry in ('encoder', 'decoder', 'deformation'):  # of an e4e checkpoint, see `export`
      tree.setdefault('state_dict', {})[name] = x
    else:
      tree[name] = x
  if 'state_dict' in tree and opts is not None:
    tree['opts'] = _json(opts)
  return tree


def _json(text: str) -> Any:
  """The options of a checkpoint, or their text if it is no JSON."""
  try:
    return json.loads(text)
  except (ValueError, RecursionError):
    return text


def write_safetensors(
  path: str | os.PathLike, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] = {}
) -> None:
  """Writes arrays, also of ml_dtypes' bfloat16, through a temporary file.

  Raises:
    InputError: the file cannot be written.
  """
  arrays = {name: np.asarray(x, order='C') for name, x in tensors.items()}
  with replacing(path) as part:
    try:
      safetensors.numpy.save_file(arrays, part, dict(metadata))
    except (OSError, safetensors.SafetensorError) as error:
      raise InputError(f'{path}: cannot be written ({reason(error)})') from error
