"""StyleHEAT (Yin et al., ECCV 2022, arXiv 2203.04036): our own reimplementation in JAX.

No public code and no public weights are in it; its rows are named "StyleHEAT (ours, in JAX)".

  inversion: the source's latent w and feature map F              `reenact`, `synthesize`
  motion generator: driving parameters -> descriptor, flow        `Warper`
  F_w = warp(F, flow), inside the frozen generator                `synthesize`, `warp`
  calibration network: F_c = F_w (1 + scale) + shift              `Calibration`, `synthesize`
  stage 1: the motion generator alone; stage 2: the whole         styleheat_train.py

`Config` has the choices with the source of each value: "code" (FeiiYin/StyleHEAT at 83b28c8, from
which the steps above are too; the paper's abstract names the same parts), "PIRenderer" (whose
motion generator it has; RenYurui/PIRender) or "ours". Images are NHWC in [-1, 1].
"""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from configs import common
from hybrid_jax.method import networks
from hybrid_jax.method.hybrid import Hybrid
from hybrid_jax.models import latents
from hybrid_jax.models.ops import upsample_skip
from hybrid_jax.models.stylegan2 import Generator
from hybrid_jax.weights import shipped
from hybrid_jax.world import parameters


@dataclasses.dataclass(frozen=True)
class Config:
  """Choices of networks and losses; steps, batch and seeds are in baselines.json."""

  # Side of the feature map that is warped, px. Code: 64 of 1024, the middle of nine sizes. Ours:
  # 32 of 64, the fourth of five; at 16 px an eye is one pixel.
  warp_size: int = 32
  # Width of the descriptor, and channels of the motion generator from half the image's side down.
  # PIRenderer: 256, and 32 doubling to 256. Ours: as PIRenderer's in baselines.json.
  descriptor: int = 128
  warper_widths: tuple[int, ...] = (64, 128, 128, 128)
  # Channels of the calibration network, from half of `warp_size` down. Code: 256. Ours.
  calibration_widths: tuple[int, ...] = (64, 96, 128)
  # Share of the steps that train the motion generator alone. The code starts from PIRenderer's,
  # which has 200,000 steps. Ours: as PIRenderer's in baselines.json.
  warping_alone: float = 0.3
  # Weights of the losses: perceptual loss of the warped inversion and of the result, L1 of the
  # result. PIRenderer: 2.5 and 4, for VGG19. Ours: without the code's adversary. The generator is
  # frozen, and FOMM and PIRenderer train without one, too.
  warped: float = 1.0
  perceptual: float = 1.0
  l1: float = 1.0
  # Adam. PIRenderer: 1e-4, 0.5, 0.999; the rate may be tripled (baselines.json, "rates").
  rate: float = 1e-4
  beta1: float = 0.5
  beta2: float = 0.999
  # Decay of the averaged weights, which render. PIRenderer: 0.5^(32 / 10,000).
  average: float = 0.9978


def warp(x: jax.Array, flow: jax.Array) -> jax.Array:
  """Returns x (n, h, w, c) read at p + flow(p), bilinear.

  The flow (n, h', w', 2) is (x, y) in its own pixels, and is resized to x. Positions outside take
  the nearest edge (code: zero, which leaves dark borders).
  """
  n, h, w, _ = x.shape
  flow = jax.image.resize(flow, (n, h, w, 2), 'bilinear') * (h / flow.shape[1])
  at_y, at_x = jnp.meshgrid(jnp.arange(h), jnp.arange(w), indexing='ij')
  px = jnp.clip(at_x + flow[..., 0], 0, w - 1)
  py = jnp.clip(at_y + flow[..., 1], 0, h - 1)
  # The last row and column are reached with weight 1 of the second neighbour.
  x0 = jnp.clip(jnp.floor(px), 0, w - 2).astype(jnp.int32)
  y0 = jnp.clip(jnp.floor(py), 0, h - 2).astype(jnp.int32)
  fx, fy = (px - x0)[..., None], (py - y0)[..., None]
  row = jnp.arange(n)[:, None, None]
  upper = x[row, y0, x0] * (1 - fx) + x[row, y0, x0 + 1] * fx
  lower = x[row, y0 + 1, x0] * (1 - fx) + x[row, y0 + 1, x0 + 1] * fx
  return upper * (1 - fy) + lower * fy


class AdaNorm(nn.Module):
  """Normalises over h, w and c, then scales and shifts channels by the descriptor (AdaIN)."""

  @nn.compact
  def __call__(self, x: jax.Array, descriptor: jax.Array) -> jax.Array:
    """Maps x (n, h, w, c) and descriptor (n, d) to (n, h, w, c)."""
    x = nn.GroupNorm(1, use_scale=False, use_bias=False)(x)
    scale, shift = jnp.split(nn.Dense(2 * x.shape[-1])(descriptor)[:, None, None], 2, -1)
    return x * (1 + scale) + shift


class UNet(nn.Module):
  """Halves the side for each of `widths`, then doubles it `up` times, with skip connections."""

  widths: Sequence[int]
  up: int

  @nn.compact
  def __call__(self, x: jax.Array, descriptor: jax.Array) -> jax.Array:
    """Maps x (n, h, w, c) to (n, h', w', widths[-1 - up]), h' = h / 2^(len(widths) - up)."""
    levels = [None]  # nothing to add at the full side
    for width in self.widths:
      x = jax.nn.leaky_relu(AdaNorm()(nn.Conv(width, (4, 4), (2, 2))(x), descriptor), 0.1)
      levels.append(x)
    for k in range(self.up):
      n, h, w, c = x.shape
      x, skip = jax.image.resize(x, (n, 2 * h, 2 * w, c), 'nearest'), levels[-2 - k]
      width = self.widths[0] if skip is None else skip.shape[-1]
      x = jax.nn.leaky_relu(AdaNorm()(nn.Conv(width, (3, 3))(x), descriptor), 0.1)
      x = x if skip is None else x + skip
    return x


