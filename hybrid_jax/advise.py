"""Ranks pictures of a person, or the frames of a clip, by what the model makes of them as a source.

  python -m hybrid_jax.advise me_1.jpg me_2.jpg me_3.jpg --output advice.png \\
      --face-detector face_detection_yunet.onnx

  # 48 frames, evenly over a clip; the best one as a picture for --source of reenact
  python -m hybrid_jax.advise talk.mp4 --output advice.png --count 48 --best source.png

advice.png shows the best with the model's own picture of each and its anchor G(w_id, 0), the person
at rest; advice.csv, beside it, has all. Both figures are in grey levels, and less is better:

  reconstruction   from the source to G(w_id, s_f), the model's own picture of it
  anchor           from the source to its anchor: how far it is from rest

and a source is as good as their sum is small.
"""

import argparse
import csv
import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np

from hybrid_jax.cli import running
from hybrid_jax.errors import InputError
from hybrid_jax.media import composite, refuse_overwriting, replacing, stills
from hybrid_jax.reenact import bar
from hybrid_jax.reenactment import pipeline
from hybrid_jax.reenactment.model import Model, load_model


@dataclasses.dataclass(frozen=True, eq=False)
class Advice:
  """A source and what the model makes of it.

  source: the file, as opened. frame: of a clip, 0 of a picture.
  pictures: crop, self-reconstruction and anchor, (size, size, 3) uint8.
  reconstruction, anchor: grey levels from the crop, on average.
  """

  source: pipeline.Input
  frame: int
  pictures: tuple[np.ndarray, np.ndarray, np.ndarray]
  reconstruction: float
  anchor: float

  @property
  def score(self) -> float:
    """The less the better."""
    return self.reconstruction + self.anchor

  @property
  def name(self) -> str:
    path = pathlib.Path(self.source.path).name
    return f'{path} {self.source.clip.seconds[self.frame]:.2f} s' if self.source.moving else path


def judge(model: Model, source: pipeline.Input, frame: int, crop: np.ndarray) -> Advice:
  """What the model makes of a crop (size, size, 3) uint8."""
  F = next(model.deformations([crop], 1))
  drawn = model.images(model.identity(crop), [F, np.zeros_like(F)], 2)
  made, anchor = (composite.fit(image, crop.shape[:2]) for image in drawn)
  levels = [float(np.abs(x.astype(np.float32) - crop).mean()) for x in (made, anchor)]
  return Advice(source, frame, (crop, made, anchor), *levels)


def opened(model: Model, path: str, how: pipeline.Cropping) -> pipeline.Input:
  if not pipeline.is_moving(path):
    return pipeline.open_picture(path, how, model)
  with tempfile.TemporaryDirectory() as folder:
    return pipeline.open_clip(path, how, model, pathlib.Path(folder) / 'track.npz', bar)


def advise(
  model: Model, paths: Sequence[str], how: pipeline.Cropping, count: int
) -> tuple[list[Advice], list[str]]:
  """All sources, the best first, `count` frames of each clip; and why files could not be used.

  Raises:
    InputError: none could.
  """
  found, notes = [], []
  for path in paths:
    try:
      source = opened(model, path, how)
    except InputError as error:
      notes.append(str(error))
      continue
    known = np.flatnonzero(~pipeline.missing(source, how))
    frames = known[np.unique(np.linspace(0, len(known) - 1, count).round().astype(int))].tolist()
    crops = pipeline.crops(source, frames, model.size)
    for frame, crop in zip(bar(frames, path, len(frames)), crops, strict=True):
      found.append(judge(model, source, frame, crop))
  if not found:
    raise InputError('; '.join(notes))
  return sorted(found, key=lambda advice: advice.score), notes


def rows_of(ranked: Sequence[Advice]) -> Iterator[dict]:
  """What the table says of each."""
  for rank, advice in enumerate(ranked, start=1):
    yield {
      'rank': rank,
      'file': advice.source.path,
      'frame': advice.frame,
      'seconds': f'{advice.source.clip.seconds[advice.frame]:.3f}',
      'score': f'{advice.score:.3f}',
      'reconstruction': f'{advice.reconstruction:.3f}',
      'anchor': f'{advice.anchor:.3f}',
    }


def write(model: Model, args: argparse.Namespace) -> list[Advice]:
  """Writes the sheet, the table beside it and the best picture. Raises InputError."""
  output = pathlib.Path(args.output)
  if output.suffix.lower() == '.csv' or not output.suffix:
    raise InputError(f'{output}: give a picture, such as advice.png; the table goes beside it')
  refuse_overwriting([output, output.with_suffix('.csv'), args.best], args.sources)
  for path in filter(None, (output, args.best)):
    if not pathlib.Path(path).absolute().parent.is_dir():
      raise InputError(f'{path}: its folder does not exist; make it first')
  how = pipeline.Cropping(args.face_detector, '', args.face, args.crop)
  ranked, notes = advise(model, args.sources, how, args.count)
  shown = ranked[: args.shown]
  names = [f'{k}. {a.name}\nscore {a.score:.1f}' for k, a in enumerate(shown, start=1)]
  heads = ['source', 'reconstruction', 'anchor']
  sheet = composite.labelled([a.pictures for a in shown], names, heads)
  stills.write_image(output, sheet)
  table = output.with_suffix('.csv')
  rows = list(rows_of(ranked))
  with replacing(table) as part, open(part, 'w', newline='') as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
  best = ranked[0]
  if args.best:
    stills.write_image(args.best, next(pipeline.pick(best.source, [best.frame])))
  for note in notes:
    print(f'note     {note}')
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
  add('--workdir', default='', help='workdir of a training run (the shipped model)')
  add('--face-detector', default='', help='as in reenact; without it inputs are square crops')
  add('--face', default='largest', help='as in reenact')
  add('--crop', default='', choices=('', 'ffhq', 'square', 'whole'), help='(as the model learnt)')
  return parser.parse_args(argv)


def main() -> None:
  args = parse_args()
  with running():
    write(load_model(args.workdir), args)


if __name__ == '__main__':
  main()
