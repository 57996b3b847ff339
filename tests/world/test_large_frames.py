"""Shards of 256 px frames: resumed where they stopped, and read by person and kind."""

import jax.numpy as jnp
import numpy as np
import outcomes
import pytest

from experiments.world import grow, large_frames


@pytest.fixture
def quick(monkeypatch):
  """A renderer of 4 px pictures whose grey is the yaw, and two people per shard."""
  pixels = lambda i, m, s: jnp.full((4, 4, 4), m[0] * 255).astype(jnp.uint8)  # noqa: E731
  monkeypatch.setattr(large_frames, '_draw', pixels)
  monkeypatch.setattr(large_frames, 'SHARD', 2)


@pytest.mark.slow
def test_rendering_continues_and_rows_match_their_vectors(quick, tmp_path):
  first = large_frames.Shards(str(tmp_path), 'train', 5)
  first.render(3)
  assert len(first) == 4  # whole shards
  last = tmp_path / 'train-256-0001.npz'
  last.unlink()  # as if killed between the two files of a shard
  again = large_frames.Shards(str(tmp_path), 'train', 5)
  assert len(again) == 2
  again.render(9)
  assert len(again) == 5
  rows = again.rows(np.array([0, 4, 3]), np.array([0, 1, 2]))
  assert rows['image'].shape == (3, 4, 4, 3)
  np.testing.assert_array_equal(
    rows['region'][:, 0, 0], (rows['motion'][:, 0] * 255).astype(np.uint8)
  )
  outcomes.write(shards=len(again))


def test_a_batch_is_moments_and_then_their_twins(quick, tmp_path):
  shards = large_frames.Shards(str(tmp_path), 'train', 8)
  shards.render(8)
  expression, traits = (grow.batch_at(shards, step, 6) for step in (0, 1))
  for batch in (expression, traits):
    np.testing.assert_array_equal(batch['scene'][:3], batch['scene'][3:])
  np.testing.assert_array_equal(expression['identity'][:3], expression['identity'][3:])
  np.testing.assert_array_equal(traits['motion'][:3], traits['motion'][3:])
  assert np.any(expression['motion'][:3, 3:] != expression['motion'][3:, 3:])
  assert np.any(traits['identity'][:3] != traits['identity'][3:])


def test_the_region_covers_what_other_traits_change(quick, tmp_path, monkeypatch):
  monkeypatch.setattr(large_frames, '_draw', lambda i, m, s: jnp.zeros((4, 4, 4), jnp.uint8))
  shards = large_frames.Shards(str(tmp_path), 'train', 8)
  shards.render(8)
  shards.pixels = [x.copy() for x in shards.pixels]
  for x in shards.pixels:
    x[:, 2, 3, :, :3] += 100  # the last line of pictures with other traits
  batch = grow.batch_at(shards, 1, 6)
  np.testing.assert_array_equal(batch['region'][:, :, 0], [[0, 0, 0, 0]] * 3 + [[0, 0, 0, 255]] * 3)
  assert not np.any(grow.batch_at(shards, 0, 6)['region'])
