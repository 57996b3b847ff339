"""Every Orbax call of training: its state and the data iterator, saved and restored together.

A workdir holds config.json, checkpoints/STEP (the newest few), best/STEP and best.json. The encoder
is an item of its own in every checkpoint, so that inference reads it without the optimiser.
"""

import contextlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from etils import epath

from hybrid_jax import media
from hybrid_jax.errors import InputError
from hybrid_jax.media import framing, replacing

CONFIG, CHECKPOINTS, BEST = 'config.json', 'checkpoints', 'best'
SECTIONS = ('model', 'weights', 'data', 'progressive', 'train')  # of every config of this project
# Fields of `model` that change the computation but no array of the state: a run may resume with
# other values.
RUNTIME = {'polyphase_from', 'half_dtype', 'half_from', 'remat_from'}


def manager(workdir: str, keep: int = 3) -> ocp.CheckpointManager:
  """Returns the checkpoint manager of a workdir, which keeps the newest `keep`."""
  path = _root(workdir) / CHECKPOINTS
  options = ocp.CheckpointManagerOptions(max_to_keep=keep)
  return ocp.CheckpointManager(path, options=options)


def _root(workdir: str) -> epath.Path:
  """Returns an absolute path: Orbax refuses others."""
  path = epath.Path(workdir)
  return path if media.is_remote(path) else path.absolute()


def save(checkpoints: ocp.CheckpointManager, state: Any, iterator: Any) -> None:
  """Saves asynchronously, under the step of `state`.

  `iterator` must not have drawn the batch of the next step, or a resumed run would skip it.
  """
  step = int(state.step)
  if step in checkpoints.all_steps():
    return
  checkpoints.save(
    step,
    args=ocp.args.Composite(
      encoder=ocp.args.StandardSave(state.encoder),
      state=ocp.args.StandardSave(state.replace(encoder=None)),
      data=grain.checkpoint.CheckpointSave(iterator),
    ),
  )


def restore(checkpoints: ocp.CheckpointManager, state: Any, iterator: Any) -> Any:
  """Returns the newest saved state, and moves `iterator` to its place.

  `state` gives shapes and shardings, as arrays or as jax.ShapeDtypeStruct, with a typed PRNG key.
  They may be of other devices, and of more or fewer, than those that the state was saved from.

  Raises:
    InputError: the checkpoint holds other shapes, or is damaged.
  """
  abstract, step = jax.tree.map(ocp.utils.to_shape_dtype_struct, state), checkpoints.latest_step()
  restored = _restore(
    checkpoints,
    step,
    encoder=ocp.args.StandardRestore(abstract.encoder),
    state=ocp.args.StandardRestore(abstract.replace(encoder=None)),
  )
  path = checkpoints.directory / str(step) / 'data'
  with _damage_named(path.parent):
    # All processes are at the same place, so that a run may go on with more or fewer of them.
    (place,) = path.glob('process_0-of-*.json')
    iterator.set_state(place.read_bytes())
  return restored['state'].replace(encoder=restored['encoder'])


def save_best(workdir: str, state: Any, value: float) -> None:
  """Saves the encoder of `state` as the best so far, with its validation loss `value`."""
  root = _root(workdir)
  options = ocp.CheckpointManagerOptions(max_to_keep=1)
  with ocp.CheckpointManager(root / BEST, options=options) as kept:
    step = int(state.step)
    if step not in kept.all_steps():  # a killed run repeats the steps after its last checkpoint
      kept.save(step, args=ocp.args.Composite(encoder=ocp.args.StandardSave(state.encoder)))
  if jax.process_index() == 0:
    with replacing(root / f'{BEST}.json') as part:
      part.write_text(json.dumps({'step': step, 'value': value}) + '\n')


def read_best(workdir: str, start: int) -> tuple[int, float]:
  """Returns (step, validation loss) of the best encoder so far, or (start, inf)."""
  try:
    best = json.loads((epath.Path(workdir) / f'{BEST}.json').read_text())
    return int(best['step']), float(best['value'])
  except (OSError, ValueError, KeyError):
    return start, float('inf')


def restore_encoder(workdir: str, encoder: Any, folder: str = CHECKPOINTS) -> tuple[int, Mapping]:
  """Returns (step, encoder) of the newest checkpoint, on JAX's default device; writes nothing.

  `encoder` gives the shapes; `folder` is CHECKPOINTS, or BEST for the best validation loss. Of
  several processes each reads for itself, whether the others do or not.

  Raises:
    InputError: the workdir holds no checkpoint, one of other shapes, or a damaged one.
  """
  path = _root(workdir) / folder
  process = jax.process_index()
  alone = ocp.options.MultiprocessingOptions(
    primary_host=process, active_processes={process}, barrier_sync_key_prefix=f'reader{process}'
  )
  options = ocp.CheckpointManagerOptions(read_only=True, multiprocessing_options=alone)
  with ocp.CheckpointManager(path, options=options) as checkpoints:
    step = checkpoints.latest_step()
    if step is None:
      raise InputError(f'{workdir}: no checkpoint in it; train first with --workdir={workdir}')
    # Without a sharding Orbax asks for the devices it was saved from, which may not exist here.
    # On the default one, which a process of `jobs` chooses: arrays on two devices would not meet.
    chosen = jax.config.jax_default_device or jax.local_devices()[0]
    device = jax.sharding.SingleDeviceSharding(chosen)
    abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), dict(encoder)
    )
    restored = _restore(checkpoints, step, encoder=ocp.args.StandardRestore(abstract))
    return step, restored['encoder']


