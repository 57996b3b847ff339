"""Checks of a config that need no file: each field, and fields that must agree with each other."""

import functools
import numbers
from collections.abc import Iterable
from typing import Any

from hybrid_jax.errors import InputError
from hybrid_jax.media import framing
from hybrid_jax.models import latents
from hybrid_jax.models.perceptual import BACKBONES

# Integer fields by their minimum.
AT_LEAST = {
  1: 'model.channel_base model.channel_max model.w_dim model.mapping_layers model.head_width '
  'model.encoder_reduction model.arcface_embedding model.arcface_reduction data.batch_size '
  'optim.micro_batches '
  'loss.r1_steps train.num_steps train.log_steps train.sample_steps train.checkpoint_steps '
  'train.val_steps train.val_batches data.rendered_clips',
  0: 'model.polyphase_from model.half_from model.remat_from loss.pool_size '
  'progressive.start_steps progressive.every_steps train.patience train.profile_from '
  'data.workers',
  2: 'data.frames_per_clip',
}
CHOICES = {
  'stage': ('pretrain', 'finetune'),
  'model.lpips_net': tuple(BACKBONES),
  'model.half_dtype': ('', 'bfloat16', 'float16'),
  'data.framing': framing.KINDS,
  'data.flip': (False, True),
  'loss.readings.latent_consistency': ('norm', 'mse'),
  'loss.readings.style_proximity': ('norm', 'mse'),
  'loss.readings.batch_statistics': ('running', 'batch', 'role'),
}
LOSS_NAMES = {
  'loss.reconstruction': 'l2 lpips gradient_variance',
  'loss.weights': 'self_reconstruction reenactment anchor_identity puppet_identity '
  'latent_consistency w_variance adversarial deformation_consistency feature_reconstruction',
}
SMALLEST_LOSS = 32  # px; below, nothing is left of the image at LPIPS' last layer


def check(config: Any) -> None:
  """Checks the fields of a config, and each against those it must agree with.

  Args:
    config: with the fields of configs/common.py, as attributes.

  Raises:
    InputError: the first field that cannot be used, and the values it may have.
  """
  fields = _Fields(config)
  # In this order: a later check relies on the fields of the earlier ones.
  _check_each(fields)
  _check_bodies(fields)
  _check_sizes(fields)
  _check_heads(fields)


class _Fields:
  """Fields of a config by dotted name; each method raises InputError naming the field."""

  def __init__(self, config: Any):
    self._config = config

  def get(self, field: str) -> Any:
    return functools.reduce(getattr, field.split('.'), self._config)

  def need(self, ok: bool, field: str, allowed: str) -> None:
    if not ok:
      raise InputError(f'config.{field}={self.get(field)!r} must be {allowed}')

  def need_integers(
    self, field: str, allowed: str, count: int | None = None, least: int = 1
  ) -> tuple:
    """Returns a field that is a sequence of `count` integers (None: any) of at least `least`."""
    value = self.get(field)
    ok = isinstance(value, Iterable) and not isinstance(value, str) and all(map(_is_integer, value))
    ok = ok and count in (None, len(value)) and min(value, default=least) >= least
    self.need(ok, field, allowed)
    return tuple(value)


def _check_each(fields: _Fields) -> None:
  """Checks what a single field may be."""
  get, need = fields.get, fields.need
  for least, names in AT_LEAST.items():
    for field in names.split():
      ok = _is_integer(get(field)) and get(field) >= least
      need(ok, field, f'a whole number of at least {least}')
  for field, names in CHOICES.items():
    need(get(field) in names, field, 'one of ' + ', '.join(map(repr, names)))
  parts, batch = get('optim.micro_batches'), get('data.batch_size')
  need(batch % parts == 0, 'optim.micro_batches', f'a divisor of data.batch_size={batch}')
  need(0 < get('data.held_out') < 1, 'data.held_out', 'between 0 and 1')
  need(0 <= get('loss.mask_dilation') < 0.5, 'loss.mask_dilation', 'at least 0 and under 0.5')
  people = get('data.rendered_people')
  ok = _is_integer(people) and people >= 0 and people != 1  # one has no other-person driver
  need(ok, 'data.rendered_people', '0 or at least 2')
  finetune = get('stage') == 'finetune'
  need(bool(get('train.init_from')) or not finetune, 'train.init_from', "a stage 1 run's workdir")
  if 'feature_reconstruction' in get('loss.weights') and not finetune:
    raise InputError('config.loss.weights.feature_reconstruction belongs to stage 2 alone')
  for field, names in LOSS_NAMES.items():
    unknown = ', '.join(sorted(set(get(field)) - set(names.split())))
    if unknown:
      raise InputError(f'config.{field} has {unknown}, which is no loss; take of {names}')


