"""The TFDS builder of the rendered world: what is read back is what was rendered."""

import json

import numpy as np
import pytest
import store

from hybrid_jax.world import clips, people

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
  expected = clips.Renderer(64).clip(people.SPLITS['train'] + 1, 0, clips.spread_times(4))
  record = source[1]
  assert record['identity'].decode() == expected.identity
  np.testing.assert_array_equal(np.stack(record['frames']), expected.frames)
  np.testing.assert_array_equal(np.stack(record['masks']), expected.masks)
  np.testing.assert_allclose(record['landmarks'], expected.points, atol=1e-6)
  np.testing.assert_allclose(record['motion'], expected.motion, atol=1e-6)
  np.testing.assert_allclose(record['times'], expected.times)


def test_the_index_is_that_of_the_records_and_triplets_read_them(builder, tmp_path):
  from data.synthetic_heads.__main__ import build
  from hybrid_jax.training import triplets

  path = build(str(builder.data_dir).split('/synthetic_heads')[0], 'tiny')  # rendered already
  for split, rows in builder.index().items():
    records = builder.as_data_source(split=split)
    assert [row['clip'] for row in rows] == [r['clip'].decode() for r in records]
    assert [row['frames'] for row in rows] == [len(r['frames']) for r in records]
  source = triplets.PackedClips(str(path), 'train')
  frames, masks = source.read(1, [2, 0])
  record = builder.as_data_source(split='train')[1]
  np.testing.assert_array_equal(frames, np.stack(record['frames'])[[2, 0]])
  np.testing.assert_array_equal(masks, np.stack(record['masks'])[[2, 0]])
  batch = next(iter(triplets.triplets(source, batch_size=2, seed=0, masks=True)))
  assert batch['driving_mask'].max() == 255


def test_packed_data_are_read_from_a_store(builder):
  from etils import epath

  from hybrid_jax.training import triplets

  here = epath.Path(builder.data_path)
  (here / triplets.INDEX).write_text(json.dumps({'splits': builder.index()}))
  with store.emulator():
    there = epath.Path(store.BUCKET) / 'packed'
    for path in here.iterdir():
      (there / path.name).write_bytes(path.read_bytes())
    one, other = (
      iter(triplets.triplets(triplets.PackedClips(str(folder), 'train'), batch_size=2, seed=0))
      for folder in (here, there)
    )
    for _ in range(3):
      a, b = next(one), next(other)
      for role in a:
        np.testing.assert_array_equal(a[role], b[role])


def test_splits_share_no_person(builder):
  named = {
    split: {r['identity'] for r in builder.as_data_source(split=split)} for split in people.SPLITS
  }
  assert {split: len(names) for split, names in named.items()} == {
    'train': 3,
    'validation': 2,
    'test': 2,
  }
  assert len(set.union(*named.values())) == 7
