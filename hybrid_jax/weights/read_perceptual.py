"""Reads the files of frozen loss networks: ArcFace, and LPIPS with its torchvision backbones.

Each function is a converter, see `conversion`. The trees are variables of `models.perceptual`.
"""

from typing import Any

from hybrid_jax.errors import InputError
from hybrid_jax.models.perceptual import LPIPS, ArcFace
from hybrid_jax.weights import key_maps, sizes
from hybrid_jax.weights.conversion import Conversion, check_network
from hybrid_jax.weights.layouts import flat


def arcface(content: Any, label: str) -> Conversion:
  """The part 'arcface' of an IR-SE50 identity network."""
  state = key_maps.tensors(content, label)
  facts = sizes.arcface(state, label)  # the arguments of `ArcFace`
  keys = key_maps.arcface(facts['units'], facts['widths'], facts['size'])
  tree = key_maps.convert(state, keys, kind=label)
  # Any side will do for the check: the network crops the face and pools it to its own size.
  check_network(tree, ArcFace(**facts), (1, 256, 256, 3), label=label)
  return Conversion({'arcface': tree}, {'arcface': facts})


def backbone(content: Any, label: str, net: str) -> Conversion:
  """The part 'lpips' of torchvision's `net`: its features, and LPIPS' linear layers if present."""
  state = key_maps.tensors(content, label)
  keys = key_maps.lpips(net)
  # torchvision's file has the features alone; one with LPIPS' layers beside them is read whole.
  has_linear = any(key.startswith('lin') for key in state)
  if not has_linear:
    keys = {ours: key for ours, key in keys.items() if not ours.startswith('params/lin')}
  tree = key_maps.convert(state, keys, kind=label, unneeded=key_maps.TORCHVISION_UNNEEDED)
  widths = sizes.backbone(state, net, label)
  image, only = (1, 64, 64, 3), '' if has_linear else 'features'
  check_network(tree, LPIPS(net, widths), image, image, label=label, only=only)
  return Conversion({'lpips': tree}, {'lpips': {'net': net, 'widths': widths}})


def linear(content: Any, label: str) -> Conversion:
  """The part 'lpips' of a file of LPIPS' linear layers alone, of any backbone."""
  state = key_maps.tensors(content, label)
  taps = sizes.count(state, 'lin{}.model.1.weight', label)
  if not taps:
    raise InputError(f'no {label}: lin0.model.1.weight is missing')
  widths = [sizes.shape(state, f'lin{i}.model.1.weight', 4, label)[1] for i in range(taps)]
  # `flat`, since the number of outputs, which must be 1, is only checked below.
  keys = {f'params/lin{i}': (f'lin{i}.model.1.weight', flat) for i in range(taps)}
  tree = key_maps.convert(state, keys, kind=label)
  if any(x.shape != (width,) for x, width in zip(tree['params'].values(), widths, strict=True)):
    raise InputError(f'{label}: a layer has more than one output')
  return Conversion({'lpips': tree}, {'lpips': {'taps': widths}})
