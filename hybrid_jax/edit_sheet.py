"""Writes a sheet of a person with edits: one edit per row, one strength per column.

  # the rendered world's own edits, on a portrait of `python -m hybrid_jax.world out/`
  python -m hybrid_jax.edit_sheet --source out/portraits/person_0.png --output sheet.png

  # some of them, with the motion of another picture
  python -m hybrid_jax.edit_sheet --source me.png --driving you.png --output sheet.png \\
      --edits glasses,hair_dark --strengths=-1,-0.5,0,0.5,1

  # public directions of the FFHQ generator, and what its own layers give
  python -m hybrid_jax.edit_sheet --workdir runs/ffhq --source me.jpg --output sheet.png \\
      --directions ffhq_directions --edits age,smile,ffhq_pca:3:2-6,sefa:0,style:9:409 \\
      --strengths=-4,-2,0,2,4 --face-detector face_detection_yunet.onnx

hybrid_jax/reenactment/edits.py lists the names of edits. The strength of a GANSpace component
(FILE:K) is where the person ends up on it; all other strengths are added to the person.
"""

import argparse

import numpy as np

from hybrid_jax import cli
from hybrid_jax.media import composite, refuse_overwriting, stills
from hybrid_jax.reenactment import edits
from hybrid_jax.reenactment.inputs import open_picture
from hybrid_jax.reenactment.model import Model, load_model
from hybrid_jax.reenactment.options import CropOptions, add_arguments


def edit_sheet(model: Model, args: argparse.Namespace) -> None:
  """Writes the sheet. Raises InputError."""
  refuse_overwriting([args.output], [args.source, args.driving])
  stills.check_target(args.output)
  options = CropOptions(args.face_detector, '', args.source_face, args.crop)
  paths = args.source, args.driving or args.source
  crops = [open_picture(path, options, model).head(model.size) for path in paths]
  rows = edits.rows(model, *crops, args.edits, args.strengths, args.directions)
  heads = [f'{strength:+g}' if strength else '0' for strength in args.strengths]
  given = ['source', 'driving'][: 1 + bool(args.driving)]
  shown = [[*crops[: len(given)], *row] for row in rows]
  sheet = composite.labelled(shown, args.edits, [*given, *heads], args.side)
  stills.write_image(args.output, sheet)
  print(f'{args.output}: {len(rows)} edits, strengths {", ".join(heads)}, by {model.name}')


def _names(text: str) -> list[str]:
  names = [name.strip() for name in text.split(',') if name.strip()]
  if not names or any('=' in name for name in names):
    raise argparse.ArgumentTypeError(
      f'{text!r}: give names separated by commas; --strengths takes the strengths'
    )
  return names


def _strengths(text: str) -> list[float]:
  try:
    strengths = [float(part) for part in text.split(',')]
  except ValueError:
    strengths = [float('nan')]
  if not np.isfinite(strengths).all() or len(strengths) > 25:
    raise argparse.ArgumentTypeError(f'{text!r}: give 1 to 25 numbers separated by commas')
  return strengths


def _side(text: str) -> int:
  if not text.isdecimal() or not 16 <= int(text) <= 1024:
    raise argparse.ArgumentTypeError(f'{text}: give 16 to 1024')
  return int(text)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
  """The arguments of a command line; exits with a usage message if they are wrong."""
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.edit_sheet',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--source', required=True, help='portrait')
  add('--output', required=True, help='picture to write')
  add('--driving', default='', help='picture whose motion is used (the source)')
  add('--edits', type=_names, default=list(edits.NAMES), help="(all of the bundled model's)")
  add('--strengths', type=_strengths, default='-1,-0.5,0,0.5,1', help='(-1,-0.5,0,0.5,1)')
  add_arguments(parser, ('directions', 'workdir', 'face_detector', 'source_face', 'crop'))
  add('--side', type=_side, default=160, help='of each picture on the sheet, px (160)')
  return parser.parse_args(argv)


def main() -> None:
  """Runs the command."""
  args = parse_args()
  with cli.running(lower='give fewer --strengths, which are drawn together'):
    edit_sheet(load_model(args.workdir), args)


if __name__ == '__main__':
  cli.command(main)
