"""Reads the files of the networks of FID (Inception) and FVD (I3D).

Each function is a converter, see `conversion`. The trees are variables of `models.inception` and
`models.i3d`.
"""

from typing import Any

from hybrid_jax.models.i3d import I3D
from hybrid_jax.models.inception import Inception
from hybrid_jax.weights import key_maps, metric_key_maps, sizes
from hybrid_jax.weights.conversion import Conversion, check_network


def inception(content: Any, label: str) -> Conversion:
  """The part 'inception' of FID's network.

  torchvision's Inception has other weights under the same names: `sizes.inception` refuses it by
  its number of classes.
  """
  state = key_maps.tensors(content, label)
  facts = sizes.inception(state, label)
  not_needed = metric_key_maps.INCEPTION_UNNEEDED
  tree = key_maps.convert(state, metric_key_maps.inception(), kind=label, unneeded=not_needed)
  # 299 px, the side to which `models.inception.fid_input` resizes frames.
  check_network(tree, Inception(**facts), (1, 299, 299, 3), label=label)
  return Conversion({'inception': tree}, {'inception': facts})


def i3d(content: Any, label: str) -> Conversion:
  """The part 'i3d' of I3D trained on Kinetics, in piergiaj's or hassony2's layout."""
  state = key_maps.tensors(content, label)
  facts, keys = sizes.i3d(state, label), metric_key_maps.i3d(state)
  tree = key_maps.convert(state, keys, kind=label, unneeded=metric_key_maps.I3D_UNNEEDED)
  # 224 px and 9 frames, the shortest clip that the network takes.
  check_network(tree, I3D(**facts), (1, 9, 224, 224, 3), label=label)
  return Conversion({'i3d': tree}, {'i3d': facts})
