"""Logs of a run: CSV tables and TensorBoard, cut back to the step it resumes from."""

import csv
import os
import pathlib

import numpy as np

from hybrid_jax.media import replacing


class Table:
  """A CSV file with one row per logged step.

  Rows after step `start` are dropped, because a resumed run writes them again, and so is a last row
  that a killed run has not finished.
  """

  def __init__(self, path: pathlib.Path, start: int):
    self.path = path
    if path.exists():
      header, *rows = list(csv.reader(path.open())) or [[]]
      kept = [row for row in rows if len(row) == len(header) and int(row[0]) <= start]
      with replacing(path) as part, part.open('w', newline='') as file:
        csv.writer(file).writerows([header, *kept] if header else [])

  def write(self, step: int, named: dict[str, float]) -> None:
    """Appends a row; the first one of a file decides the columns."""
    new = not self.path.exists() or not self.path.stat().st_size
    with self.path.open('a', newline='') as file:
      table = csv.writer(file)
      if new:
        table.writerow(['step', *named])
      table.writerow([step, *(f'{value:.8g}' for value in named.values())])


class ScalarLog:
  """metrics.csv, validation.csv, and TensorBoard if TensorFlow is installed.

  Attributes:
    missing: one line that says why there is no TensorBoard log, or ''.
  """

  def __init__(self, workdir: str, stage: str, start: int):
    self.stage, self.missing, self.writer = stage, '', None
    root = pathlib.Path(workdir)
    root.mkdir(parents=True, exist_ok=True)
    self.tables = {
      '': Table(root / 'metrics.csv', start),
      'validation_': Table(root / 'validation.csv', start),
    }
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
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


def check_finite(step: int, metrics: dict[str, float]) -> None:
  """Raises FloatingPointError naming the terms that are not finite."""
  bad = sorted(name for name, value in metrics.items() if not np.isfinite(value))
  if bad:
    raise FloatingPointError(
      f'step {step}: {", ".join(bad)} not finite; the last checkpoint is kept'
    )
