"""What the scripts of the paper's tables share: options, rows, and the paper's own numbers.

A table is measured on rendered heads of the test split, whose true answers are known, or with
`--videos` on face videos, of which heads are cut out as those that our model was trained on
(`data.framing`). Everything but the numbers is in a temporary folder, or in that of `--keep`.
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
from hybrid_jax import cli, evaluate
from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import folders, measure, rendered, results
from hybrid_jax.evaluation.networks import file_facts
from hybrid_jax.media import sequences
from hybrid_jax.reenactment.model import Model, load_model
from hybrid_jax.reenactment.options import Options
from hybrid_jax.reenactment.run import reenact

FPS = 25  # of rendered clips
OURS, COPY = 'ours', 'copy of the source'

# Rows of the paper (Oorloff & Yacoob 2023). The text at hand has kept its own row of each table
# only: of the other systems no number is known here, and none is guessed.
SYSTEMS = ('FOMM', 'PIRenderer', 'LIA', 'fs-vid2vid', 'StyleHEAT')
PAPER = {
  'table1': {
    'l1': 2.28, 'identity_loss': 0.027, 'lpips': 0.097, 'psnr': 33.1, 'ssim': 0.967, 'fid': 19.3,
    'fvd': 101.0, 'mouth_fvd': 16.6, 'au_correlation': 0.829, 'gaze_correlation': 0.872,
    'pose_correlation': 0.952,
  },
  'table2': {'fid': 74.3, 'fvd': 375.4, 'mouth_fvd': 50.2},
}  # fmt: skip
PAPER_NOTE = {
  'table1': 'on 75 unseen videos of HDTF, the first 500 frames of each',
  'table2': 'on HDTF; two correlations, .718 and .915, whose names are lost',
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
    help="another system's videos, made from the clips in the folder of --keep",
  )
  add('--videos', default='', help='folder of face videos (default: rendered heads)')
  add('--hdtf', default='', metavar='DIR', help='metadata of HDTF, if --videos are from it')
  add('--packed', default='', metavar='DIR', help='packed HDTF: its training people are left out')
  add('--held-out', type=float, default=0.2, help='without --packed: share held out (%(default)s)')
  add('--corrections', default='', help='CSV of its people, as given to packing')
  add('--cropper', default='', help='YuNet .onnx that finds the heads of --videos')
  add('--people', type=int, default=75, help='number of clips, one per person first (%(default)s)')
  add('--keep', type=pathlib.Path, help='new folder that keeps the clips, e.g. for OpenFace')
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
    if not equals or not pathlib.Path(folder).is_dir():
      raise InputError(f'--method={text}: give NAME=DIR, the folder of its videos')
    if name in (OURS, COPY, *given):
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

  def reenact(self, source: pathlib.Path, driving: pathlib.Path, output: pathlib.Path) -> None:
    """Writes our re-enactment, lossless."""
    options = Options(str(source), str(driving), str(output), codec='ffv1', crop='')
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
      'paper': {'row': PAPER.get(self.name), 'note': PAPER_NOTE[self.name]},
      'rows': {name: None for name in SYSTEMS} | self.rows,
      **more,
      **self.facts(),
    }
    script.write_json(self.args.output, record, allow_nan=False)
    print(lines(self.rows, PAPER.get(self.name, {})))

  def facts(self) -> dict:
    """Returns what was measured, and with what."""
    return {
      'data': 'rendered heads, people of the test split' if self.rendered else self._cropped(),
      'left_out': self.left_out,
      'model': pathlib.PurePath(self.args.workdir).name or self.model.name,
      'model_sha256': self.model.digest(),
      'measured': self.measured,
    }

  def _cropped(self) -> dict:
    """Returns how heads were cut out of which videos."""
    return {
      'framing': self.model.crop,
      'cropper': file_facts(self.args.cropper),
      'videos': self.videos,
    }


def lines(rows: dict[str, dict | None], paper: dict[str, float]) -> str:
  """Returns the table as text: metrics down, systems across, the paper's own row first."""
  none = [name for name in SYSTEMS if not rows.get(name)]
  rows = {name: row for name, row in rows.items() if row}
  known = [
    n for n in results.METRICS if n in paper or any(n in r['metrics'] for r in rows.values())
  ]
  table = [['', 'paper', *rows]]
  for name in known:
    values = [r['metrics'].get(name, {}).get('mean') for r in rows.values()]
    cells = ['-' if v is None else f'{v:.4g}' for v in (paper.get(name), *values)]
    table.append([results.METRICS[name].label, *cells])
  text = [f'{row[0]:36}' + ''.join(f'{x:>20}' for x in row[1:]) for row in table]
  return '\n'.join([*text, f'without videos: {", ".join(none)}'] if none else text)


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
