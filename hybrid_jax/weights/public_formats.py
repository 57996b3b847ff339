"""The kinds of public weight files: how each is recognised, and what becomes of its tensors.

A converter takes the content of a file, as `files.read` gives it, and returns `Converted`. It uses
every tensor or knows that it is not needed, fills every parameter of the model, and compares all
shapes with that model. What it cannot place it names.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from hybrid_jax.method.encoder import Encoder
from hybrid_jax.models import latents
from hybrid_jax.models.i3d import I3D
from hybrid_jax.models.inception import Inception
from hybrid_jax.models.perceptual import LPIPS, ArcFace
from hybrid_jax.models.stylegan2 import Generator, ImageDiscriminator, LatentDiscriminator
from hybrid_jax.weights import discriminator_key_maps, key_maps, metric_key_maps, shapes, sizes
from hybrid_jax.weights.exported import config_text
from hybrid_jax.weights.key_maps import WeightsError
from hybrid_jax.weights.layouts import flat
from hybrid_jax.weights.torch_modules import Module


@dataclasses.dataclass(frozen=True)
class Converted:
  """Trees of float32 arrays by part ('generator', 'encoder', ...), and their sizes by part.

  `invented` counts the arrays that no tensor of the file gave; `dropped` names the entries of the
  file that hold tensors and were left out as a whole.
  """

  parts: dict[str, Any]
  sizes: dict[str, dict]
  invented: int = 0
  dropped: tuple[str, ...] = ()

  def __or__(self, other: 'Converted') -> 'Converted':
    return Converted(
      self.parts | other.parts,
      self.sizes | other.sizes,
      self.invented + other.invented,
      self.dropped + other.dropped,
    )


def _check(tree: Any, module: Any, *inputs: tuple[int, ...], kind: str, extra=(), only='') -> None:
  """Compares `tree` with what `module` makes for float32 inputs of these shapes."""
  inputs = [jax.ShapeDtypeStruct(shape, np.float32) for shape in inputs]
  try:
    expected = jax.eval_shape(module.init, jax.random.key(0), *inputs)
  except (TypeError, ValueError, ZeroDivisionError, IndexError, OverflowError) as error:
    why = ' '.join(str(error).split())[:150]
    raise WeightsError(f'{kind}: its tensors make no network ({why})') from error
  if only:
    expected = {'params': {k: x for k, x in expected['params'].items() if re.match(only, k)}}
  shapes.check(tree, expected, kind, extra, model='the network that its tensors describe')


def _need_entries(content: Any, kind: str, needed: str, known: str = '') -> None:
  """Checks that the content of a file is a dict of known entries.

  Raises:
    WeightsError: an entry is missing or unknown.
  """
  needed, known = set(needed.split()), set(known.split())
  if not isinstance(content, Mapping) or isinstance(content, Module):
    raise WeightsError(f'no {kind}: it holds a {type(content).__name__}, not named entries')
  if missing := sorted(needed - set(content)):
    raise WeightsError(f'no {kind}: it has no {missing[0]}')
  unknown = [key for key in content if key not in needed | known]
  if unknown:
    names = (ascii(key)[:80] if isinstance(key, str) else type(key).__name__ for key in unknown[:3])
    raise WeightsError(
      f'{kind}: {len(unknown)} entries have no place here, first {", ".join(names)}'
    )


# --- Generators and discriminators ---------------------------------------------------------------


def _generator(state: Any, w_avg: Any, kind: str) -> Converted:
  """A generator in rosinality's layout, or in NVlabs' where `w_avg` is None."""
  facts = sizes.generator(key_maps.tensors(state, kind), kind)
  nvlabs = 'style.1.weight' not in state
  if nvlabs:
    tree, channels = key_maps.generator_nvlabs(state)
    made_with = state.made_with if isinstance(state, Module) else {}
    synthesis = made_with.get('synthesis_kwargs') if isinstance(made_with, Mapping) else None
    clamp = synthesis.get('conv_clamp') if isinstance(synthesis, Mapping) else None
    facts['clamp'] = clamp if isinstance(clamp, int | float) else None
  else:
    tree, channels = key_maps.generator(state, w_avg, kind)
  module = Generator(channels, facts['w_dim'], facts['mapping_layers'])
  _check({'params': tree['params']}, module, (1, facts['w_dim']), kind=kind)
  noise = latents.noise_shapes(channels)
  shapes.check(
    {'noise_const': tree['noise_const']},
    {'noise_const': [jax.ShapeDtypeStruct(shape, np.float32) for shape in noise]},
    kind,
    model='the network that its tensors describe',
  )
  rows, width = latents.num_ws(channels), facts['w_dim']
  if tree['w_avg'].shape not in ((width,), (1, width), (rows, width)):
    raise WeightsError(f'{kind}: latent_avg has shape {tree["w_avg"].shape}, not ({width},)')
  stored = 0 if nvlabs else sum(f'noises.noise_{i}' in state for i in range(len(noise)))
  invented = 0 if nvlabs else len(noise) - stored
  return Converted({'generator': tree}, {'generator': facts}, invented)


def _discriminator(state: Any, kind: str) -> Converted:
  facts = sizes.discriminator(key_maps.tensors(state, kind), kind)
  channels = tuple(facts['channels'])
  rosinality = 'convs.0.0.weight' in state
  keys = discriminator_key_maps.rosinality if rosinality else discriminator_key_maps.nvlabs
  unneeded = (r'.*\.kernel', r'.*resample_filter')
  tree = key_maps.convert(state, keys(channels), kind=kind, unneeded=unneeded)
  side = facts['resolution']
  _check(tree, ImageDiscriminator(channels), (1, side, side, 3), kind=kind)
  return Converted({'discriminator': tree}, {'discriminator': facts})


def _latent_avg(content: Mapping, kind: str) -> np.ndarray:
  return key_maps.tensors({'latent_avg': content['latent_avg']}, kind)['latent_avg']


def rosinality(content: Any, kind: str) -> Converted:
  """`g_ema`, `latent_avg`, and `d` where it is there; a bare state dict of `d` too."""
  if isinstance(content, Mapping) and set(content) == {'d'}:
    return _discriminator(content['d'], f'discriminator of {kind}')
  _need_entries(content, kind, 'g_ema latent_avg', 'g d g_optim d_optim args ada_aug_p')
  made = _generator(content['g_ema'], _latent_avg(content, kind), kind)
  if 'd' in content:
    made |= _discriminator(content['d'], f'discriminator of {kind}')
  dropped = tuple(key for key in ('g', 'g_optim', 'd_optim') if key in content)
  return dataclasses.replace(made, dropped=dropped)


def nvlabs(content: Any, kind: str) -> Converted:
  """`G_ema` and `D`; or a generator or discriminator alone, as a module or its state dict."""
  if isinstance(content, Mapping) and 'b4.fc.weight' in content:
    return _discriminator(content, f'discriminator of {kind}')
  if not isinstance(content, Mapping) or 'G_ema' not in content:
    return _generator(content, None, kind)
  _need_entries(content, kind, 'G_ema', 'G D training_set_kwargs augment_pipe')
  made = _generator(content['G_ema'], None, kind)
  if content.get('D') is not None:
    made |= _discriminator(content['D'], f'discriminator of {kind}')
  dropped = tuple(key for key in ('G', 'augment_pipe') if content.get(key) is not None)
  return dataclasses.replace(made, dropped=dropped)


def pti(content: Any, kind: str) -> Converted:
  """A generator tuned by PTI: saved whole, as its state dict, or in either family's layout."""
  if isinstance(content, Mapping) and 'g_ema' in content:
    return rosinality(content, kind)
  return nvlabs(content, kind)


