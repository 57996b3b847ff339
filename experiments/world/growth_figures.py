"""Figures and sheets of a generator fed the true parameters of held-out people."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments.world.growth_steps import W_DIM, channels
from experiments.world.large_frames import Shards
from experiments.world.squeeze import squeeze_lpips
from hybrid_jax.media import stills
from hybrid_jax.models.ops import adaptive_avg_pool, from_uint8, to_uint8, upsample_skip
from hybrid_jax.models.perceptual import LPIPS
from hybrid_jax.models.stylegan2 import Generator
from hybrid_jax.weights import shipped
from hybrid_jax.world import latent

CHUNK = 32
SHOWN = 12  # people of a sheet


@functools.partial(jax.jit, static_argnums=(2, 3))
def draw(params, z: jax.Array, widths: tuple[int, ...], size: int) -> jax.Array:
  """Pictures (n, size, size, 3) of z, clipped to [-1, 1]; smaller ones through the skip's FIR."""
  net = Generator(widths, w_dim=W_DIM, mapping_layers=shipped.GENERATOR['mapping_layers'])
  image = net.apply({'params': params}, z)
  while image.shape[1] < size:
    image = upsample_skip(image)
  return jnp.clip(image, -1, 1)


class Figures:
  """Held-out frames and the networks that judge pictures of them."""

  def __init__(self, held_out: Shards, squeeze: str = ''):
    count = len(held_out)
    self._data = held_out.rows(np.arange(count), np.zeros(count, int))
    self._lpips = squeeze_lpips(squeeze) if squeeze else None
    self._perceptual = shipped.load('perceptual')
    self._measure = jax.jit(self._terms)

  def _part(self, part: slice, size: int):
    """z, truth (n, size, size, 3) in [-1, 1] and mask (n, size, size, 1) of some people."""
    data = {name: jnp.asarray(x[part]) for name, x in self._data.items()}
    z = latent.z(data['identity'], data['motion'], data['scene'], W_DIM)
    real = from_uint8(adaptive_avg_pool(data['image'].astype(jnp.float32), size))
    region = data['region'][..., None].astype(jnp.float32) / 255
    return z, real, adaptive_avg_pool(region, size)

  def _terms(self, networks, fake, real, region):
    """Sums over a chunk of the figures of each picture."""
    error = jnp.abs(fake - real).mean(-1, keepdims=True)
    weight = jnp.sum(region, (1, 2, 3)) + 1e-6
    terms = {'l1': error.mean((1, 2, 3)), 'l1_region': (error * region).sum((1, 2, 3)) / weight}
    terms['perceptual'] = LPIPS(**shipped.LPIPS).apply(networks[0], fake, real)
    if networks[1] is not None:
      terms['lpips'] = LPIPS('squeeze').apply(networks[1], fake, real)
    return {name: x.sum() for name, x in terms.items()}

  def __call__(self, params, size: int, widths: tuple[int, ...] | None = None) -> dict[str, float]:
    """Means over the held-out people at `size` px."""
    widths, count, sums = widths or channels(size), len(self._data['image']), {}
    for k in range(0, count, CHUNK):
      z, real, region = self._part(slice(k, k + CHUNK), size)
      fake = draw(params, z, widths, size)
      terms = self._measure((self._perceptual, self._lpips), fake, real, region)
      sums = {name: sums.get(name, 0.0) + float(x) for name, x in terms.items()}
    return {name: round(x / count, 5) for name, x in sums.items()}

  def sheet(self, path: pathlib.Path, params, size: int) -> None:
    """Writes truth, the 64 px generator upsampled, and this one, of the first people."""
    z, real, _ = self._part(slice(0, SHOWN), size)
    small = draw(shipped.generator()['params'], z, shipped.CHANNELS, size)
    rows = (real, small, draw(params, z, channels(size), size))
    rows = [list(np.asarray(to_uint8(row))) for row in rows]
    half = SHOWN // 2 if size > 128 else SHOWN
    lines = [row[k : k + half] for k in range(0, SHOWN, half) for row in rows]
    stills.write_image(path, stills.grid(lines))
