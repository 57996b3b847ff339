"""Builds what training and re-enactment start from: the frozen networks and the encoder.

Each path of `config.weights` is a public file, or the folder that `python -m hybrid_jax.convert`
wrote of it. Both give the same trees: a file is recognised and converted here as the command does.
"""

import os
from collections.abc import Mapping, Sequence

import jax

from hybrid_jax.errors import InputError
from hybrid_jax.method.networks import Networks, init_encoder, random_frozen
from hybrid_jax.weights import (
  conversion,
  files,
  folders,
  public,
  public_formats,
  read_e4e,
  shapes,
  shipped,
)


def check_files(paths: Mapping[str, str], lpips_net: str = 'alex') -> bool:
  """True if the weights come from files, False if all are random or all shipped.

  Args:
    paths: `config.weights`.
    lpips_net: `config.model.lpips_net`, which says the backbone that is missing.

  Raises:
    InputError: files are missing (all are named), or files and other networks are mixed.
  """
  # All or none: a random critic beside trained networks gives losses without a meaning, and the
  # shipped networks fit each other only.
  for source in ('random', 'shipped'):
    fields = [field for field in paths if paths[field] == source]
    if len(fields) == len(paths):
      return False
    if fields:
      raise InputError(f'config.weights: {fields} are {source} and the others are not')
  missing = [field for field in paths if not is_there(paths[field])]
  if missing:
    lines = (
      f"  config.weights.{field}='{paths[field]}': {_source(field, lpips_net)}" for field in missing
    )
    command = public.command({public.download_of(f, lpips_net): paths[f] for f in missing})
    raise InputError(
      f'{len(missing)} weight files are missing. Download them with `{command}`, or each from its '
      'page, which states its terms; or give other paths as --config.weights.NAME=FILE:\n'
      + '\n'.join(lines)
    )
  return True


def _source(field: str, lpips_net: str) -> str:
  """The public file that belongs into a field, and its page."""
  file = public.file_of(field, lpips_net)
  return f'{file.name} of {file.origin} ({file.what})'


def is_there(path: str) -> bool:
  """Whether a path is that of a file, or of a folder of converted weights."""
  return os.path.isfile(path) or folders.is_converted(path)


# --- Parts of a file -----------------------------------------------------------------------------


def part(path: str, name: str, expected: str = '') -> tuple[dict, dict]:
  """(tree, sizes) of one part of a public file or converted folder; see `parts`."""
  _, trees, sizes = parts(path, name, expected=expected)
  return trees[name], sizes[name]


def parts(path: str, *names: str, expected: str = '') -> tuple[str, dict, dict]:
  """(kind, tree by part, sizes by part) of a public file or converted folder.

  Args:
    names: parts that it must hold, as 'generator' or 'lpips'.
    expected: kind of a file that is not recognised, so that the error names what it lacks.

  Raises:
    InputError: no such file, damaged, or of a kind that holds no such parts.
  """
  # A folder that is no converted one is an error of `folders`, which says what it lacks.
  if os.path.isdir(path):
    manifest, trees = folders.read(path, *names)
    return manifest['kind'], trees, manifest['parts']
  content = files.read(path)
  kind = public_formats.recognise(content, path, expected)
  # Before the conversion, which takes seconds and copies every tensor.
  conversion.require_parts(path, kind, public_formats.KINDS[kind].parts, names)
  # Peak memory is the file and the copies of its tensors: inference needs a tenth of an e4e file.
  if 'encoder' not in names:
    content = read_e4e.without_encoder(content)
  result = public_formats.convert(content, path, kind)
  conversion.require_parts(path, kind, result.parts, names)
  return kind, result.parts, result.sizes


# --- Networks of a config ------------------------------------------------------------------------


