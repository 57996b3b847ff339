"""Measures generated videos of any method against their references.

  python -m hybrid_jax.evaluate --reference truth/ --generated ours/ --output results/

  # cross-identity: the references are driving clips, the sources portraits or clips
  python -m hybrid_jax.evaluate --reference driving/ --source portraits/ --generated ours/ \\
      --output results/

Clips are videos, folders of pictures (times in timestamps.csv, if there) or .npy arrays
(t, h, w, 3). A generated clip has the name of its reference; across identities it is called
SOURCE_as_REFERENCE or SOURCE--REFERENCE. Frames are compared at the same times.

Written are result.json (every number, with its protocol), clips.csv, frames.csv and report.html.
Metrics whose weights are not given are reported as not available.
"""

import argparse
import contextlib
import csv
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from tqdm import tqdm

from hybrid_jax import cli
from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import measure, networks, pairing, report, results
from hybrid_jax.media import reason, replacing


def evaluate(
  reference: str,
  generated: str,
  evaluation: measure.Evaluation,
  *,
  source: str = '',
  person: Callable[[str], str] = str,
) -> tuple[dict, list[measure.Measured]]:
  """(result, clips) of two or three folders; what could not be measured is in the result's lines.

  `person` tells whom a source or clip shows by its name, see `pairing.pair`.

  Raises:
    InputError: nothing at all can be compared.
  """
  began = time.perf_counter()
  pairs, problems = pairing.pair(reference, generated, source, person)
  clips = []
  with tqdm(total=len(pairs), unit='clip') as bar:
    for pair in pairs:
      bar.set_description(pair.name)
      frames = 0

      def count(n):
        nonlocal frames
        frames += n
        bar.set_postfix_str(f'{frames} frames')

      try:
        clips.append(evaluation.measure(pair, count))
        problems += clips[-1].notes
      except InputError as error:
        problems.append(f'{pair.name} is left out: {error}')
      bar.update()
  if not clips:
    raise InputError(f'no clip could be measured: {"; ".join(problems)}')
  return results.result(evaluation, clips, problems, time.perf_counter() - began), clips


def write(folder: pathlib.Path, result: dict, clips: list[measure.Measured]) -> None:
  """Writes result.json, clips.csv, frames.csv and report.html."""
  with replacing(folder / 'result.json') as part:
    part.write_text(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + '\n')
  names = [n for n in results.METRICS if any(n in clip.values for clip in clips)]
  with replacing(folder / 'clips.csv') as part, open(part, 'w', newline='') as file:
    table = csv.writer(file)
    table.writerow(('clip', 'frames', *names))
    for clip in clips:
      values = (clip.values.get(name, '') for name in names)
      table.writerow((clip.pair.name, clip.frames, *values))
  names = [n for n in results.METRICS if any(n in clip.timeline for clip in clips)]
  with replacing(folder / 'frames.csv') as part, open(part, 'w', newline='') as file:
    table = csv.writer(file)
    table.writerow(('clip', 'seconds', *names))
    for clip in clips:
      columns = (clip.timeline.get(name, np.full(clip.frames, np.nan)) for name in names)
      for seconds, *row in zip(clip.times, *columns, strict=True):
        table.writerow((clip.pair.name, f'{seconds:.6f}', *(f'{x:.6g}' for x in row)))
  with replacing(folder / 'report.html') as part:
    part.write_text(report.page(result, clips))


@contextlib.contextmanager
def writing(folder: pathlib.Path) -> Iterator[None]:
  """Raises InputError where `folder` is the matter."""
  try:
    yield
  except OSError as error:
    raise InputError(f'{folder}: cannot be written ({reason(error)})') from error


def tell(result: dict) -> None:
  """Prints the table."""
  for name, value in result['metrics'].items():
    metric = results.METRICS[name]
    number = 'infinite' if value.get('note') == results.INFINITE else '-'
    if value['mean'] is not None:
      number = f'{value["mean"]:.4g}'
    span = f'  [{value["low"]:.4g}, {value["high"]:.4g}]' if 'low' in value else ''
    note = f'  ({value["note"]})' if 'note' in value else ''
    print(f'{metric.label:36} {number:>9}{span}{note}')
  for name, why in result['not_available'].items():
    print(f'{results.METRICS[name].label:36} not available: {why}')
  for line in result['problems']:
    print(f'note: {line}')
  how = result['protocol']
  print(
    f'{how["clips"]} clips, {how["frames"]} frames, '
    f'{how["speed"]["frames_per_second"]:.1f} a second'
  )


def add_networks(parser: argparse.ArgumentParser) -> None:
  """The options that name networks, and how frames are taken."""
  add = parser.add_argument
  add('--lpips', nargs='+', default=(), metavar='FILE', help='backbone and linear layers')
  add('--arcface', default='', help='identity network, for FFHQ-aligned crops')
  add('--inception', default='', help='network of FID')
  add('--i3d', default='', help='network of FVD')
  add('--face-detector', default='', help='YuNet .onnx: mouths; MediaPipe .task: motion too')
  add('--size', type=int, default=256, help='px at which frames are compared (%(default)s)')
  add('--frames', type=int, default=500, help='of each clip, the first so many (%(default)s)')
  add('--clip-length', type=int, default=16, help='frames of a clip of FVD (%(default)s)')
  add('--batch-size', type=int, default=16, help='frames together on a device (%(default)s)')


def open_networks(args: argparse.Namespace, rendered: bool) -> networks.Networks:
  """The networks of `add_networks`' options.

  Raises:
    InputError: an option out of range, or a file that cannot be used.
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


def main() -> None:
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.evaluate',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--reference', required=True, help='folder: true answers, or driving clips with --source')
  add('--generated', required=True, help='folder of the clips of a method')
  add('--source', default='', help='folder of sources: pictures or clips, cropped as the results')
  add(
    '--reference-is',
    choices=('answer', 'driver'),
    help='(answer; driver with --source): pixels are compared with answers only',
  )
  add('--output', required=True, help='folder to write to')
  add('--openface', nargs=2, metavar='DIR', help="OpenFace 2.0's .csv: of reference, of generated")
  add('--rendered', action='store_true', help='rendered heads: let their judges stand in')
  add_networks(parser)
  args = parser.parse_args()
  cli.share_heap()
  cli.map_large_blocks()
  cli.use_compilation_cache()
  try:
    nets = open_networks(args, args.rendered)
    answers = (args.reference_is or ('driver' if args.source else 'answer')) == 'answer'
    if not (args.reference_is or args.source):
      pairing.check_answers(pairing.pair(args.reference, args.generated)[0])
    how = measure.Protocol(args.size, args.frames, args.clip_length, answers)
    folder = pathlib.Path(args.output)
    with writing(folder):
      folder.mkdir(parents=True, exist_ok=True)
    evaluation = measure.Evaluation(nets, how, args.face_detector, args.openface)
    with contextlib.closing(evaluation):
      result, clips = evaluate(args.reference, args.generated, evaluation, source=args.source)
    with writing(folder):
      write(folder, result, clips)
  except InputError as error:
    sys.exit(f'error: {error}')
  except OSError as error:
    sys.exit(f'error: {error.filename or "a file"}: cannot be read ({reason(error)})')
  except KeyboardInterrupt:
    sys.exit('stopped')
  tell(result)
  print(f'{folder / "report.html"}')


if __name__ == '__main__':
  main()