# --- Encoders and identity -----------------------------------------------------------------------

TRAINING = (
  'global_step epoch optimizer best_val_loss discriminator_state_dict '
  'discriminator_optimizer_state_dict'
)


def e4e(content: Any, kind: str) -> Converted:
  """`encoder.*`, `decoder.*` or both; pSp's file has the same tensors with another meaning."""
  _need_entries(content, kind, 'state_dict', f'latent_avg opts {TRAINING}')
  state = key_maps.tensors(content['state_dict'], kind)
  names = ('encoder', 'decoder', 'deformation')
  other = [key for key in state if not key.startswith(tuple(f'{name}.' for name in names))]
  if other:
    raise WeightsError(f'{kind}: {len(other)} tensors have no place here, first {other[:3]}')
  encoder, decoder, heads = (key_maps.with_prefix(state, f'{name}.') for name in names)
  if not state or ('latent_avg' not in content and decoder):
    raise WeightsError(f'no {kind}: it has no {"latent_avg" if state else "encoder or decoder"}')
  made = Converted({}, {})
  average = _latent_avg(content, kind) if 'latent_avg' in content else None
  if decoder:
    made |= _generator(decoder, average, f'StyleGAN2 decoder of {kind}')
  if encoder:
    made |= _encoder(encoder, heads, f'encoder of {kind}')
    made.sizes['encoder'] |= {'config': config_text(content)}
    if average is not None and not decoder:
      made.parts['latent_avg'] = np.array(average, np.float32)
  dropped = tuple(key for key in TRAINING.split() if isinstance(content.get(key), Mapping))
  return dataclasses.replace(made, dropped=dropped)


