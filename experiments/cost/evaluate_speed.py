"""How fast the evaluation command is with every network in its full size.

  python -m experiments.cost.evaluate_speed --output=experiments/results/evaluate_speed.json

LPIPS (AlexNet), ArcFace, FID's Inception and FVD's I3D have the shapes of the public files, and one
number everywhere: what comes out means nothing, how long it takes does. It is the command's own
time, clips decoded and all. A short run that is not counted fills the cache of programs before.
"""

import argparse
import os
import pathlib
import tempfile

os.environ.setdefault('XLA_FLAGS', '')  # the tests, whose writers of files are used, want 4 devices

import numpy as np

from experiments.cost import convert_full_size as full
from experiments.cost import evaluate_memory
from hybrid_jax import environment

NUMBER = 1e-3  # a normalised layer of it neither grows nor vanishes
LINEAR = (64, 192, 384, 256, 256)  # channels of LPIPS' layers on AlexNet


def linear(path: pathlib.Path) -> None:
  writer = full.Writer()
  shapes = {f'lin{k}.model.1.weight': (1, width, 1, 1) for k, width in enumerate(LINEAR)}
  writer.write_zip(path, writer.state(shapes))


def write_networks(folder: pathlib.Path) -> list[str]:
  """Files of all networks; returns the options that name them."""
  full.numbers = lambda shape: np.full(shape, NUMBER, np.float32)
  makers = {
    'alexnet.pth': full.FILES['alexnet.pth'],
    'linear.pth': linear,
    'arcface.pth': full.arcface,
    'inception.pth': full.inception,
    'i3d.pt': full.FILES['rgb_imagenet.pt'],
  }
  for name, make in makers.items():
    make(folder / name)
  options = [
    f'--{net}={folder / file}'
    for net, file in zip(
      ('arcface', 'inception', 'i3d'), ('arcface.pth', 'inception.pth', 'i3d.pt'), strict=True
    )
  ]
  return [*options, '--lpips', str(folder / 'alexnet.pth'), str(folder / 'linear.pth')]


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--frames', type=int, default=256, help='of all clips (%(default)s)')
  parser.add_argument('--output', type=pathlib.Path, required=True, help='.json file to write')
  args = parser.parse_args()
  measured = environment.record()
  with tempfile.TemporaryDirectory() as name:
    options = write_networks(pathlib.Path(name))
    evaluate_memory.measure(32 * evaluate_memory.CLIPS, options)
    before = os.getloadavg()[0]
    taken, _ = evaluate_memory.measure(args.frames, options)
  record = taken | {
    'networks': 'LPIPS alex, ArcFace, Inception, I3D in full size; the judges of rendered heads',
    'size': evaluate_memory.SIZE,
    'load_average': {'before': before, 'after': os.getloadavg()[0]},
    'measured': measured,
  }
  evaluate_memory.write(args.output, record)


if __name__ == '__main__':
  main()
