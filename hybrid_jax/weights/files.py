"""Reads PyTorch's formats, safetensors and numpy's .npy, told apart by their first bytes."""

import hashlib
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

# A safetensors file is flat. What is a dict of dicts in a .pt has these first parts in its names.
_ENTRIES = ('g_ema', 'g', 'd', 'G_ema', 'G', 'D', 'state_dict')
_NPY = b'\x93NUMPY'


def sha256(path: str | os.PathLike) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def read(path: str | os.PathLike) -> Any:
  """What `torch_file.load` returns for a PyTorch file; a dict of arrays for safetensors; an array.

  Raises:
    InputError: the file is missing, damaged, of another kind, or holds what could run code.
  """
  try:
    with open(path, 'rb') as file:
      head = file.read(16)
  except OSError as error:
    raise InputError(f'{path}: cannot be read ({error.strerror or error})') from error
  if head.startswith(_NPY):
    return _read_npy(path)
  if head[8:9] == b'{':  # after the length of the header
    return _read_safetensors(path)
  return torch_file.load(path)


def _read_npy(path: str | os.PathLike) -> np.ndarray:
  try:
    return np.load(path, allow_pickle=False)
  except Exception as error:  # numpy evaluates the header as a literal, which can fail in any way
    raise InputError(f'{path}: no array of numbers, or damaged ({reason(error)})') from error


def _read_safetensors(path: str | os.PathLike) -> dict:
  try:
    with safetensors.safe_open(path, 'np') as file:
      opts = (file.metadata() or {}).get('opts')
      tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except Exception as error:  # its own errors, and those of types that numpy has not
    raise InputError(f'{path}: truncated or damaged safetensors ({reason(error)})') from error
  tree: dict = {}
  for name, x in tensors.items():
    entry, _, rest = name.partition('.')
    if entry in _ENTRIES and rest:
      tree.setdefault(entry, {})[rest] = x
    elif entry in ('encoder', 'decoder', 'deformation'):
      tree.setdefault('state_dict', {})[name] = x
    else:
      tree[name] = x
  if 'state_dict' in tree and opts is not None:
    tree['opts'] = _json(opts)
  return tree


def _json(text: str) -> Any:
  """The options of a checkpoint, or their text where it is no JSON."""
  try:
    return json.loads(text)
  except (ValueError, RecursionError):
    return text


def write_safetensors(
  path: str | os.PathLike, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] = {}
) -> None:
  """Writes arrays of any type of safetensors, bfloat16 by ml_dtypes, through a temporary file.

  Raises:
    InputError: the file cannot be written.
  """
  arrays = {name: np.asarray(x, order='C') for name, x in tensors.items()}
  with replacing(path) as part:
    try:
      safetensors.numpy.save_file(arrays, part, dict(metadata))
    except (OSError, safetensors.SafetensorError) as error:
      raise InputError(f'{path}: cannot be written ({reason(error)})') from error
