"""Packing in shards: plans them, runs them here or through Apache Beam, and joins them to a set.

The plan depends on the clips and the options alone, never on the number of workers, so that records
and index do not either. A run that was killed finds its finished shards by their keys.
"""

import collections
import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import logging
import math
import os
import pathlib
import shutil
import threading
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from data.face_clips import records
from data.face_clips.layouts import Expected
from data.face_clips.records import Options, Shard
from hybrid_jax import environment
from hybrid_jax.errors import InputError
from hybrid_jax.media import reason, replacing
from hybrid_jax.training.triplets import INDEX, split_people

SPLITS = ('train', 'validation')
NAME, VERSION = 'face_clips', '2.1.0'
# Enough that hundreds of workers stay busy, and few enough to keep all files open while training.
_MOST_SHARDS = 512


def plan(
  expected: Sequence[Expected], options: Options, held_out: float, folder: pathlib.Path
) -> list[Shard]:
  """Returns the shards of all clips on disk, by split in the order of `expected`.

  Raises:
    InputError: fewer than four people.
  """
  present = [clip for clip in expected if clip.path is not None]
  # By people present, so that missing files do not empty a split.
  people = split_people([clip.identity for clip in present], held_out)
  detector = options.face_detector and environment.sha256(options.face_detector)
  shards = []
  for split in SPLITS:
    chosen = [clip for clip in present if clip.identity in people[split]]
    length = math.ceil(len(present) / _MOST_SHARDS)
    for first in range(0, len(chosen), length):
      clips = tuple(chosen[first : first + length])
      key = _key(clips, split, dataclasses.replace(options, face_detector=detector))
      shards.append(Shard(str(folder), key, split, clips, options))
  return shards


def _key(clips: Sequence[Expected], split: str, options: Options) -> str:
  # The size of a file stands for its content: reading 35,000 videos would take hours.
  rows = [
    (clip.name, clip.identity, clip.path.name, clip.path.stat().st_size, clip.span, clip.box)
    for clip in clips
  ]
  text = json.dumps([VERSION, split, dataclasses.asdict(options), rows])
  return hashlib.sha256(text.encode()).hexdigest()[:20]


def run(shards: Sequence[Shard], workers: int, beam_options: Sequence[str] = ()) -> None:
  """Writes the shards that are not finished, in `workers` processes or where Beam's options say.

  Raises:
    InputError: Beam is not installed, or the run failed; finished shards are kept.
  """
  left = [shard for shard in shards if shard.result() is None]
  for shard in left:
    # Those of a run that was killed are counted anew.
    shard.path('count').unlink(missing_ok=True)
  with _bar(shards):
    try:
      if beam_options or (workers > 1 and len(left) > 1):
        _run_beam(left, workers, beam_options)
      else:
        for shard in left:
          records.write_shard(shard)
    # A full disk, or a worker that was killed for memory; Beam reports a page of its own frames.
    except (OSError, RuntimeError) as error:
      last = str(error).strip().splitlines()[-1:] or [reason(error)]
      raise InputError(
        f'packing stopped ({last[0][:300]}); finished clips are kept: run the same command again'
      ) from error


def has_beam() -> bool:
  """Returns whether Apache Beam is installed."""
  return importlib.util.find_spec('apache_beam') is not None


def _run_beam(shards: Sequence[Shard], workers: int, beam_options: Sequence[str]) -> None:
  if not has_beam():
    raise InputError("several workers need the extra [beam]: pip install -e '.[beam]'")
  # Its import warns of libraries of Google's cloud that are missing.
  logging.getLogger().setLevel(logging.ERROR)
  import apache_beam as beam
  from apache_beam.options.pipeline_options import PipelineOptions

  # Beam warns of options that it does not know.
  logging.getLogger().setLevel(logging.WARNING)
  flags = list(beam_options)
  if not any(flag.startswith('--runner') for flag in flags):
    # Each process takes seconds to start, and a shard is written by one.
    count = min(workers, len(shards))
    flags += [f'--direct_num_workers={count}', '--direct_running_mode=multi_processing']
    flags += ['--default_sdk_harness_log_level=ERROR']
  with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
    # Without the reshuffle one worker would get all shards.
    _ = pipeline | beam.Create(shards) | beam.Reshuffle() | beam.Map(records.write_shard)


@contextlib.contextmanager
def _bar(shards: Sequence[Shard]) -> Iterator[None]:
  """Shows how many clips are done, of all workers that share the folder."""

  def done() -> int:
    paths = [shard.path('count') for shard in shards]
    return sum(path.stat().st_size for path in paths if path.is_file())

  def watch() -> None:
    while not stop.wait(1):
      bar.update(done() - bar.n)

  stop, total = threading.Event(), sum(len(shard.clips) for shard in shards)
  with tqdm(total=total, initial=done(), desc='packing', unit='clip') as bar:
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
      yield
    finally:
      stop.set()
      thread.join()
      bar.update(done() - bar.n)


def join(shards: Sequence[Shard], path: pathlib.Path, index: dict) -> dict:
  """Moves finished shards to the folder `path` with TFDS' metadata; returns the index written.

  `index` gets the keys `splits` and `skipped`. The folder gets its name at last, so that its
  presence means a complete set; `join` can be killed and called again.

  Raises:
    InputError: no clip of a split can be used.
  """
  results = [(shard, shard.result()) for shard in shards]
  splits = {name: [] for name in SPLITS}
  for shard, result in results:
    splits[shard.split] += result['rows']
  skipped = [line for _, result in results for line in result['skipped']]
  if not all(splits.values()):
    raise InputError(f'no clip of a split can be used ({"; ".join(skipped)[:500]})')
  used = [(shard, result) for shard, result in results if result['rows']]
  keys = hashlib.sha256(''.join(shard.key for shard, _ in used).encode()).hexdigest()[:20]
  folder = pathlib.Path(shards[0].folder)
  joined = folder / f'joined-{keys}'
  joined.mkdir(exist_ok=True)
  counts = collections.Counter(shard.split for shard, _ in used)
  numbers = collections.Counter()
  for shard, _ in used:
    number, part = numbers[shard.split], shard.path('array_record')
    numbers[shard.split] += 1
    if part.is_file():  # otherwise moved by an earlier run
      name = f'{NAME}-{shard.split}.array_record-{number:05d}-of-{counts[shard.split]:05d}'
      os.replace(part, joined / name)
  _write_metadata(joined, used)
  index = {'splits': splits, 'skipped': skipped} | index
  with replacing(joined / INDEX) as part:
    part.write_text(json.dumps(index, indent=1))
  os.replace(joined, path)
  shutil.rmtree(folder)
  return index


def _write_metadata(folder: pathlib.Path, used: Sequence[tuple[Shard, dict]]) -> None:
  """Writes dataset_info.json and features.json, with which TFDS reads the folder."""
  import tensorflow_datasets as tfds

  infos = []
  for split in SPLITS:
    results = [result for shard, result in used if shard.split == split]
    lengths = [len(result['rows']) for result in results]
    infos.append(tfds.core.SplitInfo(split, lengths, sum(r['bytes'] for r in results)))
  tfds.folder_dataset.write_metadata(
    data_dir=folder,
    features=records.features(used[0][0].options),
    split_infos=infos,
    version=VERSION,
    check_data=False,
    # Records in the order of the index, by which `triplets.PackedClips` finds them.
    disable_shuffling=True,
  )
