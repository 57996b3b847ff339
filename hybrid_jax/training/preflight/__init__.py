"""Checks of everything that a training run needs, made before any work.

`require` is what `train` calls first: the checks that cost no more than a look at the file system.
`python -m hybrid_jax.doctor` prints all of `examine`, which also reads the weight files, restores
the encoder to start from and compiles the step.
"""

import os
from collections.abc import Iterator
from typing import Any

from etils import epath

from hybrid_jax import media
from hybrid_jax.errors import InputError
from hybrid_jax.training.preflight.check import STATUSES, Check, attempt

__all__ = ['STATUSES', 'Check', 'examine', 'require']

MB = 10**6


def require(config: Any, workdir: str) -> None:
  """Makes the quick checks of `examine`.

  Raises:
    InputError: names every problem, a line each, so that a user can solve all of them at once.
  """
  checks = examine(config, workdir, thorough=False)
  problems = [check.message for check in checks if check.blocks]
  if problems:
    raise InputError('\n'.join(['training cannot start:'][: len(problems) - 1] + problems))


def examine(
  config: Any, workdir: str | None = None, *, thorough: bool = True, compile_step: bool = True
) -> Iterator[Check]:
  """Yields the checks of a config, each as soon as it is made.

  Args:
    config: with the fields of configs/common.py, as attributes.
    workdir: folder of the run, or None to leave it out.
    thorough: also opens files, restores the starting encoder and sizes up the training step.
    compile_step: compiles the step for its memory; otherwise only its arguments are counted.
  """
  from hybrid_jax.method import networks
  from hybrid_jax.training.preflight import machine, weight_files

  check = check_config(config)
  yield check
  if check.blocks:
    return  # the other checks read its fields
  nets = networks.build(config.model)
  fits = True  # whether the step that the config describes is one to compile
  for check in weight_files.check_weights(config, nets, thorough):
    fits &= (check.name, check.status) != ('agreement', 'wrong')
    yield check
  for check in check_data(config, thorough):
    fits &= (check.name, check.status) != ('data', 'wrong')
    yield check
  yield from check_start(config, nets, thorough)
  if workdir is not None:
    yield check_workdir(config, workdir)
  yield machine.check_devices(config)
  if thorough:
    yield machine.check_codecs()
    # Networks of another size than the files', or for other frames, would be compiled for nothing.
    if fits:
      yield from machine.check_step(config, nets, compile_step)


def check_config(config: Any) -> Check:
  """Checks the fields of a config, and each against the others."""
  from hybrid_jax.training import config_check

  def summary() -> str:
    config_check.check(config)
    model = config.model
    return (
      f'{config.stage}, images of {model.resolution} px from frames of {model.frame_size} px, '
      f'batches of {config.data.batch_size}'
    )

  return attempt('config', summary, 'wrong')


def check_data(config: Any, thorough: bool = True) -> Iterator[Check]:
  """Checks the source of clips and the face detector."""
  from hybrid_jax.media.landmarkers import open_landmarker
  from hybrid_jax.training import sources
  from hybrid_jax.training.preflight.weight_files import facts
  from hybrid_jax.weights import public

  named = attempt('data', lambda: sources.check(config.data, config.stage) or '', 'missing')
  yield named if named.blocks else attempt('data', lambda: _clips(config, thorough), 'wrong')
  path = config.data.face_detector
  detector_kind = public.detector_of(path)
  origin = public.FILES[detector_kind]
  if path and not os.path.isfile(path):
    message = f"'{path}' does not exist: {origin.what}, {origin.name} of {origin.origin}"
    message = f'{message}; `{public.command({detector_kind: path})}`; terms: {origin.terms}'
    yield Check('missing', 'data.face_detector', message)
  elif path and thorough:

    def detector() -> str:
      open_landmarker(path)  # raises where the file is no detector
      return f'{facts(path)}; terms: {origin.terms}'

    yield attempt('data.face_detector', detector, 'wrong')


def _clips(config: Any, thorough: bool) -> str:
  """Describes the source of clips; raises InputError where it cannot be used."""
  from hybrid_jax.training import sources, triplets

  data, finetune = config.data, config.stage == 'finetune'
  if data.packed:
    if not thorough:
      return data.packed
    train, held_out, _ = sources.load(data, config.model.frame_size, masks=finetune)
    return f'{data.packed}: {len(train.lengths)} packed clips, {len(held_out.lengths)} held out'
  if data.rendered_people:
    return f'{data.rendered_people} rendered people: drawn when training begins'
  sources.check_memory(data, config.model.frame_size, finetune)
  videos = triplets.find_videos(data.videos)
  size = sum(path.stat().st_size for _, path in videos)
  people = len({identity for identity, _ in videos})
  return f'{data.videos}: {len(videos)} videos of {people} people, {size / MB:.1f} MB'


def check_start(config: Any, nets: Any, thorough: bool = True) -> Iterator[Check]:
  """Checks the encoder that training starts from, if the config names one."""
  import jax

  from hybrid_jax.method import networks
  from hybrid_jax.training import checkpoint
  from hybrid_jax.training.preflight.weight_files import facts
  from hybrid_jax.weights import load

  path = config.train.init_from
  if not path:
    return
  tree = path.endswith('.npz')
  if not (os.path.isfile(path) if tree else _is_workdir(path)):
    message = f"config.train.init_from='{path}' does not exist: a workdir, or an .npz of an encoder"
    yield Check('missing', 'train.init_from', message)
    return

  def encoder() -> str:
    if tree:
      load.load_encoder(nets, path)
      return facts(path)
    shapes = jax.eval_shape(lambda key: networks.init_encoder(nets, key), jax.random.key(0))
    step, _ = checkpoint.restore_encoder(path, shapes)
    return f'{path}: encoder of step {step}'

  if thorough:
    yield attempt('train.init_from', encoder, 'wrong')


def _is_workdir(path: str) -> bool:
  from hybrid_jax.training import checkpoint

  # An object store has no folders, only names of objects.
  return media.exists(epath.Path(path) / checkpoint.CONFIG) or os.path.isdir(path)


def check_workdir(config: Any, workdir: str) -> Check:
  """Checks that the workdir can be written, and holds no other model than the config's."""
  from hybrid_jax.training import checkpoint

  def describe() -> str:
    checkpoint.check_config(workdir, config.to_dict())
    begun = epath.Path(workdir, checkpoint.CHECKPOINTS).is_dir()
    return f'{workdir}: {"resumes its run" if begun else "a new run"}'

  return attempt('workdir', describe, 'wrong')
