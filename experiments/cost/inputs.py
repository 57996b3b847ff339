"""Tries every clip and picture of a folder on the re-enactment tool and writes what came of each.

  python -m experiments.cost.inputs FACES --face_detector=FILE.onnx --workdir=runs/heads \\
      --output=experiments/results/inputs.csv

FACES has subfolders of clips and pictures. Clips drive the portrait `--source`; pictures are driven
by the motion of the clip `--driving`. Each is rendered, or refused with one line. Only figures are
kept: frames and audio packets in and out, and the worst error of a presentation time, ms. How many
came through, and of which commit, stands in a .json file beside the table.
"""

import argparse
import collections
import contextlib
import csv
import io
import json
import pathlib
import tempfile

import av
from tqdm import tqdm

from experiments.world.measure import provenance
from hybrid_jax import cli, extract_motion
from hybrid_jax.errors import InputError
from hybrid_jax.media import replacing
from hybrid_jax.reenactment import run
from hybrid_jax.reenactment.model import load_model
from hybrid_jax.reenactment.options import Options

CLIPS = {'.mp4', '.mov', '.mkv', '.webm'}
PICTURES = {'.png', '.jpg', '.jpeg', '.webp', '.gif'}
FIELDS = ('file', 'as', 'outcome', 'message', 'frames_in', 'frames_out', 'audio_in', 'audio_out')


def tracks(path: pathlib.Path) -> tuple[list, int]:
  """Presentation times of the video packets, and the number of audio packets, that can be read."""
  times, sounds = [], 0
  with contextlib.suppress(av.FFmpegError), av.open(str(path), metadata_errors='replace') as file:
    for packet in file.demux():
      if packet.pts is None or not packet.size:
        continue
      if packet.stream.type == 'video':
        times.append(packet.pts * packet.time_base)
      sounds += packet.stream.type == 'audio'
  return sorted(times), sounds


def attempt(model, options: Options) -> tuple[str, str]:
  """(outcome, message): the notes of the summary, or the refusal."""
  said = io.StringIO()
  try:
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
      run.reenact(model, options)
  except InputError as error:
    return 'refused', str(error)
  except Exception as error:  # what this script looks for
    return 'CRASHED', f'{type(error).__name__}: {error}'
  lines = [line.strip() for line in said.getvalue().splitlines() if line.startswith('  ')]
  of_the_model = ('jitter', 'seam')
  return 'rendered', '; '.join(line for line in lines if not line.startswith(of_the_model))


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('faces', type=pathlib.Path)
  parser.add_argument('--face_detector', required=True)
  parser.add_argument('--workdir', default='')
  parser.add_argument('--source', default='portraits/src_03_tom_cruise.jpg')
  parser.add_argument('--driving', default='driving/drive_07_man_expressive_11.988fps.mp4')
  parser.add_argument('--output', type=pathlib.Path, default='experiments/results/inputs.csv')
  args = parser.parse_args()
  measured = provenance('') | {'command': 'python -m experiments.cost.inputs'}
  cli.use_compilation_cache()
  model, found = load_model(args.workdir), {'face_detector': args.face_detector}
  source, driving = args.faces / args.source, args.faces / args.driving
  files = sorted(p for p in args.faces.rglob('*') if p.suffix in CLIPS | PICTURES)
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    motion, output = f'{folder}/motion.safetensors', pathlib.Path(folder) / 'out.mp4'
    arguments = ['--driving', str(driving), '--output', motion, '--face-detector']
    arguments = extract_motion.parse_args([*arguments, args.face_detector])
    extract_motion.extract_motion(model, arguments)
    for path in tqdm(files, unit='file'):
      clip = path.suffix in CLIPS or path.parent == driving.parent
      given = (str(source), str(path)) if clip else (str(path), motion)
      output.unlink(missing_ok=True)
      layout = 'result' if clip else 'pasted'
      outcome, message = attempt(model, Options(*given, str(output), layout=layout, **found))
      row = {'file': str(path.relative_to(args.faces)), 'as': 'driving' if clip else 'source'}
      row |= {'outcome': outcome, 'message': message.replace(f'{path.parent}/', '')}
      if clip:
        times, row['audio_in'] = tracks(path) if path.stat().st_size else ([], 0)
        row['frames_in'] = len(times)
      if outcome == 'rendered':
        made, row['audio_out'] = tracks(output)
        row['frames_out'] = len(made)
        if clip:
          worst = max(abs(a - b) for a, b in zip(times, made, strict=False))
          row['worst_time_error_ms'] = f'{float(worst) * 1000:.6g}'
      rows.append(row)
  with replacing(args.output) as part, part.open('w', newline='') as file:
    table = csv.DictWriter(file, (*FIELDS, 'worst_time_error_ms'), lineterminator='\n')
    table.writeheader()
    table.writerows(rows)
  counts = collections.Counter(row['outcome'] for row in rows)
  with replacing(args.output.with_suffix('.json')) as part:
    record = {'files': len(rows), 'outcomes': dict(counts), 'measured': measured}
    part.write_text(json.dumps(record, indent=2) + '\n')
  crashed = [row['file'] for row in rows if row['outcome'] == 'CRASHED']
  print(f'{len(rows)} files, {len(crashed)} crashed {" ".join(crashed)}')


if __name__ == '__main__':
  main()
