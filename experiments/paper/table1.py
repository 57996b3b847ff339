"""Table 1, same identity: a clip from its own first frame.

  python -m experiments.paper.table1 --frames=48 \\
      --output=experiments/results/table1_heads.json

  # with other systems: --keep writes kept/pairs.csv, of which each renders every line into a folder
  python -m experiments.paper.table1 --frames=48 --keep=kept/ --output=ours.json
  python -m experiments.paper.table1 --frames=48 --method FOMM=fomm/ --output=table1.json

  # the paper's protocol: the first 500 frames of 75 videos of HDTF, of people held out of training;
  # other systems' videos in folders, under the names of the clips
  python -m experiments.paper.table1 --videos=hdtf/ --hdtf=METADATA --cropper=YUNET.onnx \\
      --workdir=runs/finetune --inception=... --i3d=... --arcface=... --lpips ... \\
      --method FOMM=fomm/ --method LIA=lia/ --output=table1.json

Without --videos the clips show rendered people of the test split.
"""

import pathlib
from collections.abc import Iterator
from fractions import Fraction

from tqdm import tqdm

from experiments.paper import inputs, pairs, tables
from hybrid_jax.media import stills


def fill(table: tables.Table) -> None:
  """Writes every clip, re-enacts it from its first frame, and measures all rows."""
  reference, ours, copies, sources = table.make('reference', 'ours', 'copies', 'sources')
  wanted = []
  for name, clip, times in clips(table, reference):
    portrait, first = sources / f'{name}.png', next(inputs.frames_in(clip))
    stills.write_image(portrait, first)
    inputs.write_copies(copies / f'{name}.mp4', first, times)
    wanted.append(pairs.Pair(name, portrait, clip))
  table.begin(wanted)
  for pair in tqdm(wanted, desc='re-enacting', unit='clip'):
    table.reenact(pair.source, pair.driving, ours / f'{pair.name}.mp4')
  # The reference is the true answer of every frame, so identity is compared with it, too.
  own = {tables.OURS: ours, tables.COPY: copies, tables.TRUTH: reference}
  for name, folder in (own | table.methods).items():
    table.row(name, folder, reference, answers=True)
  table.write()


def clips(
  table: tables.Table, folder: pathlib.Path
) -> Iterator[tuple[str, pathlib.Path, list[Fraction]]]:
  """Writes each reference into `folder`; yields its name, path and times."""
  if not table.rendered:
    yield from inputs.head_clips(table, folder)
    return
  for k in tqdm(range(table.args.people), desc='people', unit='clip'):
    motion = inputs.motion_of(k, 0, table.args.frames)
    path = folder / f'person_{k:03d}.mp4'
    inputs.render(path, k, motion)
    yield path.stem, path, inputs.moments(table.args.frames)[1]


if __name__ == '__main__':
  tables.run('table1', tables.parser(__doc__).parse_args(), fill)
