"""Checks invariants that hold for trained weights and break if they were read wrongly.

The bounds are ours, wide enough for any trained network of its kind. They show that a file was read
correctly, not that its network is good. Of public weights, only LPIPS' linear layers and GANSpace's
components were available to test them.
"""

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from hybrid_jax.media import stills
from hybrid_jax.models import latents
from hybrid_jax.models.ops import to_uint8
from hybrid_jax.models.stylegan2 import Generator, StyledConv
from hybrid_jax.weights.conversion import Conversion

MAPPED = 4096  # latents; the error of their mean is 1/64 of a standard deviation
SAMPLES = 8  # images
PSI = 0.7  # truncation, as customary for samples
SHEET = 'samples.png'


def run(result: Conversion, folder: pathlib.Path) -> list[dict]:
  """Runs the checks of all parts.

  Args:
    result: the converted file.
    folder: where `samples.png` of a generator is written.

  Returns:
    [{'name', 'ok', 'found', 'expected'}], one for each check.
  """
  checks = list(_arrays(result.parts))
  if 'generator' in result.parts:
    checks += _generator(result.parts['generator'], result.sizes['generator'], folder)
  if 'lpips' in result.parts:
    checks += _linear(result.parts['lpips']['params'])
  if 'ganspace' in result.parts:
    checks += _components(result.parts['ganspace'])
  return checks


def _check(name: str, found: float, low: float, high: float) -> dict:
  return {
    'name': name,
    'ok': bool(low <= found <= high),  # false for NaN
    'found': f'{found:.4g}',
    'expected': f'{low:g} to {high:g}',
  }


def _arrays(parts: Any) -> Iterator[dict]:
  flat = flax.traverse_util.flatten_dict(parts, sep='/')
  leaves = jax.tree.leaves(parts)
  yield _check('arrays with a value that is not finite', _count(leaves, _not_finite), 0, 0)
  # A negative variance shows that mean and variance, or the bytes of a number, were exchanged.
  norms = [x for key, x in flat.items() if 'batch_stats' in key and key.endswith('/var')]
  if norms:
    yield _check('batch norms with a negative variance', _count(norms, lambda x: x.min() < 0), 0, 0)
  # One value throughout is what a storage that was never filled gives.
  kernels = [x for key, x in flat.items() if key.endswith('kernel') and x.size > 1]
  if kernels:
    yield _check('kernels of a single value', _count(kernels, lambda x: np.ptp(x) == 0), 0, 0)


def _not_finite(x: np.ndarray) -> bool:
  return not np.isfinite(x).all()


def _count(arrays, test) -> int:
  return sum(bool(test(x)) for x in arrays)


# --- Generators ----------------------------------------------------------------------------------


def _generator(tree: dict, facts: dict, folder: pathlib.Path) -> Iterator[dict]:
  module = Generator(
    tuple(facts['channels']), facts['w_dim'], facts['mapping_layers'], clamp=facts.get('clamp')
  )
  # The stored average is one of mapped latents, over training. A matrix of the mapping that was
  # transposed has the right shape, 512 x 512, and another average.
  z = jax.random.normal(jax.random.key(0), (MAPPED, facts['w_dim']))
  w = _map(module, tree['params'], z)
  w_avg = jnp.asarray(tree['w_avg']).reshape(-1, facts['w_dim'])  # one, or one for each row
  off = (w.mean(0) - w_avg) / (w.std(0) + 1e-12)
  yield _check(
    f'stored latent average against the mean of {MAPPED} mapped latents, in their deviations (rms)',
    float(jnp.sqrt(jnp.square(off).mean(1)).max()),
    0,
    0.15,
  )
  # Demodulation gives every convolution an output of about unit size, whatever its weights.
  images, sizes = _samples(module, tree, w[:SAMPLES])
  yield _check(
    'least root mean square of a convolution after its demodulation', min(sizes), 0.05, 50
  )
  yield _check('largest root mean square of one', max(sizes), 0.05, 50)
  # Bounds of photographs in [-1, 1], with room for drawings and for single bright images.
  yield _check('mean of the images', float(images.mean()), -0.7, 0.7)
  yield _check('standard deviation of the images', float(images.std()), 0.1, 1.2)
  yield _check('share of pixels beyond 1.5', float((np.abs(images) > 1.5).mean()), 0, 0.1)
  yield _check('difference between images', float(images.std(0).mean()), 0.02, 1.2)
  # The sheet is for the eye: 256 px each are enough, and NaN must not stop it.
  cells = [np.asarray(to_uint8(jnp.nan_to_num(x))) for x in images]
  step = max(1, images.shape[1] // 256)
  rows = [[x[::step, ::step] for x in cells[i : i + 4]] for i in range(0, SAMPLES, 4)]
  stills.write_image(folder / SHEET, stills.grid(rows))


@functools.partial(jax.jit, static_argnums=0)
def _map(module: Generator, params: dict, z: jax.Array) -> jax.Array:
  return module.apply({'params': params}, z, method='map')


@functools.partial(jax.jit, static_argnums=0)
def _draw(module: Generator, tree: dict, w: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(h, w, 3) image of a truncated w (d,), and the rms of each convolution's output."""
  w_plus = jnp.broadcast_to(w, (1, latents.num_ws(module.channels), w.size))
  w_plus = latents.truncate(w_plus, tree['w_avg'], PSI)
  # `to_style_space` and `synthesize` apart, since only the second has convolutions to capture.
  params = {'params': tree['params']}
  image, state = module.apply(
    params,
    module.apply(params, w_plus, method='to_style_space'),
    tuple(x[None] for x in tree['noise_const']),
    method='synthesize',
    mutable='intermediates',
    capture_intermediates=lambda layer, _: isinstance(layer, StyledConv),
  )
  # Reduced inside of jit: the outputs of a 1024 px generator are hundreds of MB.
  outputs = jax.tree.leaves(state['intermediates'])
  return image[0], jnp.stack([jnp.sqrt(jnp.square(x).mean()) for x in outputs])


def _samples(module: Generator, tree: dict, w: jax.Array) -> tuple[np.ndarray, list[float]]:
  """Images (n, h, w, 3) drawn one at a time to save memory, and the layers' rms of the first."""
  drawn = [jax.device_get(_draw(module, tree, one)) for one in w]
  return np.stack([image for image, _ in drawn]), [float(x) for x in drawn[0][1]]


# --- Others --------------------------------------------------------------------------------------


def _linear(params: dict) -> Iterator[dict]:
  lowest = [x.min() for name, x in params.items() if name.startswith('lin')]
  if lowest:  # LPIPS' training clips them at 0: a distance may not decrease
    yield _check('least weight of the linear layers', float(min(lowest)), 0, 1e3)


def _components(tree: dict) -> Iterator[dict]:
  # Principal components are orthogonal; rows that were read with wrong strides are not.
  comp = tree['components']
  unit = comp / np.linalg.norm(comp, axis=1, keepdims=True)
  cosines = np.abs(unit @ unit.T - np.eye(len(unit)))
  yield _check('largest cosine between two components', float(cosines.max()), 0, 0.05)
  yield _check('least standard deviation of a component', float(tree['std'].min()), 1e-9, 1e3)
