"""The report of a table of jobs: report.csv, and index.html that needs no other file."""

import csv
import fcntl
import html
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hybrid_jax.errors import InputError
from hybrid_jax.jobs import work
from hybrid_jax.jobs.table import Job
from hybrid_jax.media import reason, replacing
from hybrid_jax.reenactment.quality import NOT_AVAILABLE

COLUMNS = (
  'row', 'status', 'source', 'driving', 'output', 'frames', 'width', 'height', 'took_s',
  'identity_mean', 'identity_min', 'identity_by', 'confidence_mean', 'jitter', 'error',
)  # fmt: skip
_STYLE = """
:root { color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif; }
body { margin: 2em; } h1 { font-size: 1.4em; margin: 0 } p { margin: .3em 0 1.2em }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .4em .7em; border-bottom: 1px solid #8884; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td.f { overflow-wrap: anywhere; min-width: 9em } img { display: block; height: 72px }
small { opacity: .7 }
b { white-space: nowrap; border-radius: .3em; padding: .1em .5em; color: #fff }
.done { background: #2a7d46 } .failed { background: #b3352c } .waiting { background: #777 }
.low { background: #b06a00 } svg { width: 120px; height: 32px; display: block }
polyline { fill: none; stroke: #2d6fb8; stroke-width: 1.5 }
"""


def write(jobs: Sequence[Job], report: pathlib.Path) -> Counter:
  """Writes both files from the marks of all processes so far; returns how many have which status.

  The last process to come here sees all marks, since only one at a time reads and writes.
  """
  try:
    report.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(f'--report={report}: cannot be made ({reason(error)})') from error
  with (report / 'lock').open('w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    rows = [(job, _mark(job, report)) for job in jobs]
    with replacing(report / 'report.csv') as part, part.open('w', newline='') as file:
      table = csv.DictWriter(file, COLUMNS)
      table.writeheader()
      table.writerows(_cells(job, mark) for job, mark in rows)
    with replacing(report / 'index.html') as part:
      part.write_text(_page(rows), encoding='utf-8')
  return Counter(mark['status'] for _, mark in rows)


def _mark(job: Job, report: pathlib.Path) -> dict[str, Any]:
  return work.read_mark(report, job) or {'status': 'waiting', 'error': '', 'took': ''}


def _cells(job: Job, mark: dict[str, Any]) -> dict[str, Any]:
  figures = mark.get('figures', {})
  height, width = figures.get('size', ('', ''))
  identity, confidence = figures.get('identity') or {}, figures.get('confidence') or {}
  unknown = NOT_AVAILABLE if 'jitter' in figures else ''  # without --quality nobody looked
  return {
    'row': job.number,
    'status': mark['status'],
    **work.of_job(job),
    'frames': figures.get('frames', ''),
    'width': width,
    'height': height,
    'took_s': mark['took'],
    'identity_mean': identity.get('mean', unknown),
    'identity_min': identity.get('min', ''),
    'identity_by': figures.get('identity_by', ''),
    'confidence_mean': confidence.get('mean', unknown),
    'jitter': figures.get('jitter', ''),
    'error': mark['error'],
  }


def _page(rows: Sequence[tuple[Job, dict]]) -> str:
  counts = Counter(mark['status'] for _, mark in rows)
  told = ', '.join(f'{count} {status}' for status, count in sorted(counts.items()))
  heads = ('row', 'status', 'source, driver, result', 'files', 'frames', 'seconds', 'identity')
  heads += ('detector', 'jitter')
  head = ''.join(f'<th>{name}</th>' for name in heads)
  body = '\n'.join(_row(job, mark) for job, mark in rows)
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Re-enactments</title>'
    f'<style>{_STYLE}</style></head><body><h1>Re-enactments</h1><p>{len(rows)} rows: {told}</p>'
    f'<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></body></html>\n'
  )


def _row(job: Job, mark: dict[str, Any]) -> str:
  cells = {k: html.escape(str(v)) for k, v in _cells(job, mark).items()}
  status, number = cells['status'], lambda name: f'<td class="n">{cells[name]}</td>'
  picture = f'<img alt="thumbnails" src="{mark["strip"]}">' if 'strip' in mark else ''
  files = f'{cells["output"]}<br><small>{cells["source"]}<br>{cells["driving"]}</small>'
  if cells['error']:
    files += f'<br>{cells["error"]}'
  size = f'<br><small>{cells["width"]}×{cells["height"]}</small>' if cells['width'] else ''
  least = f' <small>min {cells["identity_min"]}</small>' if cells['identity_min'] else ''
  return (
    f'<tr><td class="n">{job.number}</td><td><b class="{status.split()[0]}">{status}</b></td>'
    f'<td>{picture}</td><td class="f">{files}</td><td class="n">{cells["frames"]}{size}</td>'
    f'{number("took_s")}<td>{cells["identity_mean"]}{least}{_curve(mark.get("identity", []))}'
    f'<small>{cells["identity_by"]}</small></td>{number("confidence_mean")}{number("jitter")}</tr>'
  )


def _curve(values: Sequence[float]) -> str:
  """Identity over time, from 0 to 1."""
  if not values:
    return ''
  step = 118 / max(len(values) - 1, 1)
  points = ' '.join(
    f'{1 + k * step:.1f},{31 - 30 * min(max(v, 0), 1):.1f}' for k, v in enumerate(values) if v == v
  )
  return f'<svg viewBox="0 0 120 32"><polyline points="{points}"/></svg>'
