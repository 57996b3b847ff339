"""Fréchet distance against pytorch-fid's numbers, scipy and closed forms."""

import tracemalloc

import numpy as np
import pytest

from hybrid_jax.evaluation import frechet


def moments(x, batch=7):
  result = frechet.Moments()
  for k in range(0, len(x), batch):
    result.add(x[k : k + batch])
  return result


def test_against_pytorch_fid(shared):
  v = np.load(shared('reference/fid_distance.npz'))
  first, second = moments(v['feats1']), moments(v['feats2'], 64)
  np.testing.assert_allclose(first.mean(), v['mu1'], rtol=1e-12)
  np.testing.assert_allclose(second.covariance(), v['sigma2'], rtol=1e-10, atol=1e-12)
  assert frechet.distance(first, second) == pytest.approx(float(v['fid']), rel=1e-11)
  assert frechet.distance(first, first) < 1e-10
  few = [v[f'rank_deficient_feats{i}'] for i in (1, 2)]
  value = frechet.distance(*(moments(x, 5) for x in few))
  # The product's square root loses half of the digits here, so the reference is off by 1e-7.
  assert value == pytest.approx(float(v['fid_rank_deficient']), rel=1e-8)
  x, y = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in few)
  crossed = np.linalg.svd(x @ y.T, compute_uv=False).sum()
  exact = np.square(few[0].mean(0) - few[1].mean(0)).sum() + (x**2).sum() + (y**2).sum()
  assert value == pytest.approx(exact - 2 * crossed, rel=1e-12)


def test_against_scipy():
  linalg = pytest.importorskip('scipy.linalg')
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(90, 24)) @ rng.normal(size=(24, 24)), rng.normal(1, 2, (70, 24))
  root = linalg.sqrtm(np.cov(x, rowvar=False) @ np.cov(y, rowvar=False)).real
  expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(
    np.cov(x, rowvar=False) + np.cov(y, rowvar=False) - 2 * root
  )
  assert frechet.distance(moments(x), moments(y)) == pytest.approx(expected, rel=1e-9)


def test_closed_forms():
  rng = np.random.default_rng(1)
  turn, _ = np.linalg.qr(rng.normal(size=(9, 9)))
  a, b, m = rng.uniform(0.1, 4, 9), rng.uniform(0.1, 4, 9), rng.normal(size=9)
  # Covariances that commute: each direction on its own.
  expected = (m**2).sum() + np.square(np.sqrt(a) - np.sqrt(b)).sum()
  value = frechet.gaussians(0 * m, turn * a @ turn.T, turn @ m, turn * b @ turn.T)
  assert value == pytest.approx(expected, rel=1e-12)
  # Rank one each: the correlation of the two directions is all that they have in common.
  u, v = rng.normal(size=(2, 9))
  expected = u @ u + v @ v - 2 * abs(u @ v)
  value = frechet.gaussians(0 * m, np.outer(u, u), 0 * m, np.outer(v, v))
  assert value == pytest.approx(expected, rel=1e-12)


def test_far_from_zero_and_in_batches_of_any_size():
  x = np.random.default_rng(2).normal(1e6, 1, (200, 5))
  for batch in (1, 3, 200):
    np.testing.assert_allclose(
      moments(x, batch).covariance(), np.cov(x, rowvar=False), rtol=1e-8, atol=1e-8
    )


def test_streams_can_be_merged():
  block = frechet.BLOCK
  x = np.random.default_rng(4).normal(3, 2, (3 * block + 50, 6))
  for ends in ((1, 20), (block - 1, 2 * block + 20), (2 * block, 3 * block)):
    merged, empty = frechet.Moments(), frechet.Moments()
    for part in np.split(x, ends):
      merged.merge(moments(part, 100))
      merged.merge(empty)
    assert merged.count == len(x)
    np.testing.assert_allclose(merged.mean(), x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(merged.covariance(), np.cov(x, rowvar=False), rtol=1e-11, atol=1e-13)
  with pytest.raises(ValueError, match='features of 6 and 5 numbers'):
    merged.merge(moments(x[:, :5]))


def test_what_is_read_in_between_changes_nothing():
  x = np.random.default_rng(5).normal(size=(40, 3))
  stream = moments(x[:20])
  stream.covariance()
  later = x[20:].copy()  # the caller's own, to be written to again
  stream.add(later)
  later[:] = 9
  np.testing.assert_allclose(stream.covariance(), np.cov(x, rowvar=False), rtol=1e-12)


def test_memory_does_not_grow():
  rng, stream = np.random.default_rng(3), frechet.Moments()
  stream.add(rng.normal(size=(frechet.BLOCK, 64)))
  tracemalloc.start()
  before, _ = tracemalloc.get_traced_memory()
  for _ in range(19 * frechet.BLOCK // 32):
    stream.add(rng.normal(size=(32, 64)))
  after, highest = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert stream.count == 20 * frechet.BLOCK
  assert after - before < 64 * 64 * 8  # one more matrix; the stream was 5 MB
  assert highest - before < 5 * frechet.BLOCK * 64 * 8  # a block, and what its product takes


def test_what_has_no_distance_is_refused():
  one, two = moments(np.zeros((1, 3))), moments(np.eye(3))
  with pytest.raises(ValueError, match='two vectors'):
    frechet.distance(one, two)
  with pytest.raises(ValueError, match='features of 2 and 3 numbers'):
    frechet.distance(moments(np.eye(2)), two)
  with pytest.raises(ValueError, match='not finite'):
    two.add(np.full((1, 3), np.nan))
