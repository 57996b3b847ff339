"""Measures peak memory of re-enactment against the length of the clip, 512 px with paste back.

  python -m experiments.cost.reenact_memory --output=experiments/results/reenact_memory.json

Each run of the command is a process of its own, on a generated driving clip and source. The
distance between decoder, model and encoder at any moment is random, and with it the peak of a run:
each length is run several times, and the slope is that of the medians. A short first run, which is
not counted, fills the cache of compiled programs.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction

import numpy as np

from experiments import script
from hybrid_jax.media import stills, video

SIZE, HEAD = 512, 64


def write_inputs(folder: pathlib.Path, frames: int) -> None:
  """Writes a driving clip of a moving gradient, and a smooth source."""
  y, x = np.mgrid[:HEAD, :HEAD].astype(np.uint8)
  with video.VideoWriter(folder / 'driver.mp4', HEAD, HEAD, time_base=Fraction(1, 25)) as writer:
    for k in range(frames):
      writer.write(np.stack((x * 4, y * 4, x + np.uint8(k % 256)), -1), Fraction(k, 25))
  y, x = np.mgrid[:SIZE, :SIZE] // 2
  stills.write_image(folder / 'source.png', np.stack((x, y, 255 - x), -1).astype(np.uint8))


def repeated(lengths: list[int], count: int, workdir: str) -> list[dict[str, float]]:
  """Runs each length `count` times, in turns, after a short run that is not counted."""
  measure(16, workdir)
  runs = []
  # In turns, so that a slow drift of the machine does not look like growth with the length.
  for frames in lengths * count:
    runs.append(measure(frames, workdir))
    print(runs[-1], flush=True)
  return runs


def medians(runs: list[dict[str, float]]) -> dict[int, float]:
  """Returns {frames: median peak, MB}."""
  lengths = sorted({run['frames'] for run in runs})
  peaks = lambda n: [run['peak_mb'] for run in runs if run['frames'] == n]  # noqa: E731
  return {n: round(statistics.median(peaks(n)), 1) for n in lengths}


def measure(frames: int, workdir: str) -> dict[str, float]:
  """Runs the command once; returns frames, its peak resident memory, MB, and its time, s.

  Raises:
    RuntimeError: the command failed; the message is the end of its output.
  """
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    write_inputs(folder, frames)
    command = [sys.executable, '-m', 'hybrid_jax.reenact', f'--workdir={workdir}']
    command += ['--layout=pasted', f'--source={folder}/source.png']
    command += [f'--driving={folder}/driver.mp4', f'--output={folder}/out.mp4']
    began = time.perf_counter()
    with open(folder / 'log', 'w') as log:
      process = subprocess.Popen(command, cwd=script.ROOT, stdout=log, stderr=subprocess.STDOUT)
      _, status, usage = os.wait4(process.pid, 0)
      process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
      raise RuntimeError((folder / 'log').read_text()[-2000:])
    seconds = time.perf_counter() - began
  return {
    'frames': frames,
    'peak_mb': round(usage.ru_maxrss / 1024, 1),
    'seconds': round(seconds, 1),
  }


def slope(peaks: dict[int, float]) -> float:
  """Returns kB per frame from the shortest to the longest length, of {frames: MB}."""
  short, long = min(peaks), max(peaks)
  return (peaks[long] - peaks[short]) * 1024 / (long - short)


def main() -> None:
  parser = script.parser(__doc__)
  parser.add_argument(
    '--workdir', default='', help='of a training run (default: the bundled model)'
  )
  parser.add_argument(
    '--lengths', type=int, nargs='+', default=[500, 2000, 10_000], help='frames (%(default)s)'
  )
  parser.add_argument('--runs', type=int, default=3, help='of each length (%(default)s)')
  parser.add_argument('--output', type=pathlib.Path, required=True, help='.json file to write')
  args = parser.parse_args()
  workdir = args.workdir and str(pathlib.Path(args.workdir).absolute())
  measured = script.record()
  runs = repeated(args.lengths, args.runs, workdir)
  peaks = medians(runs)
  grown = slope(peaks)
  result = {'kb_per_frame': round(grown, 3), 'median_peak_mb': peaks, 'runs': runs}
  script.write_json(args.output, result | {'measured': measured})
  print(f'{grown:.3f} kB per frame')


if __name__ == '__main__':
  main()