def _check_bodies(fields: _Fields) -> None:
  """Checks the channels and blocks of the encoder, ArcFace and LPIPS."""
  for body in ('encoder', 'arcface'):
    widths = fields.need_integers(f'model.{body}_widths', '4 channel counts, one per stage', 4)
    fields.need_integers(f'model.{body}_units', '4 block counts, one per stage', 4)
    field = f'model.{body}_reduction'
    allowed = f'at most {min(widths)}, the least of {body}_widths'
    fields.need(fields.get(field) <= min(widths), field, allowed)
  widths = BACKBONES[fields.get('model.lpips_net')][1]
  if tuple(fields.get('model.lpips_widths')):
    allowed = f'empty or {len(widths)} channel counts'
    fields.need_integers('model.lpips_widths', allowed, len(widths))


def _check_sizes(fields: _Fields) -> None:
  """Checks the sides of images in px, and that each divides the next."""
  get, need = fields.get, fields.need
  resolution, frame, pooled = map(get, ('model.resolution', 'model.frame_size', 'loss.resolution'))
  need(_is_power(resolution, 8, 1024), 'model.resolution', 'a power of two from 8 to 1024')
  allowed = (
    f'at least {resolution}, the resolution: the last layer has channel_base / resolution maps'
  )
  need(get('model.channel_base') >= resolution, 'model.channel_base', allowed)
  # The pyramid's levels are 1/16, 1/8 and 1/4 of the frame, and each head halves its own to 1x1.
  allowed = 'a power of two of at least 16, as 256'
  need(_is_power(frame, 16, 1 << 30), 'model.frame_size', allowed)
  size = get('model.arcface_size')
  ok = _is_integer(size) and size > 0 and size % 16 == 0  # four stages halve it
  need(ok, 'model.arcface_size', 'a multiple of 16')
  allowed = f'a whole number of at least {SMALLEST_LOSS}'
  need(_is_integer(pooled) and pooled >= SMALLEST_LOSS, 'loss.resolution', allowed)
  ok = all(side % pooled == 0 for side in (resolution, frame))
  allowed = (
    f'a divisor of model.resolution={resolution} and of model.frame_size={frame}: images are '
    f'pooled to it; take {min(resolution, frame)} or less'
  )
  need(ok, 'loss.resolution', allowed)


def _check_heads(fields: _Fields) -> None:
  """Checks the layers that carry the deformation, and the split of the heads over the levels."""
  get, need = fields.get, fields.need
  channels = latents.config_f_channels(
    get('model.resolution'), get('model.channel_base'), get('model.channel_max')
  )
  rows, entries = latents.num_ws(channels), len(latents.style_layers(channels))
  allowed = f'one or more of the StyleSpace entries 0 to {entries - 1}, increasing'
  layers = fields.need_integers('model.deformation_layers', allowed, least=0)
  increasing = all(a < b for a, b in zip(layers, layers[1:], strict=False))
  ok = layers and layers[-1] < entries and increasing
  need(ok, 'model.deformation_layers', allowed)
  allowed = f'at most {rows} entries where model.hybrid is False, which adds them to the rows of W+'
  need(get('model.hybrid') or len(layers) <= rows, 'model.deformation_layers', allowed)
  for field, total, of in (
    ('model.identity_split', rows, f'rows of W+ at {get("model.resolution")} px'),
    ('model.deformation_split', len(layers), 'deformation_layers'),
  ):
    allowed = f'3 head counts (coarse, medium, fine) that sum to {total}, the {of}'
    need(sum(fields.need_integers(field, allowed, 3, least=0)) == total, field, allowed)


def _is_integer(x: Any) -> bool:
  return isinstance(x, numbers.Integral) and not isinstance(x, bool)


def _is_power(x: Any, low: int, high: int) -> bool:
  """Whether x is a power of two in [low, high]."""
  return _is_integer(x) and low <= x <= high and x & (x - 1) == 0
