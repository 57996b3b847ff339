"""What the scripts of the paper's tables share: inputs, rows, and the paper's own numbers.

Inputs are rendered heads of the test split (`--videos` is not given), whose true answers are known,
or face videos, of which heads are cut out as First Order Motion Model does, one square a clip.
Everything but the numbers lies in a temporary folder, or in that of `--keep`.
"""

import argparse
import contextlib
import dataclasses
import functools
import io
import itertools
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction

import numpy as np
from absl import logging
from tqdm import tqdm

from data.face_clips import layouts
from hybrid_jax import cli, environment, evaluate
from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import folders, measure, rendered, results
from hybrid_jax.evaluation.networks import file_facts
from hybrid_jax.media import clips, faces, replacing, sequences, video
from hybrid_jax.reenactment.model import Model, load_model
from hybrid_jax.reenactment.options import Options
from hybrid_jax.reenactment.run import reenact
from hybrid_jax.training.triplets import INDEX, split_people
from hybrid_jax.world import clips as world
from hybrid_jax.world import people

FPS = 25  # of rendered clips
CROP_SCALE = 1.6  # of the square around all places of the face, as in training
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
  made = argparse.ArgumentParser(
    description=description, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = made.add_argument
  add('--output', type=pathlib.Path, required=True, help='.json file to write')
  add('--workdir', default='', help='of the encoder (the shipped model)')
  add(
    '--method',
    action='append',
    default=[],
    metavar='NAME=DIR',
    help="a system's videos, made of what --keep keeps",
  )
  add('--videos', default='', help='folder of face videos (rendered heads)')
  add('--hdtf', default='', metavar='DIR', help="--videos are HDTF's, this is its metadata")
  add('--packed', default='', metavar='DIR', help='its packed data: who is in training is known')
  add('--held-out', type=float, default=0.2, help='without: share of its people (%(default)s)')
  add('--corrections', default='', help='CSV of its people, as packing took it')
  add('--cropper', default='', help='YuNet .onnx that finds the heads of --videos')
  add(
    '--people', type=int, default=75, help='clips; further ones of a person come last (%(default)s)'
  )
  add('--keep', type=pathlib.Path, help='folder that keeps the clips: run OpenFace over them')
  add(
    '--openface', type=pathlib.Path, help='folder of its .csv: reference/, ours/, NAME/ of others'
  )
  add('--report', type=pathlib.Path, help='folder for the tables and the report of ours')
  evaluate.add_networks(made)
  return made


def methods(options: Sequence[str]) -> dict[str, str]:
  """Folders of other systems' videos by name. Raises InputError for a misspelled option."""
  given = {}
  for text in options:
    name, equals, folder = text.partition('=')
    if not equals or not pathlib.Path(folder).is_dir():
      raise InputError(f'--method={text}: give NAME=DIR, the folder of its videos')
    if name in (OURS, COPY, *given):
      raise InputError(f'--method={text}: there is a row of that name; take another')
    sequences.find(folder)  # told now, and not after hours
    given[name] = folder
  return given


class Table:
  """One run of a script: its options, its temporary folder, its rows.

  Use it in a `with`; attributes: args, folder, model, and folders of other systems in `methods`.
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
    self.measured = environment.record()  # before anything is written
    self.nets = evaluate.open_networks(args, self.rendered)
    self.model: Model = load_model(args.workdir)
    self.rows: dict[str, dict | None] = {}
    self.left_out: list[str] = []
    self.videos: dict[str, str] = {}  # SHA-256 of those whose heads were cut out
    self.people: dict[str, str] = {}  # whom they show
    self.clips: dict[str, list[measure.Measured]] = {}

  def __enter__(self) -> 'Table':
    self._temporary = tempfile.TemporaryDirectory()
    self.folder = self.args.keep or pathlib.Path(self._temporary.name)
    return self

  def __exit__(self, *error) -> None:
    self._temporary.cleanup()

  def make(self, *names: str) -> list[pathlib.Path]:
    """New folders."""
    folders = [self.folder / name for name in names]
    for folder in folders:
      folder.mkdir(parents=True, exist_ok=True)
    return folders

  def reenact(self, source: pathlib.Path, driving: pathlib.Path, output: pathlib.Path) -> None:
    """Our answer, lossless."""
    options = Options(str(source), str(driving), str(output), codec='ffv1', crop='')
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
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
    """Measures a system; one that cannot be measured is told, and its row stays empty.

    `clip_of` tells from the name of a source, or a clip, of which given video it is.
    """
    person = lambda name: self.people.get(clip_of(name), clip_of(name))  # noqa: E731
    how = measure.Protocol(self.args.size, self.args.frames, self.args.clip_length, answers)
    openface = self.args.openface and [self.args.openface / side for side in ('reference', name)]
    missing = [str(folder) for folder in openface or () if not folder.is_dir()]
    if missing:
      openface = None
    try:
      evaluation = measure.Evaluation(self.nets, how, self.args.face_detector, openface)
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
    found = json.loads(json.dumps(found).replace(f'{self.folder}/', ''))  # of this machine
    self.rows[name], self.clips[name] = found, measured

  def leave_out(self, line: str) -> None:
    """Tells now, and in the result, what is not in it."""
    tqdm.write(f'left out: {line}')
    self.left_out.append(line)

  def write(self, **more) -> None:
    """The result file, and the table on the terminal."""
    record = {
      'paper': {'row': PAPER.get(self.name), 'note': PAPER_NOTE[self.name]},
      'rows': {name: None for name in SYSTEMS} | self.rows,
      **more,
      **self.facts(),
    }
    with replacing(self.args.output) as part:
      part.write_text(json.dumps(record, indent=1, allow_nan=False) + '\n')
    print(lines(self.rows, PAPER.get(self.name, {})))

  def facts(self) -> dict:
    """What was measured, and with what."""
    return {
      'data': 'rendered heads, people of the test split' if self.rendered else self._cropped(),
      'left_out': self.left_out,
      'model': pathlib.PurePath(self.args.workdir).name or self.model.name,
      'model_sha256': self.model.digest(),
      'measured': self.measured | {'command': 'python ' + ' '.join(sys.argv)},
    }

  def _cropped(self) -> dict:
    """How heads were cut out of which videos."""
    return {
      'crop': f'one square a clip, {CROP_SCALE} times the union of all boxes of the face, '
      'OpenCV INTER_AREA or INTER_CUBIC; every fifth frame is looked at',
      'cropper': file_facts(self.args.cropper),
      'videos': self.videos,
    }


def lines(rows: dict[str, dict | None], paper: dict[str, float]) -> str:
  """The table in words: metrics down, systems across, the paper's own row first."""
  none = [name for name in SYSTEMS if not rows.get(name)]
  rows = {name: row for name, row in rows.items() if row}
  known = [
    n for n in results.METRICS if n in paper or any(n in r['metrics'] for r in rows.values())
  ]
  table = [['', 'paper', *rows]]
  for name in known:
    values = [r['metrics'].get(name, {}).get('mean') for r in rows.values()]
    said = ['-' if v is None else f'{v:.4g}' for v in (paper.get(name), *values)]
    table.append([results.METRICS[name].label, *said])
  said = [f'{row[0]:36}' + ''.join(f'{x:>20}' for x in row[1:]) for row in table]
  return '\n'.join([*said, f'without videos: {", ".join(none)}'] if none else said)


def run(name: str, args: argparse.Namespace, fill) -> None:
  """`fill(table)` in a table of its own; mistakes are one line."""
  cli.use_compilation_cache()
  logging.set_verbosity(logging.ERROR)  # Orbax warns of what reading only means
  began = time.perf_counter()
  try:
    with Table(name, args) as table:
      fill(table)
  except InputError as error:
    sys.exit(f'error: {error}')
  except KeyboardInterrupt:
    sys.exit('stopped; nothing was written')
  print(f'{args.output}: {time.perf_counter() - began:.0f} s')


# --- Inputs --------------------------------------------------------------------------------------


def write_clip(path: pathlib.Path, shown: Iterable[tuple[np.ndarray, Fraction]]) -> None:
  """Lossless, of frames (h, w, 3) with their times."""
  shown = iter(shown)
  first = next(shown)
  with video.VideoWriter(path, *first[0].shape[:2], codec='ffv1') as writer:
    for rgb, moment in itertools.chain([first], shown):
      writer.write(rgb, moment)


def frames_in(path: pathlib.Path) -> Iterator[np.ndarray]:
  """The pictures of a clip that was written here."""
  return (frame.rgb for frame in video.read_frames(path))


def moments(frames: int) -> tuple[np.ndarray, list[Fraction]]:
  """Times of a rendered clip: seconds (t,), and exactly."""
  return np.arange(frames, dtype=np.float32) / FPS, [Fraction(k, FPS) for k in range(frames)]


def render(
  path: pathlib.Path, person: int, motion: np.ndarray, scene_of: int | None = None
) -> np.ndarray:
  """Writes a clip of a person (number in the test split) with motion (t, 16), and its truth.

  Returns the frames.
  """
  draw = rendered.renderer(rendered.SIZE)
  person += people.SPLITS['test']
  identity, _, scene = world.vectors(person, scene_of or 0, np.zeros(1, np.float32))
  frames = [draw(identity, m, scene)[0] for m in motion]
  times, exact = moments(len(motion))
  write_clip(path, zip(frames, exact, strict=True))
  with open(path.with_suffix('.npz'), 'wb') as file:
    np.savez(file, times=times, motion=motion)
  return frames


def motion_of(person: int, clip: int, frames: int) -> np.ndarray:
  """(t, 16) of a clip of a person of the test split."""
  return world.vectors(people.SPLITS['test'] + person, clip, moments(frames)[0])[1]


@dataclasses.dataclass(frozen=True)
class Source:
  """A video of a person, or a span of it, that heads may be cut out of."""

  person: str
  path: pathlib.Path
  read: Callable[[], Iterator[video.Frame]]


def videos_of(args: argparse.Namespace) -> dict[str, Source]:
  """The clips of `--videos` by name; of HDTF those of people held out of training.

  Of every person there comes one clip first, then the second ones, and so on.

  Raises:
    InputError: no videos, no metadata of HDTF, or nobody is left.
  """
  if not args.hdtf:
    return {
      name: Source(name, path, functools.partial(sequences.read, path))
      for name, path in sequences.find(args.videos).items()
    }
  expected = layouts.read_layout('hdtf', args.videos, args.hdtf, args.corrections)
  if args.packed:
    unseen = {clip.identity for clip in expected} - trained_on(args.packed)
  else:  # as packing divides the whole set
    unseen = split_people([clip.identity for clip in expected], args.held_out)['validation']
  of_person: dict[str, list[tuple[str, Source]]] = {}
  for clip in expected:
    if clip.path and clip.identity in unseen:
      read = functools.partial(clips.read_span, clip.path, clip.span)
      known = clip.name, Source(clip.identity, clip.path, read)
      of_person.setdefault(clip.identity, []).append(known)
  rounds = itertools.zip_longest(*of_person.values())
  found = dict(known for of_round in rounds for known in of_round if known)
  if not found:
    raise InputError(f'{args.videos}: no video of a person who was held out of training')
  return found


def trained_on(packed: str) -> set[str]:
  """People of the training split of a packed data set. Raises InputError where it is none."""
  path = pathlib.Path(packed) / INDEX
  try:
    return {row['identity'] for row in json.loads(path.read_text())['splits']['train']}
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(f'--packed={packed}: no packed data set ({INDEX} cannot be read)') from error


def head_clips(
  table: Table, folder: pathlib.Path
) -> Iterator[tuple[str, pathlib.Path, list[Fraction]]]:
  """Heads cut out of `--videos`: (name, path, times) of each clip, which is written to `folder`.

  A video without a usable face is told and left out; the next one takes its place.
  """
  args = table.args
  if not args.cropper:
    raise InputError('--videos needs --cropper=YUNET.onnx, which finds the heads')
  detector, done = faces.FaceDetector(args.cropper), 0
  for name, given in tqdm(videos_of(args).items(), desc='cutting out heads', unit='video'):
    path, times = folder / f'{name}.mp4', []

    def usable(read=given.read):
      return (f for f in itertools.islice(read(), args.frames) if f.rgb is not None)

    def cut(square, times=times, usable=usable):
      first = None
      for number, frame in enumerate(usable()):
        moment = Fraction(number, FPS) if frame.time is None else frame.time
        first = moment if first is None else first
        times.append(moment - first)
        yield faces.crop_square(frame.rgb, square, args.size), times[-1]

    try:
      frames = (frame.rgb for frame in usable())
      square = clips.head_square(frames, detector, scale=CROP_SCALE, name=name)
      write_clip(path, cut(square))
    except InputError as error:
      path.unlink(missing_ok=True)
      table.leave_out(str(error))
      continue
    table.videos[name], table.people[name] = sequences.digest(given.path), given.person
    yield name, path, times
    done += 1
    if done == args.people:
      return
  table.leave_out(f'{done} of {args.people} clips that were asked for: there are no more')


def write_copies(path: pathlib.Path, rgb: np.ndarray, times: Iterable[Fraction]) -> None:
  """A clip that never moves: what a metric says of no motion at all."""
  write_clip(path, ((rgb, moment) for moment in times))