class Warper(nn.Module):
  """The motion generator: source image and driving motion -> descriptor and flow."""

  config: Config

  @nn.compact
  def __call__(self, image: jax.Array, motion: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maps image (n, s, s, 3), motion (n, 16) to descriptor (n, d), flow (n, s / 2, s / 2, 2)."""
    # One moment of 16 parameters. Code: 73 of a 3D morphable model, convolved over a window; frames
    # of our training clips are 6 s apart.
    d = nn.Dense(self.config.descriptor)(4 * (motion - 0.5))  # of about unit variance
    for _ in range(2):
      d = d + nn.Dense(self.config.descriptor)(jax.nn.leaky_relu(d, 0.1))
    widths = self.config.warper_widths
    x = UNet(widths, len(widths) - 1)(image, d)
    # Zero at first, so that training begins at the inversion (PIRenderer: deviation 0.02).
    x = jax.nn.leaky_relu(AdaNorm()(nn.Conv(widths[0], (3, 3))(x), d), 0.1)
    return d, nn.Conv(2, (7, 7), kernel_init=nn.initializers.zeros)(x)


class Calibration(nn.Module):
  """The calibration network: warped features and descriptor -> scale and shift of each feature."""

  config: Config

  @nn.compact
  def __call__(self, x: jax.Array, descriptor: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maps x (n, h, w, c) and descriptor (n, d) to two (n, h, w, c)."""
    widths = self.config.calibration_widths
    y = UNet(widths, len(widths))(nn.Conv(widths[0], (1, 1))(x), descriptor)
    y = jax.nn.leaky_relu(nn.Conv(widths[0], (3, 3))(y), 0.2)
    both = nn.Conv(2 * x.shape[-1], (3, 3), kernel_init=nn.initializers.zeros)(y)
    return tuple(jnp.split(both, 2, -1))


def bundled() -> tuple[networks.Networks, dict]:
  """Returns the networks of the rendered world, and their weights, which are not trained."""
  kept = shipped.frozen()
  weights = {'generator': kept['generator'], 'lpips': kept['lpips']}
  nets = networks.build(ConfigDict(common.heads()).model)
  return nets, weights | {'inversion': shipped.load('inversion_64')}


def synthesize(
  config: Config, generator: Generator, G: dict, w_plus: jax.Array, flow=None, calibrate=None
) -> jax.Array:
  """Returns the image (n, r, r, 3) of w_plus (n, l, d); with a flow, F is replaced by F_c.

  Args:
    G: tree of the generator. flow: (n, h, w, 2).
    calibrate: maps F_w (n, h, w, c) to scale and shift, each (n, h, w, c).
  """
  bound, noise = generator.bind({'params': G['params']}), iter(G['noise_const'])
  styles, table = bound.to_style_space(w_plus), latents.style_layers(generator.channels)
  x = jnp.broadcast_to(bound.const, (len(w_plus), *bound.const.shape))
  rgb = None
  for layer, module, style in zip(table, bound.layers, styles, strict=True):
    if layer.kind == 'to_rgb':
      rgb = module(x, style) + (0 if rgb is None else upsample_skip(rgb))
      continue
    x = module(x, style, next(noise))
    # As in the code: after the first convolution of that size.
    if flow is not None and (layer.kind, layer.resolution) == ('up_conv', config.warp_size):
      # Code: the RGB sum of the smaller layers, 1/32 of the picture's side, stays. Here it has half
      # of the side, and would stay behind as a ghost.
      x, rgb = warp(x, flow), warp(rgb, flow)  # F_w
      scale, shift = calibrate(x)
      x = x * (1 + scale) + shift  # F_c
  return rgb


def init(config: Config, generator: Generator, key: jax.Array, size: int) -> dict:
  """Returns fresh weights of both networks: {'warper', 'calibration'}."""
  key_w, key_c = jax.random.split(key)
  image, motion = jnp.zeros((1, size, size, 3)), jnp.zeros((1, len(parameters.MOTION)))
  width = generator.channels[(config.warp_size // 4).bit_length() - 1]
  features = jnp.zeros((1, config.warp_size, config.warp_size, width))
  calibration = Calibration(config).init(key_c, features, jnp.zeros((1, config.descriptor)))
  return {'warper': Warper(config).init(key_w, image, motion), 'calibration': calibration}


def reenact(
  config: Config, hybrid: Hybrid, weights: dict, params: dict, source: jax.Array, motion: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the re-enactment (n, r, r, 3) and the inverted source warped by the same flow.

  Args:
    weights: of `bundled`. params: of `init`.
    source: (n, s, s, 3) in [-1, 1]. motion: (n, 16), of the driving frames.
  """
  G, generator = weights['generator'], hybrid.generator
  w_plus = hybrid.identity(weights['inversion'], G, source)  # in the role of HFGI
  inverted = synthesize(config, generator, G, w_plus)
  descriptor, flow = Warper(config).apply(params['warper'], inverted, motion)
  calibrate = lambda x: Calibration(config).apply(params['calibration'], x, descriptor)  # noqa: E731
  drawn = synthesize(config, generator, G, w_plus, flow, calibrate)
  return drawn, warp(inverted, flow)
