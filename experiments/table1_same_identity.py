"""Table 1, same identity: a clip from its own first frame.

  python experiments/table1_same_identity.py --frames=48 \\
      --output=experiments/results/table1_heads.json

  # the paper's protocol: the first 500 frames of 75 videos of HDTF, of people held out of training;
  # other systems' videos in folders, under the names of the clips
  python experiments/table1_same_identity.py --videos=hdtf/ --hdtf=METADATA --cropper=YUNET.onnx \\
      --workdir=runs/finetune --inception=... --i3d=... --arcface=... --lpips ... \\
      --method FOMM=fomm/ --method LIA=lia/ --output=table1.json

Without --videos the clips are rendered heads of people that no network has seen.
"""

import tables
from tqdm import tqdm


def fill(table: tables.Table) -> None:
  reference, ours, copies, sources = table.make('reference', 'ours', 'copies', 'sources')
  count, args = 0, table.args
  for name, frames in clips(table, reference):
    portrait = sources / f'{name}.png'
    tables.write_still(portrait, frames[0])
    table.reenact(portrait, reference / f'{name}.mp4', ours / f'{name}.mp4')
    tables.write_copies(copies / name, frames[0], len(frames))
    count += 1
  if not count:
    raise tables.InputError(f'{args.videos}: no video with a face')
  # Frame by frame the reference is the true answer, of the identity too.
  for name, folder in {tables.OURS: ours, tables.COPY: copies, **table.methods}.items():
    table.row(name, folder, reference, answers=True)
  table.write()


def clips(table: tables.Table, folder):
  """(name, frames) of each reference, once it is written."""
  if not table.rendered:
    yield from ((name, frames) for name, frames, _ in tables.head_clips(table, folder))
    return
  for k in tqdm(range(table.args.people), desc='people', unit='clip'):
    motion = tables.motion_of(k, 0, table.args.frames)
    yield f'person_{k:03d}', tables.render(folder / f'person_{k:03d}.mp4', k, motion)


if __name__ == '__main__':
  tables.run('table1', tables.parser(__doc__).parse_args(), fill)
