"""Evaluates folders of clips: pairs them by name, measures each pair, writes the result."""

import contextlib
import csv
import functools
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import pairing, report, results
from hybrid_jax.evaluation.clip import Measured
from hybrid_jax.evaluation.measure import Evaluation
from hybrid_jax.media import reason, replacing

# progress(name of the clip, its number from 0, number of clips, frames measured of it so far)
Progress = Callable[[str, int, int, int], None]


def evaluate(
  reference: str,
  generated: str,
  evaluation: Evaluation,
  *,
  source: str = '',
  person: Callable[[str], str] = str,
  progress: Progress = lambda *_: None,
) -> tuple[dict[str, Any], list[Measured]]:
  """Measures the clips of two or three folders; returns (result, clips).

  Clips that cannot be measured are listed in the result's 'problems'.

  Args:
    source: folder of the sources; '' if each clip has the identity of its reference.
    person: maps the name of a source or clip to its person, see `pairing.pair`.

  Raises:
    InputError: no clip at all can be measured.
  """
  began = time.perf_counter()
  pairs, problems = pairing.pair(reference, generated, source, person)
  clips: list[Measured] = []
  for number, pair in enumerate(pairs):
    show = functools.partial(progress, pair.name, number, len(pairs))
    show(0)
    try:
      clips.append(evaluation.measure(pair, show))
      problems += clips[-1].notes
    except InputError as error:
      # One damaged clip of many must not end an evaluation of hours.
      problems.append(f'{pair.name} is left out: {error}')
  if not clips:
    raise InputError(f'no clip could be measured: {"; ".join(problems)}')
  return results.result(evaluation, clips, problems, time.perf_counter() - began), clips


def write(folder: pathlib.Path, result: dict[str, Any], clips: Sequence[Measured]) -> None:
  """Writes result.json, clips.csv, frames.csv and report.html into an existing folder.

  Raises:
    InputError: a file cannot be written.
  """
  with naming_folder(folder):
    with replacing(folder / 'result.json') as part:
      # allow_nan=False, because other programs reject NaN; `results.finite` has replaced it.
      text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
      part.write_text(text + '\n')
    names = [n for n in results.METRICS if any(n in clip.values for clip in clips)]
    rows = [
      (clip.pair.name, clip.frames, *(clip.values.get(name, '') for name in names))
      for clip in clips
    ]
    _write_csv(folder / 'clips.csv', ('clip', 'frames', *names), rows)
    names = [n for n in results.METRICS if any(n in clip.timeline for clip in clips)]
    # A generator, because the rows of all frames together may be large.
    rows = (row for clip in clips for row in _frame_rows(clip, names))
    _write_csv(folder / 'frames.csv', ('clip', 'seconds', *names), rows)
    with replacing(folder / 'report.html') as part:
      part.write_text(report.page(result, clips), encoding='utf-8')


def _write_csv(path: pathlib.Path, header: Sequence[str], rows) -> None:
  with replacing(path) as part, open(part, 'w', newline='') as file:
    table = csv.writer(file)
    table.writerow(header)
    table.writerows(rows)


def _frame_rows(clip: Measured, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
  columns = (clip.timeline.get(name, np.full(clip.frames, np.nan)) for name in names)
  for seconds, *values in zip(clip.times, *columns, strict=True):
    yield clip.pair.name, f'{seconds:.6f}', *(f'{value:.6g}' for value in values)


def lines(result: dict[str, Any]) -> Iterator[str]:
  """Yields the result as a table in plain text: metrics, what is missing and why, the speed."""
  for name, value in result['metrics'].items():
    number = 'infinite' if value.get('note') == results.INFINITE else '-'
    if value['mean'] is not None:
      number = f'{value["mean"]:.4g}'
    interval = f'  [{value["low"]:.4g}, {value["high"]:.4g}]' if 'low' in value else ''
    note = f'  ({value["note"]})' if 'note' in value else ''
    yield f'{results.METRICS[name].label:36} {number:>9}{interval}{note}'
  for name, why in result['not_available'].items():
    yield f'{results.METRICS[name].label:36} not available: {why}'
  for line in result['problems']:
    yield f'note: {line}'
  protocol = result['protocol']
  speed = protocol['speed']['frames_per_second']
  yield f'{protocol["clips"]} clips, {protocol["frames"]} frames, {speed:.1f} frames per second'


@contextlib.contextmanager
def naming_folder(folder: pathlib.Path) -> Iterator[None]:
  """Turns an OSError into an InputError that says `folder` cannot be written."""
  try:
    yield
  except OSError as error:
    raise InputError(f'{folder}: cannot be written ({reason(error)})') from error
