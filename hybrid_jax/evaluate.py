"""Measures generated videos of any method against their references.

  python -m hybrid_jax.evaluate --reference truth/ --generated ours/ --output results/

  # cross-identity: the references are driving clips, the sources portraits or clips
  python -m hybrid_jax.evaluate --reference driving/ --source portraits/ --generated ours/ \\
      --output results/

Clips are videos, folders of pictures (times in timestamps.csv, if present) or .npy arrays
(t, h, w, 3). A generated clip has the name of its reference, or with --source the name
SOURCE_as_REFERENCE or SOURCE--REFERENCE. Frames are compared at the same times.

Writes result.json (every number, with its protocol), clips.csv, frames.csv and report.html.
Metrics whose weights are not given are reported as not available.
"""

import argparse
import contextlib
import pathlib
from collections.abc import Iterator

from tqdm import tqdm

from hybrid_jax import cli
from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import folders, measure, networks, pairing


def add_networks(parser: argparse.ArgumentParser) -> None:
  """Adds the options that name networks and say how frames are sampled."""
  add = parser.add_argument
  add('--lpips', nargs='+', default=(), metavar='FILE', help='backbone and linear layers')
  add('--arcface', default='', help='identity network, for FFHQ-aligned crops')
  add('--inception', default='', help='network of FID')
  add('--i3d', default='', help='network of FVD')
  add('--face-detector', default='', help='YuNet .onnx: mouths; MediaPipe .task: motion too')
  add('--size', type=int, default=256, help='px at which frames are compared (%(default)s)')
  add('--frames', type=int, default=500, help='of each clip, from its first (%(default)s)')
  add('--clip-length', type=int, default=16, help='frames per clip of FVD (%(default)s)')
  add('--batch-size', type=int, default=16, help='frames per device and step (%(default)s)')


def open_networks(args: argparse.Namespace, rendered: bool) -> networks.Networks:
  """Opens the networks of the options of `add_networks`.

  Raises:
    InputError: an option is out of range, or a file cannot be used.
  """
  for name, least in (('size', 11), ('frames', 1), ('batch_size', 1)):
    if getattr(args, name) < least:
      raise InputError(f'--{name.replace("_", "-")}={getattr(args, name)}: at least {least}')
  networks.check_clip_length(args.clip_length)
  return networks.Networks(
    lpips=args.lpips,
    arcface=args.arcface,
    inception=args.inception,
    i3d=args.i3d,
    rendered=rendered,
    rows=args.batch_size,
  )


@contextlib.contextmanager
def progress_bar() -> Iterator[folders.Progress]:
  """Shows a progress bar over clips; yields the callback for `folders.evaluate`."""
  with tqdm(unit='clip') as bar:

    def show(name: str, number: int, count: int, frames: int) -> None:
      bar.total, bar.n = count, number
      bar.set_description(name, refresh=False)
      bar.set_postfix_str(f'{frames} frames')

    yield show
    bar.update(bar.total - bar.n)


def run(args: argparse.Namespace) -> None:
  """Evaluates, writes the files and prints the table.

  Raises:
    InputError: nothing can be compared, or an option or a file cannot be used.
  """
  nets = open_networks(args, args.rendered)
  if not (args.reference_is or args.source):
    pairing.check_answers(pairing.pair(args.reference, args.generated)[0])
  reference_is = args.reference_is or ('driver' if args.source else 'answer')
  protocol = measure.Protocol(
    args.size, args.frames, args.clip_length, answers=reference_is == 'answer'
  )
  output = pathlib.Path(args.output)
  with folders.naming_folder(output):
    output.mkdir(parents=True, exist_ok=True)
  evaluation = measure.Evaluation(nets, protocol, args.face_detector, args.openface)
  with contextlib.closing(evaluation), progress_bar() as progress:
    result, clips = folders.evaluate(
      args.reference, args.generated, evaluation, source=args.source, progress=progress
    )
  folders.write(output, result, clips)
  print('\n'.join(folders.lines(result)))
  print(output / 'report.html')


def main() -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.evaluate',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--reference', required=True, help='folder: ground truth, or driving clips with --source')
  add('--generated', required=True, help='folder of the clips of a method')
  add('--source', default='', help='folder of sources: pictures or clips, cropped as the results')
  add(
    '--reference-is',
    choices=('answer', 'driver'),
    help='(answer; driver with --source): pixels are compared with answers only',
  )
  add('--output', required=True, help='folder to write to')
  add('--openface', nargs=2, metavar='DIR', help="OpenFace 2.0's .csv: of reference, of generated")
  add('--rendered', action='store_true', help='rendered heads: use the judges of that world')
  add_networks(parser)
  args = parser.parse_args()
  with cli.running(lower='lower --batch-size, --size or --clip-length'):
    cli.map_large_blocks()
    run(args)


if __name__ == '__main__':
  cli.command(main)
