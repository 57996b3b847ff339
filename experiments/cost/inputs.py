"""Re-enacts every clip and picture of a folder and writes the outcome of each.

  python -m experiments.cost.inputs FACES --also FAILING --face_detector=FILE.onnx \\
      --workdir=runs/heads --output=experiments/results/inputs.csv

FACES has subfolders of clips and pictures, FAILING has files. Clips drive the portrait `--source`;
pictures are driven by the motion of the clip `--driving`. Each is rendered, or refused with one
line. Only figures are kept: frames and audio packets in and out, and the worst error of a
presentation time since the start of the clip (`media.clock.start_of`), ms. A .json file beside the
table has the counts and the record of the run. With `--only GLOB` the rows of some files are
measured again, and the others are kept.
"""

import argparse
import collections
import contextlib
import csv
import fnmatch
import pathlib
import tempfile
from fractions import Fraction
from typing import Any

import av
from tqdm import tqdm

from experiments import script
from hybrid_jax import cli, extract_motion
from hybrid_jax.errors import InputError
from hybrid_jax.media import MediaError, clock, replacing, video
from hybrid_jax.reenactment.model import Model, load_model
from hybrid_jax.reenactment.options import Options
from hybrid_jax.reenactment.run import reenact

PICTURES = {'.png', '.jpg', '.jpeg', '.webp', '.gif', '.heic'}
FIELDS = ('file', 'as', 'outcome', 'message', 'frames_in', 'frames_out', 'audio_in', 'audio_out')


def tracks(path: pathlib.Path) -> tuple[list, int]:
  """Returns presentation times of readable video packets, and the number of audio packets."""
  times, sounds = [], 0
  # Damaged files are among the inputs: what can be read before the damage counts.
  with contextlib.suppress(av.FFmpegError), av.open(str(path), metadata_errors='replace') as file:
    for packet in file.demux():
      if packet.pts is None or not packet.size:
        continue
      if packet.stream.type == 'video':
        times.append(packet.pts * packet.time_base)
      sounds += packet.stream.type == 'audio'
  return sorted(times), sounds


def clock_of(path: pathlib.Path) -> list[Fraction]:
  """Returns the times of the readable frames of a clip since its start."""
  times = []
  with contextlib.suppress(MediaError):
    start = clock.start_of(path)
    times.extend(frame.time - start for frame in video.read_frames(path))
  return times


def wanted(name: str, args: argparse.Namespace) -> bool:
  return not args.only or any(fnmatch.fnmatch(name, glob) for glob in args.only)


def found_files(args: argparse.Namespace) -> dict[str, pathlib.Path]:
  """Returns the files by the name that the table gives them, sorted."""
  files = {str(p.relative_to(args.faces)): p for p in args.faces.rglob('*')}
  for folder in args.also:
    files |= {f'{folder.name}/{p.name}': p for p in folder.iterdir()}
  known = PICTURES | set(video.SUFFIXES)
  return {
    name: path
    for name, path in sorted(files.items())
    if path.suffix in known and wanted(name, args)
  }


def attempt(model: Model, options: Options) -> tuple[str, str]:
  """Returns the outcome, and the notes of the report or the refusal."""
  try:
    report = reenact(model, options)
  except InputError as error:
    return 'refused', str(error)
  except Exception as error:  # any other exception is a bug that this script looks for
    return 'CRASHED', f'{type(error).__name__}: {error}'
  return 'rendered', '; '.join(filter(None, report.notes))


def try_all(model: Model, args: argparse.Namespace) -> list[dict[str, Any]]:
  """Returns a row of the table for each file."""
  found = {'face_detector': args.face_detector}
  source, driving = args.faces / args.source, args.faces / args.driving
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    motion, output = f'{folder}/motion.safetensors', pathlib.Path(folder) / 'out.mp4'
    arguments = ['--driving', str(driving), '--output', motion, '--face-detector']
    arguments = extract_motion.parse_args([*arguments, args.face_detector])
    extract_motion.extract_motion(model, arguments)
    for name, path in tqdm(found_files(args).items(), unit='file'):
      # An animated picture beside the driving clips is a clip, too.
      clip = video.is_clip(path) or path.parent == driving.parent
      given = (str(source), str(path)) if clip else (str(path), motion)
      output.unlink(missing_ok=True)
      layout = 'result' if clip else 'pasted'
      outcome, message = attempt(model, Options(*given, str(output), layout=layout, **found))
      row = {'file': name, 'as': 'driving' if clip else 'source'}
      row |= {'outcome': outcome, 'message': message.replace(f'{path.parent}/', '')}
      if clip:
        times, row['audio_in'] = tracks(path) if path.stat().st_size else ([], 0)
        row['frames_in'] = len(times)
      if outcome == 'rendered':
        written, row['audio_out'] = tracks(output)
        row['frames_out'] = len(written)
        if clip:
          worst = max(abs(a - b) for a, b in zip(clock_of(path), written, strict=False))
          row['worst_time_error_ms'] = f'{float(worst) * 1000:.6g}'
      rows.append(row)
  return rows


def main() -> None:
  parser = script.parser(__doc__)
  add = parser.add_argument
  add('faces', type=pathlib.Path, help='folder of clips and pictures')
  add('--also', type=pathlib.Path, nargs='*', default=[], help='folders of more files')
  add(
    '--only', nargs='*', default=[], help='globs of the files to measure, as the table names them'
  )
  add('--face_detector', required=True, help='YuNet .onnx or MediaPipe .task')
  add('--workdir', default='', help='of a training run (default: the bundled model)')
  add('--source', default='portraits/src_03_tom_cruise.jpg', help='in FACES (%(default)s)')
  add(
    '--driving',
    default='driving/drive_07_man_expressive_11.988fps.mp4',
    help='in FACES (%(default)s)',
  )
  add('--output', type=pathlib.Path, default=script.RESULTS / 'inputs.csv', help='.csv to write')
  args = parser.parse_args()
  record = script.record()
  cli.use_compilation_cache()
  rows = try_all(load_model(args.workdir), args)
  if args.only:
    with args.output.open(newline='') as file:
      kept = [row for row in csv.DictReader(file) if not wanted(row['file'], args)]
    rows = sorted((*kept, *rows), key=lambda row: row['file'])
  with replacing(args.output) as part, part.open('w', newline='') as file:
    table = csv.DictWriter(file, (*FIELDS, 'worst_time_error_ms'), lineterminator='\n')
    table.writeheader()
    table.writerows(rows)
  counts = collections.Counter(row['outcome'] for row in rows)
  result = {'files': len(rows), 'outcomes': dict(counts), 'measured': record}
  script.write_json(args.output.with_suffix('.json'), result)
  crashed = [row['file'] for row in rows if row['outcome'] == 'CRASHED']
  print(f'{len(rows)} files, {len(crashed)} crashed {" ".join(crashed)}')


if __name__ == '__main__':
  main()
