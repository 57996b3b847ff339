"""Measures the speed of the evaluation command with every network in its full size.

  python -m experiments.cost.evaluate_speed --output=experiments/results/evaluate_speed.json

LPIPS (AlexNet), ArcFace, FID's Inception and FVD's I3D have the shapes of the public files, and one
number everywhere: their output is meaningless, their time is not. It is the command's own time,
with decoding. A short first run, which is not counted, fills the cache of compiled programs.
"""

import os
import pathlib
import tempfile

import numpy as np

from experiments import script
from experiments.cost import convert_full_size, evaluate_memory

NUMBER = 1e-3  # with normalised layers the activations neither grow nor vanish
LINEAR = (64, 192, 384, 256, 256)  # channels of LPIPS' layers on AlexNet


def linear(path: pathlib.Path) -> None:
  """Writes LPIPS' linear layers."""
  writer = convert_full_size.Writer()
  shapes = {f'lin{k}.model.1.weight': (1, width, 1, 1) for k, width in enumerate(LINEAR)}
  writer.write_zip(path, writer.state(shapes))


def write_networks(folder: pathlib.Path) -> list[str]:
  """Writes files of all networks; returns the options that name them."""
  # Random numbers would overflow: nothing is trained.
  convert_full_size.numbers = lambda shape: np.full(shape, NUMBER, np.float32)
  makers = {
    'alexnet.pth': convert_full_size.FILES['alexnet.pth'],
    'linear.pth': linear,
    'arcface.pth': convert_full_size.arcface,
    'inception.pth': convert_full_size.inception,
    'i3d.pt': convert_full_size.FILES['rgb_imagenet.pt'],
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
  parser = script.parser(__doc__)
  parser.add_argument('--frames', type=int, default=256, help='of all clips (%(default)s)')
  parser.add_argument('--output', type=pathlib.Path, required=True, help='.json file to write')
  args = parser.parse_args()
  measured = script.record()
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
