"""Packs a set of videos for training: one record per clip, identity-disjoint splits.

  python -m data.face_clips.pack my_videos packed/ --face_detector yunet.onnx
  python -m data.face_clips.pack CelebV-HQ/videos packed/ --layout celebv_hq \\
      --metadata celebvhq_info.json --face_detector yunet.onnx --workers 8
  python -m data.face_clips.pack HDTF/clips packed/ --layout hdtf --metadata HDTF_dataset \\
      --face_detector yunet.onnx --corrections people.csv

Prints the people it derives and the numbers of clips expected, found and used. Clips that cannot be
read, show no face or are too short are skipped, each with a line. clips.json beside the records
lists the clips used with a hash of each. Train with --config.data.packed=FOLDER, the folder printed
at the end. A run that was killed continues with the same command, and keeps what is finished.

Several workers run through Apache Beam, `pip install -e '.[beam]'`; records and index do not depend
on their number. Arguments after -- are Beam's own, for a cluster whose machines all see the videos
and the output folder under these paths:

  python -m data.face_clips.pack /nfs/videos /nfs/packed -- --runner=FlinkRunner \\
      --flink_master=HOST:8081 --environment_type=LOOPBACK
"""

import argparse
import collections
import dataclasses
import importlib.util
import os
import pathlib
import sys

from hybrid_jax.errors import InputError


def main() -> None:
  """Parses the command line and packs."""
  parser = argparse.ArgumentParser(
    prog='python -m data.face_clips.pack',
    usage='%(prog)s [options] VIDEOS OUT [-- BEAM OPTIONS]',
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
  parser.add_argument(
    '--search_every', type=int, default=0, help='frames between searches for the face (5; ffhq: 1)'
  )
  parser.add_argument(
    '--no_masks', dest='masks', action='store_false', help='of mouth, eyes, brows: stage 1 only'
  )
  parser.add_argument('--workers', type=int, default=0, help='processes (all cores, with Beam)')
  own, beam_options = _split(sys.argv[1:])
  args = parser.parse_args(own)
  try:
    print(pack(**vars(args), beam_options=beam_options))
  except InputError as error:
    sys.exit(f'error: {error}')
  except KeyboardInterrupt:
    sys.exit('interrupted: the same command continues, and keeps the finished clips')


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
  """Returns the arguments before and after '--'."""
  at = arguments.index('--') if '--' in arguments else len(arguments)
  return arguments[:at], arguments[at + 1 :]


def people_table(expected: list) -> str:
  """Returns one line per person: number of clips on disk, of clips expected."""
  found, total = collections.Counter(), collections.Counter()
  for clip in expected:
    total[clip.identity] += 1
    found[clip.identity] += clip.path is not None
  lines = [f'  {name:30s} {found[name]:4d} of {total[name]}' for name in sorted(total)]
  return '\n'.join(['people (clips found of expected):', *lines])


def pack(
  *, videos: str, out: str, name: str, workers: int = 1, beam_options: list[str] = (), **fields
) -> str:
  """Packs the set; returns a report.

  Args:
    workers: processes; 0 takes one for each core where Apache Beam is installed.
    beam_options: of a Beam pipeline on other machines.
    fields: those of `records.Options`, and layout, metadata, corrections and held_out.

  Raises:
    InputError: a bad argument, fewer than four people, or no clip that can be used.
  """
  from data.face_clips import packing
  from data.face_clips.layouts import read_layout
  from data.face_clips.records import Options
  from hybrid_jax.media.landmarkers import open_landmarker
  from hybrid_jax.training.people import look_like
  from hybrid_jax.training.triplets import INDEX

  names = {field.name for field in dataclasses.fields(Options)}
  options = Options(**{key: value for key, value in fields.items() if key in names})
  _check(options, fields['held_out'], workers)
  # Errors in the arguments are reported before TensorFlow is loaded, which takes seconds.
  expected = read_layout(fields['layout'], videos, fields['metadata'], fields['corrections'])
  if options.face_detector:
    # Opened and dropped: raises if the file is missing or not a model.
    open_landmarker(options.face_detector)
  path = pathlib.Path(out).absolute() / packing.NAME / name / packing.VERSION
  # It is in a folder that gets its name when complete.
  if (path / INDEX).is_file():
    return f'{path}: packed already; remove it to pack again'
  if path.exists():
    raise InputError(f'{path}: exists, but holds no {INDEX}; remove it')
  print(people_table(expected))
  if fields['layout'] == 'folder' and (line := look_like(clip.path for clip in expected)):
    print(line)
  workers = workers or _default_workers(packing.has_beam())
  parts = path.with_name(f'{path.name}.parts')
  parts.mkdir(parents=True, exist_ok=True)
  shards = packing.plan(expected, options, fields['held_out'], parts)
  packing.run(shards, workers, beam_options)
  missing = [clip.name for clip in expected if clip.path is None]
  config = dataclasses.asdict(options) | fields
  index = packing.join(shards, path, {'config': config, 'missing': missing})
  used = {split: len(rows) for split, rows in index['splits'].items()}
  return '\n'.join(
    [
      *(f'skipped {line}' for line in index['skipped']),
      f'{len(expected)} clips expected, {len(expected) - len(missing)} found, '
      f'{sum(used.values())} used ({used["train"]} train, {used["validation"]} validation)',
      f'packed: {path}',
    ]
  )


def _check(options: 'Options', held_out: float, workers: int) -> None:  # noqa: F821
  """Raises InputError for a bad option, or if an optional dependency is missing."""
  from hybrid_jax.media import framing

  if options.size < 16 or options.frames < 2 or not 0 < held_out < 1:
    raise InputError('--size is at least 16, --frames at least 2, --held_out between 0 and 1')
  if options.search_every < 0 or workers < 0:
    raise InputError('--search_every and --workers are 1 or more; 0 takes the default')
  if options.framing not in framing.KINDS:
    raise InputError(f'--framing={options.framing}: choose from {", ".join(framing.KINDS)}')
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  # Found without importing it, which takes seconds.
  if importlib.util.find_spec('tensorflow_datasets') is None:
    raise InputError("packing needs the extra [data]: pip install -e '.[data]'")


def _default_workers(has_beam: bool) -> int:
  """Returns one worker for each core that this process may use; one without Beam."""
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
  if cores > 1 and not has_beam:
    print(f"1 of {cores} cores packs; the extra [beam] takes all: pip install -e '.[beam]'")
  return cores if has_beam else 1


if __name__ == '__main__':
  main()
