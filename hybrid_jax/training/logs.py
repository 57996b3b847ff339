"""What a run logs: CSV tables and TensorBoard, cut back to the step it resumes from."""

import csv
import os
import pathlib

import numpy as np

from hybrid_jax.media import replacing


class Table:
  """A CSV file of one row per logged step."""

  def __init__(self, path: pathlib.Path, start: int):
    self.path = path
    if path.exists():
      # A resumed run drops the rows it is about to write again, and one that was cut off.
      header, *rows = list(csv.reader(path.open())) or [[]]
      kept = [row for row in rows if len(row) == len(header) and int(row[0]) <= start]
      with replacing(path) as part, part.open('w', newline='') as file:
        csv.writer(file).writerows([header, *kept] if header else [])

  def write(self, step: int, named: dict[str, float]) -> None:
    new = not self.path.exists() or not self.path.stat().st_size
    with self.path.open('a', newline='') as file:
      table = csv.writer(file)
      if new:
        table.writerow(['step', *named])
      table.writerow([step, *(f'{value:.8g}' for value in named.values())])


class ScalarLog:
  """metrics.csv, validation.csv, and TensorBoard where TensorFlow is installed."""

  def __init__(self, workdir: str, stage: str, start: int):
    self.stage = stage
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

      tf.config.set_visible_devices([], 'GPU')  # the GPU's memory is JAX's
      self.writer = metric_writers.SummaryWriter(workdir)
    except ImportError:
      print('no TensorBoard log, since TensorFlow or clu is not installed; metrics.csv has all')
      self.writer = None

  def write(self, step: int, metrics: dict[str, float], kind: str = '') -> None:
    """`kind` is '' for training and 'validation_' for held-out people."""
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
