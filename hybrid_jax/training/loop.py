"""The training loop: restore, draw, step, log, validate, show, save."""

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from hybrid_jax import environment
from hybrid_jax.media import replacing, stills
from hybrid_jax.method.networks import Networks, build, init_encoder
from hybrid_jax.progress import Progress, silent
from hybrid_jax.training import (
  checkpoint,
  estimate,
  parallel,
  preflight,
  sources,
  steps,
  triplets,
)
from hybrid_jax.training.logs import ScalarLog, Trace, check_finite
from hybrid_jax.training.state import TrainState
from hybrid_jax.training.validation import SAMPLE_COLUMNS, make_sampler, make_validator
from hybrid_jax.weights import load

PROFILED_STEPS = 10

Report = Callable[[str], None]


def ignore(line: str) -> None:
  """A `Report` that drops the line."""


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Callable[[int], str]]:
  """Yields stopped(step): the signal's name once SIGTERM (preemption) or SIGINT has come, or ''.

  Of several processes one gets the signal, and all stop at the same step, the next that none has
  passed: `stopped` must be called in each step. JAX handles SIGTERM then, and spreads it.
  """
  received: list[str] = []
  handlers, several = {}, jax.process_count() > 1

  def handle(number, _):
    if several:
      signal.raise_signal(signal.SIGTERM)
    received.append(signal.Signals(number).name)

  def stopped(step: int) -> str:
    if several:
      return 'SIGTERM' if multihost_utils.reached_preemption_sync_point(step) else ''
    return received[0] if received else ''

  with contextlib.suppress(ValueError):  # Python allows handlers in the main thread only
    for number in (signal.SIGINT,) if several else (signal.SIGTERM, signal.SIGINT):
      handlers[number] = signal.signal(number, handle)
  try:
    yield stopped
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)


def write_versions(workdir: str, overview: str) -> None:
  """Writes versions.json: libraries, commit and device of the run, and the size of the encoder."""
  about = environment.versions() | {
    'commit': environment.commit(),
    'device': environment.device(),
    'encoder': overview,
  }
  with replacing(epath.Path(workdir) / 'versions.json') as part:
    part.write_text(json.dumps(about, indent=1) + '\n')


class Best:
  """The encoder of the lowest validation loss, kept apart from the newest checkpoints."""

  def __init__(self, workdir: str, start: int):
    self.workdir = workdir
    self.step, self.value = checkpoint.read_best(workdir, start)

  def offer(self, state: TrainState, value: float) -> None:
    """Saves the encoder of `state` if its validation loss `value` is the lowest so far."""
    if value < self.value:
      self.step, self.value = int(state.step), value
      checkpoint.save_best(self.workdir, state, value)

  def waited(self, step: int, every: int) -> int:
    """Returns the number of validations since the best one."""
    return (step - self.step) // every


def parameter_overview(tree: Any) -> str:
  """Returns one line with the name and number of parameters of each part of the encoder."""
  counts = {name: sum(x.size for x in jax.tree.leaves(part)) for name, part in tree.items()}
  groups: dict[str, int] = {}
  for name, count in counts.items():
    group = name.rstrip('0123456789').rstrip('_')
    groups[group] = groups.get(group, 0) + count
  return ', '.join(f'{group} {count:,}' for group, count in groups.items())


def load_start(networks: Networks, config: Any, report: Report) -> tuple[Any, Any]:
  """Returns (frozen, encoder to start from); the encoder is None where it is drawn at random."""
  frozen, encoder = load.load(networks, config.weights, config.train.seed)
  if set(config.weights.values()) == {'random'}:
    report('RANDOM frozen networks: this run shows the plumbing and learns nothing useful')
  path = config.train.init_from
  if path.endswith('.npz'):
    encoder = load.load_encoder(networks, path)
    report(f'starting from the encoder of {path}')
  elif path:
    shapes = jax.eval_shape(lambda key: init_encoder(networks, key), jax.random.key(0))
    step, encoder = checkpoint.restore_encoder(path, shapes)
    report(f'starting from the encoder of {path} at step {step}')
  return frozen, encoder


