"""Logs of a run: CSV tables and TensorBoard, cut back to the step it resumes from."""

import csv
import os
import pathlib
import shutil
import tempfile
import time

import jax
import numpy as np
from etils import epath

from hybrid_jax.media import is_remote, replacing

UPLOAD_SECONDS = 60  # between two uploads of a growing table


class Table:
  """A CSV file with one row per logged step.

  Rows after step `start` are dropped, because a resumed run writes them again, and so is a last row
  that a killed run has not finished. Objects of a store cannot be appended to: there the file is
  written whole, at most once in UPLOAD_SECONDS and by `flush`.
  """

  def __init__(self, path: epath.Path, start: int):
    self.path, self.remote, self.lines, self.due = path, is_remote(path), [], 0.0
    if path.exists():
      header, *rows = list(csv.reader(path.read_text().splitlines())) or [[]]
      kept = [row for row in rows if len(row) == len(header) and int(row[0]) <= start]
      self.lines = [','.join(row) for row in (header, *kept) if row]
      self._write_whole()

  def write(self, step: int, named: dict[str, float]) -> None:
    """Adds a row; the first one of a file decides the columns."""
    lines = [] if self.lines else [','.join(['step', *named])]
    lines.append(','.join([str(step), *(f'{value:.8g}' for value in named.values())]))
    self.lines += lines
    if not self.remote:
      with self.path.open('a') as file:
        file.writelines(f'{line}\n' for line in lines)
    elif time.monotonic() > self.due:
      self.flush()

  def flush(self) -> None:
    """Brings the rows to an object store; on a file system they are there."""
    if self.remote and self.lines:
      self._write_whole()
      self.due = time.monotonic() + UPLOAD_SECONDS

  def _write_whole(self) -> None:
    with replacing(self.path) as part:
      part.write_text(''.join(f'{line}\n' for line in self.lines))


class ScalarLog:
  """metrics.csv, validation.csv, and TensorBoard if TensorFlow is installed.

  Attributes:
    missing: one line that says why there is no TensorBoard log, or ''.
  """

  def __init__(self, workdir: str, stage: str, start: int):
    self.stage, self.missing, self.writer = stage, '', None
    root = epath.Path(workdir)
    root.mkdir(parents=True, exist_ok=True)
    self.tables = {
      '': Table(root / 'metrics.csv', start),
      'validation_': Table(root / 'validation.csv', start),
    }
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # else announced, whatever the log level
    try:
      import tensorflow as tf  # slow to import, and may be absent
      from clu import metric_writers

      # TensorFlow would reserve the memory of the GPU that JAX computes on.
      tf.config.set_visible_devices([], 'GPU')
      self.writer = metric_writers.SummaryWriter(workdir)
    except ImportError:
      self.missing = 'no TensorBoard log: TensorFlow or clu is not installed; see metrics.csv'

  def write(self, step: int, metrics: dict[str, float], kind: str = '') -> None:
    """Logs the terms of a step; `kind` is '' for training and 'validation_' for held-out people."""
    named = {f'{kind}{self.stage}/{name}': float(value) for name, value in sorted(metrics.items())}
    self.tables[kind].write(step, named)
    if self.writer:
      self.writer.write_scalars(step, named)

  def flush(self) -> None:
    """Brings what was logged to the workdir, to be called with each checkpoint."""
    for table in self.tables.values():
      table.flush()


class Trace:
  """A profile of some steps, written to profile/ of a workdir; `running` while it records."""

  def __init__(self, workdir: str):
    self.target, self.running = epath.Path(workdir) / 'profile', False
    self.upload = tempfile.TemporaryDirectory() if is_remote(workdir) else None

  def start(self) -> None:
    """Begins to record."""
    jax.profiler.start_trace(self.upload.name if self.upload else str(self.target))
    self.running = True

  def stop(self) -> None:
    """Ends the recording, and writes it."""
    jax.profiler.stop_trace()
    self.running = False
    if not self.upload:
      return
    # JAX writes profiles to a file system only.
    root = pathlib.Path(self.upload.name)
    for file in (path for path in root.rglob('*') if path.is_file()):
      with replacing(self.target / file.relative_to(root)) as part:
        shutil.copyfile(file, part)
    self.upload.cleanup()


def check_finite(step: int, metrics: dict[str, float]) -> None:
  """Raises FloatingPointError naming the terms that are not finite."""
  bad = sorted(name for name, value in metrics.items() if not np.isfinite(value))
  if bad:
    raise FloatingPointError(
      f'step {step}: {", ".join(bad)} not finite; the last checkpoint is kept'
    )
