"""Image metrics against scikit-image and closed forms; the bootstrap against its known coverage."""

import numpy as np
import pytest

from hybrid_jax.evaluation import images


@pytest.fixture(scope='module')
def pair():
  rng = np.random.default_rng(0)
  x = rng.uniform(-1, 1, (3, 40, 33, 3)).astype(np.float32)
  x = (x + np.roll(x, 1, 1) + np.roll(x, 1, 2)) / 3
  noise = np.array([0.02, 0.1, 0.4])[:, None, None, None]
  return x, np.clip(x + noise * rng.normal(size=x.shape), -1, 1).astype(np.float32)


def test_ssim_and_psnr_are_those_of_scikit_image(pair):
  metrics = pytest.importorskip('skimage.metrics')
  x, y = pair
  window = {'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False}
  ssim = [
    metrics.structural_similarity(a, b, data_range=1.0, channel_axis=-1, **window)
    for a, b in zip((x + 1) / 2, (y + 1) / 2, strict=True)
  ]
  np.testing.assert_allclose(images.ssim(x, y), ssim, atol=2e-5)
  psnr = [metrics.peak_signal_noise_ratio(a, b, data_range=2.0) for a, b in zip(x, y, strict=True)]
  np.testing.assert_allclose(images.psnr(x, y), psnr, rtol=1e-5)


def test_equal_images():
  x = np.zeros((1, 16, 16, 3), np.float32)
  assert images.ssim(x, x)[0] == pytest.approx(1)
  assert np.isinf(images.psnr(x, x)[0]) and images.l1(x, x)[0] == 0


def test_l1_under_a_mask_sees_nothing_else():
  x, y = np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 8, 8, 3), np.float32)
  y[:, :4], y[:, 4:] = 0.5, 0.1
  mask = np.zeros((2, 8, 8), np.float32)
  mask[:, 4:, 2:5] = 1
  np.testing.assert_allclose(images.l1(x, y), 0.3, rtol=1e-6)
  np.testing.assert_allclose(images.l1(x, y, mask), 0.1, rtol=1e-6)


def test_identity_score_is_0_for_an_impostor_and_1_for_the_person():
  np.testing.assert_allclose(
    images.identity_score(np.array([0.1, 0.8, 0.45]), 0.8, 0.1), [0, 1, 0.5]
  )


def test_bootstrap_covers_the_true_mean_19_times_of_20():
  rng = np.random.default_rng(1)
  hits = 0
  for k in range(200):
    _, low, high = images.bootstrap(rng.normal(3, 1, 60), draws=400, seed=k)
    hits += low <= 3 <= high
  assert 180 <= hits <= 199


def test_bootstrap_of_groups_is_wider_where_frames_of_a_person_are_alike():
  rng = np.random.default_rng(2)
  people = np.repeat(np.arange(20), 30)
  values = np.repeat(rng.normal(size=20), 30) + 0.01 * rng.normal(size=600)
  mean, low, high = images.bootstrap(values, people)
  alone = images.bootstrap(values)
  assert mean == alone[0] == pytest.approx(values.mean())
  assert high - low > 3 * (alone[2] - alone[1])
  with pytest.raises(ValueError, match='one group per value'):
    images.bootstrap(values, people[1:])
