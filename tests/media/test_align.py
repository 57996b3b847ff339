"""Oriented squares against FFHQ's published formula, smoothing, cutting out and putting back."""

import cv2
import numpy as np
import pytest

from hybrid_jax.media import align
from hybrid_jax.media.composite import Paste, even, feather, fit
from hybrid_jax.media.faces import crop_square


def ffhq_quad(points68):
  """The quad by appendix C of Karras et al. (2018), on the 68 landmarks, in complex numbers."""
  z = points68[:, 0] + 1j * points68[:, 1]
  e0, e1, m0, m1 = z[36:42].mean(), z[42:48].mean(), z[48], z[54]
  across, up = e1 - e0, (e0 + e1) / 2 - (m0 + m1) / 2
  c, s = (e0 + e1) / 2 - 0.1 * up, max(4.0 * abs(across), 3.6 * abs(up))
  x = across + 1j * up  # up, turned to the right
  x = x / abs(x) * s / 2
  y = 1j * x
  quad = np.array([c - x - y, c - x + y, c + x + y, c + x - y])
  return np.stack((quad.real, quad.imag), -1)


def face68(rng):
  points = rng.normal(0, 40, (68, 2)) + 300
  points[36:42] = rng.normal((240, 260), 8, (6, 2))
  points[42:48] = rng.normal((360, 250), 8, (6, 2))
  points[48], points[54] = (260, 400), (350, 395)
  turn = rng.uniform(-1, 1)
  rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
  return (points - 300) @ rotation.T * rng.uniform(0.2, 3) + 300


def picture(h, w):
  return np.random.default_rng(0).integers(0, 256, (h, w, 3), np.uint8)


def smooth_picture(h, w):
  y, x = np.mgrid[:h, :w]
  waves = [np.sin(x / 17 + k) * np.cos(y / 13 - k) for k in range(3)]
  return np.rint(127 + 90 * np.stack(waves, -1)).astype(np.uint8)


@pytest.mark.parametrize('seed', range(20))
def test_alignment_is_ffhqs(seed):
  points = face68(np.random.default_rng(seed))
  square = align.ffhq(align.five_points(points))
  np.testing.assert_allclose(align.corners(square), ffhq_quad(points), atol=1e-6)


def test_sets_of_landmarks_agree():
  rng = np.random.default_rng(0)
  five = align.five_points(rng.normal(size=(4, 68, 2)))
  assert five.shape == (4, 5, 2) and align.five_points(five) is five
  assert align.five_points(rng.normal(size=(478, 2))).shape == (5, 2)
  with pytest.raises(ValueError, match='7 landmarks'):
    align.five_points(np.zeros((7, 2)))


@pytest.mark.parametrize('angle', [0.0, 0.4, 2.0])
def test_corners_of_a_crop_are_the_squares(angle):
  square = np.array([60.5, 40.25, 25 * np.cos(angle), 25 * np.sin(angle)])
  matrix = align.to_picture(square, 32)
  ends = np.array([(-0.5, -0.5), (-0.5, 31.5), (31.5, 31.5), (31.5, -0.5)])
  np.testing.assert_allclose(ends @ matrix[:, :2].T + matrix[:, 2] + 0.5, align.corners(square))


def test_what_is_cut_is_the_picture():
  rgb = picture(50, 70)
  np.testing.assert_array_equal(
    align.cut(rgb, align.upright((11, 7, 32, 32)), 32), rgb[7:39, 11:43]
  )
  quarter = np.array([27.0, 23.0, 0.0, 16.0])  # its right is the picture's bottom
  turned = np.rot90(rgb[7:39, 11:43], 1)
  np.testing.assert_array_equal(align.cut(rgb, quarter, 32), turned)
  box = (-9, 20, 40, 40)
  np.testing.assert_array_equal(align.cut(rgb, align.upright(box), 40), crop_square(rgb, box, 40))


def test_a_reduced_cut_does_not_alias():
  stripes = np.zeros((256, 256, 3), np.uint8)
  stripes[:, ::2] = 200
  crop = align.cut(stripes, np.array([128.0, 128.0, 90.0, 20.0]), 48).astype(int)
  assert np.abs(crop - 100).max() < 12
  small = align.cut(stripes, align.upright((0, 0, 256, 256)), 32).astype(int)
  np.testing.assert_allclose(small, 100, atol=1)


