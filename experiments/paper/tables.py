"""What the scripts of the paper's tables share: options, rows, and the paper's own numbers.

A table is measured on rendered heads of the test split, whose true answers are known, or with
`--videos` on face videos, of which heads are cut out as those that our model was trained on
(`data.framing`). Everything but the numbers is in a temporary folder, or in that of `--keep`.

A row of another system takes two commands. One run with `--keep=KEPT` writes the inputs, listed in
KEPT/pairs.csv. The other system renders each pair into a folder DIR (`pairs.py`). A second run with
the same options and `--method NAME=DIR` measures it beside ours.
"""

import argparse
import contextlib
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from absl import logging
from tqdm import tqdm

from experiments import script
from experiments.paper import baselines, pairs
from hybrid_jax import cli, evaluate
from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import folders, measure, rendered, results
from hybrid_jax.evaluation.networks import file_facts
from hybrid_jax.media import sequences
from hybrid_jax.reenactment.model import Model, load_model
from hybrid_jax.reenactment.options import Options
from hybrid_jax.reenactment.run import reenact

FPS = 25  # of rendered clips
OURS, COPY, WITHOUT_CMA = 'ours', 'copy of the source', 'without CMA'
TRUTH = 'true answer'  # measured as a system: what the judges say of it is the end of their scale

# Rows of the paper (Oorloff & Yacoob 2023), whose ablations are rows of the same tables.
_TABLE_1 = (
  'l1', 'identity_loss', 'lpips', 'psnr', 'ssim', 'fid', 'fvd', 'mouth_fvd', 'au_correlation',
  'gaze_correlation', 'pose_correlation',
)  # fmt: skip
# The text at hand has lost the names of the two correlations; by their size in Table 1 they are of
# action units and pose [read].
_TABLE_2 = ('fid', 'fvd', 'mouth_fvd', 'au_correlation', 'pose_correlation')
PAPER = {
  'table1': {
    'FOMM': (2.37, 0.042, 0.095, 32.8, 0.959, 22.3, 102.1, 19.9, 0.808, 0.737, 0.948),
    'PIRenderer': (3.52, 0.053, 0.118, 29.1, 0.932, 28.0, 145.1, 26.8, 0.748, 0.770, 0.906),
    'LIA': (2.72, 0.049, 0.102, 31.5, 0.951, 26.4, 105.0, 19.6, 0.822, 0.732, 0.944),
    'fs-vid2vid': (4.38, 0.065, 0.151, 27.4, 0.919, 31.6, 255.0, 45.0, 0.572, 0.635, 0.822),
    'StyleHEAT': (3.59, 0.059, 0.133, 28.8, 0.934, 38.8, 171.0, 31.4, 0.745, 0.850, 0.921),
    OURS: (2.28, 0.027, 0.097, 33.1, 0.967, 19.3, 101.0, 16.6, 0.829, 0.872, 0.952),
    'without ID regularisation': (
      2.34, 0.028, 0.111, 32.8, 0.953, 20.3, 115.4, 20.7, 0.810, 0.857, 0.948,
    ),
    'without hybrid': (2.52, 0.031, 0.114, 31.7, 0.950, 20.6, 116.9, 23.6, 0.746, 0.798, 0.923),
  },
  'table2': {
    'FOMM': (94.0, 529.4, 78.4, 0.450, 0.782),
    'PIRenderer': (84.8, 417.3, 54.2, 0.668, 0.880),
    'LIA': (94.8, 536.2, 76.7, 0.404, 0.788),
    'fs-vid2vid': (90.6, 532.7, 86.7, 0.493, 0.745),
    'StyleHEAT': (97.2, 408.8, 58.9, 0.645, 0.875),
    OURS: (74.3, 375.4, 50.2, 0.718, 0.915),  # with CMA
    'without ID regularisation': (85.6, 399.8, 53.1, 0.685, 0.894),
    'without hybrid': (93.0, 427.3, 60.8, 0.649, 0.878),
    WITHOUT_CMA: (86.9, 388.1, 52.4, 0.646, 0.896),
    'PTI for CMA': (84.8, 421.2, 56.8, 0.627, 0.890),
  },
}  # fmt: skip
COLUMNS = {'table1': _TABLE_1, 'table2': _TABLE_2}
PAPER_NOTE = {
  'table1': 'on 75 unseen videos of HDTF, the first 500 frames of each; L1 is of 0 to 255',
  'table2': 'on HDTF; the names of both correlations are our reading; ours is with CMA',
  'table3': 'mean and deviation over 5 sources x 5 driving clips; no number is at hand',
}


