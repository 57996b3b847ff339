"""Looks for everything that a training run needs, before any work, and says what is wrong.

  python -m hybrid_jax.doctor --config=configs/pretrain.py --config.data.videos=DIR

One line a check: ok, warning, missing (a file, with where to get it and on what terms) or wrong.
The last line counts them; exit code 0 means that the same config would start training. --no-compile
leaves out the longest check, compiling the training step.
"""

import dataclasses
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from absl import app, flags, logging

from hybrid_jax import config_flag
from hybrid_jax.errors import InputError

_NO_COMPILE = flags.DEFINE_bool('no-compile', False, 'Do not compile the training step.')

GiB, MB = 2**30, 10**6
ENOUGH = 0.9  # of a device's memory; beyond, fragments may not fit


@dataclasses.dataclass(frozen=True)
class Check:
  """One line: `status` is 'ok', 'warning', 'missing' or 'wrong'."""

  status: str
  name: str
  told: str

  def __str__(self) -> str:
    return f'{self.status:<8} {self.name}: {" ".join(self.told.split())}'


def examine(config: Any, compile_step: bool = True) -> Iterator[Check]:
  """The checks of a config, each as soon as it is made."""
  from hybrid_jax.method import networks
  from hybrid_jax.training import config_check

  try:
    config_check.check(config)
  except InputError as error:
    yield Check('wrong', 'config', str(error))
    return
  model = config.model
  yield Check(
    'ok',
    'config',
    f'{config.stage}, images of {model.resolution} px from frames of {model.frame_size} px, '
    f'batches of {config.data.batch_size}',
  )
  nets = networks.build(model)
  fits = True
  for check in check_weights(config, nets):
    fits &= (check.name, check.status) != ('agreement', 'wrong')
    yield check
  yield from check_data(config)
  yield from check_start(config, nets)
  yield check_codecs()
  yield check_devices(config)
  if fits:
    yield from check_step(config, nets, compile_step)


# --- Files ---------------------------------------------------------------------------------------


def check_weights(config: Any, nets: Any) -> Iterator[Check]:
  """Every weight file: found, readable and whole; then whether all are of the model's sizes."""
  from hybrid_jax.weights import load, public, shipped

  paths = dict(config.weights)
  if {'random', 'shipped'} & set(paths.values()):
    try:
      load.check_files(paths)
    except InputError as error:
      yield Check('wrong', 'weights', str(error))
      return
    if paths['e4e'] == 'random':
      told = 'random frozen networks: a run shows the plumbing and learns nothing useful'
      yield Check('warning', 'weights', told)
      return
    for name in ('generator_64', 'inversion_64', 'perceptual', 'identity'):
      path = shipped.FOLDER / f'{name}.npz'
      if path.is_file():
        told = f'{facts(path)}; of this package: Apache-2.0, from rendered heads alone'
        yield Check('ok', f'weights.{name}', told)
      else:
        yield Check('missing', f'weights.{name}', f'{path}: install the package again')
    yield attempt('agreement', lambda: load.load(nets, paths, 0) and 'as config.model', 'wrong')
    return
  wanted, found, differences = sizes_of(config.model, nets), [], []
  for field, path in paths.items():
    kind = public.kind_of(field, config.model.lpips_net)
    check, sizes = check_file(f'weights.{field}', path, kind, wanted[field])
    yield check
    for part, numbers in sizes.items():
      found.append(part)
      differences += [
        f'{path}: {part} has {key} {value}, the config {wanted[field][part][key]}'
        for key, value in numbers.items()
        if wanted[field].get(part, {}).get(key, value) != value
      ]
  model, rows = config.model, nets.hybrid.encoder.num_ws
  told = f'{model.resolution} px, {rows} rows of W+, frames of {model.frame_size} px'
  told = (
    f'{", ".join(dict.fromkeys(found))} as config.model: {told}' if found else 'no file is there'
  )
  status = 'wrong' if differences else 'ok' if found else 'warning'
  yield Check(status, 'agreement', '; '.join(differences) or told)


def sizes_of(model: Any, nets: Any) -> dict[str, dict[str, dict]]:
  """What `weights.sizes` must find in the files of a config: {field: {part: {name: value}}}."""
  import jax

  from hybrid_jax.models import perceptual

  encoder, arcface = nets.hybrid.encoder, nets.arcface
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), 'float32')
  params = jax.eval_shape(nets.lpips.init, jax.random.key(0), image, image)['params']
  taps = [params[f'lin{i}'].size for i in range(sum(name.startswith('lin') for name in params))]
  body = lambda m: {  # noqa: E731
    'widths': list(m.widths),
    'units': list(m.units),
    'reduction': m.reduction,
  }
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
        **body(encoder),
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
    'arcface': {'arcface': {**body(arcface), 'size': arcface.size, 'embedding': arcface.embedding}},
  }


