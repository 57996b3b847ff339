"""LPIPS by SqueezeNet 1.1 on its published weights, from a folder that is not in this project."""

import pathlib

import numpy as np

from hybrid_jax.weights import key_maps


def squeeze_lpips(folder: str | pathlib.Path) -> dict:
  """Returns the variables of `LPIPS('squeeze')` from squeezenet1_1.npz of a folder."""
  state = dict(np.load(pathlib.Path(folder) / 'squeezenet1_1.npz'))
  keys = key_maps.lpips('squeeze', lin='lpips_lin{}', features='')
  return key_maps.convert(state, keys, kind='squeeze')
