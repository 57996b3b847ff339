"""Everything that can be wrong with a config by itself, told before any file is read."""

import functools
import numbers
from collections.abc import Iterable
from typing import Any

from hybrid_jax.errors import InputError
from hybrid_jax.models import latents
from hybrid_jax.models.perceptual import BACKBONES

# Whole numbers and the least each may be.
AT_LEAST = {
  1: 'model.channel_base model.channel_max model.w_dim model.mapping_layers model.head_width '
  'model.encoder_reduction model.arcface_embedding model.arcface_reduction data.batch_size '
  'loss.r1_steps train.num_steps train.log_steps train.sample_steps train.checkpoint_steps '
  'train.val_steps train.val_batches data.rendered_clips',
  0: 'model.polyphase_from model.half_from model.remat_from loss.pool_size '
  'progressive.start_steps progressive.every_steps train.patience train.profile_from',
  2: 'data.frames_per_clip',
}
CHOICES = {
  'stage': ('pretrain', 'finetune'),
  'model.lpips_net': tuple(BACKBONES),
  'model.half_dtype': ('', 'bfloat16', 'float16'),
}
LOSS_NAMES = {
  'loss.reconstruction': 'l2 lpips gradient_variance',
  'loss.weights': 'self_reconstruction reenactment anchor_identity puppet_identity '
  'latent_consistency w_variance adversarial feature_reconstruction',
}
SMALLEST_LOSS = 32  # px; below, nothing is left of the image at LPIPS' last layer


def check(config: Any) -> None:
  """Checks the fields of a config, and each against those it must agree with.

  Args:
    config: with the fields of configs/common.py, as attributes.

  Raises:
    InputError: the first field that cannot be used, and what it may be.
  """
  get = lambda field: functools.reduce(getattr, field.split('.'), config)  # noqa: E731

  def need(ok: bool, field: str, what: str) -> None:
    if not ok:
      raise InputError(f'config.{field}={get(field)!r} must be {what}')

  def need_whole(field: str, what: str, count: int | None = None, least: int = 1) -> tuple:
    value = get(field)
    ok = isinstance(value, Iterable) and not isinstance(value, str) and all(map(_whole, value))
    need(ok and count in (None, len(value)) and min(value, default=least) >= least, field, what)
    return tuple(value)

  # --- Each field by itself.
  for least, fields in AT_LEAST.items():
    for field in fields.split():
      need(_whole(get(field)) and get(field) >= least, field, f'a whole number of at least {least}')
  for field, names in CHOICES.items():
    need(get(field) in names, field, 'one of ' + ', '.join(map(repr, names)))
  need(get('data.crop_scale') > 0, 'data.crop_scale', 'more than 0')
  need(0 < get('data.held_out') < 1, 'data.held_out', 'between 0 and 1')
  need(0 <= get('loss.mask_dilation') < 0.5, 'loss.mask_dilation', 'at least 0 and under 0.5')
  people = get('data.rendered_people')
  need(_whole(people) and people >= 0 and people != 1, 'data.rendered_people', '0 or at least 2')
  finetune = get('stage') == 'finetune'
  need(bool(get('train.init_from')) or not finetune, 'train.init_from', "a stage 1 run's workdir")
  if 'feature_reconstruction' in get('loss.weights') and not finetune:
    raise InputError('config.loss.weights.feature_reconstruction belongs to stage 2 alone')
  for field, names in LOSS_NAMES.items():
    unknown = ', '.join(sorted(set(get(field)) - set(names.split())))
    if unknown:
      raise InputError(f'config.{field} has {unknown}, which is no loss; take of {names}')
  for body in ('encoder', 'arcface'):
    widths = need_whole(f'model.{body}_widths', '4 channel counts, one per stage', 4)
    need_whole(f'model.{body}_units', '4 block counts, one per stage', 4)
    field = f'model.{body}_reduction'
    need(get(field) <= min(widths), field, f'at most {min(widths)}, the least of {body}_widths')
  widths = BACKBONES[get('model.lpips_net')][1]
  if tuple(get('model.lpips_widths')):
    need_whole('model.lpips_widths', f'empty or {len(widths)} channel counts', len(widths))

  # --- Sizes.
  resolution, frame, pooled = (
    get(field) for field in ('model.resolution', 'model.frame_size', 'loss.resolution')
  )
  power = lambda x, low, high: _whole(x) and low <= x <= high and x & (x - 1) == 0  # noqa: E731
  need(power(resolution, 8, 1024), 'model.resolution', 'a power of two from 8 to 1024')
  what = f'at least {resolution}, the resolution: the last layer has channel_base / resolution maps'
  need(get('model.channel_base') >= resolution, 'model.channel_base', what)
  # The pyramid's levels are 1/16, 1/8 and 1/4 of the frame, and each head halves its own to 1x1.
  need(power(frame, 16, 1 << 30), 'model.frame_size', 'a power of two of at least 16, as 256')
  size = get('model.arcface_size')
  need(_whole(size) and size > 0 and size % 16 == 0, 'model.arcface_size', 'a multiple of 16')
  what = f'a whole number of at least {SMALLEST_LOSS}'
  need(_whole(pooled) and pooled >= SMALLEST_LOSS, 'loss.resolution', what)
  ok = all(side % pooled == 0 for side in (resolution, frame))
  what = f'a divisor of model.resolution={resolution} and of model.frame_size={frame}: images are '
  need(ok, 'loss.resolution', what + f'pooled to it; take {min(resolution, frame)} or less')

  # --- Heads.
  channels = latents.config_f_channels(
    resolution, get('model.channel_base'), get('model.channel_max')
  )
  rows, entries = latents.num_ws(channels), len(latents.style_layers(channels))
  what = f'one or more of the StyleSpace entries 0 to {entries - 1}, increasing'
  layers = need_whole('model.deformation_layers', what, least=0)
  ok = layers and layers[-1] < entries and all(a < b for a, b in zip(layers, layers[1:]))  # noqa: B905
  need(ok, 'model.deformation_layers', what)
  what = f'at most {rows} entries where model.hybrid is False, which adds them to the rows of W+'
  need(get('model.hybrid') or len(layers) <= rows, 'model.deformation_layers', what)
  for field, total, of in (
    ('model.identity_split', rows, f'rows of W+ at {resolution} px'),
    ('model.deformation_split', len(layers), 'deformation_layers'),
  ):
    what = f'3 head counts (coarse, medium, fine) that sum to {total}, the {of}'
    need(sum(need_whole(field, what, 3, least=0)) == total, field, what)


def _whole(x: Any) -> bool:
  return isinstance(x, numbers.Integral) and not isinstance(x, bool)
