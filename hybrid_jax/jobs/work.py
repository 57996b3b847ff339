"""Runs the rows of a table one after another, and marks each, so that finished rows are skipped.

A mark is a small JSON file of a row's outcome. Marks are the only state that processes share.
"""

import dataclasses
import datetime
import fcntl
import hashlib
import json
import os
import pathlib
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hybrid_jax import environment
from hybrid_jax.errors import InputError
from hybrid_jax.jobs import pictures
from hybrid_jax.jobs.table import Job
from hybrid_jax.media import reason, replacing
from hybrid_jax.provenance import sidecar
from hybrid_jax.reenactment import edits, run
from hybrid_jax.reenactment.model import Model
from hybrid_jax.reenactment.options import Options

FINISHED = ('done', 'low quality')
_POINTS = 60  # of a curve in the report, which is 120 px wide


def mark_of(report: pathlib.Path, job: Job) -> pathlib.Path:
  """The file of a row's outcome, named by the row's content and not by its number."""
  # By content: rows keep their marks when others are inserted before them. The output's name is for
  # people, and cut to keep the whole name below the 255 bytes of file systems.
  asked = hashlib.sha256(repr(dataclasses.replace(job, number=0)).encode()).hexdigest()
  return report / 'rows' / f'{pathlib.Path(job.output).name[:60]}-{asked[:12]}.json'


def read_mark(report: pathlib.Path, job: Job) -> dict[str, Any] | None:
  """The outcome of a row; None before it has one, or if its output is missing."""
  try:
    mark = json.loads(mark_of(report, job).read_bytes())
  except (FileNotFoundError, ValueError):
    return None
  return None if mark['status'] in FINISHED and not os.path.exists(job.output) else mark


def key(checked: run.Job) -> str:
  """SHA-256 of everything that an output depends on: options, weights, and bytes of the files."""
  # Like a build system: the output is made again if anything that it was made from has changed,
  # also under the same name.
  options = checked.options
  signing = [p for p in (options.certificate, options.key) if os.path.isfile(p)]
  hashes = [*checked.hashes.values(), *map(environment.sha256, signing)]
  hashes.append(edits.digest(checked.edits))
  facts = [repr(options), checked.model.digests, hashes]
  return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def is_finished(job: Job, mark: dict[str, Any] | None, wanted: str) -> bool:
  """Whether a row was finished with this key, and everything that it wrote still exists."""
  if not mark or mark['status'] not in FINISHED or mark['key'] != wanted:
    return False
  beside = [sidecar.place(job.output)]
  # --min-identity measures, and so writes these too.
  if job.options.quality or job.options.min_identity is not None:
    beside += [f'{job.output}.quality.csv', f'{job.output}.quality.png']
  # By its bytes: an output that was edited or damaged since is made again.
  return all(map(os.path.exists, beside)) and sidecar.digests(job.output) == mark['sha256']


def run_rows(
  jobs: Sequence[Job], load: Callable[[], Model], report: pathlib.Path, say: Callable[[str], None]
) -> dict[str, int]:
  """Runs rows; returns the number of 'done', 'skipped', 'low quality' and 'failed' rows.

  Args:
    load: loads the model; called once, and only if a row can be run.
    report: folder of the marks.
    say: takes one line per row.
  """
  (report / 'rows').mkdir(parents=True, exist_ok=True)
  model = load() if any(job.options for job in jobs) else None
  counts = dict.fromkeys(('done', 'skipped', 'low quality', 'failed'), 0)
  for job in jobs:
    place, named = mark_of(report, job), f'row {job.number}: {job.output or "?"}'
    # A lock per row, for the same command started twice or shards that overlap. The lock file
    # stays: removing it would let a third process lock a new file of the same name.
    with place.with_suffix('.lock').open('w') as lock:
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        counts['skipped'] += 1
        say(f'{named}: another process runs it')
        continue
      before = read_mark(report, job)
      mark = _outcome(job, model, before, place.with_suffix('.log'))
      # `is`: the very mark that was read is returned for a finished row, and need not be rewritten.
      if mark is before:
        counts['low quality' if mark['status'] == 'low quality' else 'skipped'] += 1
        say(f'{named}: finished earlier')
        continue
      # After the output and its sidecar: a mark means that they are complete.
      with replacing(place) as part:
        part.write_text(json.dumps(mark) + '\n')
    counts[mark['status']] += 1
    say(f'{named}: {mark["error"] or mark["status"]}')
  return counts


def _outcome(
  job: Job, model: Model | None, before: dict[str, Any] | None, log: pathlib.Path
) -> dict[str, Any]:
  """The outcome of a row, which is `before` if it was finished; its messages are added to `log`."""
  began, status, error = time.perf_counter(), 'failed', job.error
  wanted, facts = '', {}
  # Appended: the log of a killed attempt explains what the resumed one finds.
  with log.open('a') as file:
    try:
      if job.options:
        checked = run.check(model, job.options)
        wanted = key(checked)
        if is_finished(job, before, wanted):
          return before
        finished = run.write(checked, say=lambda line: file.write(f'{line}\n'))
        file.writelines(f'{line}\n' for line in finished.lines())
        error = finished.low_quality
        status = 'low quality' if error else 'done'
        facts = _facts(job.options)
    except (InputError, FloatingPointError) as wrong:
      status, error = 'failed', str(wrong)
    # A bug, or out of memory: neither stops the other rows, and the log has the traceback.
    except Exception as wrong:
      traceback.print_exc(file=file)
      status, error = 'failed', f'{type(wrong).__name__}: {reason(wrong)}; see {log}'
    if error:
      file.write(f'{error}\n')
  outcome = {
    'key': wanted,
    'status': status,
    'error': error,
    'took': round(time.perf_counter() - began, 3),
    'finished': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
  }
  return outcome | facts


def _facts(options: Options) -> dict[str, Any]:
  """Returns what the report shows of a finished row."""
  written = sidecar.read(sidecar.place(options.output))
  facts = {'sha256': written['result']['sha256'], 'figures': written['figures']}
  # A row without --quality leaves the table of an earlier run beside its output.
  if options.quality or options.min_identity is not None:
    table = pathlib.Path(f'{options.output}.quality.csv')
    rows = np.genfromtxt(table, delimiter=',', names=True, dtype=None, encoding=None)
    values = np.atleast_1d(rows['identity'])
    # Text, if the identity is not available.
    if values.dtype.kind == 'f':
      chosen = np.linspace(0, len(values) - 1, min(len(values), _POINTS)).round().astype(int)
      facts['identity'] = [round(float(v), 4) for v in values[chosen]]
  facts['strip'] = pictures.strip(options)
  return facts


def of_job(job: Job) -> dict[str, Any]:
  """Returns source, driver and output of a row by name."""
  return {k: v for k, v in dataclasses.asdict(job).items() if k in ('source', 'driving', 'output')}
