"""Checks of the weight files of a config: found, whole, and of the sizes of the model."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax

from hybrid_jax import environment
from hybrid_jax.errors import InputError
from hybrid_jax.models import perceptual
from hybrid_jax.training.preflight.check import Check, attempt
from hybrid_jax.weights import files, folders, load, public, public_formats, shipped

MB = 10**6


def check_weights(config: Any, nets: Any, thorough: bool = True) -> Iterator[Check]:
  """Checks every weight file, and that all parts are of the model's sizes.

  Without `thorough` only that the files exist: reading a full-size e4e file takes many seconds, and
  the run itself fails clearly on a bad one.
  """
  paths = dict(config.weights)
  if not thorough:
    yield attempt(
      'weights', lambda: str(load.check_files(paths, config.model.lpips_net)), 'missing'
    )
  elif {'random', 'shipped'} & set(paths.values()):
    yield from _check_without_files(nets, paths)
  else:
    yield from _check_files(config, nets, paths)


def _check_without_files(nets: Any, paths: dict[str, str]) -> Iterator[Check]:
  """The checks of a config whose networks are random, or those of the rendered world."""
  try:
    load.check_files(paths)
  except InputError as error:  # random or shipped networks mixed with files
    yield Check('wrong', 'weights', str(error))
    return
  if paths['e4e'] == 'random':
    message = 'random frozen networks: a run shows the plumbing and learns nothing useful'
    yield Check('warning', 'weights', message)
    return
  for name in ('generator_64', 'inversion_64', 'perceptual', 'identity'):
    path = shipped.FOLDER / f'{name}.npz'
    if path.is_file():
      message = f'{facts(path)}; of this package: Apache-2.0, from rendered heads alone'
      yield Check('ok', f'weights.{name}', message)
    else:
      yield Check('missing', f'weights.{name}', f'{path}: install the package again')
  yield attempt('agreement', lambda: load.load(nets, paths, 0) and 'as config.model', 'wrong')


def _check_files(config: Any, nets: Any, paths: dict[str, str]) -> Iterator[Check]:
  """The checks of a config whose networks all come from files."""
  wanted, found, differences = sizes_of(config.model, nets), [], []
  for field, path in paths.items():
    kind = public.kind_of(field, config.model.lpips_net)
    command = public.command({public.download_of(field, config.model.lpips_net): path})
    check, sizes = check_file(f'weights.{field}', path, kind, wanted[field], command)
    yield check
    for part, numbers in sizes.items():
      found.append(part)
      differences += [
        f'{path}: {part} has {key} {value}, the config {wanted[field][part][key]}'
        for key, value in numbers.items()
        if wanted[field].get(part, {}).get(key, value) != value
      ]
  if differences:
    yield Check('wrong', 'agreement', '; '.join(differences))
  elif found:
    model, rows = config.model, nets.hybrid.encoder.num_ws
    message = f'{model.resolution} px, {rows} rows of W+, frames of {model.frame_size} px'
    parts = ', '.join(dict.fromkeys(found))
    yield Check('ok', 'agreement', f'{parts} as config.model: {message}')
  else:
    yield Check('warning', 'agreement', 'no file could be read')


def sizes_of(model: Any, nets: Any) -> dict[str, dict[str, dict]]:
  """Returns the sizes that the files of a config must have, {field: {part: {name: value}}}.

  The names are those of `weights.sizes`.
  """
  encoder, arcface = nets.hybrid.encoder, nets.arcface
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), 'float32')
  params = jax.eval_shape(nets.lpips.init, jax.random.key(0), image, image)['params']
  taps = [params[f'lin{i}'].size for i in range(sum(name.startswith('lin') for name in params))]
  widths = list(model.lpips_widths or perceptual.BACKBONES[model.lpips_net][1])
  lpips = {'net': model.lpips_net, 'widths': widths, 'taps': taps}
  return {
    'e4e': {
      'generator': {
        'resolution': model.resolution,
        'channels': list(nets.hybrid.generator.channels),
        'w_dim': model.w_dim,
        'mapping_layers': model.mapping_layers,
      },
      'encoder': {
        **_body_sizes(encoder),
        'frame_size': model.frame_size,
        'identity_split': list(encoder.identity_split),
        'head_width': encoder.head_width,
        'w_dim': model.w_dim,
        'deformation_split': list(encoder.deformation_split),
        'deformation_widths': list(encoder.deformation_widths),
      },
    },
    'lpips_backbone': {'lpips': lpips},
    'lpips_linear': {'lpips': lpips},
    'arcface': {
      'arcface': {**_body_sizes(arcface), 'size': arcface.size, 'embedding': arcface.embedding}
    },
  }


def _body_sizes(module: Any) -> dict:
  return {
    'widths': list(module.widths),
    'units': list(module.units),
    'reduction': module.reduction,
  }


def check_file(
  name: str, path: str, kind: str, needed: dict, command: str
) -> tuple[Check, dict[str, dict]]:
  """Checks a weight file or converted folder, which must hold the parts `needed`.

  `command` downloads it.

  Its tensors are read and placed exactly as `convert` does, so that every tensor is used and every
  place filled. The second result is its sizes by part.
  """
  origin = public.FILES[kind]
  if folders.is_converted(path):
    try:
      manifest = folders.read_manifest(path)
      sizes, kind = manifest['parts'], manifest['kind']
      source = manifest['source']
      message = f'{path}: converted from {source["name"]}, SHA-256 {source["sha256"]}'
    except (InputError, KeyError, TypeError) as error:
      return Check('wrong', name, f'{path}: {error}'), {}
  elif os.path.isfile(path):
    message = facts(path)
    # Publishers put the first digits of the hash into the name of a file.
    digest = origin.digest if pathlib.Path(path).name == origin.name else ''
    if f'SHA-256 {digest}' not in message:
      return Check('wrong', name, f'{message}: not the file of that name; download it again'), {}
    try:
      content = files.read(path)
      kind = public_formats.recognise(content, path)
      sizes = public_formats.convert(content, path, kind).sizes
    except InputError as error:
      return Check('wrong', name, f'{error} ({message.removeprefix(f"{path}, ")})'), {}
  else:
    message = f"'{path}' does not exist: {origin.what}, {origin.name} of {origin.origin}"
    return Check('missing', name, f'{message}; `{command}`; terms: {origin.terms}'), {}
  missing = [part for part in needed if part not in sizes]
  if missing or kind == 'psp':
    message = f'{message}: of kind {kind}, which has no {missing[0] if missing else "e4e encoder"}'
    return Check('wrong', name, message), {}
  message = f'{message}; {kind}; terms: {public.FILES[kind].terms}'
  return Check('ok', name, message), {part: sizes[part] for part in needed}


def facts(path: str | os.PathLike) -> str:
  """Returns the name, size and SHA-256 of a file."""
  return f'{path}, {os.path.getsize(path) / MB:.1f} MB, SHA-256 {environment.sha256(path)}'
