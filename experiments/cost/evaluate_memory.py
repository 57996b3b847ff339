"""Measures memory and speed of the evaluation command over its frames, 256 px.

  python -m experiments.cost.evaluate_memory --output=experiments/results/evaluate_memory.json
  python -m experiments.cost.evaluate_memory --output=... -- --i3d=tests/golden/i3d_reduced.pt \\
      --lpips tests/golden/lpips_alex_reduced.pt

The command runs on generated pairs of clips; the metrics are those without weights and those of
the judges. Options after `--` are for the command: the reduced networks above exercise their code
paths, but their time is not that of the real ones. A short first run, which is not counted, fills
the cache of compiled programs. While the command runs, its memory and its progress bar are read
together. The memory rises and falls by 100 MB with every batch. `kb_per_frame` has the slope of the
least-squares line, with twice its standard error, through the lowest (what the process keeps), the
median and the highest reading of every 100 frames, without the first fifth of the frames, in which
programs are loaded; `mb_by_fifth` has the medians of these readings.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from fractions import Fraction

import numpy as np

from experiments import script
from hybrid_jax.media import video
from hybrid_jax.world import clips

SIZE, FPS, CLIPS = 256, 25, 4
EVERY = 0.1  # seconds between two readings
WINDOW = 100  # frames whose readings are taken together
LEVELS = {'lowest': np.min, 'median': np.median, 'highest': np.max}


def write_clips(folder: pathlib.Path, frames: int) -> None:
  """Writes clips that repeat a second of a rendered head, and the same a few frames later."""
  draw = clips.Renderer(SIZE)
  identity, motion, scene = clips.vectors(0, 0, np.arange(FPS, dtype=np.float32) / FPS)
  drawn = [draw(identity, m, scene)[0] for m in motion]
  for side, shift in (('reference', 0), ('generated', 3)):
    (folder / side).mkdir()
    for number, part in enumerate(np.array_split(np.arange(frames), CLIPS)):
      path = folder / side / f'clip_{number}.mp4'
      with video.VideoWriter(path, SIZE, SIZE, time_base=Fraction(1, FPS)) as writer:
        for k in range(len(part)):
          writer.write(drawn[(k + shift) % FPS], Fraction(k, FPS))


def measure(frames: int, options: list[str]) -> tuple[dict[str, float], np.ndarray]:
  """Runs the command once; returns its cost, and (n, 2) of frames done and resident memory, kB.

  Raises:
    RuntimeError: the command failed; the message is the end of its output.
  """
  with tempfile.TemporaryDirectory() as name:
    folder, readings, peak = pathlib.Path(name), [], 0
    write_clips(folder, frames)
    command = [sys.executable, '-m', 'hybrid_jax.evaluate', '--rendered', f'--frames={frames}']
    command += [f'--{side}={folder / side}' for side in ('reference', 'generated')]
    command += [f'--output={folder / "out"}', f'--size={SIZE}', *options]
    began = time.perf_counter()
    with open(folder / 'log', 'w') as log:
      process = subprocess.Popen(command, cwd=script.ROOT, stdout=log, stderr=subprocess.STDOUT)
      while process.poll() is None:
        time.sleep(EVERY)
        status = read(f'/proc/{process.pid}/status')
        if done := re.findall(r'(\d+)/\d+ .*?(\d+) frames', read(folder / 'log')[-200:]):
          memory = dict(re.findall(r'(Vm\w+):\s+(\d+) kB', status))
          if 'VmRSS' in memory:  # it has not ended in the meantime
            before, here = map(int, done[-1])
            readings.append((before * frames // CLIPS + here, int(memory['VmRSS'])))
            peak = int(memory['VmHWM'])
    if process.returncode:
      raise RuntimeError(read(folder / 'log')[-2000:])
    seconds = time.perf_counter() - began
    speed = json.loads(read(folder / 'out' / 'result.json'))['protocol']['speed']
  taken = {
    'frames': frames,
    'peak_mb': round(peak / 1024, 1),
    'seconds': round(seconds, 1),
    'frames_per_second': round(speed['frames_per_second'], 1),
    'hours_for_37500_frames': round(speed['hours_for_37500_frames'], 2),
  }
  return taken, np.array(readings)


def line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
  """Returns the slope of the least-squares line, and its standard error for independent errors."""
  x, y = x - x.mean(), y - y.mean()
  slope = (x @ y) / (x @ x)
  return float(slope), float(np.sqrt(np.sum((y - slope * x) ** 2) / (len(x) - 2) / (x @ x)))


def write(path: pathlib.Path, record: dict) -> None:
  """Writes a result to a .json file and prints it."""
  script.write_json(path, record)
  print(json.dumps(record, indent=1))


def read(path: str | pathlib.Path) -> str:
  """Returns the text of a file."""
  return pathlib.Path(path).read_text()


def statistics(readings: np.ndarray, frames: int) -> dict:
  """Returns slopes, kB per frame, and medians by fifth, MB, of the lowest to highest readings."""
  done, memory = readings.T
  window = done // WINDOW
  seen = np.array([k for k in range(frames // WINDOW) if (window == k).any()])
  fifth = seen * WINDOW * 5 // frames
  slopes, levels = {}, {}
  for name, level in LEVELS.items():
    values = np.array([level(memory[window == k]) for k in seen])
    slope, error = line(WINDOW * seen[fifth > 0], values[fifth > 0])
    slopes[name] = {'slope': round(slope, 3), 'plus_minus': round(2 * error, 3)}
    levels[name] = [round(np.median(values[fifth == k]) / 1024, 1) for k in range(5)]
  return {'kb_per_frame': slopes, 'mb_by_fifth': levels, 'readings': len(memory)}


def main() -> None:
  parser = script.parser(__doc__)
  parser.add_argument('--frames', type=int, default=5000, help='of the clip (%(default)s)')
  parser.add_argument('--output', type=pathlib.Path, required=True, help='.json file to write')
  parser.add_argument('options', nargs='*', help='options of the command, after --')
  args = parser.parse_args()
  record = script.record()
  measure(32 * CLIPS, args.options)
  before = os.getloadavg()[0]
  taken, readings = measure(args.frames, args.options)
  result = {
    'clips': CLIPS,
    'options': args.options,
    'load_average': {'before': before, 'after': os.getloadavg()[0]},
    'measured': record,
  }
  write(args.output, taken | statistics(readings, args.frames) | result)


if __name__ == '__main__':
  main()
