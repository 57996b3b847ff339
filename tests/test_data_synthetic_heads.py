"""The TFDS builder of the rendered world: what is read back is what was rendered."""

import numpy as np
import pytest

from hybrid_jax.heads import clips, people

tfds = pytest.importorskip('tensorflow_datasets', reason='needs the extra [data]')


@pytest.fixture(scope='module')
def builder(tmp_path_factory):
  from data.synthetic_heads import SyntheticHeads

  builder = SyntheticHeads(config='tiny', data_dir=tmp_path_factory.mktemp('tfds'))
  builder.download_and_prepare()
  return builder


def test_records_are_the_rendered_clips(builder):
  assert builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD
  source = builder.as_data_source(split='train')
  assert len(source) == 3
  expected = clips.Renderer(64).clip(people.SPLITS['train'] + 1, 0, clips.spread_times(3))
  record = source[1]
  assert record['identity'].decode() == expected.identity
  np.testing.assert_array_equal(np.stack(record['frames']), expected.frames)
  np.testing.assert_array_equal(np.stack(record['masks']), expected.masks)
  np.testing.assert_allclose(record['landmarks'], expected.points, atol=1e-6)
  np.testing.assert_allclose(record['motion'], expected.motion, atol=1e-6)
  np.testing.assert_allclose(record['times'], expected.times)


def test_splits_share_nobody(builder):
  named = {
    split: {r['identity'] for r in builder.as_data_source(split=split)} for split in people.SPLITS
  }
  assert {split: len(names) for split, names in named.items()} == {
    'train': 3,
    'validation': 2,
    'test': 2,
  }
  assert len(set.union(*named.values())) == 7
