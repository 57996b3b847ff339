"""Pictures written here, and the real and hostile ones of the reference collection."""

import numpy as np
import pytest
from PIL import Image

from hybrid_jax.media import MediaError
from hybrid_jax.media.stills import grid, over_white, read_image, write_image

# height, width
HOSTILE = {
  'portrait_alpha.png': (256, 256),
  'portrait_palette_transparency.png': (256, 256),
  'portrait_gray.jpg': (384, 256),
  'portrait_cmyk.jpg': (384, 256),
  'portrait_exif6.jpg': (384, 256),
  'portrait_exif5_mirrored.jpg': (384, 256),
  'portrait_16bit.png': (256, 256),
  'portrait_gray16.png': (256, 256),
  'portrait.gif': (256, 256),
  'portrait_animated.gif': (160, 160),
  'portrait_lossy.webp': (256, 256),
  'portrait with space é.jpg': (384, 256),
  'one_pixel.png': (1, 1),
  'no_face_photo.jpg': (240, 360),
  'cat_face.jpg': (200, 300),
  'png_named.jpg': (256, 256),
}
BROKEN = {
  'truncated.jpg': 'truncated',
  'zero_byte.png': 'is empty',
  'huge_dimensions.png': 'is too large',
}


def picture(h=12, w=16):
  """Differs from its mirror images."""
  y, x = np.mgrid[:h, :w]
  return np.stack((x * 15, y * 20, x + y), -1).astype(np.uint8)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation(tmp_path, orientation):
  # What a viewer does to the stored picture, by the EXIF standard.
  upright = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
  }[orientation]
  exif = Image.Exif()
  exif[0x0112] = orientation
  Image.fromarray(picture()).save(tmp_path / 'a.png', exif=exif)
  np.testing.assert_array_equal(read_image(tmp_path / 'a.png'), upright(picture()))


def test_alpha_lies_over_white(tmp_path):
  rgba = np.array([[[200, 0, 100, 255], [200, 0, 100, 0], [200, 0, 100, 51]]], np.uint8)
  expected = [[[200, 0, 100], [255, 255, 255], [244, 204, 224]]]
  Image.fromarray(rgba).save(tmp_path / 'a.png')
  np.testing.assert_array_equal(read_image(tmp_path / 'a.png'), expected)
  every = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1).astype(np.uint8)  # value, alpha
  value, alpha = every[..., :1].astype(float), every[..., 1:] / 255
  blended = over_white(np.concatenate((every[..., :1].repeat(3, -1), every[..., 1:]), -1))
  assert np.abs(blended - (value * alpha + 255 * (1 - alpha))).max() <= 0.5 + 1e-9
  palette = Image.fromarray(picture()).quantize(4)
  palette.save(tmp_path / 'p.png', transparency=palette.getpixel((0, 0)))
  assert (read_image(tmp_path / 'p.png')[0, 0] == 255).all()


def test_sixteen_bits(tmp_path):
  values = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
  for name in ('a.png', 'a.tif'):
    Image.fromarray(values).save(tmp_path / name)
    rgb = read_image(tmp_path / name)
    assert rgb.dtype == np.uint8 and rgb.shape == (1, 6, 3)
    np.testing.assert_array_equal(rgb[0, :, 1], [0, 0, 1, 1, 128, 255])


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'CMYK', 'YCbCr'])
def test_modes_become_rgb(tmp_path, mode):
  image = Image.fromarray(np.full((8, 8, 3), 204, np.uint8)).convert(mode)
  image.save(tmp_path / 'a.tif')
  rgb = read_image(tmp_path / 'a.tif')
  assert rgb.shape == (8, 8, 3) and rgb.flags.writeable
  if mode != '1':
    np.testing.assert_allclose(rgb.astype(int), 204, atol=2)


def test_first_frame_of_an_animation(tmp_path):
  frames = [Image.new('RGB', (8, 8), colour) for colour in ('red', 'blue')]
  frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:])
  assert (read_image(tmp_path / 'a.gif') == (255, 0, 0)).all()


