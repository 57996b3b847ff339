"""The training loop: restore, draw, step, log, validate, show, save."""

import contextlib
import importlib.metadata
import json
import pathlib
import platform
import signal
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from hybrid_jax.errors import InputError
from hybrid_jax.media import replacing, stills
from hybrid_jax.method.networks import build, init_encoder
from hybrid_jax.training import (
  checkpoint,
  config_check,
  estimate,
  parallel,
  sources,
  steps,
  triplets,
)
from hybrid_jax.training.logs import ScalarLog, check_finite
from hybrid_jax.training.state import TrainState
from hybrid_jax.training.validation import SAMPLE_COLUMNS, make_sampler, make_validator
from hybrid_jax.weights import load

PROFILED_STEPS = 10


@contextlib.contextmanager
def stop_on_signal() -> Iterator[list[str]]:
  """A list that names the signal once SIGTERM (preemption) or SIGINT has come."""
  received: list[str] = []
  handlers = {}
  with contextlib.suppress(ValueError):  # not the main thread: signals are not ours to take
    for number in (signal.SIGTERM, signal.SIGINT):
      handlers[number] = signal.signal(
        number, lambda number, _: received.append(signal.Signals(number).name)
      )
  try:
    yield received
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)


def write_versions(workdir: str, overview: str) -> None:
  """versions.json: what the run is computed with, and the size of the encoder."""
  names = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')
  versions = {name: importlib.metadata.version(name) for name in names}
  versions |= {'python': platform.python_version(), 'device': jax.devices()[0].device_kind}
  path = pathlib.Path(workdir) / 'versions.json'
  with replacing(path) as part:
    part.write_text(json.dumps(versions | {'encoder': overview}, indent=1) + '\n')


class Best:
  """The encoder of the lowest validation loss, kept apart from the newest checkpoints."""

  def __init__(self, workdir: str, start: int):
    self.workdir = workdir
    self.step, self.value = checkpoint.read_best(workdir, start)

  def offer(self, state: TrainState, value: float) -> None:
    if value < self.value:
      self.step, self.value = int(state.step), value
      checkpoint.save_best(self.workdir, state, value)

  def waited(self, step: int, every: int) -> int:
    """Validations since the best one."""
    return (step - self.step) // every


def parameter_overview(tree: Any) -> str:
  """One line per part of the encoder: its name and number of parameters."""
  counts = {name: sum(x.size for x in jax.tree.leaves(part)) for name, part in tree.items()}
  groups: dict[str, int] = {}
  for name, count in counts.items():
    group = name.rstrip('0123456789').rstrip('_')
    groups[group] = groups.get(group, 0) + count
  return ', '.join(f'{group} {count:,}' for group, count in groups.items())


