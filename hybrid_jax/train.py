"""The training loop: restore, draw, step, log, show, save."""

import csv
import os
import pathlib
import time
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from hybrid_jax import checkpoint, config_check, parallel, steps, triplets
from hybrid_jax.errors import InputError
from hybrid_jax.media import replacing, stills
from hybrid_jax.models.ops import adaptive_avg_pool, from_uint8, to_uint8
from hybrid_jax.networks import Networks, build
from hybrid_jax.state import TrainState
from hybrid_jax.weights import load

SAMPLE_COLUMNS = 'source, driver, self-reconstruction, re-enactment, anchor, cross re-enactment'


class ScalarLog:
  """metrics.csv, and TensorBoard where TensorFlow is installed."""

  def __init__(self, workdir: str, stage: str, start: int):
    self.stage = stage
    self.path = pathlib.Path(workdir) / 'metrics.csv'
    self.path.parent.mkdir(parents=True, exist_ok=True)
    if self.path.exists():
      # A resumed run drops the rows it is about to write again, and one that was cut off.
      header, *rows = list(csv.reader(self.path.open())) or [[]]
      kept = [row for row in rows if len(row) == len(header) and int(row[0]) <= start]
      with replacing(self.path) as part, part.open('w', newline='') as file:
        csv.writer(file).writerows([header, *kept] if header else [])
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    try:
      import tensorflow as tf  # slow to import, and may be absent
      from clu import metric_writers

      tf.config.set_visible_devices([], 'GPU')  # the GPU's memory is JAX's
      self.writer = metric_writers.SummaryWriter(workdir)
    except ImportError:
      print('no TensorBoard log, since TensorFlow or clu is not installed; metrics.csv has all')
      self.writer = None

  def write(self, step: int, metrics: dict[str, float]) -> None:
    named = {f'{self.stage}/{name}': float(value) for name, value in sorted(metrics.items())}
    new = not self.path.exists() or not self.path.stat().st_size
    with self.path.open('a', newline='') as file:
      table = csv.writer(file)
      if new:
        table.writerow(['step', *named])
      table.writerow([step, *(f'{value:.8g}' for value in named.values())])
    if self.writer:
      self.writer.write_scalars(step, named)


def check_finite(step: int, metrics: dict[str, float]) -> None:
  """Raises FloatingPointError naming the terms that are not finite."""
  bad = sorted(name for name, value in metrics.items() if not np.isfinite(value))
  if bad:
    raise FloatingPointError(
      f'step {step}: {", ".join(bad)} not finite; the last checkpoint is kept'
    )


def make_sampler(networks: Networks) -> Any:
  """(encoder, frozen, batch, active rows) -> the columns of the sample grid, uint8 (n, 6, r, r, 3).

  At most four rows, r no more than the frames' size: pictures to look at, also of a 1024 px model.
  """
  hybrid = networks.hybrid

  @jax.jit
  def sample(E, frozen, batch, rows):
    G = frozen['generator']
    S, D, D_other = (from_uint8(batch[role][:4]) for role in ('source', 'driving', 'other'))
    W_S, F_S = hybrid.encode(E, G, S, rows)
    F_D, F_other = hybrid.deformation(E, D), hybrid.deformation(E, D_other)
    decoded = [hybrid.reenact(G, W_S, F) for F in (F_S, F_D, None, F_other)]
    size = min(S.shape[1], decoded[0].shape[1])
    images = [adaptive_avg_pool(x, size) for x in (S, D, *decoded)]
    return to_uint8(jax.numpy.stack(images, axis=1))  # n 6 h w c

  return sample


def parameter_overview(tree: Any) -> str:
  """One line per part of the encoder: its name and number of parameters."""
  counts = {name: sum(x.size for x in jax.tree.leaves(part)) for name, part in tree.items()}
  groups: dict[str, int] = {}
  for name, count in counts.items():
    group = name.rstrip('0123456789').rstrip('_')
    groups[group] = groups.get(group, 0) + count
  return ', '.join(f'{group} {count:,}' for group, count in groups.items())


