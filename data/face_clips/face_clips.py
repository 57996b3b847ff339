"""TFDS builder of face clips: one record per clip, splits disjoint in people."""

import dataclasses
import hashlib
import io
from collections.abc import Iterator

import imageio.v3 as iio
import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from data.face_clips.layouts import Expected, read_layout
from hybrid_jax.errors import InputError
from hybrid_jax.media import clips
from hybrid_jax.media.landmarkers import open_landmarker
from hybrid_jax.training.triplets import split_people

SPLITS = ('train', 'validation')
JPEG_QUALITY = 95


@dataclasses.dataclass
class FaceClipsConfig(tfds.core.BuilderConfig):
  """Options of the builder, see `python -m data.face_clips.pack --help`."""

  videos: str = ''
  layout: str = 'folder'
  metadata: str = ''
  corrections: str = ''
  face_detector: str = ''
  size: int = 256
  frames: int = 50
  framing: str = 'clip'
  held_out: float = 0.2


class FaceClips(tfds.core.GeneratorBasedBuilder):
  """Packs clips of faces: frames as JPEG, times, landmarks and masks.

  Attributes, filled while the records are written:
    expected: all clips that the data set lists.
    index: per split, name, identity, number of frames and hash of each record.
    skipped: a line for each clip that cannot be used.
  """

  VERSION = tfds.core.Version('2.0.0')

  def __init__(self, *, file_format: str = 'array_record', **kwargs):
    super().__init__(file_format=file_format, **kwargs)
    self.index: dict[str, list[dict]] = {split: [] for split in SPLITS}
    self.skipped: list[str] = []
    self.expected: list[Expected] = []

  def _info(self) -> tfds.core.DatasetInfo:
    size = self.builder_config.size
    # JPEG for frames, many times smaller than PNG; PNG for masks, whose edges JPEG would blur.
    image = tfds.features.Image(shape=(size, size, 3), encoding_format='jpeg')
    masks = tfds.features.Image(shape=(size, size, 4), encoding_format='png')
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(
        {
          'identity': tfds.features.Text(),
          'clip': tfds.features.Text(),
          'frames': tfds.features.Sequence(image),
          'masks': tfds.features.Sequence(masks),  # channels: `media.clips.REGIONS`
          'times': tfds.features.Tensor(shape=(None,), dtype=np.float32),
          'landmarks': tfds.features.Tensor(shape=(None, 5, 2), dtype=np.float32),
        }
      ),
      supervised_keys=None,
      # Records in the order of `index`, by which `triplets.PackedClips` finds them.
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
    del dl_manager
    config = self.builder_config
    self.expected = read_layout(config.layout, config.videos, config.metadata, config.corrections)
    present = [clip for clip in self.expected if clip.path is not None]
    # By people present, so that missing files do not empty a split.
    people = split_people([clip.identity for clip in present], config.held_out)
    return {
      split: self._generate_examples(split, [c for c in present if c.identity in people[split]])
      for split in SPLITS
    }

  def _generate_examples(self, split: str, present: list[Expected]) -> Iterator[tuple[int, dict]]:
    config, key = self.builder_config, 0
    detector = open_landmarker(config.face_detector) if config.face_detector else None
    for expected in tqdm(present, desc=f'packing {split}', unit='clip'):
      try:
        clip = clips.read_clip(
          expected.path,
          size=config.size,
          count=config.frames,
          detector=detector,
          kind=config.framing,
          span=expected.span,
          box=expected.box,
        )
      # One bad file of thousands must not end the packing; all are reported at the end.
      except InputError as error:
        self.skipped.append(f'{expected.name}: {error}')
        continue
      count = len(clip.frames)
      # Every record has all features: zeros stand for masks and landmarks without a detector.
      blank = np.zeros((count, config.size, config.size, len(clips.REGIONS)), np.uint8)
      # The hash is of the decoded crops, before JPEG: it shows whether two runs used the same data.
      row = {'clip': expected.name, 'identity': expected.identity, 'frames': count}
      self.index[split].append(row | {'sha256': _hash(clip.frames)})
      record = {
        'identity': expected.identity,
        'clip': expected.name,
        'frames': [_jpeg(frame) for frame in clip.frames],
        'masks': list(blank if clip.masks is None else clip.masks),
        'times': clip.times,
        'landmarks': np.zeros((count, 5, 2), np.float32)
        if clip.landmarks is None
        else clip.landmarks,
      }
      yield key, record
      # Consecutive over the clips used: a skipped clip leaves no gap.
      key += 1


def _jpeg(frame: np.ndarray) -> io.BytesIO:
  # Without chroma subsampling, which would blur the colour of lips and eyes to half the resolution.
  options = {'quality': JPEG_QUALITY, 'subsampling': 0}
  return io.BytesIO(iio.imwrite('<bytes>', frame, extension='.jpg', plugin='pillow', **options))


def _hash(frames: np.ndarray) -> str:
  return hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()