def _encoder(
  state: Mapping[str, np.ndarray], heads: Mapping[str, np.ndarray], kind: str
) -> Converted:
  """e4e's encoder, and the deformation heads of ours that were exported beside it."""
  facts = sizes.encoder(state, kind)
  split, frame = facts['identity_split'], facts['frame_size']
  levels = [frame // stride for stride in (16, 8, 4)]
  keys = key_maps.e4e_encoder(facts['units'], facts['widths'], split, levels)
  tree = key_maps.convert(state, keys, kind=kind)
  if heads:
    facts |= sizes.deformation(heads, frame, kind)
    keys = key_maps.deformation_heads(facts['deformation_split'], levels)
    tree['params'] |= key_maps.convert(heads, keys, kind=f'deformation heads of {kind}')['params']
  module = Encoder(
    sum(split), facts['w_dim'], facts.get('deformation_widths', ()), split,
    facts.get('deformation_split', (0, 0, 0)), facts['widths'], facts['units'],
    facts['reduction'], facts['head_width'],
  )  # fmt: skip
  _check(tree, module, (1, frame, frame, 3), kind=kind)
  return Converted({'encoder': tree}, {'encoder': facts})


def arcface(content: Any, kind: str) -> Converted:
  state = key_maps.tensors(content, kind)
  facts = sizes.arcface(state, kind)
  keys = key_maps.arcface(facts['units'], facts['widths'], facts['size'])
  tree = key_maps.convert(state, keys, kind=kind)
  _check(tree, ArcFace(**facts), (1, 256, 256, 3), kind=kind)
  return Converted({'arcface': tree}, {'arcface': facts})


def latent_discriminator(content: Any, kind: str) -> Converted:
  """e4e's critic of latents."""
  state = key_maps.tensors(content, kind)
  layers = sum(bool(re.fullmatch(r'mlp\.\d+\.weight', key)) for key in state)
  width = sizes.shape(state, 'mlp.0.weight', 2, kind)[0]
  tree = key_maps.convert(state, discriminator_key_maps.latent(layers), kind=kind)
  _check(tree, LatentDiscriminator(width, layers), (1, width), kind=kind)
  return Converted({'critic': tree}, {'critic': {'width': width, 'layers': layers}})


# --- LPIPS ---------------------------------------------------------------------------------------


def backbone(content: Any, kind: str, net: str) -> Converted:
  """torchvision's network under LPIPS; its linear layers too, where they are in the same file."""
  state = key_maps.tensors(content, kind)
  keys = key_maps.lpips(net)
  whole = any(key.startswith('lin') for key in state)
  if not whole:
    keys = {ours: key for ours, key in keys.items() if not ours.startswith('params/lin')}
  tree = key_maps.convert(state, keys, kind=kind, unneeded=key_maps.TORCHVISION_UNNEEDED)
  widths = sizes.backbone(state, net, kind)
  image = (1, 64, 64, 3)
  _check(tree, LPIPS(net, widths), image, image, kind=kind, only='' if whole else 'features')
  return Converted({'lpips': tree}, {'lpips': {'net': net, 'widths': widths}})


def lpips(content: Any, kind: str) -> Converted:
  """The linear layers of LPIPS v0.1 alone, of any network."""
  state = key_maps.tensors(content, kind)
  taps = sizes.count(state, 'lin{}.model.1.weight', kind)
  widths = [sizes.shape(state, f'lin{i}.model.1.weight', 4, kind)[1] for i in range(taps)]
  keys = {f'params/lin{i}': (f'lin{i}.model.1.weight', flat) for i in range(taps)}
  if not taps:
    raise WeightsError(f'no {kind}: lin0.model.1.weight is missing')
  tree = key_maps.convert(state, keys, kind=kind)
  if any(x.shape != (width,) for x, width in zip(tree['params'].values(), widths, strict=True)):
    raise WeightsError(f'{kind}: a layer has more than one output')
  return Converted({'lpips': tree}, {'lpips': {'taps': widths}})


# --- Networks of the metrics ---------------------------------------------------------------------


def inception(content: Any, kind: str) -> Converted:
  """FID's Inception; torchvision's, with other weights under the same names, is refused."""
  state = key_maps.tensors(content, kind)
  facts = sizes.inception(state, kind)
  unneeded = metric_key_maps.INCEPTION_UNNEEDED
  tree = key_maps.convert(state, metric_key_maps.inception(), kind=kind, unneeded=unneeded)
  _check(tree, Inception(**facts), (1, 299, 299, 3), kind=kind)
  return Converted({'inception': tree}, {'inception': facts})


def i3d(content: Any, kind: str) -> Converted:
  """I3D of Kinetics, in either layout."""
  state = key_maps.tensors(content, kind)
  facts, keys = sizes.i3d(state, kind), metric_key_maps.i3d(state)
  tree = key_maps.convert(state, keys, kind=kind, unneeded=metric_key_maps.I3D_UNNEEDED)
  _check(tree, I3D(**facts), (1, 9, 224, 224, 3), kind=kind)
  return Converted({'i3d': tree}, {'i3d': facts})


# --- Latent directions ---------------------------------------------------------------------------


def interfacegan(content: Any, kind: str) -> Converted:
  """A direction of W (1, d) or, by row, of W+ (l, d)."""
  if not isinstance(content, np.ndarray) or content.dtype.kind not in 'fiu':
    raise WeightsError(f'no {kind}: it holds no array of real numbers')
  rows = content.size // content.shape[-1] if content.ndim and content.size else 0
  direction = np.array(content, np.float32)
  if not rows or rows > 2 * 11 or content.ndim > 3 or max(content.shape[:-2], default=1) > 1:
    raise WeightsError(f'{kind}: its shape {content.shape} is not (d,), (1, d) or (rows, d)')
  if not np.isfinite(direction).all() or not direction.any():
    raise WeightsError(f'{kind}: it is zero or not finite')
  direction = direction.reshape(rows, -1)
  facts = {'w_dim': direction.shape[1], 'rows': rows}
  return Converted({'direction': direction}, {'direction': facts})


def ganspace(content: Any, kind: str) -> Converted:
  """`comp` (k, d), `mean` (d,) and `std` (k,) of W."""
  _need_entries(content, kind, 'comp mean std')
  state = key_maps.tensors(content, kind)
  std = np.array(state['std'], np.float32).reshape(-1)
  mean = np.array(state['mean'], np.float32).reshape(-1)
  comp = np.array(state['comp'], np.float32)
  if not comp.size or comp.size != std.size * mean.size or comp.shape[0] != std.size:
    raise WeightsError(
      f'{kind}: comp {comp.shape}, mean {mean.shape} and std {std.shape} do not agree'
    )
  tree = {'components': comp.reshape(std.size, mean.size), 'mean': mean, 'std': std}
  return Converted({'ganspace': tree}, {'ganspace': {'w_dim': mean.size, 'components': std.size}})


# --- All of them ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Kind:
  """`what` it is in words, and its converter; where it comes from: `public.FILES`."""

  what: str
  convert: Callable[[Any, str], Converted]


KINDS = {
  'rosinality': Kind('rosinality StyleGAN2', rosinality),
  'e4e': Kind('e4e checkpoint', e4e),
  'psp': Kind('pSp checkpoint', e4e),
  'nvlabs': Kind('stylegan2-ada-pytorch networks', nvlabs),
  'pti': Kind('tuned generator', pti),
  'arcface': Kind('ArcFace', arcface),
  'vgg16': Kind('VGG16', functools.partial(backbone, net='vgg')),
  'alexnet': Kind('AlexNet', functools.partial(backbone, net='alex')),
  'squeezenet': Kind('SqueezeNet 1.1', functools.partial(backbone, net='squeeze')),
  'lpips': Kind('LPIPS linear layers', lpips),
  'inception': Kind('FID Inception', inception),
  'i3d': Kind('I3D of Kinetics', i3d),
  'latent_discriminator': Kind('latent discriminator', latent_discriminator),
  'interfacegan': Kind('InterFaceGAN direction', interfacegan),
  'ganspace': Kind('GANSpace components', ganspace),
}
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


def recognise(content: Any, path: str) -> str:
  """The kind of a file by its contents.

  Raises:
    WeightsError: none fits.
  """
  if isinstance(content, np.ndarray):
    return 'interfacegan'
  if isinstance(content, Mapping):
    names = set(content)
    if 'g_ema' in names or names == {'d'}:
      return 'rosinality'
    if 'state_dict' in names:
      opts = content.get('opts')
      encoder = opts.get('encoder_type') if isinstance(opts, Mapping) else None
      return 'psp' if type(encoder) is str and encoder.startswith('Gradual') else 'e4e'
    if 'G_ema' in names or 'b4.fc.weight' in names:
      return 'nvlabs'
    if 'synthesis.b4.const' in names:
      return 'pti' if isinstance(content, Module) else 'nvlabs'
    if names & {'Conv3d_1a_7x7.conv3d.weight', 'conv3d_1a_7x7.conv3d.weight'}:
      return 'i3d'
    for kind, signs in _SIGNS.items():
      if names.issuperset(signs):
        return kind
  raise WeightsError(
    f'{path}: its contents are of none of the kinds {", ".join(KINDS)}; if it is one of them, name '
    'it on the command line to be told what is missing'
  )


def arrays(content: Any) -> int:
  """Number of tensors in the content of a file."""
  if isinstance(content, np.ndarray):
    return 1
  nested = list(content.values()) if isinstance(content, Mapping) else content
  return sum(map(arrays, nested)) if isinstance(nested, list | tuple) else 0