def load(networks: Networks, paths: Mapping[str, str], seed: int) -> tuple[dict, dict | None]:
  """(frozen, encoder variables to start from); the encoder is None for random networks.

  Args:
    networks: of the config.
    paths: `config.weights`.
    seed: of random networks.

  Raises:
    InputError: a file is missing, is not what its field says, or is of another size than the model.
  """
  if not check_files(paths, networks.lpips.net):
    return _load_without_files(networks, paths, seed)
  # The small files first: their mistakes are reported before 1.2 GB of e4e are read.
  frozen = _losses_of_files(networks, paths)
  frozen['generator'], encoder = load_e4e(networks, paths['e4e'])
  return frozen, encoder


def load_losses(networks: Networks, paths: Mapping[str, str], seed: int) -> dict:
  """The frozen loss networks alone, {'lpips', 'arcface'}, without reading an e4e file.

  Raises:
    InputError: as `load` does for the files of these networks.
  """
  if check_files(paths, networks.lpips.net):
    return _losses_of_files(networks, paths)
  if paths['e4e'] != 'shipped':
    return _random(networks, seed, ('lpips', 'arcface'))
  # Without the generator: a model of a size that is not bundled has the same loss networks.
  return _of_world(
    networks, {'lpips': shipped.load('perceptual'), 'arcface': shipped.load('identity')}
  )


def _losses_of_files(networks: Networks, paths: Mapping[str, str]) -> dict:
  backbone, linear = paths['lpips_backbone'], paths['lpips_linear']
  expected = _frozen_shapes(networks)
  frozen = {'lpips': _lpips(networks, backbone, linear), 'arcface': _arcface(paths['arcface'])}
  shapes.check(frozen['lpips'], expected['lpips'], f'{backbone} and {linear}')
  shapes.check(frozen['arcface'], expected['arcface'], paths['arcface'])
  return frozen


def _load_without_files(
  networks: Networks, paths: Mapping[str, str], seed: int
) -> tuple[dict, dict | None]:
  if paths['e4e'] != 'shipped':
    generator = load_generator(networks, paths, seed)
    return load_losses(networks, paths, seed) | {'generator': generator}, None
  return _of_world(networks, shipped.frozen(_size(networks))), load_inversion(networks)


def _of_world(networks: Networks, frozen: dict) -> dict:
  """Returns shipped networks: of fixed sizes, so that config.model must be that of their world."""
  expected = _frozen_shapes(networks)
  for name, tree in frozen.items():
    shapes.check(tree, expected[name], f'the shipped {name}', ('w_samples',))
  return frozen


def load_generator(networks: Networks, paths: Mapping[str, str], seed: int) -> dict:
  """The generator alone, {'params', 'noise_const', 'w_avg'}: all that inference needs of the files.

  Raises:
    InputError: the file of `paths['e4e']` is missing, holds no generator, or one of another size.
  """
  path = paths['e4e']
  if path == 'shipped':
    return shipped.generator(_size(networks))
  if path == 'random':
    # The same seed gives the generator that `load` draws beside the other networks: re-enactment
    # must meet the generator of the training.
    return _random(networks, seed, ('generator',))['generator']
  if not is_there(path):
    source = _source('e4e', networks.lpips.net)
    command = public.command({'e4e': path})
    raise InputError(
      f"config.weights.e4e='{path}': no such file; put it there with `{command}`: {source}"
    )
  return _of_model(networks, path, *part(path, 'generator', 'e4e'))


def load_e4e(networks: Networks, path: str) -> tuple[dict, dict]:
  """(generator tree, encoder variables) of an e4e checkpoint.

  Deformation heads, which only `export` writes, are fresh where the file has none.

  Raises:
    InputError: the file is no e4e checkpoint, or of another size than the model.
  """
  # Both from one read of the file, the largest of all.
  kind, trees, sizes = parts(path, 'generator', 'encoder', expected='e4e')
  if kind == 'psp':
    raise InputError(
      f'{path}: a pSp encoder, whose heads give whole rows of W+; the model needs e4e, whose '
      'heads give offsets from the first row'
    )
  generator = _of_model(networks, path, trees['generator'], sizes['generator'])
  return generator, _with_heads(networks, trees['encoder'], path)


