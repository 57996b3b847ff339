"""Packs a set of videos for training: one record per clip, identity-disjoint splits.

  python -m data.face_clips.pack my_videos packed/ --face_detector yunet.onnx
  python -m data.face_clips.pack CelebV-HQ/videos packed/ --layout celebv_hq \\
      --metadata celebvhq_info.json --face_detector yunet.onnx
  python -m data.face_clips.pack HDTF/clips packed/ --layout hdtf --metadata HDTF_dataset \\
      --face_detector yunet.onnx --corrections people.csv

Prints the people it derives and the numbers of clips expected, found and used. Clips that cannot be
read, show no face or are too short are skipped, each with a line. clips.json beside the records
lists the clips used with a hash of each. Train with --config.data.packed=FOLDER, the folder printed
at the end.
"""

import argparse
import collections
import json
import os
import pathlib
import sys

from hybrid_jax.errors import InputError


def main() -> None:
  """Parses the command line and packs."""
  parser = argparse.ArgumentParser(
    prog='python -m data.face_clips.pack',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('videos', help='folder of videos')
  parser.add_argument('out', help='folder to write the packed set to')
  parser.add_argument('--name', default='clips', help='of the set, if OUT has several (clips)')
  parser.add_argument('--layout', default='folder', help='folder, celebv_hq or hdtf (folder)')
  parser.add_argument('--metadata', default='', help="CelebV-HQ's JSON, or HDTF's metadata folder")
  parser.add_argument('--corrections', default='', help="CSV of 'name,identity'; no identity drops")
  parser.add_argument('--face_detector', default='', help='YuNet or MediaPipe file (none: square)')
  parser.add_argument('--size', type=int, default=256, help='side of the crops, px (256)')
  parser.add_argument('--frames', type=int, default=50, help='frames kept of a clip (50)')
  parser.add_argument('--framing', default='clip', help='of the crops: clip, fomm or ffhq (clip)')
  parser.add_argument('--held_out', type=float, default=0.2, help='share of people held out (0.2)')
  args = parser.parse_args()
  try:
    print(pack(**vars(args)))
  except InputError as error:
    sys.exit(f'error: {error}')


def people_table(expected: list) -> str:
  """Returns one line per person: number of clips on disk, of clips expected."""
  found, total = collections.Counter(), collections.Counter()
  for clip in expected:
    total[clip.identity] += 1
    found[clip.identity] += clip.path is not None
  lines = [f'  {name:30s} {found[name]:4d} of {total[name]}' for name in sorted(total)]
  return '\n'.join(['people (clips found of expected):', *lines])


def pack(*, videos: str, out: str, name: str, **fields) -> str:
  """Builds the set; returns a report. `fields` are those of FaceClipsConfig.

  Raises:
    InputError: a bad argument, fewer than four people, or no clip that can be used.
  """
  from data.face_clips.layouts import read_layout
  from hybrid_jax.media import framing, replacing
  from hybrid_jax.media.landmarkers import open_landmarker
  from hybrid_jax.training.triplets import INDEX

  if fields['size'] < 16 or fields['frames'] < 2 or not 0 < fields['held_out'] < 1:
    raise InputError('--size is at least 16, --frames at least 2, --held_out between 0 and 1')
  if fields['framing'] not in framing.KINDS:
    raise InputError(f'--framing={fields["framing"]}: choose from {", ".join(framing.KINDS)}')
  # Errors in the arguments are reported before TensorFlow is loaded, which takes seconds.
  expected = read_layout(fields['layout'], videos, fields['metadata'], fields['corrections'])
  if fields['face_detector']:
    # Opened and dropped: raises if the file is missing or not a model.
    open_landmarker(fields['face_detector'])
  print(people_table(expected))
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  try:
    # An optional dependency, and seconds to import.
    import tensorflow_datasets as tfds

    from data.face_clips.face_clips import FaceClips, FaceClipsConfig
  except ImportError as error:
    raise InputError("packing needs the extra [data]: pip install -e '.[data]'") from error
  config = FaceClipsConfig(name=name, videos=videos, **fields)
  builder = FaceClips(config=config, data_dir=out)
  path = pathlib.Path(builder.data_path)
  # Written last, so that its presence means a complete set.
  if (path / INDEX).is_file():
    return f'{path}: packed already; remove it to pack again'
  tfds.disable_progress_bar()  # its bar counts shards; the builder shows one of clips
  builder.download_and_prepare()
  used = {split: len(rows) for split, rows in builder.index.items()}
  if not all(used.values()):
    raise InputError(f'no clip of a split can be used ({"; ".join(builder.skipped)[:500]})')
  index = {'splits': builder.index, 'skipped': builder.skipped, 'config': fields}
  missing = [clip.name for clip in expected if clip.path is None]
  with replacing(path / INDEX) as part:
    part.write_text(json.dumps(index | {'missing': missing}, indent=1))
  return '\n'.join(
    [
      *(f'skipped {line}' for line in builder.skipped),
      f'{len(expected)} clips expected, {len(expected) - len(missing)} found, '
      f'{sum(used.values())} used ({used["train"]} train, {used["validation"]} validation)',
      f'packed: {path}',
    ]
  )


if __name__ == '__main__':
  main()