@pytest.mark.parametrize(
  'name, content, message',
  [
    ('missing.png', None, 'No such file'),
    ('empty.png', b'', 'is empty'),
    ('text.png', b'no picture\n' * 9, 'no picture'),
    ('a.eps', b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'no picture'),
  ],
)
def test_files_that_are_no_pictures(tmp_path, name, content, message):
  if content is not None:
    (tmp_path / name).write_bytes(content)
  with pytest.raises(MediaError, match=message) as raised:
    read_image(tmp_path / name)
  assert name in str(raised.value) and '\n' not in str(raised.value)


def test_too_large_and_unclear_pictures(tmp_path):
  Image.new('1', (8200, 8200)).save(tmp_path / 'a.png')
  with pytest.raises(MediaError, match='too large'):
    read_image(tmp_path / 'a.png')
  Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / 'a.tif')
  with pytest.raises(MediaError, match='floating-point'):
    read_image(tmp_path / 'a.tif')


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'gif', 'webp', 'tif', 'bmp'])
def test_damaged_bytes_raise_nothing_else(tmp_path, suffix):
  path = tmp_path / f'a.{suffix}'
  write_image(path, picture(40, 40))
  whole, rng = np.frombuffer(path.read_bytes(), np.uint8), np.random.default_rng(0)
  for kept in rng.integers(1, len(whole), 30):
    damaged = whole[:kept].copy() if kept % 2 else whole.copy()
    damaged[rng.integers(0, len(damaged), 4)] = rng.integers(0, 256, 4)
    path.write_bytes(damaged.tobytes())
    try:
      assert read_image(path).dtype == np.uint8
    except MediaError as error:
      assert '\n' not in str(error)


def test_write_image(tmp_path):
  write_image(tmp_path / 'a.png', picture())
  np.testing.assert_array_equal(read_image(tmp_path / 'a.png'), picture())
  write_image(tmp_path / 'a.jpg', np.full((16, 16, 3), 90, np.uint8))
  np.testing.assert_allclose(read_image(tmp_path / 'a.jpg').astype(int), 90, atol=2)
  before = (tmp_path / 'a.png').read_bytes()
  for name, rgb, message in (
    ('a.png', picture().astype(np.float32), 'a picture is uint8'),
    ('a.png', picture()[..., 0], 'a picture is uint8'),
    ('a.xyz', picture(), 'cannot be written'),
    ('missing/a.png', picture(), 'does not exist'),
  ):
    with pytest.raises(MediaError, match=message):
      write_image(tmp_path / name, rgb)
  assert sorted(p.name for p in tmp_path.iterdir()) == ['a.jpg', 'a.png']
  assert (tmp_path / 'a.png').read_bytes() == before


def test_grid():
  cell = picture()
  sheet = grid([[cell, 255 - cell], [cell]])
  assert sheet.shape == (24, 32, 3) and sheet.dtype == np.uint8
  np.testing.assert_array_equal(sheet[:12, 16:], 255 - cell)
  np.testing.assert_array_equal(sheet[12:, :16], cell)
  assert (sheet[12:, 16:] == 255).all()
  for rows in ([], [[]], [[cell, cell[:4]]]):
    with pytest.raises(MediaError):
      grid(rows)


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_pictures_that_read(shared, name):
  rgb = read_image(shared(f'faces/hostile/{name}'))
  assert rgb.dtype == np.uint8 and rgb.shape == (*HOSTILE[name], 3)
  if 'exif' in name:  # They show the same person in the same place.
    upright = read_image(shared('faces/hostile/portrait with space é.jpg'))
    assert np.abs(rgb.astype(int) - upright).mean() < 3


@pytest.mark.parametrize('name', BROKEN)
def test_hostile_pictures_that_do_not(shared, name):
  with pytest.raises(MediaError, match=BROKEN[name]):
    read_image(shared(f'faces/hostile/{name}'))
