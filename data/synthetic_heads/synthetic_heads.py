"""TFDS builder of the rendered world: clips by identity, with parameters, landmarks and masks.

  python -m data.synthetic_heads packed/ --config heads_64

One record is one clip. Splits are disjoint in people (`hybrid_jax.world.people.SPLITS`) and so in
motions, since each person has its own. Rendering takes about 8, 36 or 150 ms per frame at 64, 128
or 256 px on 2 CPU cores.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from hybrid_jax.world import clips, parameters, people


@dataclasses.dataclass
class HeadsConfig(tfds.core.BuilderConfig):
  """Size of the set.

  size: side of the frames, px.
  train_people, held_out_people: people of `train`, and of `validation` and `test` each.
  clips: per person.
  frames: per clip.
  """

  size: int = 64
  train_people: int = 400
  held_out_people: int = 40
  clips: int = 2
  frames: int = 24


class SyntheticHeads(tfds.core.GeneratorBasedBuilder):
  """Rendered talking heads with true parameters, landmarks and masks."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First release.'}
  BUILDER_CONFIGS = [
    HeadsConfig(name='heads_64', description='64 px, 440 people', size=64),
    HeadsConfig(name='heads_128', description='128 px, 220 people', size=128, train_people=200),
    HeadsConfig(
      name='heads_256',
      description='256 px, 60 people',
      size=256,
      train_people=50,
      held_out_people=5,
    ),
    HeadsConfig(
      name='tiny',
      description='for tests',
      size=64,
      train_people=3,
      held_out_people=2,
      clips=1,
      frames=4,
    ),
  ]

  def __init__(self, *, file_format: str = 'array_record', **kwargs):
    super().__init__(file_format=file_format, **kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    size = self.builder_config.size
    # PNG keeps the rendered values, against which parameters are true, exactly.
    image = tfds.features.Image(shape=(size, size, 3), encoding_format='png')
    masks = tfds.features.Image(shape=(size, size, 4), encoding_format='png')
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(
        {
          'identity': tfds.features.Text(),
          'clip': tfds.features.Text(),
          'frames': tfds.features.Sequence(image),
          'masks': tfds.features.Sequence(masks),  # channels: `render.REGIONS`
          'times': tfds.features.Tensor(shape=(None,), dtype=np.float32),
          'landmarks': tfds.features.Tensor(shape=(None, 68, 2), dtype=np.float32),
          'motion': tfds.features.Tensor(shape=(None, len(parameters.MOTION)), dtype=np.float32),
          'identity_vector': tfds.features.Tensor(
            shape=(len(parameters.IDENTITY),), dtype=np.float32
          ),
          'scene': tfds.features.Tensor(shape=(len(parameters.SCENE),), dtype=np.float32),
        }
      ),
      supervised_keys=None,
      # Records in the order of `index`, by which `triplets.PackedClips` finds them.
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
    del dl_manager
    return {split: self._generate_examples(split, n) for split, n in self._people().items()}

  def _people(self) -> dict[str, int]:
    config = self.builder_config
    held_out = config.held_out_people
    return {'train': config.train_people, 'validation': held_out, 'test': held_out}

  def index(self) -> dict[str, list[dict]]:
    """Returns name, identity and length of every record by split, for `triplets.PackedClips`."""
    config = self.builder_config
    rows = {}
    for split, persons in self._people().items():
      # The splits are ranges of seeds, far enough apart never to meet.
      numbers = [people.SPLITS[split] + person for person in range(persons)]
      rows[split] = [
        {'clip': f'{n:07d}-{k}', 'identity': f'{n:07d}', 'frames': config.frames}
        for n in numbers
        for k in range(config.clips)
      ]
    return rows

  def _generate_examples(self, split: str, persons: int) -> Iterator[tuple[int, dict]]:
    config = self.builder_config
    rendered = clips.iterate(
      split, persons=persons, clips=config.clips, frames=config.frames, size=config.size
    )
    bar = tqdm(rendered, f'rendering {split}', total=persons * config.clips, unit='clip')
    for key, clip in enumerate(bar):
      yield (
        key,
        {
          'identity': clip.identity,
          'clip': clip.name,
          'frames': list(clip.frames),
          'masks': list(clip.masks),
          'times': clip.times,
          'landmarks': clip.points,
          'motion': clip.motion,
          'identity_vector': clip.identity_vector,
          'scene': clip.scene,
        },
      )
