"""Peak memory of the re-enactment tool against the length of the clip, at 512 px with paste back.

  python experiments/reenact_memory.py --workdir=runs/heads --output=experiments/results/memory.json

Each length runs in a process of its own, on a driving clip and a source made here.
"""

import argparse
import json
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

from hybrid_jax.media import replacing, stills, video  # noqa: E402

SIZE, HEAD = 512, 64


def write_inputs(folder: pathlib.Path, frames: int) -> None:
  """A driving clip of a moving gradient, and a source of noise."""
  y, x = np.mgrid[:HEAD, :HEAD].astype(np.uint8)
  with video.VideoWriter(folder / 'driver.mp4', HEAD, HEAD, time_base=Fraction(1, 25)) as writer:
    for k in range(frames):
      writer.write(np.stack((x * 4, y * 4, x + np.uint8(k % 256)), -1), Fraction(k, 25))
  noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
  stills.write_image(folder / 'source.png', noise)


def measure(folder: pathlib.Path, workdir: str) -> None:
  """Runs the tool in this process and prints its peak."""
  from hybrid_jax import reenact
  from hybrid_jax.inference import load_model

  names = (str(folder / name) for name in ('source.png', 'driver.mp4', 'out.mp4'))
  options = reenact.Options(*names, layout='pasted', on_missing='hold')
  reenact.reenact(load_model(workdir), options)
  print(json.dumps({'peak_kb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--workdir', default='')
  parser.add_argument('--lengths', type=int, nargs='+', default=[500, 10_000])
  parser.add_argument('--output', type=pathlib.Path, default='experiments/results/memory.json')
  parser.add_argument('--folder', type=pathlib.Path, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.folder:
    measure(args.folder, args.workdir)
    return
  runs = []
  for frames in args.lengths:
    with tempfile.TemporaryDirectory() as name:
      write_inputs(pathlib.Path(name), frames)
      began = time.perf_counter()
      command = [sys.executable, __file__, f'--workdir={args.workdir}', f'--folder={name}']
      done = subprocess.run(command, capture_output=True, text=True, check=True)
      peak = json.loads(done.stdout.splitlines()[-1])['peak_kb']
      runs.append({'frames': frames, 'peak_mb': round(peak / 1024, 1)})
      runs[-1]['seconds'] = round(time.perf_counter() - began, 1)
      print(runs[-1], flush=True)
  first, last = runs[0], runs[-1]
  slope = (last['peak_mb'] - first['peak_mb']) * 1024 / (last['frames'] - first['frames'])
  with replacing(args.output) as part:
    part.write_text(json.dumps({'kb_per_frame': round(slope, 3), 'runs': runs}, indent=2) + '\n')
  print(f'{slope:.3f} kB a frame')


if __name__ == '__main__':
  main()
