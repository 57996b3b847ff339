"""Grows a trained StyleGAN2 generator in width and resolution without changing what it draws.

Parameter trees are those of `models.stylegan2.Generator`: `affines_k` and `layers_k` follow the
table `latents.style_layers(channels)`, so the grown tree keeps every index of the smaller one.
"""

from collections.abc import Mapping, Sequence

import flax.traverse_util
import jax
import jax.numpy as jnp

from hybrid_jax.models import latents
from hybrid_jax.models.stylegan2 import Generator


def grow(params: Mapping, before: Sequence[int], after: Sequence[int], key: jax.Array) -> dict:
  """Parameters for channels `after` that draw what `params` drew for `before`, upsampled.

  New maps have random incoming weights and reach every existing map with weight zero; demodulation
  sees incoming weights alone, so existing maps keep their scale. New blocks start with a toRGB of
  zero: the picture is the smaller one through the FIR of the skip.

  Args:
    params: generator parameters, mapping included; a new block leaves the mapping as it is.
    before: feature maps at 4, 8, ... px of `params`. after: the same of the result, nowhere fewer.
  """
  if len(after) < len(before) or any(a < b for a, b in zip(after, before, strict=False)):
    raise ValueError(f'{tuple(after)} feature maps are not at least {tuple(before)}')
  w_dim = params['affines_0']['kernel'].shape[0]
  net = Generator(after, w_dim=w_dim, mapping_layers=len(params['mapping']))
  grown = net.init(key, jnp.zeros((1, w_dim)))['params']
  grown['mapping'] = params['mapping']
  old, new = params['const'], grown['const']
  grown['const'] = new.at[..., : old.shape[-1]].set(old)
  known = len(latents.style_layers(before))
  for k, layer in enumerate(latents.style_layers(after)):
    module, affine = f'layers_{k}', f'affines_{k}'
    if k < known:
      grown[module] = _widened(params[module], grown[module])
      grown[affine] = {
        name: x.at[..., : params[affine][name].shape[-1]].set(params[affine][name])
        for name, x in grown[affine].items()
      }
    elif layer.kind == 'to_rgb':
      grown[module] = jax.tree.map(jnp.zeros_like, grown[module])
  return grown


def _widened(old: Mapping, fresh: Mapping) -> dict:
  """A convolution's parameters with more input and output maps: `old` in the first of both."""
  kernel, (i, o) = fresh['kernel'], old['kernel'].shape[2:]
  # The network divides by the root of the number of inputs, which has grown.
  scale = (kernel.shape[2] / i) ** 0.5
  kernel = kernel.at[:, :, i:, :o].set(0).at[:, :, :i, :o].set(scale * old['kernel'])
  wide = {**fresh, 'kernel': kernel, 'bias': fresh['bias'].at[:o].set(old['bias'])}
  if 'noise_strength' in old:
    wide['noise_strength'] = old['noise_strength']
  return wide


def split(params: Mapping, channels: Sequence[int], trained_from: int) -> tuple[dict, dict]:
  """(trained, kept) parameters: layers of at least `trained_from` px, and the rest; flat trees.

  0 trains everything, the mapping included. Layers below are constants of the gradient, so that
  their backward pass is not computed.
  """
  trained = {
    f'{part}_{k}'
    for k, layer in enumerate(latents.style_layers(channels))
    if layer.resolution >= trained_from
    for part in ('layers', 'affines')
  }
  flat = flax.traverse_util.flatten_dict(params)
  is_trained = lambda path: trained_from == 0 or path[0] in trained  # noqa: E731
  return (
    {path: x for path, x in flat.items() if is_trained(path)},
    {path: x for path, x in flat.items() if not is_trained(path)},
  )


def join(trained: Mapping, kept: Mapping) -> dict:
  """The inverse of `split`."""
  return flax.traverse_util.unflatten_dict({**trained, **kept})
