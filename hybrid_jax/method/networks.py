"""The networks of one config, and the tree of everything that training keeps frozen.

`frozen` is an argument of every step: {'generator': {'params', 'noise_const', 'w_avg'},
'lpips': {...}, 'arcface': {...}}. Modules hold sizes only, never weights or file names.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from hybrid_jax.method.encoder import Encoder
from hybrid_jax.method.hybrid import Hybrid, deformation_widths
from hybrid_jax.models import latents
from hybrid_jax.models.perceptual import LPIPS, ArcFace
from hybrid_jax.models.stylegan2 import Generator, LatentDiscriminator

# On a TPU layers of at least this many px are computed in blocks (`models/blocked.py`): there a
# layer has fewer channels than the TPU has lanes (experiments/results/accelerators.json).
BLOCKS_FROM = 128


@dataclasses.dataclass(frozen=True)
class Networks:
  """All modules of a run. `frame_size` is the side in px of the frames that the encoder sees."""

  hybrid: Hybrid
  lpips: LPIPS
  arcface: ArcFace
  critic: LatentDiscriminator
  frame_size: int


def build(model: Any, platform: str | None = None) -> Networks:
  """Returns the modules of the `model` section of a config; fields as in configs/common.py.

  `platform` is that of the devices ('cpu', 'gpu', 'tpu'; None: of JAX's first), by which the forms
  of the same computation are chosen.
  """
  channels = latents.config_f_channels(model.resolution, model.channel_base, model.channel_max)
  platform = platform or jax.default_backend()
  half = jnp.dtype(model.half_dtype) if model.half_dtype else None
  generator = Generator(
    channels,
    w_dim=model.w_dim,
    mapping_layers=model.mapping_layers,
    polyphase_from=model.polyphase_from,
    half_dtype=half,
    half_from=model.half_from,
    remat_from=model.remat_from or None,  # 0 recomputes nothing
    blocks_from=BLOCKS_FROM if platform == 'tpu' else None,
    rgb_sums=platform == 'gpu',
  )
  layers = tuple(model.deformation_layers)
  encoder = Encoder(
    num_ws=latents.num_ws(channels),
    w_dim=model.w_dim,
    deformation_widths=deformation_widths(channels, layers, model.w_dim, model.hybrid),
    identity_split=tuple(model.identity_split),
    deformation_split=tuple(model.deformation_split),
    # Tuples, because a config gives lists or tuples, and modules must be hashable.
    widths=tuple(model.encoder_widths),
    units=tuple(model.encoder_units),
    reduction=model.encoder_reduction,
    head_width=model.head_width,
    dtype=half or jnp.float32,
  )
  return Networks(
    hybrid=Hybrid(generator, encoder, layers, model.hybrid),
    lpips=LPIPS(model.lpips_net, tuple(model.lpips_widths) or None),
    arcface=ArcFace(
      model.arcface_size,
      model.arcface_embedding,
      tuple(model.arcface_widths),
      tuple(model.arcface_units),
      model.arcface_reduction,
    ),
    critic=LatentDiscriminator(model.w_dim),
    frame_size=model.frame_size,
  )


def random_frozen(networks: Networks, key: jax.Array) -> dict:
  """Returns frozen networks with random weights, for tests, timings and dry runs only."""
  key_g, key_z, key_n, key_l, key_a = jax.random.split(key, 5)
  generator = networks.hybrid.generator
  params = generator.init(key_g, jnp.zeros((1, generator.w_dim)))['params']
  # The latent average of trained weights is a mean over mapped noise too.
  z = jax.random.normal(key_z, (1024, generator.w_dim))
  image = jnp.zeros((1, networks.frame_size, networks.frame_size, 3))
  noise = latents.random_noise(key_n, 1, generator.channels)
  return {
    'generator': {
      'params': params,
      'noise_const': tuple(n[0] for n in noise),
      'w_avg': generator.apply({'params': params}, z, method='map').mean(0),
    },
    'lpips': networks.lpips.init(key_l, image, image),
    'arcface': networks.arcface.init(key_a, image),
  }


def init_encoder(networks: Networks, key: jax.Array) -> dict:
  """Returns a fresh encoder {'params', 'batch_stats'}, whose deformation heads output zero."""
  image = jnp.zeros((1, networks.frame_size, networks.frame_size, 3))
  return networks.hybrid.encoder.init(key, image)
