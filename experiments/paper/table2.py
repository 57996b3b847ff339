"""Table 2, cross identity: each person with the motion of another.

  python -m experiments.paper.table2 --frames=32 \\
      --output=experiments/results/table2_heads.json

  python -m experiments.paper.table2 --videos=hdtf/ --hdtf=METADATA --cropper=YUNET.onnx \\
      --workdir=runs/finetune --inception=... --i3d=... --method FOMM=fomm/ --output=table2.json

For real people there is no true answer: frames are compared with the driving clip in motion only,
and with the source in identity. For rendered heads it is one more render, so that every metric of
Table 1 is measured as well. Other systems' videos are named SOURCE_as_DRIVER. As in the paper,
`ours` is with Cyclic Manifold Adjustment, for each pair anew; `without CMA` is the model itself.
"""

import pathlib
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from tqdm import tqdm

from experiments.paper import inputs, pairs, tables
from hybrid_jax.errors import InputError
from hybrid_jax.media import stills

STEPS = 200  # of CMA, chosen by cma.py on rendered validation people


def fill(table: tables.Table) -> None:
  """Writes every pair, re-enacts it, and measures all rows."""
  reference, driving, ours, untuned, copies, sources = table.make(
    'reference', 'driving', 'ours', 'untuned', 'copies', 'sources'
  )
  portraits = rendered(table, reference, driving) if table.rendered else real(table, driving)
  wanted = []
  for source, portrait, driver, times in portraits:
    path, name = sources / f'{source}.png', f'{source}_as_{driver}'
    stills.write_image(path, portrait)
    inputs.write_copies(copies / f'{name}.mp4', portrait, times)
    wanted.append(pairs.Pair(name, path, driving / f'{driver}.mp4'))
  table.begin(wanted)
  steps = table.args.cma_steps
  for name, path, clip in tqdm(wanted, desc='re-enacting', unit='pair'):
    table.reenact(path, clip, untuned / f'{name}.mp4')
    if steps:
      table.reenact(path, clip, ours / f'{name}.mp4', cma='cma', cma_steps=steps)
  # Against the driving clip only motion can be measured: the pixels show another person.
  answers = table.rendered
  compared = reference if answers else driving
  own = {tables.OURS: ours} if table.args.cma_steps else {}
  own |= {tables.WITHOUT_CMA: untuned, tables.COPY: copies}
  own |= {tables.TRUTH: reference} if answers else {}
  for name, folder in (own | table.methods).items():
    table.row(name, folder, compared, source=sources, answers=answers)
  table.write()


def rendered(
  table: tables.Table, reference: pathlib.Path, driving: pathlib.Path
) -> Iterator[tuple[str, np.ndarray, str, list[Fraction]]]:
  """Writes driving clips and true answers; yields source, portrait, driver, the driver's times.

  The drivers are the people after the sources, so that no person is both.
  """
  people, frames = table.args.people, table.args.frames
  for k in tqdm(range(people), desc='people', unit='clip'):
    motion = inputs.motion_of(people + k, 0, frames)
    own = inputs.motion_of(k, 0, 1)  # the source's own first moment
    portrait = inputs.render(table.folder / 'portrait.mp4', k, own)[0]
    source, driver = f'person_{k:03d}', f'driver_{k:03d}'
    inputs.render(driving / f'{driver}.mp4', people + k, motion)
    inputs.render(reference / f'{source}_as_{driver}.mp4', k, motion)
    yield source, portrait, driver, inputs.moments(frames)[1]


def real(
  table: tables.Table, driving: pathlib.Path
) -> Iterator[tuple[str, np.ndarray, str, list[Fraction]]]:
  """Yields the same for real clips, each driven by the next one of another person, in a circle."""
  # Only the first frame of each is kept in memory.
  heads = [
    (name, next(inputs.frames_in(path)), times)
    for name, path, times in inputs.head_clips(table, driving)
  ]
  person = table.people
  if len({person[name] for name, *_ in heads}) < 2:
    raise InputError(f'{table.args.videos}: videos with a face of two people are needed')
  for k, (source, portrait, _) in enumerate(heads):
    others = (head for head in heads[k + 1 :] + heads[:k] if person[head[0]] != person[source])
    driver, _, times = next(others)
    yield source, portrait, driver, times


if __name__ == '__main__':
  parser = tables.parser(__doc__)
  parser.add_argument(
    '--cma-steps', type=int, default=STEPS, help='at most, per pair; 0: no CMA (%(default)s)'
  )
  tables.run('table2', parser.parse_args(), fill)
