"""Networks of the metrics as the evaluation runs them: from files, padded, on several devices."""

import jax
import numpy as np
import pytest
from parity import GOLDEN, error

from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import clip as clips
from hybrid_jax.evaluation import images, motions, networks, squares
from hybrid_jax.evaluation import rendered as heads
from hybrid_jax.models.i3d import I3D, fvd_input
from hybrid_jax.models.inception import Inception, fid_input
from hybrid_jax.models.ops import from_uint8
from hybrid_jax.weights import load


def frames(n, size=32, seed=0):
  return np.random.default_rng(seed).integers(0, 255, (n, size, size, 3), dtype=np.uint8)


def test_frames_of_any_number_give_what_each_gives_alone():
  """Four devices of two rows: 8 at a time, the rest padded."""
  nets = networks.Networks(rows=2)
  assert jax.device_count() > 1
  x, y = frames(11), frames(11, seed=1)
  values = nets.closeness(x, y)
  a, b = (from_uint8(z.astype(np.float32)) for z in (x, y))
  for k, metric in enumerate((images.l1, images.psnr, images.ssim)):
    scale = 127.5 if metric is images.l1 else 1
    np.testing.assert_allclose(values[:, k], scale * metric(a, b), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(nets.closeness(x[3:4], y[3:4]), values[3:4], rtol=1e-6)


def test_judges_are_those_of_the_rendered_world():
  x = frames(5, heads.SIZE)
  said, judge = networks.Networks(rendered=True, rows=2).judges(x), heads.Judges()
  wanted = from_uint8(x.astype(np.float32))
  np.testing.assert_allclose(said[:, : -motions.MOTION], judge.embed(wanted), atol=1e-5)
  np.testing.assert_allclose(said[:, -motions.MOTION :], judge.read(wanted), atol=1e-5)


def test_ssim_and_psnr_of_8_bit_frames_are_those_of_scikit_image(shared):
  v = np.load(shared('reference/ssim_psnr.npz'))
  values = networks.Networks(rows=1).closeness(v['x_u8'], v['y_u8'])
  wanted = [[float(v[f'{name}_{k}']) for name in ('psnr', 'ssim_gaussian_u8')] for k in range(3)]
  np.testing.assert_allclose(values[:, 1:], wanted, rtol=1e-5)


@pytest.mark.slow
def test_features_of_fid_and_fvd(shared):
  i3d = str(GOLDEN / 'i3d_reduced.pt')
  inception = str(shared('reference/fid_inception_reduced.pt'))
  nets = networks.Networks(inception=inception, i3d=i3d, rows=1)
  x = frames(2, 40)
  tree, sizes = load.part(inception, 'inception')
  assert error(nets.fid(x), Inception(**sizes).apply(tree, fid_input(x / np.float32(255)))) < 1e-4
  clip = frames(9, 40)[None]
  tree, sizes = load.part(i3d, 'i3d')
  assert error(nets.fvd(clip), I3D(**sizes).apply(tree, fvd_input(clip / np.float32(255)))) < 1e-4
  assert set(nets.files) == {'inception', 'i3d'} and set(nets.missing) == {
    'lpips', 'identity_similarity', 'identity_loss'
  }  # fmt: skip


def test_lpips_of_a_file():
  whole = str(GOLDEN / 'lpips_alex_reduced.pt')
  nets = networks.Networks(lpips=[whole], rows=2)
  x, y = frames(3, 64), frames(3, 64, 1)
  values = nets.lpips(x, y)
  assert values.shape == (3,) and (values > 0).all() and nets.lpips(x, x).max() < 1e-9
  with pytest.raises(InputError, match='lpips_vgg_reduced.pt: .*LPIPS vgg'):
    networks.Networks(lpips=[whole, str(GOLDEN / 'lpips_vgg_reduced.pt')])
  with pytest.raises(InputError, match='i3d weights, which hold i3d and no lpips'):
    networks.Networks(lpips=[str(GOLDEN / 'i3d_reduced.pt')])


def test_mouths_are_cut_out_where_they_are():
  clip = np.zeros((4, 64, 64, 3), np.uint8)
  clip[:, 40:44, 30:40] = 255
  eyes, mouth = [[0.4, 0.3], [0.65, 0.3]], [[0.5, 0.65], [0.6, 0.65]]
  points = np.array([*eyes, [0.5, 0.5], *mouth])
  cut = squares.mouth(clip, [points, None, points, None])
  assert cut.shape == (4, 32, 32, 3)
  y, x = np.argwhere(cut[1, ..., 0] > 127).mean(0)
  assert abs(y - 15.5) < 2 and abs(x - 15.5) < 2  # its middle
  assert squares.mouth(clip, [None] * 4) is None


def test_psnr_of_a_clip_with_some_equal_frames_is_that_of_the_others():
  values = np.array([30.0, np.inf, 40.0])
  assert clips.mean_of('psnr', values) == 35
  assert clips.mean_of('psnr', values[1:2]) == np.inf
  assert clips.mean_of('l1', values[:1]) == 30