def parser(description: str) -> argparse.ArgumentParser:
  """Returns the options that all tables share."""
  found = script.parser(description)
  add = found.add_argument
  add('--output', type=pathlib.Path, required=True, help='.json file to write')
  add('--workdir', default='', help='of a training run (default: the bundled model)')
  add(
    '--method',
    action='append',
    default=[],
    metavar='NAME=DIR',
    help="another system's videos of the pairs in the folder of --keep; repeatable",
  )
  add('--videos', default='', help='folder of face videos (default: rendered heads)')
  add('--hdtf', default='', metavar='DIR', help='metadata of HDTF, if --videos are from it')
  add('--packed', default='', metavar='DIR', help='packed HDTF: its training people are left out')
  add('--held-out', type=float, default=0.2, help='without --packed: share held out (%(default)s)')
  add('--corrections', default='', help='CSV of its people, as given to packing')
  add('--cropper', default='', help='YuNet .onnx that finds the heads of --videos')
  add('--people', type=int, default=75, help='number of clips, one per person first (%(default)s)')
  add('--keep', type=pathlib.Path, help='new folder that keeps clips and pairs.csv')
  add('--openface', type=pathlib.Path, help='folder of its .csv: reference/, ours/, NAME/')
  add('--report', type=pathlib.Path, help='folder for the tables and the report of our row')
  evaluate.add_networks(found)
  return found


def methods(options: Sequence[str]) -> dict[str, str]:
  """Returns the folders of other systems' videos by name.

  Raises:
    InputError: an option is misspelled, or its folder has no video.
  """
  given = {}
  for text in options:
    name, equals, folder = text.partition('=')
    if not (name and equals and folder):
      raise InputError(f'--method={text}: give NAME=DIR, the folder of its videos')
    if not pathlib.Path(folder).is_dir():
      raise InputError(f'--method={text}: no such folder {folder}')
    if name in (OURS, COPY, WITHOUT_CMA, TRUTH, *given):
      raise InputError(f'--method={text}: there is a row of that name; take another')
    sequences.find(folder)  # raises now, and not after hours
    given[name] = folder
  return given