def train(
  config: Any, workdir: str, *, report: Report = ignore, progress: Progress = silent
) -> TrainState | None:
  """Runs or resumes the training of `config` in `workdir`; returns the last state.

  SIGTERM and SIGINT save and return None early; the same call resumes.

  Args:
    config: with the fields of configs/common.py, as attributes.
    workdir: folder of the run, created if need be.
    report: gets one line at a time, e.g. `print`; in the first of several processes only.
    progress: shows clips that are read and steps that are done, likewise.

  Raises:
    InputError: a bad field, missing weights or videos, or a workdir that holds another model.
    FloatingPointError: a loss term became NaN or infinite.
  """
  # --- Data. What is missing or wrong is found before any work.
  preflight.require(config, workdir)
  first = jax.process_index() == 0
  if not first:
    report, progress = ignore, silent
  networks, mesh = build(config.model), parallel.make_mesh()
  report(f'{mesh.size} device(s) of kind {jax.devices()[0].device_kind}')
  finetune = config.stage == 'finetune'
  clips, held_out, lines = sources.load(
    config.data, config.model.frame_size, progress, masks=finetune
  )
  for line in lines:
    report(line)
  batches = iter(
    triplets.triplets(
      clips,
      batch_size=config.data.batch_size,
      seed=config.data.seed,
      masks=finetune,
      flip=config.data.flip,
      process=(jax.process_index(), jax.process_count()),
      workers=config.data.workers,
    )
  )
  if first:
    checkpoint.write_config(workdir, config.to_dict())

  # --- State.
  frozen, encoder = load_start(networks, config, report)
  frozen, encoder = parallel.put_whole((frozen, encoder), mesh)

  def init(key, encoder):
    return steps.init_state(networks, config, key, encoder)

  key = jax.random.key(config.train.seed)
  checkpoints = checkpoint.manager(workdir)
  shapes = parallel.sharded(jax.eval_shape(init, key, encoder), mesh)
  if checkpoints.latest_step() is None:
    state = jax.jit(init, out_shardings=parallel.of(shapes))(key, encoder)
  else:  # from shapes alone: two whole states may not fit
    state = checkpoint.restore(checkpoints, shapes, batches)
    report(f'resumed at step {int(state.step)}')
  del encoder  # the state holds it: free the memory of a second one
  overview = parameter_overview(state.encoder['params'])
  report(f'encoder parameters: {overview}')
  if first:
    write_versions(workdir, overview)

  # --- The step, compiled ahead, so that its memory and time are reported before it runs.
  start, total = int(state.step), config.train.num_steps
  sizes = triplets.shapes(config.model.frame_size, finetune)
  example = {
    name: jax.ShapeDtypeStruct((config.data.batch_size, *size), 'uint8')
    for name, size in sizes.items()
  }
  report('compiling the training step')
  step_fn = parallel.jit_step(steps.make_step(networks, config, mesh), shapes, mesh)
  step_fn = step_fn.lower(shapes, frozen, example).compile()
  parallel.wait_for_all('compiled')
  report(estimate.describe(step_fn, total - start))

  # --- Loop. Metrics are read only where they are logged or saved: reading waits for the device.
  def put(batch):
    return parallel.put_batch(batch, mesh)

  def due(every):
    return done % every == 0 or done == total

  sampler = make_sampler(networks, mesh)
  validate = make_validator(networks, config, held_out, mesh) if held_out else None
  scalars = ScalarLog(workdir, config.stage, start) if first else None
  if scalars and scalars.missing:
    report(scalars.missing)
  best = Best(workdir, start)
  trace, last_time, last_step, caption = Trace(workdir), time.monotonic(), start, config.stage
  remaining = progress(range(start, total), lambda: caption, total)
  with stop_on_signal() as stopped, contextlib.closing(batches):
    for step in remaining:
      if config.train.profile_from and step == max(config.train.profile_from, start):
        trace.start()
      batch = put(next(batches))
      state, metrics = step_fn(state, frozen, batch)
      done = step + 1
      stopping = stopped(done)  # read once: the signal may come at any time
      last = done == total or bool(stopping)
      if trace.running and (done == config.train.profile_from + PROFILED_STEPS or last):
        jax.block_until_ready(metrics)
        trace.stop()
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
        caption = f'{config.stage}, loss {metrics["total"]:.4f}'
      if first and validated:
        scalars.write(done, validated, 'validation_')
      if due(config.train.sample_steps):
        rows = steps.active_rows(state.step, config.progressive, networks.hybrid.encoder.num_ws)
        # Every process computes the grid, since its arrays live on the devices of all.
        images = np.asarray(sampler(state.encoder, frozen, batch, rows))
        path = epath.Path(workdir) / 'samples' / f'{done:07d}.png'
        if first:
          path.parent.mkdir(parents=True, exist_ok=True)
          stills.write_image(path, stills.grid([list(row) for row in images]))
      if save:
        # Before the next batch is drawn, so that the saved iterator is exactly at this step.
        checkpoint.save(checkpoints, state, batches)
        if first:
          scalars.flush()
      if stopping:
        checkpoints.wait_until_finished()
        report(f'{stopping}: saved at step {done}; run the same command to resume')
        return None
      patience = config.train.patience
      if patience and validated and best.waited(done, config.train.val_steps) >= patience:
        checkpoint.save(checkpoints, state, batches)
        if first:
          scalars.flush()
        report(f'stopped at step {done}: no better validation since step {best.step}')
        break
  checkpoints.wait_until_finished()
  if held_out:
    report(f'best validation {best.value:.4f} at step {best.step}')
  report(f'done: {workdir}; the columns of samples/ are {SAMPLE_COLUMNS}')
  return state
