"""Does rows one after another, and marks each: finished ones are skipped the next time."""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hybrid_jax import edits, reenact
from hybrid_jax.errors import InputError
from hybrid_jax.inference import Model
from hybrid_jax.jobs import pictures
from hybrid_jax.jobs.table import Job
from hybrid_jax.media import reason, replacing, sidecar
from hybrid_jax.quality import LowQuality

FINISHED = ('done', 'low quality')
_POINTS = 60  # of a curve in the report


def mark_of(report: pathlib.Path, number: int) -> pathlib.Path:
  return report / 'rows' / f'{number:05d}.json'


def read_mark(report: pathlib.Path, number: int) -> dict[str, Any] | None:
  """What became of a row, None where nothing has yet."""
  try:
    return json.loads(mark_of(report, number).read_bytes())
  except (FileNotFoundError, ValueError):
    return None


def key(job: Job, model: Model) -> str:
  """What a finished output depends on: its options, the weights, and the bytes of its inputs."""
  options = job.options
  files = [options.source, options.driving, options.source_landmarks, options.driving_landmarks]
  files.append(options.face_detector)
  hashes = [sidecar.sha256(name) for name in files if name and os.path.isfile(name)]
  with contextlib.suppress(InputError):  # told where the row is done
    hashes.append(edits.digest(edits.resolve(options.edit, options.directions, model)))
  return hashlib.sha256(json.dumps([repr(options), model.digests, hashes]).encode()).hexdigest()


def is_finished(job: Job, mark: dict[str, Any] | None, wanted: str) -> bool:
  """Whether a row was finished with this key, and its output is still there byte for byte."""
  if not mark or mark['status'] not in FINISHED or mark['key'] != wanted:
    return False
  return os.path.exists(job.output) and sidecar.digests(job.output) == mark['sha256']


def do(
  jobs: Sequence[Job], load: Callable[[], Model], report: pathlib.Path, say: Callable[[str], None]
) -> dict[str, int]:
  """Does rows; returns how many were 'done', 'skipped', 'low quality' and 'failed'.

  Args:
    load: gives the model, once, and only if a row is worth it.
    report: folder of the marks. say: takes lines for people.
  """
  (report / 'rows').mkdir(parents=True, exist_ok=True)
  model = load() if any(job.options for job in jobs) else None
  counts = dict.fromkeys(('done', 'skipped', 'low quality', 'failed'), 0)
  for job in jobs:
    wanted = key(job, model) if job.options else ''
    mark = read_mark(report, job.number)
    if job.options and is_finished(job, mark, wanted):
      counts['skipped'] += 1
      say(f'row {job.number}: {job.output}: finished before')
      continue
    mark = {'key': wanted, **_one(job, model, mark_of(report, job.number).with_suffix('.log'))}
    with replacing(mark_of(report, job.number)) as part:
      part.write_text(json.dumps(mark) + '\n')
    counts[mark['status']] += 1
    say(f'row {job.number}: {job.output or "?"}: {mark["error"] or mark["status"]}')
  return counts


def _one(job: Job, model: Model | None, log: pathlib.Path) -> dict[str, Any]:
  """What became of a row; its own output goes to `log`."""
  began, status, error = time.perf_counter(), 'failed', job.error
  with log.open('w') as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
    try:
      if job.options:
        reenact.reenact(model, job.options)
        status = 'done'
    except LowQuality as low:
      status, error = 'low quality', str(low)
    except (InputError, FloatingPointError) as wrong:
      error = str(wrong)
    except Exception as wrong:  # our own mistakes, and memory: neither stops the other rows
      traceback.print_exc(file=file)
      error = f'{type(wrong).__name__}: {reason(wrong)}; see {log}'
    if error:
      print(error, file=file)
  told = {
    'status': status,
    'error': error,
    'took': round(time.perf_counter() - began, 3),
    'finished': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
  }
  return told | (_facts(job.options) if status in FINISHED else {})


def _facts(options: reenact.Options) -> dict[str, Any]:
  """What the report shows of a finished output."""
  written = sidecar.read(sidecar.place(options.output))
  facts = {'sha256': written['result']['sha256'], 'figures': written['figures']}
  table = pathlib.Path(f'{options.output}.quality.csv')
  if table.is_file():
    rows = np.genfromtxt(table, delimiter=',', names=True, dtype=None, encoding=None)
    values = np.atleast_1d(rows['identity'])
    if values.dtype.kind == 'f':
      chosen = np.linspace(0, len(values) - 1, min(len(values), _POINTS)).round().astype(int)
      facts['identity'] = [round(float(v), 4) for v in values[chosen]]
  facts['strip'] = pictures.strip(options)
  return facts


def of_job(job: Job) -> dict[str, Any]:
  """A row as the table has it."""
  return {k: v for k, v in dataclasses.asdict(job).items() if k in ('source', 'driving', 'output')}