def _restore(checkpoints: ocp.CheckpointManager, step: int, **items: Any) -> Mapping:
  path = checkpoints.directory / str(step)
  with _damage_named(path):
    for name, args in items.items():
      _check_shapes(path / name, args.item)
    return checkpoints.restore(step, args=ocp.args.Composite(**items))


@contextlib.contextmanager
def _damage_named(path: epath.Path) -> Iterator[None]:
  """Turns what Orbax and JSON raise for damaged files into InputError."""
  try:
    yield
  except (ValueError, KeyError, OSError) as error:  # Orbax has no error class for these
    why = ' '.join(str(error).split())[:200]
    raise InputError(
      f'{path}: not a checkpoint of this config, or damaged ({why}); take the config of that run, '
      'or another --workdir'
    ) from error


def _check_shapes(path: Any, abstract: Any) -> None:
  """Raises ValueError at the first array saved with another shape.

  Orbax finds it too, but leaves unfinished reads behind, whose tracebacks the user would see.
  """

  def named(tree):
    return {
      jax.tree_util.keystr(key, simple=True, separator='.'): x
      for key, x in jax.tree_util.tree_leaves_with_path(tree)
    }

  saved = named(ocp.PyTreeCheckpointHandler().metadata(path).tree)
  for key, x in named(abstract).items():
    is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)  # saved as its words
    if key in saved and saved[key].shape != x.shape and not is_key:
      raise ValueError(f'{key} is {saved[key].shape}, not {x.shape}')


# --- The config of a workdir ---------------------------------------------------------------------


def check_config(workdir: str, config: Mapping) -> None:
  """Compares the resolved config with the config.json of the workdir; writes nothing.

  Raises:
    InputError: the workdir cannot be used, or holds a run of another model or with other weights.
  """
  if not _has_config(workdir):
    return
  before, config = read_config(workdir), json.loads(json.dumps(config))  # tuples to lists, as read
  model = _changes(before['model'], config['model'], RUNTIME)
  if model:
    raise InputError(
      f'{workdir} holds checkpoints of another model ({model}); take another --workdir or the '
      'config of that run'
    )
  weights = _changes(before['weights'], config['weights'])
  seeds = [{'train.seed': c['train'].get('seed')} for c in (before, config)]
  if not weights and set(config['weights'].values()) == {'random'}:
    weights = _changes(*seeds)  # random frozen networks are drawn from the seed
  if weights:
    raise InputError(
      f'{workdir} was trained with other weights ({weights}); take another --workdir or the '
      'weights of that run'
    )
  framings = [{'data.framing': framing.of_data(c['data'])} for c in (before, config)]
  changed = _changes(*framings)
  if changed and all(f['data.framing'] for f in framings):  # both cut heads out of videos
    raise InputError(
      f'{workdir} was trained on crops of another framing ({changed}); take another --workdir or '
      'the framing of that run'
    )


def _has_config(workdir: str) -> bool:
  """Whether a workdir has a config.json; raises InputError where it could not be written."""
  path = _root(workdir)
  if media.is_remote(workdir):
    return media.exists(path / CONFIG)
  exists = next(p for p in (path, *path.parents) if os.path.lexists(p))
  if not exists.is_dir():
    raise InputError(f'--workdir={workdir}: {exists} is not a folder; take another --workdir')
  if not os.access(exists, os.W_OK | os.X_OK):
    raise InputError(f'--workdir={workdir}: no permission to write in {exists}; take another one')
  return (path / CONFIG).exists()


def _changes(before: Mapping, now: Mapping, ignored: Collection[str] = ()) -> str:
  keys = [key for key in {**now, **before} if key not in ignored]
  return '; '.join(
    f'{key} {before.get(key)} -> {now.get(key)}' for key in keys if before.get(key) != now.get(key)
  )


def write_config(workdir: str, config: Mapping) -> None:
  """Writes the resolved config, whole or not at all. Call `check_config` first.

  Raises:
    InputError: the workdir cannot be written.
  """
  path = epath.Path(workdir) / CONFIG
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
      part.write_text(json.dumps(config, indent=2) + '\n')
  except OSError as error:
    raise InputError(
      f'--workdir={workdir}: {path} cannot be written ({error.strerror or error}); take another one'
    ) from error


def read_config(workdir: str) -> dict:
  """Returns the resolved config of a workdir.

  Raises:
    InputError: nothing was trained there, or its config.json is damaged or of another project.
  """
  path = epath.Path(workdir) / CONFIG
  try:
    config = json.loads(path.read_text())
  except (FileNotFoundError, NotADirectoryError):
    raise InputError(f'{workdir}: no {CONFIG} in it, so nothing was trained there') from None
  except OSError as error:
    raise InputError(f'{path}: cannot be read ({error.strerror or error})') from error
  except ValueError as error:  # no JSON, or no UTF-8
    raise InputError(
      f'{path}: truncated or damaged ({error}); take another --workdir, or put back the file'
    ) from error
  sections = config if isinstance(config, dict) else {}
  missing = [name for name in SECTIONS if not isinstance(sections.get(name), dict)]
  if missing:
    raise InputError(
      f"{path}: not a config of hybrid_jax, no '{missing[0]}' section; take another --workdir"
    )
  return config
