"""Reads a table of jobs: a row is a source, a driver, an output, and options of `reenact`."""

import csv
import dataclasses
import io
import json
import os
import pathlib
import shlex
from collections.abc import Iterator, Sequence

from hybrid_jax.errors import InputError
from hybrid_jax.media import reason
from hybrid_jax.reenactment.options import Options, parse

COLUMNS = ('source', 'driving', 'output')


@dataclasses.dataclass(frozen=True)
class Job:
  """A row of the table.

  Attributes:
    number: of the row, from 1, without the header.
    source, driving, output: paths.
    options: all options of the row; None if it cannot be run.
    error: the reason why it cannot be run; ''.
  """

  number: int
  source: str
  driving: str
  output: str
  options: Options | None
  error: str = ''


def read(path: str, common: str = '') -> list[Job]:
  """Reads a .csv with a header, or a .jsonl of objects; rows that cannot be run are included.

  Paths are relative to the working directory. The options of a row are text as on the command line,
  or in JSON an object too.

  Args:
    path: of the table.
    common: options of all rows, as text; a row's own options override them.

  Raises:
    InputError: the table cannot be read, or is of another kind.
  """
  suffix = pathlib.Path(path).suffix.lower()
  readers = {'.csv': _csv_rows, '.jsonl': _jsonl_rows}
  if suffix not in readers:
    raise InputError(f'{path}: jobs are read from .csv or .jsonl files')
  try:
    # utf-8-sig: spreadsheets write a byte order mark, which would be part of the first column's
    # name.
    rows = list(readers[suffix](path, pathlib.Path(path).read_text(encoding='utf-8-sig')))
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise InputError(f'{path}: cannot be read ({reason(error)})') from error
  if not rows:
    raise InputError(f'{path}: has no rows')
  jobs = [_job(number, row, common) for number, row in enumerate(rows, 1)]
  return list(_without_clashes(jobs))


def _without_clashes(jobs: Sequence[Job]) -> Iterator[Job]:
  """Rejects rows whose output is that of an earlier row, or an input of another row."""
  # Rows run in any order, in several processes: neither can wait for the other. Paths are resolved,
  # since ./a.mp4 and a.mp4 are one file.
  inputs: dict[pathlib.Path, int] = {}
  for job in jobs:
    for name in (job.source, job.driving):
      inputs.setdefault(pathlib.Path(name).resolve(), job.number)
  taken: dict[pathlib.Path, int] = {}
  for job in jobs:
    place, error = pathlib.Path(job.output).resolve(), ''
    if job.options and place in taken:
      error = f'its output is also that of row {taken[place]}'
    elif job.options and place in inputs:
      error = f'its output is also an input of row {inputs[place]}'
    elif job.options:
      taken[place] = job.number
    yield dataclasses.replace(job, options=None, error=error) if error else job


def _csv_rows(path: str, text: str) -> Iterator[dict | str]:
  # newline='': a quoted cell may contain line breaks.
  table = csv.DictReader(io.StringIO(text, newline=''), restkey='more')
  header = tuple(table.fieldnames or ())
  if set(header) not in ({*COLUMNS}, {*COLUMNS, 'options'}) or len(header) != len(set(header)):
    raise InputError(
      f'{path}: its columns must be source, driving, output and optionally options; '
      + _found(header)
    )
  for row in table:
    # DictReader fills missing cells with None, and collects those beyond the header in 'more'.
    cells = len(header) - list(row.values()).count(None) + len(row.get('more', ()))
    yield row if cells == len(header) else f'has {cells} cells, and the first line {len(header)}'


def _found(header: Sequence[str]) -> str:
  """Returns what the first line of a table holds in place of its columns."""
  line = ','.join(header)[:200]
  if not line.strip():
    return 'its first line is empty'
  for separator, name in ((';', 'semicolons'), ('\t', 'tabs'), ('|', 'bars'), (' ', 'spaces')):
    if len(header) == 1 and separator in line:
      return f'its first line, {line!r}, is separated by {name}: write commas'
  known = (*COLUMNS, 'options')
  nearly = [name for name in header if name not in known and name.strip().lower() in known]
  other = [name for name in header if name not in known and name not in nearly]
  missing = [name for name in COLUMNS if name not in header]
  twice = sorted({name for name in header if header.count(name) > 1})
  parts = (
    (nearly, 'misspelled (spaces or capitals)'), (other, 'unknown'), (missing, 'missing'),
    (twice, 'twice'),
  )  # fmt: skip
  faults = ', '.join(f'{what}: {", ".join(map(repr, names))}' for names, what in parts if names)
  return f'its first line is {line!r}; {faults}'


def _jsonl_rows(path: str, text: str) -> Iterator[dict | str]:
  for line in filter(str.strip, text.splitlines()):
    try:
      row = json.loads(line)
      yield row if isinstance(row, dict) else 'is not a JSON object'
    except ValueError as error:
      yield f'is not JSON ({reason(error)})'


def _job(number: int, row: dict | str, common: str) -> Job:
  if isinstance(row, str):
    return Job(number, '', '', '', None, row)
  texts = [row.get(name) for name in COLUMNS]
  shown = [text if isinstance(text, str) else '' for text in texts]
  try:
    if unknown := set(row) - {*COLUMNS, 'options'}:
      raise InputError(f'unknown: {", ".join(sorted(unknown))}')
    for name, text in zip(COLUMNS, texts, strict=True):
      if not isinstance(text, str) or not text:
        raise InputError(f'has no {name}')
      # Most spreadsheets and programs that write ", " mean no space; a name may have one though.
      if text != text.strip() and not os.path.exists(text):
        raise InputError(f'its {name} has spaces around it: {text!r}')
    return Job(number, *shown, _options(shown, common, row.get('options') or ''))
  except (InputError, ValueError) as error:  # of shlex: no closing quotation
    return Job(number, *shown, None, str(error))


def _spelled(name: str, value: object) -> list[str]:
  """Returns a JSON option as command-line arguments."""
  name = name.replace('_', '-')
  default = getattr(Options, name.replace('-', '_'), None)
  # false and null leave out an option whose default is to be off, as `cma`.
  off = value is None or (value is False and default in ('', None))
  # Flags have one spelling, the one that changes the default; the default itself has none.
  if value is default or (off and hasattr(Options, name.replace('-', '_'))):
    return []
  if not isinstance(value, bool):
    return [f'--{name}={value}']
  return [f'--{name}' if value else f'--no-{name}']


def _options(files: Sequence[str], common: str, own: str | dict) -> Options:
  """Parses the options of a row. Raises InputError where the command would refuse them."""
  if isinstance(own, dict):
    own = [text for name, value in own.items() for text in _spelled(name, value)]
  elif isinstance(own, str):
    own = shlex.split(own)
  else:
    raise InputError('options are text or an object')
  arguments = [f'--{name}={text}' for name, text in zip(COLUMNS, files, strict=True)]
  # The last of two equal options wins, hence the order. --name=value in one word, since a path may
  # begin with a dash.
  options = parse([*shlex.split(common), *own, *arguments])
  if options.workdir:
    raise InputError('--workdir is an option of the command, since all rows share the model')
  return options
