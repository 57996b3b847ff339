"""Reads the networks of the rendered world that come with the package: float16 files in `shipped/`.

They were trained by `experiments.world.generator`, `critics`, `inversion` and `encoder`. The files
hold arrays only; the sizes of the networks are here.
"""

import json
import os
import pathlib
import zipfile
from collections.abc import Mapping

import flax.traverse_util
import jax
import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.models import latents

FOLDER = pathlib.Path(__file__).parent / 'shipped'

# The generator, by the fields of `config.model`.
GENERATOR = {
  'resolution': 64,
  'channel_base': 2560,
  'channel_max': 160,
  'w_dim': 128,
  'mapping_layers': 6,
}
# The same grown to 256 px: wider from 32 px on.
GENERATOR_256 = {**GENERATOR, 'resolution': 256, 'channel_base': 4096}


def channels(size: int) -> tuple[int, ...]:
  """Feature maps at 4, 8, ... px of the generator of `size` px."""
  model = GENERATOR if size == GENERATOR['resolution'] else GENERATOR_256
  return latents.config_f_channels(size, model['channel_base'], model['channel_max'])


CHANNELS = channels(GENERATOR['resolution'])
# The perceptual network is LPIPS over a narrow VGG16 layout; the embedder a small ArcFace.
LPIPS = {'net': 'vgg', 'widths': (16, 32, 48, 64, 64)}
ARCFACE = {
  'size': 48,
  'embedding': 128,
  'widths': (16, 32, 64, 96),
  'units': (2, 2, 2, 2),
  'reduction': 4,
}
# The judges took no part in the training of the networks that they judge.
JUDGE_EMBEDDING = 128


def load(name: str) -> dict:
  """Tree of float32 arrays of a file in `FOLDER`: 'generator_64', a critic or a judge.

  Raises:
    InputError: the file is missing from this installation.
  """
  path = FOLDER / f'{name}.npz'
  if not path.is_file():
    raise InputError(f'{path}: the installation lacks these weights; install the package again')
  return read(path)


def read(path: str | os.PathLike) -> dict:
  """Tree of float32 arrays from a file that `save` wrote.

  Raises:
    InputError: no such file, or another kind of file.
  """
  try:
    # float16 halves the package. Networks compute in float32, so that the type changes here, once;
    # on the host, where no program has to be compiled for each shape.
    with np.load(path) as file:
      flat = jax.device_put({key: file[key].astype(np.float32) for key in file.files})
  except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
    raise InputError(f'{path}: not an .npz file of weights ({error})') from error
  return flax.traverse_util.unflatten_dict(flat, sep='/')


def save(path: pathlib.Path, tree: Mapping) -> None:
  """Writes a tree in float16, as `load` reads it."""
  # .npz names are flat: a path with slashes is undone by `read`.
  flat = flax.traverse_util.flatten_dict(jax.device_get(tree), sep='/')
  with open(path, 'wb') as file:
    np.savez_compressed(file, **{key: np.asarray(x, np.float16) for key, x in flat.items()})


def generator(size: int = 64) -> dict:
  """{'params', 'noise_const', 'w_avg', 'w_samples'} of the generator of `size` px.

  It was trained without noise, so its maps are zero. Its mapping takes parameters of rendered
  people in place of normal z; `w_samples` (1024, d) are latents of training people, for code
  that otherwise maps random z.
  """
  tree = load(f'generator_{size}')
  shapes = latents.noise_shapes(channels(size))
  zeros = tuple(np.zeros(shape, np.float32) for shape in shapes)
  return {**tree, 'noise_const': jax.device_put(zeros)}


def config() -> dict:
  """The resolved config that the shipped hybrid encoder 'encoder_64' was trained with.

  Raises:
    InputError: it is missing from this installation.
  """
  path = FOLDER / 'encoder_64.json'
  if not path.is_file():
    raise InputError('this installation has no bundled encoder: give --workdir')
  return json.loads(path.read_text())


def frozen(size: int = 64) -> dict:
  """What training keeps frozen: generator and critics of the rendered world."""
  return {'generator': generator(size), 'lpips': load('perceptual'), 'arcface': load('identity')}
