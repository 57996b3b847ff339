"""Ranks pictures of a person, or the frames of a clip, by how well the model reconstructs them.

  python -m hybrid_jax.advise me_1.jpg me_2.jpg me_3.jpg --output advice.png \\
      --face-detector face_detection_yunet.onnx

  # 48 frames, evenly spaced over a clip; the best one as a picture for --source of reenact
  python -m hybrid_jax.advise talk.mp4 --output advice.png --count 48 --best source.png

advice.png shows the best sources, each with the model's reconstruction and its anchor G(w_id, 0),
the person at rest; advice.csv beside it lists all. Both figures are mean distances in grey levels:

  reconstruction   from the source to G(w_id, s_f), the model's reconstruction
  anchor           from the source to its anchor: how far the expression is from rest

Sources are ranked by the sum; lower is better.
"""

import argparse
import csv
import pathlib

from hybrid_jax import cli
from hybrid_jax.errors import InputError
from hybrid_jax.media import refuse_overwriting, refuse_target, replacing, stills
from hybrid_jax.reenactment import advice
from hybrid_jax.reenactment.model import Model, load_model
from hybrid_jax.reenactment.options import CropOptions, add_arguments


def advise(model: Model, args: argparse.Namespace) -> list[advice.Advice]:
  """Writes the sheet, the table beside it and the best picture. Raises InputError."""
  output = pathlib.Path(args.output)
  if output.suffix.lower() == '.csv' or not output.suffix:
    raise InputError(f'{output}: give a picture, such as advice.png; the table goes beside it')
  refuse_overwriting([output, output.with_suffix('.csv'), args.best], args.sources)
  if args.best and pathlib.Path(args.best).resolve() == output.resolve():
    raise InputError(f'--best={args.best}: is --output too; give another name')
  refuse_target(output.with_suffix('.csv'))
  for path in filter(None, (output, args.best)):
    stills.check_target(path)
  crop = CropOptions(args.face_detector, '', args.face, args.crop)
  ranked, errors = advice.rank(model, args.sources, crop, args.count, cli.progress)
  stills.write_image(output, advice.sheet(ranked[: args.shown]))
  table, rows = output.with_suffix('.csv'), list(advice.rows_of(ranked))
  with replacing(table) as part, open(part, 'w', newline='') as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
  best = ranked[0]
  if args.best:
    stills.write_image(args.best, next(best.source.pictures([best.frame])))
  for error in errors:
    print(f'note     {error}')
  for row in rows[: args.shown]:
    print('{rank:>4}  {score:>7}  {file}, frame {frame}, {seconds} s'.format(**row))
  print(
    f'{output}, {table}: {len(ranked)} sources' + (f'; the best: {args.best}' * bool(args.best))
  )
  return ranked


def _positive(text: str) -> int:
  if not text.isdecimal() or not int(text):
    raise argparse.ArgumentTypeError(f'{text}: must be a whole number above 0')
  return int(text)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
  """The arguments of a command line; exits with a usage message if they are wrong."""
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.advise',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('sources', nargs='+', metavar='IMG|CLIP', help='pictures or clips of one person')
  add('--output', default='advice.png', help='picture to write, with a .csv beside (advice.png)')
  add('--best', default='', help='picture to write: the best source, whole')
  add('--count', type=_positive, default=24, help='frames taken of each clip (24)')
  add('--shown', type=_positive, default=8, help='sources on the sheet (8)')
  add_arguments(parser, ('workdir', 'face_detector', 'face', 'crop'))
  return parser.parse_args(argv)


def main() -> None:
  """Runs the command."""
  args = parse_args()
  with cli.running():
    advise(load_model(args.workdir), args)


if __name__ == '__main__':
  cli.command(main)