def train(config: Any, workdir: str) -> TrainState | None:
  """Runs or resumes the training of `config` in `workdir`; returns the last state.

  SIGTERM and SIGINT save and return None early; run again to go on.

  Raises:
    InputError: a bad field, missing weights or videos, or a workdir that holds another model.
    FloatingPointError: a loss term became NaN or infinite.
  """
  # --- Networks and data: everything that may be missing or wrong is looked for before any work.
  config_check.check(config)
  load.check_files(config.weights, config.model.lpips_net)
  sources.check(config.data, config.stage)
  networks = build(config.model)
  mesh = parallel.make_mesh()
  if config.data.batch_size % mesh.size:
    raise InputError(
      f'config.data.batch_size={config.data.batch_size} must be divisible by the '
      f'{mesh.size} devices'
    )
  checkpoint.check_config(workdir, config.to_dict())
  first = jax.process_index() == 0
  tell = print if first else lambda *_, **__: None
  tell(f'{mesh.size} device(s) of kind {jax.devices()[0].device_kind}')
  clips, held_out, lines = sources.load(config.data, config.model.frame_size)
  tell(*lines, sep='\n')
  batches = iter(
    triplets.triplets(
      clips,
      batch_size=config.data.batch_size,
      seed=config.data.seed,
      masks=config.stage == 'finetune',
      process=(jax.process_index(), jax.process_count()),
    )
  )
  if first:
    checkpoint.write_config(workdir, config.to_dict())

  # --- State.
  frozen, encoder = load.load(networks, config.weights, config.train.seed)
  if set(config.weights.values()) == {'random'}:
    tell('RANDOM frozen networks: this run shows the plumbing and learns nothing useful')
  if config.train.init_from.endswith('.npz'):
    encoder = load.load_encoder(networks, config.train.init_from)
    tell(f'starting from the encoder of {config.train.init_from}')
  elif config.train.init_from:
    shapes = jax.eval_shape(lambda key: init_encoder(networks, key), jax.random.key(0))
    step, encoder = checkpoint.restore_encoder(config.train.init_from, shapes)
    tell(f'starting from the encoder of {config.train.init_from} at step {step}')
  _, replicated = parallel.shardings(mesh)
  frozen, encoder = jax.device_put((frozen, encoder), replicated)
  init = jax.jit(
    lambda key, encoder: steps.init_state(networks, config, key, encoder), out_shardings=replicated
  )
  key = jax.random.key(config.train.seed)
  checkpoints = checkpoint.manager(workdir)
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated),
    jax.eval_shape(init, key, encoder),
  )
  if checkpoints.latest_step() is None:
    state = init(key, encoder)
  else:  # from shapes alone: two whole states may not fit
    state = checkpoint.restore(checkpoints, shapes, batches)
    tell(f'resumed at step {int(state.step)}')
  del encoder
  overview = parameter_overview(state.encoder['params'])
  tell(f'encoder parameters: {overview}')
  if first:
    write_versions(workdir, overview)

  # --- The step, compiled ahead: what it takes is told before it runs.
  start, total = int(state.step), config.train.num_steps
  step_fn = parallel.jit_step(steps.make_step(networks, config), mesh)
  example = jax.eval_shape(
    lambda: {
      name: jax.numpy.zeros((config.data.batch_size, *shape), 'uint8')
      for name, shape in triplets.shapes(
        config.model.frame_size, config.stage == 'finetune'
      ).items()
    }
  )
  tell('compiling the training step', flush=True)
  step_fn = step_fn.lower(shapes, frozen, example).compile()
  tell(estimate.describe(step_fn, total - start))

  # --- Loop. Metrics are read only where they are logged or saved: reading waits for the device.
  put = lambda batch: parallel.put_batch(batch, mesh)  # noqa: E731
  sampler = make_sampler(networks, replicated)
  validate = make_validator(networks, config, held_out, put) if held_out else None
  scalars = ScalarLog(workdir, config.stage, start) if first else None
  best = Best(workdir, start)
  last_time, last_step, tracing = time.monotonic(), start, False
  progress = tqdm(
    range(start, total),
    initial=start,
    total=total,
    desc=config.stage,
    unit='step',
    disable=not first,
  )
  with stop_on_signal() as stopped:
    for step in progress:
      if config.train.profile_from and step == max(config.train.profile_from, start):
        jax.profiler.start_trace(str(pathlib.Path(workdir) / 'profile'))
        tracing = True
      batch = put(next(batches))
      state, metrics = step_fn(state, frozen, batch)
      done = step + 1
      stopping = bool(stopped)  # read once: the signal may come at any time
      last = done == total or stopping
      due = lambda every: done % every == 0 or done == total  # noqa: B023, E731
      if tracing and (done == config.train.profile_from + PROFILED_STEPS or last):
        jax.block_until_ready(metrics)
        jax.profiler.stop_trace()
        tracing = False
      log, save = due(config.train.log_steps), due(config.train.checkpoint_steps) or last
      if log or save:
        metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
        check_finite(done, metrics)  # before saving, so that the last checkpoint is a good one
      validated = {}
      if validate and due(config.train.val_steps):
        validated = validate(state, frozen)
        check_finite(done, {f'validation {name}': value for name, value in validated.items()})
        best.offer(state, validated['total'])
      if first and log:
        now = time.monotonic()
        metrics['steps_per_second'] = (done - last_step) / (now - last_time)
        last_time, last_step = now, done
        scalars.write(done, metrics)
        progress.set_postfix(total=f'{metrics["total"]:.4f}')
      if first and validated:
        scalars.write(done, validated, 'validation_')
      if due(config.train.sample_steps):
        rows = steps.active_rows(state.step, config.progressive, networks.hybrid.encoder.num_ws)
        images = np.asarray(sampler(state.encoder, frozen, batch, rows))
        path = pathlib.Path(workdir) / 'samples' / f'{done:07d}.png'
        if first:
          path.parent.mkdir(exist_ok=True)
          stills.write_image(path, stills.grid([list(row) for row in images]))
      if save:
        # Before the next batch is drawn, so that the saved iterator is exactly at this step.
        checkpoint.save(checkpoints, state, batches)
      if stopping:
        checkpoints.wait_until_finished()
        tell(f'\n{stopped[0]}: saved at step {done}; run the same command to go on')
        return None
      patience = config.train.patience
      if patience and validated and best.waited(done, config.train.val_steps) >= patience:
        checkpoint.save(checkpoints, state, batches)
        tell(f'\nstopped at step {done}: no better validation since step {best.step}')
        break
  checkpoints.wait_until_finished()
  if held_out:
    tell(f'best validation {best.value:.4f} at step {best.step}')
  tell(f'done: {workdir}; the columns of samples/ are {SAMPLE_COLUMNS}')
  return state
