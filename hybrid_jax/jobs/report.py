"""The report of a table of jobs: report.csv, and index.html that needs no other file."""

import csv
import fcntl
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jinja2

from hybrid_jax.errors import InputError
from hybrid_jax.jobs import work
from hybrid_jax.jobs.table import Job
from hybrid_jax.media import reason, replacing
from hybrid_jax.reenactment.quality import NOT_AVAILABLE

COLUMNS = (
  'row', 'status', 'source', 'driving', 'output', 'frames', 'width', 'height', 'took_s',
  'identity_mean', 'identity_min', 'identity_by', 'confidence_mean', 'jitter', 'error',
)  # fmt: skip


def write(jobs: Sequence[Job], report: pathlib.Path) -> Counter:
  """Writes both files from the marks of all processes so far.

  Returns:
    The number of rows of each status: done, low quality, failed, waiting.

  Raises:
    InputError: the folder `report` cannot be made.
  """
  try:
    report.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(f'--report={report}: cannot be made ({reason(error)})') from error
  # Reading the marks is inside the lock too: otherwise a process that has read early could replace
  # the report of one that has read later. The system frees the lock of a killed process.
  with (report / 'lock').open('w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    marks = [_mark(job, report) for job in jobs]
    rows = [_cells(job, mark) for job, mark in zip(jobs, marks, strict=True)]
    with replacing(report / 'report.csv') as part, part.open('w', newline='') as file:
      table = csv.DictWriter(file, COLUMNS)
      table.writeheader()
      table.writerows(rows)
    with replacing(report / 'index.html') as part:
      part.write_text(_page(rows, marks), encoding='utf-8')
  return Counter(mark['status'] for mark in marks)


def _mark(job: Job, report: pathlib.Path) -> dict[str, Any]:
  return work.read_mark(report, job) or {'status': 'waiting', 'error': '', 'took': ''}


def _cells(job: Job, mark: dict[str, Any]) -> dict[str, Any]:
  """Returns a row of report.csv; '' for figures that were not asked for."""
  figures = mark.get('figures', {})
  height, width = figures.get('size', ('', ''))
  identity, confidence = figures.get('identity') or {}, figures.get('confidence') or {}
  # Jitter can always be measured, so a row without it was made without --quality.
  missing = NOT_AVAILABLE if 'jitter' in figures else ''
  return {
    'row': job.number,
    'status': mark['status'],
    **work.of_job(job),
    'frames': figures.get('frames', ''),
    'width': width,
    'height': height,
    'took_s': mark['took'],
    'identity_mean': identity.get('mean', missing),
    'identity_min': identity.get('min', ''),
    'identity_by': figures.get('identity_by', ''),
    'confidence_mean': confidence.get('mean', missing),
    'jitter': figures.get('jitter', ''),
    'error': mark['error'],
  }


def _page(rows: Sequence[dict[str, Any]], marks: Sequence[dict[str, Any]]) -> str:
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,  # names of files may contain markup
    # A name that is misspelled in the template is an error and not an empty cell.
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  pictures = (
    {'strip': mark.get('strip', ''), 'curve': _curve(mark.get('identity', []))} for mark in marks
  )
  return environment.get_template('report.html').render(
    rows=[row | more for row, more in zip(rows, pictures, strict=True)],
    counts=sorted(Counter(row['status'] for row in rows).items()),
  )


def _curve(values: Sequence[float]) -> str:
  """Returns the points of an SVG polyline, 120 by 32, of values over time from 0 to 1."""
  # 1 px of margin, for the width of the line. y points down in SVG. Negative similarities lie on
  # the lower border.
  step = 118 / max(len(values) - 1, 1)
  return ' '.join(
    f'{1 + k * step:.1f},{31 - 30 * min(max(value, 0), 1):.1f}'
    for k, value in enumerate(values)
    if value == value  # NaN where there is no face
  )
