"""Memory and speed of the evaluation command while frames pass, 256 px.

  python -m experiments.cost.evaluate_memory --output=experiments/results/evaluate_memory.json
  python -m experiments.cost.evaluate_memory --output=... -- --i3d=tests/golden/i3d_reduced.pt \\
      --lpips tests/golden/lpips_alex_reduced.pt

The command runs on pairs of clips made here; the metrics are those without weights and those of the
judges. Options after `--` are for the command: with the networks above, of fewer channels, their
paths are taken, and the time says nothing of the real ones. A short run that is not counted comes
first: it fills the cache of compiled programs. While the command runs its memory is read beside its
progress bar. It goes up and down by 100 MB with every batch. `kb_per_frame` has the slope of the
least-squares line, with twice its standard error, through the lowest (what the process keeps), the
median and the highest reading of every 100 frames, without the first fifth of the frames, in which
programs are loaded; `mb_by_fifth` has the medians of the same. The report is made after the last.
"""

import argparse
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

from hybrid_jax import environment
from hybrid_jax.media import replacing, video
from hybrid_jax.world import clips

ROOT = pathlib.Path(__file__).resolve().parents[2]

SIZE, FPS, CLIPS = 256, 25, 4
EVERY = 0.1  # seconds between two readings
WINDOW = 100  # frames whose readings are taken together
LEVELS = {'lowest': np.min, 'median': np.median, 'highest': np.max}


def write_clips(folder: pathlib.Path, frames: int) -> None:
  """Clips of a second of a rendered head again and again, and the same a few frames later."""
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
  """Runs the command once: what it took, and (n, 2) of frames done and resident memory, kB.

  Raises:
    RuntimeError: it failed; with what it said.
  """
  with tempfile.TemporaryDirectory() as name:
    folder, readings, peak = pathlib.Path(name), [], 0
    write_clips(folder, frames)
    command = [sys.executable, '-m', 'hybrid_jax.evaluate', '--rendered', f'--frames={frames}']
    command += [f'--{side}={folder / side}' for side in ('reference', 'generated')]
    command += [f'--output={folder / "out"}', f'--size={SIZE}', *options]
    began = time.perf_counter()
    with open(folder / 'log', 'w') as log:
      process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
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
  """Slope of the least-squares line, and its standard error where the errors are independent."""
  x, y = x - x.mean(), y - y.mean()
  slope = (x @ y) / (x @ x)
  return float(slope), float(np.sqrt(np.sum((y - slope * x) ** 2) / (len(x) - 2) / (x @ x)))


def write(path: pathlib.Path, record: dict) -> None:
  """To a .json file and the screen."""
  text = json.dumps(record, indent=1)
  with replacing(path) as part:
    part.write_text(text + '\n')
  print(text)


def read(path: str | pathlib.Path) -> str:
  return pathlib.Path(path).read_text()


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--frames', type=int, default=5000, help='of the clip (%(default)s)')
  parser.add_argument('--output', type=pathlib.Path, required=True, help='.json file to write')
  parser.add_argument('options', nargs='*', help='options of the command, after --')
  args = parser.parse_args()
  measured = environment.record()
  measure(32 * CLIPS, args.options)
  before = os.getloadavg()[0]
  taken, readings = measure(args.frames, args.options)
  done, memory = readings.T
  window = done // WINDOW
  seen = np.array([k for k in range(args.frames // WINDOW) if (window == k).any()])
  fifth = seen * WINDOW * 5 // args.frames
  record, slopes, levels = taken, {}, {}
  for name, level in LEVELS.items():
    values = np.array([level(memory[window == k]) for k in seen])
    slope, error = line(WINDOW * seen[fifth > 0], values[fifth > 0])
    slopes[name] = {'slope': round(slope, 3), 'plus_minus': round(2 * error, 3)}
    levels[name] = [round(np.median(values[fifth == k]) / 1024, 1) for k in range(5)]
  record |= {
    'kb_per_frame': slopes,
    'mb_by_fifth': levels,
    'readings': len(memory),
    'clips': CLIPS,
    'options': args.options,
    'load_average': {'before': before, 'after': os.getloadavg()[0]},
    'measured': measured,
  }
  write(args.output, record)


if __name__ == '__main__':
  main()
