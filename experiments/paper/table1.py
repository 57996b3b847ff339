"""Table 1, same identity: a clip from its own first frame.

  python -m experiments.paper.table1 --frames=48 \\
      --output=experiments/results/table1_heads.json

  # the paper's protocol: the first 500 frames of 75 videos of HDTF, of people held out of training;
  # other systems' videos in folders, under the names of the clips
  python -m experiments.paper.table1 --videos=hdtf/ --hdtf=METADATA --cropper=YUNET.onnx \\
      --workdir=runs/finetune --inception=... --i3d=... --arcface=... --lpips ... \\
      --method FOMM=fomm/ --method LIA=lia/ --output=table1.json

Without --videos the clips are rendered heads of people that no network has seen.
"""

from tqdm import tqdm

from experiments.paper import tables
from hybrid_jax.media import stills


def fill(table: tables.Table) -> None:
  reference, ours, copies, sources = table.make('reference', 'ours', 'copies', 'sources')
  count, args = 0, table.args
  for name, clip, times in clips(table, reference):
    portrait, first = sources / f'{name}.png', next(tables.frames_in(clip))
    stills.write_image(portrait, first)
    table.reenact(portrait, clip, ours / f'{name}.mp4')
    tables.write_copies(copies / f'{name}.mp4', first, times)
    count += 1
  if not count:
    raise tables.InputError(f'{args.videos}: no video with a face')
  # Frame by frame the reference is the true answer, of the identity too.
  for name, folder in {tables.OURS: ours, tables.COPY: copies, **table.methods}.items():
    table.row(name, folder, reference, answers=True)
  table.write()


def clips(table: tables.Table, folder):
  """(name, path, times) of each reference, once it is written."""
  if not table.rendered:
    yield from tables.head_clips(table, folder)
    return
  for k in tqdm(range(table.args.people), desc='people', unit='clip'):
    motion = tables.motion_of(k, 0, table.args.frames)
    path = folder / f'person_{k:03d}.mp4'
    tables.render(path, k, motion)
    yield path.stem, path, tables.moments(table.args.frames)[1]


if __name__ == '__main__':
  tables.run('table1', tables.parser(__doc__).parse_args(), fill)
