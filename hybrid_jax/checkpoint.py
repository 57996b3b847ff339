"""Every Orbax call: the training state and the data iterator, saved and restored together."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp

from hybrid_jax.errors import InputError

CONFIG = 'config.json'


def manager(workdir: str, keep: int = 3) -> ocp.CheckpointManager:
  """The checkpoints of a workdir, newest `keep` of them."""
  path = pathlib.Path(workdir).absolute() / 'checkpoints'
  options = ocp.CheckpointManagerOptions(max_to_keep=keep)
  return ocp.CheckpointManager(path, options=options)


def save(checkpoints: ocp.CheckpointManager, state: Any, iterator: Any) -> None:
  """Saves asynchronously under the state's step, which the iterator must not be ahead of."""
  step = int(state.step)
  if step in checkpoints.all_steps():
    return
  checkpoints.save(
    step,
    args=ocp.args.Composite(
      encoder=ocp.args.StandardSave(state.encoder),  # apart, so that inference reads it alone
      state=ocp.args.StandardSave(state.replace(encoder=None)),
      data=grain.checkpoint.CheckpointSave(iterator),
    ),
  )


def restore(checkpoints: ocp.CheckpointManager, state: Any, iterator: Any) -> Any:
  """The newest saved state with `state`'s shapes and shardings; moves `iterator` to its place."""
  abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
  restored = checkpoints.restore(
    checkpoints.latest_step(),
    args=ocp.args.Composite(
      encoder=ocp.args.StandardRestore(abstract.encoder),
      state=ocp.args.StandardRestore(abstract.replace(encoder=None)),
      data=grain.checkpoint.CheckpointRestore(iterator),
    ),
  )
  return restored['state'].replace(encoder=restored['encoder'])


def restore_encoder(workdir: str, encoder: Any) -> Mapping:
  """The newest encoder alone, with the shapes of `encoder`, on this machine's first device.

  Raises:
    InputError: the workdir holds no checkpoint.
  """
  checkpoints = manager(workdir)
  step = checkpoints.latest_step()
  if step is None:
    raise InputError(f'{workdir}: no checkpoint in it; train first with --workdir={workdir}')
  # Named here, since the devices it was saved from may not exist on this machine.
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), dict(encoder)
  )
  args = ocp.args.Composite(encoder=ocp.args.StandardRestore(abstract))
  return checkpoints.restore(step, args=args)['encoder']


def write_config(workdir: str, config: Mapping) -> None:
  """Writes the resolved config, or compares it with the one that the workdir was begun with.

  Raises:
    InputError: the workdir holds another model; its checkpoints would not fit.
  """
  path = pathlib.Path(workdir) / CONFIG
  config = json.loads(json.dumps(config))  # tuples become lists, as they will when read again
  if path.exists():
    before = json.loads(path.read_text())
    changed = [
      f'{key} {before["model"].get(key)} -> {value}'
      for key, value in config['model'].items()
      if before['model'].get(key) != value
    ]
    if changed:
      raise InputError(
        f'{workdir} holds checkpoints of another model ({"; ".join(changed)}); take another '
        '--workdir or the config of that run'
      )
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_suffix('.tmp')
  temporary.write_text(json.dumps(config, indent=2) + '\n')
  temporary.rename(path)


def read_config(workdir: str) -> dict:
  """The resolved config of a workdir.

  Raises:
    InputError: nothing was trained there.
  """
  path = pathlib.Path(workdir) / CONFIG
  if not path.exists():
    raise InputError(f'{workdir}: no {CONFIG} in it, so nothing was trained there')
  return json.loads(path.read_text())