def check_file(name: str, path: str, kind: str, needed: dict) -> tuple[Check, dict[str, dict]]:
  """A weight file or converted folder that must hold the parts `needed`, and its sizes by part.

  Its tensors are read and placed exactly as `convert` does: each is used and each place filled.
  """
  from hybrid_jax.weights import files, folders, public, public_formats

  origin = public.FILES[kind]
  if folders.is_converted(path):
    try:
      manifest = folders.read_manifest(path)
      sizes, kind = manifest['parts'], manifest['kind']
      source = manifest['source']
      told = f'{path}: converted from {source["name"]}, SHA-256 {source["sha256"]}'
    except (InputError, KeyError, TypeError) as error:
      return Check('wrong', name, f'{path}: {error}'), {}
  elif os.path.isfile(path):
    told = facts(path)
    digest = origin.digest if pathlib.Path(path).name == origin.name else ''
    if f'SHA-256 {digest}' not in told:
      return Check('wrong', name, f'{told}: another file than its name says; fetch it again'), {}
    try:
      content = files.read(path)
      kind = public_formats.recognise(content, path)
      sizes = public_formats.convert(content, path, kind).sizes
    except InputError as error:
      return Check('wrong', name, f'{error} ({told.removeprefix(f"{path}, ")})'), {}
  else:
    told = f"'{path}' is not there: {origin.what}, {origin.name} of {origin.origin}"
    return Check('missing', name, f'{told}; terms: {origin.terms}'), {}
  lacking = [part for part in needed if part not in sizes]
  if lacking or kind == 'psp':
    told = f'{told}: of kind {kind}, which has no {lacking[0] if lacking else "e4e encoder"}'
    return Check('wrong', name, told), {}
  told = f'{told}; {kind}; terms: {public.FILES[kind].terms}'
  return Check('ok', name, told), {part: sizes[part] for part in needed}


def facts(path: str | os.PathLike) -> str:
  """Name, size and SHA-256 of a file."""
  from hybrid_jax import environment

  return f'{path}, {os.path.getsize(path) / MB:.1f} MB, SHA-256 {environment.sha256(path)}'


def attempt(name: str, work: Any, status: str) -> Check:
  """What `work` tells, or the InputError that it raises with `status`."""
  try:
    return Check('ok', name, work())
  except InputError as error:
    return Check(status, name, str(error))


def check_data(config: Any) -> Iterator[Check]:
  """Where the clips come from, and the face detector."""
  from hybrid_jax.media import faces
  from hybrid_jax.training import sources, triplets
  from hybrid_jax.weights import public

  data = config.data

  def clips() -> str:
    sources.check(data, config.stage)
    if data.packed:
      train, held_out, _ = sources.load(data, config.model.frame_size)
      return f'{data.packed}: {len(train.lengths)} packed clips, {len(held_out.lengths)} held out'
    if data.rendered_people:
      return f'{data.rendered_people} rendered people: drawn when training begins'
    videos = triplets.find_videos(data.videos)
    size = sum(path.stat().st_size for _, path in videos)
    people = len({identity for identity, _ in videos})
    return f'{data.videos}: {len(videos)} videos of {people} people, {size / MB:.1f} MB'

  yield attempt('data', clips, 'missing')
  path, origin = data.face_detector, public.FILES['yunet']
  if path and not os.path.isfile(path):
    told = f"'{path}' is not there: {origin.what}, {origin.name} of {origin.origin}"
    yield Check('missing', 'data.face_detector', f'{told}; terms: {origin.terms}')
  elif path:
    detector = lambda: faces.FaceDetector(path) and f'{facts(path)}; terms: {origin.terms}'  # noqa: E731
    yield attempt('data.face_detector', detector, 'wrong')


def check_start(config: Any, nets: Any) -> Iterator[Check]:
  """The encoder that training starts from, where one is named."""
  import jax

  from hybrid_jax.method import networks
  from hybrid_jax.training import checkpoint
  from hybrid_jax.weights import load

  path = config.train.init_from
  if not path:
    return

  def encoder() -> str:
    if path.endswith('.npz'):
      load.load_encoder(nets, path)
      return facts(path)
    shapes = jax.eval_shape(lambda key: networks.init_encoder(nets, key), jax.random.key(0))
    step, _ = checkpoint.restore_encoder(path, shapes)
    return f'{path}: encoder of step {step}'

  there = os.path.isfile(path) if path.endswith('.npz') else os.path.isdir(path)
  yield attempt('train.init_from', encoder, 'wrong' if there else 'missing')


# --- The machine ---------------------------------------------------------------------------------