def train(config: Any, workdir: str) -> TrainState:
  """Runs or resumes the training of `config` in `workdir`; returns the last state.

  Raises:
    InputError: a bad field, missing weights or videos, or a workdir that holds another model.
    FloatingPointError: a loss term became NaN or infinite.
  """
  # --- Networks and data: everything that may be missing or wrong is looked for before any work.
  config_check.check(config)
  load.check_files(config.weights)
  videos = triplets.find_videos(config.data.videos)
  networks = build(config.model)
  mesh = parallel.make_mesh()
  if config.data.batch_size % mesh.size:
    raise InputError(
      f'config.data.batch_size={config.data.batch_size} must be divisible by the '
      f'{mesh.size} devices'
    )
  checkpoint.check_config(workdir, config.to_dict())
  kind = jax.devices()[0].device_kind
  print(f'{len(videos)} videos, {mesh.size} device(s) of kind {kind}')
  clips, skipped = triplets.read_folder(
    config.data.videos,
    size=config.model.frame_size,
    frames_per_clip=config.data.frames_per_clip,
    face_detector=config.data.face_detector,
    crop_scale=config.data.crop_scale,
  )
  for line in skipped:
    print(line)
  people = {clip.identity for clip in clips}
  print(f'{len(clips)} of {len(videos)} clips used, {len(people)} identities')
  checkpoint.write_config(workdir, config.to_dict())
  batches = iter(triplets.triplets(clips, batch_size=config.data.batch_size, seed=config.data.seed))

  # --- State.
  frozen, encoder = load.load(networks, config.weights, config.train.seed)
  if encoder is None:
    print('RANDOM frozen networks: this run shows the plumbing and learns nothing useful')
  _, replicated = parallel.shardings(mesh)
  frozen = jax.device_put(frozen, replicated)
  init = jax.jit(
    lambda key, encoder: steps.init_state(networks, config, key, encoder), out_shardings=replicated
  )
  key = jax.random.key(config.train.seed)
  checkpoints = checkpoint.manager(workdir)
  if checkpoints.latest_step() is None:
    state = init(key, encoder)
  else:  # from shapes alone: two whole states may not fit
    shapes = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated),
      jax.eval_shape(init, key, encoder),
    )
    state = checkpoint.restore(checkpoints, shapes, batches)
    print(f'resumed at step {int(state.step)}')
  del encoder
  print(f'encoder parameters: {parameter_overview(state.encoder["params"])}')

  # --- Loop. Metrics are read only where they are logged or saved: reading waits for the device.
  step_fn = parallel.jit_step(steps.make_pretrain_step(networks, config), mesh)
  sampler = make_sampler(networks)
  start = int(state.step)
  scalars = ScalarLog(workdir, config.stage, start)
  last_time, last_step = time.monotonic(), start
  progress = tqdm(
    range(start, config.train.num_steps),
    initial=start,
    total=config.train.num_steps,
    desc=config.stage,
    unit='step',
  )
  for step in progress:
    batch = parallel.put_batch(next(batches), mesh)
    state, metrics = step_fn(state, frozen, batch)
    done = step + 1
    due = lambda every: done % every == 0 or done == config.train.num_steps  # noqa: B023, E731
    log, save = due(config.train.log_steps), due(config.train.checkpoint_steps)
    if log or save:
      metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
      check_finite(done, metrics)  # before saving, so that the last checkpoint is a good one
    if log:
      now = time.monotonic()
      metrics['steps_per_second'] = (done - last_step) / (now - last_time)
      last_time, last_step = now, done
      scalars.write(done, metrics)
      progress.set_postfix(total=f'{metrics["total"]:.4f}')
    if due(config.train.sample_steps):
      rows = steps.active_rows(state.step, config.progressive, networks.hybrid.encoder.num_ws)
      images = np.asarray(sampler(state.encoder, frozen, batch, rows))
      path = pathlib.Path(workdir) / 'samples' / f'{done:07d}.png'
      path.parent.mkdir(exist_ok=True)
      stills.write_image(path, stills.grid([list(row) for row in images]))
    if save:
      # Before the next batch is drawn, so that the saved iterator is exactly at this step.
      checkpoint.save(checkpoints, state, batches)
  checkpoints.wait_until_finished()
  print(f'done: {workdir}; the columns of samples/ are {SAMPLE_COLUMNS}')
  return state