class Table:
  """One run of a script, to be used in a `with`.

  Attributes:
    args: the options. rendered: whether the clips are rendered.
    folder: of all clips. methods: folders of other systems' videos by name.
    model: the model of --workdir.
    rows: result of each system, None if it could not be measured; clips: its measured clips.
    left_out: lines about what is not in the result.
    videos, people: SHA-256 of each video that heads were cut out of, and whom it shows.
  """

  def __init__(self, name: str, args: argparse.Namespace):
    self.name, self.args = name, args
    self.rendered = not args.videos
    if self.rendered:
      if args.size not in (rendered.SIZE, measure.Protocol.size):
        raise InputError(f'--size={args.size}: rendered heads are measured at {rendered.SIZE} px')
      args.size = rendered.SIZE
    if args.keep and args.keep.is_dir() and any(args.keep.iterdir()):
      raise InputError(f'--keep={args.keep}: holds files already; give a new folder')
    if args.people < 1:
      raise InputError(f'--people={args.people}: at least 1')
    if not args.output.parent.is_dir():
      raise InputError(f'--output={args.output}: no such folder; make it first')
    self.methods = methods(args.method)
    self.measured = script.record()
    self.nets = evaluate.open_networks(args, self.rendered)
    self.model: Model = load_model(args.workdir)
    self.rows: dict[str, dict | None] = {}
    self.left_out: list[str] = []
    self.videos: dict[str, str] = {}
    self.people: dict[str, str] = {}
    self.clips: dict[str, list[measure.Measured]] = {}

  def __enter__(self) -> 'Table':
    self._temporary = tempfile.TemporaryDirectory()
    self.folder = self.args.keep or pathlib.Path(self._temporary.name)
    return self

  def __exit__(self, *error) -> None:
    self._temporary.cleanup()

  def make(self, *names: str) -> list[pathlib.Path]:
    """Makes folders of these names; returns them."""
    folders = [self.folder / name for name in names]
    for folder in folders:
      folder.mkdir(parents=True, exist_ok=True)
    return folders

  def begin(self, wanted: Sequence[pairs.Pair]) -> None:
    """Writes pairs.csv and checks other systems' videos of the pairs, before the long work.

    Raises:
      InputError: there are no pairs, or a system lacks a clip or has it in another size.
    """
    if not wanted:
      raise InputError(f'{self.args.videos}: no video with a face')
    pairs.write(self.folder, wanted)
    pairs.check(self.methods, wanted)

  def reenact(
    self, source: pathlib.Path, driving: pathlib.Path, output: pathlib.Path, **options
  ) -> None:
    """Writes our re-enactment, lossless; more `options` are fields of `Options`."""
    options = Options(str(source), str(driving), str(output), codec='ffv1', crop='', **options)
    reenact(self.model, options)

  def row(
    self,
    name: str,
    generated: str | pathlib.Path,
    reference: pathlib.Path,
    *,
    source='',
    answers,
    clip_of: Callable[[str], str] = str,
  ) -> None:
    """Measures a system. One that cannot be measured is reported, and its row stays empty.

    Args:
      name: of the row.
      generated, reference: folders of its videos and of what they are compared with.
      source: folder of the sources, if identity is compared with them.
      answers: whether the reference is the true answer, and not the driving clip.
      clip_of: from the name of a source, or a clip, to that of the video it was taken from.
    """
    person = lambda name: self.people.get(clip_of(name), clip_of(name))  # noqa: E731
    protocol = measure.Protocol(self.args.size, self.args.frames, self.args.clip_length, answers)
    openface = self.args.openface and [self.args.openface / side for side in ('reference', name)]
    missing = [str(folder) for folder in openface or () if not folder.is_dir()]
    if missing:
      openface = None
    try:
      evaluation = measure.Evaluation(self.nets, protocol, self.args.face_detector, openface)
      with contextlib.closing(evaluation):
        found, measured = folders.evaluate(
          str(reference), str(generated), evaluation, source=str(source), person=person
        )
    except InputError as error:
      self.leave_out(f'{name}: {error}'.replace(f'{self.folder}/', ''))
      self.rows[name] = None
      return
    found['problems'] += [f'no folder {folder} of OpenFace' for folder in missing]
    if name in self.methods:
      for line in found['problems']:
        tqdm.write(f'{name}: {line}')
    if name == OURS and self.args.report:
      self.args.report.mkdir(parents=True, exist_ok=True)
      folders.write(self.args.report, found, measured)
    # The folder exists on this machine only.
    found = json.loads(json.dumps(found).replace(f'{self.folder}/', ''))
    self.rows[name], self.clips[name] = found, measured

  def leave_out(self, line: str) -> None:
    """Prints a line about something that is not in the result, and adds it to the result."""
    tqdm.write(f'left out: {line}')
    self.left_out.append(line)

  def write(self, **more) -> None:
    """Writes the result file, with the entries of `more`, and prints the table."""
    record = {
      'paper': {'rows': published(self.name), 'note': PAPER_NOTE[self.name]},
      'rows': self.rows,
      **more,
      **self.facts(),
    }
    script.write_json(self.args.output, record, allow_nan=False)
    print(lines(self.rows, published(self.name)))

  def facts(self) -> dict:
    """Returns what was measured, and with what."""
    return {
      'data': 'rendered heads, people of the test split' if self.rendered else self._cropped(),
      'left_out': self.left_out,
      'model': pathlib.PurePath(self.args.workdir).name or self.model.name,
      'model_sha256': self.model.digest(),
      'systems': {name: baselines.stated(name) for name in self.methods},
      'measured': self.measured,
    }

  def _cropped(self) -> dict:
    """Returns how heads were cut out of which videos."""
    return {
      'framing': self.model.crop,
      'cropper': file_facts(self.args.cropper),
      'videos': self.videos,
    }


def published(name: str) -> dict[str, dict[str, float]]:
  """Returns the paper's numbers by row and metric; none of Table 3, whose text is lost."""
  rows = PAPER.get(name, {})
  return {row: dict(zip(COLUMNS[name], values, strict=True)) for row, values in rows.items()}


def lines(rows: dict[str, dict | None], paper: dict[str, dict[str, float]]) -> str:
  """Returns the table as text: a line per row, what was measured and then the paper's own rows."""
  found = {
    name: {metric: value['mean'] for metric, value in row['metrics'].items()}
    for name, row in rows.items()
    if row
  } | {f'paper: {name}': row for name, row in paper.items()}
  known = [name for name in results.METRICS if any(name in row for row in found.values())]
  text = [f'{number}: {results.METRICS[name].label}' for number, name in enumerate(known, 1)]
  text.append(' ' * 34 + ''.join(f'{number:>9}' for number in range(1, len(known) + 1)))
  for name, row in found.items():
    cells = (f'{row[metric]:.4g}' if row.get(metric) is not None else '-' for metric in known)
    text.append(f'{name:34}' + ''.join(f'{cell:>9}' for cell in cells))
  return '\n'.join(text)


def run(name: str, args: argparse.Namespace, fill) -> None:
  """Runs `fill(table)` on a new table; input errors are reported in one line."""
  cli.use_compilation_cache()
  logging.set_verbosity(logging.ERROR)  # Orbax warns about each checkpoint that it reads
  began = time.perf_counter()
  try:
    with Table(name, args) as table:
      fill(table)
  except InputError as error:
    sys.exit(f'error: {error}')
  except KeyboardInterrupt:
    sys.exit('stopped; nothing was written')
  print(f'{args.output}: {time.perf_counter() - began:.0f} s')