def check_codecs() -> Check:
  from hybrid_jax.media import containers

  lacking = containers.lacking_codecs()
  names = ', '.join(containers.CODECS)
  if lacking:
    return Check('missing', 'codecs', f'{", ".join(lacking)}; install PyAV from its own wheels')
  return Check('ok', 'codecs', f'{names}: read and written')


def check_devices(config: Any) -> Check:
  import jax

  devices, batch = jax.devices(), config.data.batch_size
  told = f'{len(devices)} of kind {devices[0].device_kind}'
  if batch % len(devices):
    told += f', by which config.data.batch_size={batch} cannot be divided'
  return Check('wrong' if batch % len(devices) else 'ok', 'devices', told)


def check_step(config: Any, nets: Any, compile_step: bool) -> Iterator[Check]:
  """Compiles the training step from shapes alone; what it needs of a device's memory.

  The program is the run's own, which then finds it in the cache.
  """
  import jax

  from hybrid_jax.training import estimate, parallel, steps

  if config.data.batch_size % jax.device_count():
    return
  try:
    arguments = step_arguments(config, nets)
  except InputError as error:
    yield Check('missing', 'step', str(error))
    return
  if not compile_step:
    yield check_memory(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(arguments)), False)
    return
  step = parallel.jit_step(steps.make_step(nets, config), parallel.make_mesh())
  began = time.monotonic()
  try:
    compiled = step.lower(*arguments).compile()
  except jax.errors.JaxRuntimeError as error:
    yield Check('wrong', 'step', f'does not compile: {str(error)[:300]}')
    return
  told = f'compiles in {time.monotonic() - began:.0f} s'
  yield Check('ok', 'step', f'{told}; {estimate.describe(compiled, config.train.num_steps)}')
  yield check_memory(estimate.memory(compiled), True)


def step_arguments(config: Any, nets: Any) -> tuple[Any, Any, Any]:
  """(state, frozen, batch) of the training step as shapes."""
  import jax

  from hybrid_jax.method import networks
  from hybrid_jax.training import parallel, steps, triplets
  from hybrid_jax.weights import shipped

  key, source = jax.random.key(0), config.weights.e4e
  state = jax.eval_shape(lambda key: steps.init_state(nets, config, key), key)
  if source == 'shipped':
    frozen = jax.eval_shape(shipped.frozen)
  else:
    frozen = jax.eval_shape(lambda key: networks.random_frozen(nets, key), key)
  if source not in ('shipped', 'random'):  # e4e has its average once for each row
    rows = (nets.hybrid.encoder.num_ws, config.model.w_dim)
    frozen['generator']['w_avg'] = jax.ShapeDtypeStruct(rows, 'float32')
  # With the run's own shardings, as otherwise the program is not found in the cache.
  _, replicated = parallel.shardings(parallel.make_mesh())
  shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated)  # noqa: E731
  sizes = triplets.shapes(config.model.frame_size, config.stage == 'finetune')
  n = config.data.batch_size
  batch = {name: jax.ShapeDtypeStruct((n, *size), 'uint8') for name, size in sizes.items()}
  return *jax.tree.map(shape, (state, frozen)), batch


def check_memory(needed: int | None, whole: bool) -> Check:
  """`needed` bytes a device, or at least these where it is not the `whole`."""
  from hybrid_jax.training import estimate

  has = estimate.available()
  if needed is None or has is None:
    return Check('warning', 'memory', 'this device does not tell its memory')
  told = f'{needed / GiB:.2f} GiB of the {has / GiB:.2f} GiB of a device'
  told = told if whole else f'at least {told}, for state and frozen networks'
  if needed > has:
    told += '; lower config.data.batch_size, or set config.model.half_dtype and .remat_from'
  status = 'wrong' if needed > has else 'warning' if needed > ENOUGH * has else 'ok'
  return Check(status, 'memory', told)


# --- The command ---------------------------------------------------------------------------------


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unexpected argument {argv[1]!r}; options are written --name=value')
  from hybrid_jax import cli

  cli.use_compilation_cache()
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.ERROR)
  counts = dict.fromkeys(('ok', 'warning', 'missing', 'wrong'), 0)
  for check in examine(config_flag.CONFIG.value, not _NO_COMPILE.value):
    print(check, flush=True)
    counts[check.status] += 1
  ready = not counts['missing'] + counts['wrong']
  told = ', '.join(f'{count} {status}' for status, count in counts.items())
  print(f'{sum(counts.values())} checks: {told}: training {"can" if ready else "cannot"} start')
  sys.exit(0 if ready else 1)


if __name__ == '__main__':
  flags.mark_flags_as_required(['config'])
  app.run(main, flags_parser=config_flag.parse)