def test_smoothing_has_no_delay_and_keeps_steady_motion():
  rng = np.random.default_rng(0)
  times = np.cumsum(rng.uniform(0.01, 0.1, 200))
  line = np.stack((3 * times + 1, -times), 1)
  run = np.stack(list(align.smoothed(line, times, 0.2)))
  np.testing.assert_allclose(run, line, atol=1e-9)  # at both ends too

  bump = np.exp(-(((times - times[100]) / 0.5) ** 2))[:, None]
  forth = np.stack(list(align.smoothed(bump, times, 0.1)))
  back = np.stack(list(align.smoothed(bump[::-1], -times[::-1], 0.1)))[::-1]
  np.testing.assert_allclose(forth, back, atol=1e-9)  # the same in reversed time
  noisy = line + rng.normal(0, 0.1, line.shape)
  calm = np.stack(list(align.smoothed(noisy, times, 0.2)))
  assert np.abs(calm - line).mean() < 0.4 * np.abs(noisy - line).mean()
  np.testing.assert_array_equal(list(align.smoothed(noisy, times, 0)), noisy)


def test_smoothing_stays_within_a_shot():
  times = np.arange(40) / 25
  values = np.where(np.arange(40) < 20, 0.0, 10.0)[:, None]
  run = np.stack(list(align.smoothed(values, times, 0.2, (0, 20))))
  np.testing.assert_allclose(run, values, atol=1e-9)
  assert np.abs(np.stack(list(align.smoothed(values, times, 0.2))) - values).max() > 2


# --- Putting back --------------------------------------------------------------------------------


@pytest.mark.parametrize('box', [(10, 5, 64, 64), (-20, 30, 64, 64), (90, 60, 64, 64)])
def test_an_untouched_crop_changes_nothing(box):
  """At native scale, of noise, inside the picture and over its edges."""
  rgb, square = picture(100, 140), align.upright(box)
  pasted, seam = Paste(square, rgb.shape[:2])(rgb, align.cut(rgb, square, 64))
  np.testing.assert_array_equal(pasted, rgb)
  assert seam == 0


def test_an_untouched_turned_crop_changes_one_grey_level_at_most():
  rgb = smooth_picture(160, 200)
  square = np.array([90.3, 80.7, 32 * np.cos(0.3), 32 * np.sin(0.3)])
  paste = Paste(square, rgb.shape[:2])
  pasted, seam = paste(rgb, align.cut(rgb, square, 64))
  assert np.abs(pasted.astype(int) - rgb).max() <= 1 and seam < 0.5


def test_nothing_changes_outside_the_mask():
  rgb = picture(160, 200)
  square = np.array([90.3, 80.7, 32 * np.cos(0.3), 32 * np.sin(0.3)])
  paste = Paste(square, rgb.shape[:2])
  pasted, seam = paste(rgb, 255 - align.cut(rgb, square, 64))
  mask = np.zeros(rgb.shape[:2], np.float32)
  mask[paste.rows, paste.columns] = paste.mask
  np.testing.assert_array_equal(pasted[mask == 0], rgb[mask == 0])
  inside = np.zeros(rgb.shape[:2], np.uint8)
  cv2.fillConvexPoly(inside, np.rint(align.corners(square)).astype(np.int32), 1)
  assert (mask[inside == 0] < 0.01).all() and (mask[inside == 1] > 0).mean() > 0.9
  assert mask[80, 90] == 1 and (pasted[mask == 1] != rgb[mask == 1]).any()
  assert 20 < seam < 200


def test_a_square_outside_of_the_picture_is_no_error():
  rgb = picture(20, 30)
  pasted, seam = Paste(align.upright((100, 100, 8, 8)), (20, 30))(rgb, picture(8, 8))
  np.testing.assert_array_equal(pasted, rgb)
  assert seam == 0


def test_a_larger_crop_is_averaged_down():
  rgb = np.zeros((60, 60, 3), np.uint8)
  stripes = np.zeros((128, 128, 3), np.uint8)
  stripes[:, ::2] = 200
  pasted, _ = Paste(align.upright((14, 14, 32, 32)), (60, 60))(rgb, stripes)
  np.testing.assert_allclose(pasted[26:34, 26:34], 100, atol=1)


def test_the_mask_falls_smoothly_to_nothing():
  mask = feather(100)
  assert mask[0].max() < 0.01 and mask[50, 50] == 1 and (mask == mask.T).all()
  assert np.abs(np.diff(mask, axis=0)).max() < 0.15


def test_fitting_and_even_sides():
  rgb = picture(10, 20)
  sheet = fit(rgb, (20, 20))
  np.testing.assert_array_equal(sheet[5:15], rgb)
  assert (sheet[:5] == 255).all() and (sheet[15:] == 255).all()
  assert fit(picture(33, 7), (16, 16)).shape == (16, 16, 3)
  odd = picture(5, 7)
  np.testing.assert_array_equal(even(odd)[:5, :7], odd)
  np.testing.assert_array_equal(even(odd)[5, :7], odd[4])
  assert even(odd).shape == (6, 8, 3) and even(rgb) is rgb
