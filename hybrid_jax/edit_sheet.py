"""Writes a picture of what edits do to a person: one a row, the source left of the strengths.

  # the rendered world's own edits, on a portrait of `python -m hybrid_jax.world out/`
  python -m hybrid_jax.edit_sheet --source out/portraits/person_0.png --output sheet.png

  # some of them, with the motion of another picture
  python -m hybrid_jax.edit_sheet --source me.png --driving you.png --output sheet.png \\
      --edits glasses,hair_dark --strengths=-1,-0.5,0,0.5,1

  # public directions of the FFHQ generator, and what its own layers give
  python -m hybrid_jax.edit_sheet --workdir runs/ffhq --source me.jpg --output sheet.png \\
      --directions ffhq_directions --edits age,smile,ffhq_pca:3:2-6,sefa:0,style:9:409 \\
      --strengths=-4,-2,0,2,4 --face-detector face_detection_yunet.onnx

hybrid_jax/reenactment/edits.py lists what can be named. A component of GANSpace (FILE:K) leads to a
strength; all others are added to the person.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from hybrid_jax.cli import running
from hybrid_jax.media import composite, refuse_overwriting, stills
from hybrid_jax.reenactment import edits, pipeline
from hybrid_jax.reenactment.model import Model, load_model


def rows_of(
  model: Model,
  portrait: np.ndarray,
  driving: np.ndarray,
  names: Sequence[str],
  strengths: Sequence[float],
  folder: str,
) -> list[list[np.ndarray]]:
  """For each named edit the person as edited with each strength, uint8 at the model's resolution.

  `portrait` and `driving` are crops (size, size, 3); the motion is of the latter.

  Raises:
    InputError: an edit is unknown.
  """
  times = np.arange(len(strengths), dtype=np.float64)
  found = [edit for name in names for edit in edits.resolve(f'{name}=0', folder, model)]
  W_S, (F_D,) = model.identity(portrait), model.deformations([driving], 1)
  curve = edits.Curve(tuple(times), tuple(strengths))
  return [
    list(
      edits.images(
        model,
        W_S,
        [F_D] * len(times),
        len(times),
        [edits.Edit(e.name, curve, e.direction, e.channel, e.gauge)],
        times,
      )
    )
    for e in found
  ]


def edit_sheet(model: Model, args: argparse.Namespace) -> None:
  """Writes the sheet. Raises InputError as `reenact` does."""
  refuse_overwriting([args.output], [args.source, args.driving])
  how = pipeline.Cropping(args.face_detector, '', args.source_face, args.crop)
  crops = []
  for path in (args.source, args.driving or args.source):
    crops += pipeline.crops(pipeline.open_picture(path, how, model), [0], model.size)
  rows = rows_of(model, *crops, args.edits, args.strengths, args.directions)
  heads = [f'{strength:+g}' if strength else '0' for strength in args.strengths]
  given = ['source', 'driving'][: 1 + bool(args.driving)]
  shown = [[*crops[: len(given)], *row] for row in rows]
  sheet = composite.labelled(shown, args.edits, [*given, *heads], args.side)
  stills.write_image(args.output, sheet)
  print(f'{args.output}: {len(rows)} edits, strengths {", ".join(heads)}, by {model.name}')


def _names(text: str) -> list[str]:
  names = [name.strip() for name in text.split(',') if name.strip()]
  if not names or any('=' in name for name in names):
    raise argparse.ArgumentTypeError(f'{text!r}: names alone, with commas; strengths apart')
  return names


def _strengths(text: str) -> list[float]:
  try:
    strengths = [float(part) for part in text.split(',')]
  except ValueError:
    strengths = [float('nan')]
  if not np.isfinite(strengths).all() or len(strengths) > 25:
    raise argparse.ArgumentTypeError(f'{text!r}: 1 to 25 numbers with commas')
  return strengths


def _side(text: str) -> int:
  if not text.isdecimal() or not 16 <= int(text) <= 1024:
    raise argparse.ArgumentTypeError(f'{text}: 16 to 1024')
  return int(text)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.edit_sheet',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--source', required=True, help='portrait')
  add('--output', required=True, help='picture to write')
  add('--driving', default='', help='picture whose motion is used (the source)')
  add('--edits', type=_names, default=list(edits.NAMES), help="(the rendered world's, all)")
  add('--strengths', type=_strengths, default='-1,-0.5,0,0.5,1', help='(-1,-0.5,0,0.5,1)')
  add('--directions', default='', help="folder of edits' files (the rendered world's own)")
  add('--workdir', default='', help='workdir of a training run (the shipped model)')
  add('--face-detector', default='', help='as in reenact; without it inputs are square crops')
  add('--source-face', default='largest', help='as in reenact')
  add('--crop', default='', choices=('', 'ffhq', 'square', 'whole'), help='(as the model learnt)')
  add('--side', type=_side, default=160, help='of each picture on the sheet, px (160)')
  return parser.parse_args(argv)


def main() -> None:
  args = parse_args()
  with running():
    edit_sheet(load_model(args.workdir), args)


if __name__ == '__main__':
  main()