def load_inversion(networks: Networks) -> dict:
  """The shipped encoder of the rendered world that has the role of e4e, with untrained heads."""
  tree = shipped.load(f'inversion_{_size(networks)}')
  return _with_heads(networks, tree, 'the shipped inversion encoder')


def _size(networks: Networks) -> int:
  """Side of the generator's images, px; the files of the shipped networks are named after it."""
  return 4 << (len(networks.hybrid.generator.channels) - 1)


def load_arcface(networks: Networks, path: str) -> dict:
  """The identity network alone, of a file or folder.

  Raises:
    InputError: no such file, no ArcFace, or of another size than the model.
  """
  tree = _arcface(path)
  shapes.check(tree, _frozen_shapes(networks)['arcface'], path)
  return tree


def load_encoder(networks: Networks, path: str) -> dict:
  """Encoder variables from an .npz tree, as the package ships them.

  Raises:
    InputError: no such file, no tree of weights, or of another model.
  """
  encoder = shipped.read(path)
  shapes.check(encoder, _encoder_shapes(networks), path)
  return encoder


def _random(networks: Networks, seed: int, names: Sequence[str]) -> dict:
  """Parts of `random_frozen`; what they do not need is not computed."""
  init = lambda key: {name: random_frozen(networks, key)[name] for name in names}  # noqa: E731
  return jax.jit(init)(jax.random.key(seed))


def _arcface(path: str) -> dict:
  return part(path, 'arcface', 'arcface')[0]


def _lpips(networks: Networks, backbone: str, linear: str) -> dict:
  """LPIPS of its backbone and linear layers; each path is a file or folder, or both are the same.

  Raises:
    InputError: a file holds no LPIPS, or that of another backbone than the config's.
  """
  net, params = networks.lpips.net, {}
  for field, path in {'lpips_backbone': backbone, 'lpips_linear': linear}.items():
    tree, sizes = part(path, 'lpips', public.kind_of(field, net))
    if sizes.get('net', net) != net:
      raise InputError(
        f"{path}: the LPIPS backbone '{sizes['net']}', config.model.lpips_net is '{net}'"
      )
    # Of a file that holds both, the later one wins: a linear file overrides the backbone's layers.
    params |= tree['params']
  return {'params': params}


def _with_heads(networks: Networks, encoder: dict, name: str) -> dict:
  """Encoder variables of the model's shapes; missing deformation heads are freshly initialised."""
  if not any(map(_is_deformation, encoder['params'])):
    fresh = lambda key: init_encoder(networks, key)['params'].items()  # noqa: E731
    # Under jit, the initial values of the other layers, a billion bytes, are never computed.
    heads = jax.jit(lambda key: {name: x for name, x in fresh(key) if _is_deformation(name)})
    encoder['params'] |= heads(jax.random.key(0))
  shapes.check(encoder, _encoder_shapes(networks), name)
  return encoder


def _is_deformation(name: str) -> bool:
  return name.startswith('deformation_heads')


def _of_model(networks: Networks, path: str, tree: dict, sizes: Mapping) -> dict:
  """The tree of a generator, after comparing its sizes with the model's."""
  # Channels before shapes: one table says more about a wrong size than its first array.
  channels, expected = tuple(sizes['channels']), tuple(networks.hybrid.generator.channels)
  if channels != expected:
    raise InputError(
      f'{path}: its generator has channels {channels}, config.model asks for {expected}'
    )
  # The average is one latent or one for each row of W+; the converter has checked that.
  shapes.check(tree, _frozen_shapes(networks)['generator'] | {'w_avg': tree['w_avg']}, path)
  return tree


def _frozen_shapes(networks: Networks) -> dict:
  # Shapes alone: nothing is initialised, and no memory taken.
  return jax.eval_shape(lambda key: random_frozen(networks, key), jax.random.key(0))


def _encoder_shapes(networks: Networks) -> dict:
  return jax.eval_shape(lambda key: init_encoder(networks, key), jax.random.key(0))
