"""The kinds of public weight files: how each is recognised, and which converter reads it.

The converters are in `read_stylegan2`, `read_e4e`, `read_perceptual`, `read_metrics` and
`read_directions`; where a file comes from and on what terms: `public.FILES`, by the same names.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.weights import (
  read_directions,
  read_e4e,
  read_metrics,
  read_perceptual,
  read_stylegan2,
)
from hybrid_jax.weights.conversion import Conversion
from hybrid_jax.weights.torch_modules import Module


@dataclasses.dataclass(frozen=True)
class Kind:
  """A kind of file: what it is in words, the parts that it can hold, and its converter."""

  what: str
  parts: tuple[str, ...]
  converter: Callable[[Any, str], Conversion]


# torchvision's three backbones differ in their layers only: one converter serves them.
_BACKBONE = {
  net: functools.partial(read_perceptual.backbone, net=net) for net in ('vgg', 'alex', 'squeeze')
}
_STYLEGAN2, _E4E = ('generator', 'discriminator'), ('generator', 'encoder', 'latent_avg')
KINDS = {
  'rosinality': Kind('rosinality StyleGAN2', _STYLEGAN2, read_stylegan2.rosinality),
  'e4e': Kind('e4e checkpoint', _E4E, read_e4e.e4e),
  # The same tensors as e4e's; `load` refuses it as the encoder of a model.
  'psp': Kind('pSp checkpoint', _E4E, read_e4e.e4e),
  'nvlabs': Kind('stylegan2-ada-pytorch networks', _STYLEGAN2, read_stylegan2.nvlabs),
  'pti': Kind('tuned generator', _STYLEGAN2, read_stylegan2.pti),
  'arcface': Kind('ArcFace', ('arcface',), read_perceptual.arcface),
  'vgg16': Kind('VGG16', ('lpips',), _BACKBONE['vgg']),
  'alexnet': Kind('AlexNet', ('lpips',), _BACKBONE['alex']),
  'squeezenet': Kind('SqueezeNet 1.1', ('lpips',), _BACKBONE['squeeze']),
  'lpips': Kind('LPIPS linear layers', ('lpips',), read_perceptual.linear),
  'inception': Kind('FID Inception', ('inception',), read_metrics.inception),
  'i3d': Kind('I3D of Kinetics', ('i3d',), read_metrics.i3d),
  'latent_discriminator': Kind('latent discriminator', ('critic',), read_e4e.latent_discriminator),
  'interfacegan': Kind('InterFaceGAN direction', ('direction',), read_directions.interfacegan),
  'ganspace': Kind('GANSpace components', ('ganspace',), read_directions.ganspace),
}
# Names that a flat state dict of a kind has, tried in this order. The second name distinguishes
# kinds with the same first layer: VGG16, SqueezeNet and AlexNet all begin with `features.0`.
_SIGNS = {
  'arcface': ('output_layer.3.weight', 'body.0.res_layer.1.weight'),
  'vgg16': ('features.0.weight', 'features.28.weight'),
  'squeezenet': ('features.0.weight', 'features.3.squeeze.weight'),
  'alexnet': ('features.0.weight', 'features.10.weight'),
  'lpips': ('lin0.model.1.weight',),
  'inception': ('Conv2d_1a_3x3.conv.weight', 'Mixed_7c.branch_pool.conv.weight'),
  'latent_discriminator': ('mlp.0.weight',),
  'ganspace': ('comp', 'mean', 'std'),
}


def recognise(content: Any, path: str, expected: str = '') -> str:
  """The kind of a file by its contents, a key of `KINDS`.

  Args:
    content: of the file, as `files.read` returns it.
    path: of the file, for the message.
    expected: returned where no kind fits, so that its converter names what the file lacks.

  Raises:
    InputError: no kind fits, and none was expected.
  """
  # Checkpoints first: their state dicts are one level down, so that no name below can match.
  kind = _nested_kind(content) or _flat_kind(content) or expected
  if not kind:
    raise InputError(
      f'{path}: its contents are of none of the kinds {", ".join(KINDS)}; if it should be one of '
      'them, name it, as in `python -m hybrid_jax.convert e4e FILE`, to see what is missing'
    )
  return kind


def _nested_kind(content: Any) -> str:
  """The kind of an array, or of a checkpoint with entries around its state dicts; '' if neither."""
  if isinstance(content, np.ndarray):
    return 'interfacegan'  # the only kind that is a bare tensor
  names = set(content) if isinstance(content, Mapping) else set()
  if 'g_ema' in names or names == {'d'}:
    return 'rosinality'
  if 'state_dict' in names:
    # pSp's and e4e's tensors have the same names; only the options say which encoder it is.
    opts = content.get('opts')
    encoder = opts.get('encoder_type') if isinstance(opts, Mapping) else None
    return 'psp' if type(encoder) is str and encoder.startswith('Gradual') else 'e4e'
  return 'nvlabs' if 'G_ema' in names else ''


def _flat_kind(content: Any) -> str:
  """The kind of a state dict, or of a module saved whole; '' if none fits."""
  names = set(content) if isinstance(content, Mapping) else set()
  if 'b4.fc.weight' in names:
    return 'nvlabs'
  if 'synthesis.b4.const' in names:
    return 'pti' if isinstance(content, Module) else 'nvlabs'  # PTI saves its generator whole
  if names & {'Conv3d_1a_7x7.conv3d.weight', 'conv3d_1a_7x7.conv3d.weight'}:
    return 'i3d'
  return next((kind for kind, signs in _SIGNS.items() if names.issuperset(signs)), '')


def convert(content: Any, path: str, kind: str) -> Conversion:
  """The arrays of a file of this kind, in our layout.

  Raises:
    InputError: a tensor is missing, left over or of another shape.
  """
  return KINDS[kind].converter(content, f'{KINDS[kind].what} {path}')


def count_tensors(content: Any) -> int:
  """Number of tensors in the content of a file, at any depth."""
  if isinstance(content, np.ndarray):
    return 1
  nested = list(content.values()) if isinstance(content, Mapping) else content
  return sum(map(count_tensors, nested)) if isinstance(nested, list | tuple) else 0
