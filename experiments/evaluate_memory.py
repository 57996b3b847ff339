"""Peak memory and speed of the evaluation command against the length of the clips, 256 px.

  python experiments/evaluate_memory.py --output=experiments/results/evaluate_memory.json
  python experiments/evaluate_memory.py --output=... -- --inception=FILE --i3d=FILE

Each length is one run of the command, in a process of its own, on a pair of clips made here; the
metrics are those without weights and those of the judges. Options after `--` are for the command.
A short run that is not counted comes first: it fills the cache of compiled programs, so that none
of the others compiles. `kb_per_frame` is the growth of the peak from the shortest to the longest.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from hybrid_jax.evaluation import results  # noqa: E402
from hybrid_jax.heads import clips  # noqa: E402
from hybrid_jax.media import replacing, video  # noqa: E402

SIZE, FPS = 256, 25


def write_clips(folder: pathlib.Path, frames: int) -> None:
  """A second of a rendered head again and again, and the same a few frames later."""
  draw = clips.Renderer(SIZE)
  identity, motion, scene = clips.vectors(0, 0, np.arange(FPS, dtype=np.float32) / FPS)
  drawn = [draw(identity, m, scene)[0] for m in motion]
  for side, shift in (('reference', 0), ('generated', 3)):
    (folder / side).mkdir()
    path = folder / side / 'clip.mp4'
    with video.VideoWriter(path, SIZE, SIZE, time_base=Fraction(1, FPS)) as writer:
      for k in range(frames):
        writer.write(drawn[(k + shift) % FPS], Fraction(k, FPS))


def measure(frames: int, options: list[str]) -> dict[str, float]:
  """Runs the command once: frames, its peak resident memory, MB, and its time, s.

  Raises:
    RuntimeError: it failed; with what it said.
  """
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    # Elsewhere, since a process counts what its parent had taken when it was started as its own.
    writer = multiprocessing.get_context('spawn').Process(target=write_clips, args=(folder, frames))
    writer.start()
    writer.join()
    command = [sys.executable, '-m', 'hybrid_jax.evaluate', '--rendered', f'--frames={frames}']
    command += [f'--{side}={folder / side}' for side in ('reference', 'generated')]
    command += [f'--output={folder / "out"}', f'--size={SIZE}', *options]
    began = time.perf_counter()
    with open(folder / 'log', 'w') as log:
      process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
      _, status, usage = os.wait4(process.pid, 0)
      process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
      raise RuntimeError((folder / 'log').read_text()[-2000:])
    if usage.ru_maxrss <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
      raise RuntimeError('the peak is that of this process, not of the command')
    seconds = time.perf_counter() - began
    speed = json.loads((folder / 'out' / 'result.json').read_text())['protocol']['speed']
  return {
    'frames': frames,
    'peak_mb': round(usage.ru_maxrss / 1024, 1),
    'seconds': round(seconds, 1),
    'frames_per_second': round(speed['frames_per_second'], 1),
    'hours_for_37500_frames': round(speed['hours_for_37500_frames'], 2),
  }


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--lengths', type=int, nargs='+', default=[500, 2000, 5000])
  parser.add_argument('--output', type=pathlib.Path, required=True, help='.json file to write')
  parser.add_argument('options', nargs='*', help='options of the command, after --')
  args = parser.parse_args()
  measured = results.versions() | {'command': 'python ' + ' '.join(sys.argv)}
  measure(32, args.options)
  runs = []
  for frames in args.lengths:
    runs.append(measure(frames, args.options))
    print(runs[-1], flush=True)
  first, last = runs[0], runs[-1]
  frames = last['frames'] - first['frames']
  grown = (last['peak_mb'] - first['peak_mb']) * 1024 / frames if frames else 0.0
  record = {'kb_per_frame': round(grown, 3), 'runs': runs, 'measured': measured}
  with replacing(args.output) as part:
    part.write_text(json.dumps(record, indent=1) + '\n')
  print(f'{grown:.3f} kB a frame')


if __name__ == '__main__':
  main()
