"""Records of face clips: reads clips, and writes them in shards of array_record.

A shard is the unit of work: any process or machine that sees the videos and the folder can write
it. Its files get their names once they are complete, the JSON last:

  <key>.array_record   one record a clip
  <key>.json           {'rows': of the index, 'skipped': a line each, 'bytes': of the records}
  <key>.count          one byte for each clip that is done, for the progress bar
"""

import dataclasses
import functools
import hashlib
import io
import json
import pathlib
from collections.abc import Iterator

import cv2
import imageio.v3 as iio
import numpy as np

from data.face_clips.layouts import Expected
from hybrid_jax.errors import InputError
from hybrid_jax.media import clips, replacing
from hybrid_jax.media.landmarkers import open_landmarker

JPEG_QUALITY = 95


@dataclasses.dataclass(frozen=True)
class Options:
  """How clips are cut, see `python -m data.face_clips.pack --help`."""

  face_detector: str = ''
  size: int = 256
  frames: int = 50
  framing: str = 'clip'
  search_every: int = 0
  masks: bool = True


@dataclasses.dataclass(frozen=True)
class Shard:
  """Clips that are written into one file.

  folder: of the files above.
  key: hash of the options and of the clips, so that a finished shard is only taken for its own.
  """

  folder: str
  key: str
  split: str
  clips: tuple[Expected, ...]
  options: Options

  def path(self, suffix: str) -> pathlib.Path:
    """Returns the file of the shard with this suffix."""
    return pathlib.Path(self.folder) / f'{self.key}.{suffix}'

  def result(self) -> dict | None:
    """Returns the content of the JSON; None if the shard is not finished."""
    path = self.path('json')
    return json.loads(path.read_text()) if path.is_file() else None


def features(options: Options):
  """Returns the TFDS features of a record."""
  # Seconds to import, and worker processes import this module.
  import tensorflow_datasets as tfds

  size, masks = options.size, {}
  # JPEG for frames, many times smaller than PNG; PNG for masks, whose edges JPEG would blur.
  image = tfds.features.Image(shape=(size, size, 3), encoding_format='jpeg')
  if has_masks(options):
    mask = tfds.features.Image(shape=(size, size, 4), encoding_format='png')
    masks = {'masks': tfds.features.Sequence(mask)}  # channels: `media.clips.REGIONS`
  return tfds.features.FeaturesDict(
    {
      'identity': tfds.features.Text(),
      'clip': tfds.features.Text(),
      'frames': tfds.features.Sequence(image),
      'times': tfds.features.Tensor(shape=(None,), dtype=np.float32),
      'landmarks': tfds.features.Tensor(shape=(None, 5, 2), dtype=np.float32),
      **masks,
    }
  )


def has_masks(options: Options) -> bool:
  """Returns whether records have masks, which only stage 2 reads."""
  return options.masks and bool(options.face_detector)


def write_shard(shard: Shard) -> None:
  """Writes a shard, with one clip in memory at a time; does nothing if it is finished."""
  if shard.result() is not None:
    return
  from tensorflow_datasets.core import example_serializer, file_adapters

  spec = features(shard.options)
  serializer = example_serializer.ExampleSerializer(spec.get_serialized_info())
  result = {'rows': [], 'skipped': [], 'bytes': 0}

  def serialized() -> Iterator[tuple[int, bytes]]:
    for number, record in enumerate(_records(shard, result)):
      example = serializer.get_tf_example(spec.encode_example(record))
      # Otherwise the order of the features, a map, differs from process to process.
      example = example.SerializeToString(deterministic=True)
      result['bytes'] += len(example)
      yield number, example

  # The cores are shared among processes; one thread each also gives the same values everywhere.
  threads = cv2.getNumThreads()
  cv2.setNumThreads(1)
  try:
    with replacing(shard.path('array_record')) as part:
      file_adapters.ArrayRecordFileAdapter.write_examples(part, serialized())
  finally:
    cv2.setNumThreads(threads)
  with replacing(shard.path('json')) as part:
    part.write_text(json.dumps(result))


@functools.cache
def _landmarker(path: str):
  # Kept for all shards of a process: opening a model can take longer than a short clip.
  return open_landmarker(path) if path else None


def _records(shard: Shard, result: dict) -> Iterator[dict]:
  """Yields the records of clips that can be used; adds their rows, and lines of the others."""
  with open(shard.path('count'), 'wb', buffering=0) as done:
    for expected in shard.clips:
      try:
        clip = _read(expected, shard.options)
      # One bad file of thousands must not end the packing; all are reported at the end.
      except InputError as error:
        result['skipped'].append(f'{expected.name}: {error}')
      else:
        # The hash is of the decoded crops, before JPEG: it shows whether two runs used the same.
        row = {'clip': expected.name, 'identity': expected.identity, 'frames': len(clip.frames)}
        result['rows'].append(row | {'sha256': _hash(clip.frames)})
        yield _record(expected, clip)
      done.write(b'.')


def _read(expected: Expected, options: Options) -> clips.HeadClip:
  return clips.read_clip(
    expected.path,
    size=options.size,
    count=options.frames,
    detector=_landmarker(options.face_detector),
    kind=options.framing,
    span=expected.span,
    box=expected.box,
    search_every=options.search_every,
    masks=options.masks,
    threads=1,
  )


def _record(expected: Expected, clip: clips.HeadClip) -> dict:
  # Every record has landmarks: zeros without a detector.
  blank = np.zeros((len(clip.frames), 5, 2), np.float32)
  return {
    'identity': expected.identity,
    'clip': expected.name,
    'frames': [_jpeg(frame) for frame in clip.frames],
    'times': clip.times,
    'landmarks': blank if clip.landmarks is None else clip.landmarks,
  } | ({} if clip.masks is None else {'masks': [_png(mask) for mask in clip.masks]})


def _jpeg(frame: np.ndarray) -> io.BytesIO:
  # Without chroma subsampling, which would blur the colour of lips and eyes to half the resolution.
  options = {'quality': JPEG_QUALITY, 'subsampling': 0}
  return io.BytesIO(iio.imwrite('<bytes>', frame, extension='.jpg', plugin='pillow', **options))


def _png(mask: np.ndarray) -> io.BytesIO:
  # TFDS would load TensorFlow for it, seconds and hundreds of megabytes in each worker.
  return io.BytesIO(iio.imwrite('<bytes>', mask, extension='.png', plugin='pillow'))


def _hash(frames: np.ndarray) -> str:
  return hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()
