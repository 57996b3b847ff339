"""What a file is, by its content; HEIC; stills whose colours a profile defines."""

import importlib.util
import io
import struct
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image, ImageCms

from hybrid_jax.media import MediaError, stills, video
from hybrid_jax.media.clock import start_of

HEIC = b'\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic' + bytes(64)
# Red, green and blue in XYZ, adapted to D50 as profiles state them; exponent.
DISPLAY_P3 = ((0.515, 0.241, -0.001), (0.292, 0.692, 0.042), (0.157, 0.067, 0.784)), 2.2
ADOBE_RGB = ((0.609, 0.311, 0.019), (0.205, 0.626, 0.061), (0.149, 0.063, 0.745)), 2.2
SRGB = ((0.436, 0.222, 0.014), (0.385, 0.717, 0.097), (0.143, 0.061, 0.714)), 2.2


def profile(columns, gamma, space=b'RGB '):
  """An ICC profile (version 2) of three primaries and an exponent, or of a grey curve."""
  fixed = lambda *values: b''.join(struct.pack('>i', round(65536 * v)) for v in values)  # noqa: E731
  xyz = lambda values: b'XYZ ' + bytes(4) + fixed(*values)  # noqa: E731
  curve = b'curv' + bytes(4) + struct.pack('>IH', 1, round(256 * gamma)) + bytes(2)
  text = b'desc' + bytes(4) + struct.pack('>I', 5) + b'test\0' + bytes(79)
  white = (0.9642, 1, 0.8249)
  tags = {b'desc': text, b'cprt': b'text' + bytes(8), b'wtpt': xyz(white)}
  if space == b'GRAY':
    tags[b'kTRC'] = curve
  else:
    for name, column in zip((b'r', b'g', b'b'), columns, strict=True):
      tags |= {name + b'XYZ': xyz(column), name + b'TRC': curve}
  at, table, data = 128 + 4 + 12 * len(tags), b'', b''
  for name, value in tags.items():
    value += bytes(-len(value) % 4)
    table += name + struct.pack('>II', at + len(data), len(value))
    data += value
  size = at + len(data)
  head = struct.pack('>I4xI', size, 0x02100000) + b'mntr' + space + b'XYZ ' + bytes(12) + b'acsp'
  head += bytes(28) + fixed(*white) + bytes(48)
  return head + struct.pack('>I', len(tags)) + table + data


def expected(rgb, columns, gamma):
  """Linear light of the profile in linear sRGB, and encoded."""
  matrix = np.linalg.inv(np.array(SRGB[0]).T) @ np.array(columns).T
  light = np.clip((rgb / 255) ** gamma @ matrix.T, 0, 1)
  return 255 * np.where(light < 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def picture():
  y, x = np.mgrid[:24, :32]
  return np.stack((60 + 5 * x, 40 + 7 * y, 120 - x), -1).astype(np.uint8)


@pytest.mark.parametrize('space', [DISPLAY_P3, ADOBE_RGB])
@pytest.mark.parametrize('suffix, mode', [('png', 'RGB'), ('png', 'RGBA'), ('jpg', 'RGB'),
  ('webp', 'RGB'), ('tif', 'RGB'), ('png', 'P')])  # fmt: skip
def test_profiles_are_obeyed(tmp_path, space, suffix, mode):
  path = tmp_path / f'a.{suffix}'
  options = {'quality': 100, 'lossless': True} if suffix != 'png' else {}
  image = Image.fromarray(picture())
  image = image.quantize(256) if mode == 'P' else image.convert(mode)
  image.save(path, icc_profile=profile(*space), **options)
  wanted = expected(np.asarray(image.convert('RGB')), *space)
  error = np.abs(stills.read_image(path) - wanted)
  # JPEG loses more where colours change; ignoring the profile would give 7 and more on average.
  assert error.mean() < (2.5 if suffix == 'jpg' else 1)
  assert np.abs(np.asarray(image.convert('RGB')) - wanted).mean() > 5


def test_grey_and_useless_profiles(tmp_path):
  grey = Image.fromarray(picture()).convert('L')
  grey.save(tmp_path / 'a.png', icc_profile=profile((), 1.8, b'GRAY'))
  light = (np.asarray(grey) / 255.0) ** 1.8
  wanted = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
  assert np.abs(stills.read_image(tmp_path / 'a.png')[..., 1] - wanted).max() < 2
  # Damaged, or one for other channels: ignored, as viewers do.
  colours = Image.fromarray(picture())
  for bad in (profile(*ADOBE_RGB)[:300], b'no profile', profile((), 1.8, b'GRAY')):
    colours.save(tmp_path / 'b.png', icc_profile=bad)
    np.testing.assert_array_equal(stills.read_image(tmp_path / 'b.png'), picture())
  # The profile of almost every picture changes nothing that can be seen.
  srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  colours.save(tmp_path / 'c.png', icc_profile=srgb)
  assert np.abs(stills.read_image(tmp_path / 'c.png').astype(int) - picture()).max() <= 1


def test_a_photograph_of_a_phone(shared):
  path = shared('failing/s_p3.jpg')
  with Image.open(path) as image:
    stored = np.asarray(image.convert('RGB'))
    assert 'P3' in ImageCms.getProfileDescription(
      ImageCms.ImageCmsProfile(io.BytesIO(image.info['icc_profile']))
    )
  wanted = expected(stored, *DISPLAY_P3)
  rgb = stills.read_image(path)
  assert np.abs(rgb - wanted).mean() < 2 and rgb[..., 0].mean() > stored[..., 0].mean() + 0.5


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  path = tmp_path_factory.mktemp('clip') / 'a.mp4'
  with video.VideoWriter(path, 16, 32) as writer:
    writer.write(np.zeros((16, 32, 3), np.uint8), Fraction(0))
  return path.read_bytes()


def test_the_content_decides_and_not_the_name(tmp_path, clip):
  for name in ('a.mp4', 'a.3gp', 'a.MTS', 'a.bin', 'a', 'a.png', 'a.jpg'):
    (tmp_path / name).write_bytes(clip)
    assert video.is_clip(tmp_path / name)
  for name, suffix in (('b.png', 'png'), ('b.mp4', 'png'), ('b.mov', 'jpeg'), ('b.wmv', 'gif')):
    Image.fromarray(picture()).save(tmp_path / name, format=suffix)
    assert not video.is_clip(tmp_path / name)
  # Of neither kind: the name says which reader gives the reason.
  for name, is_clip in (('c.mp4', True), ('c.flv', True), ('c.png', False), ('c', False)):
    (tmp_path / name).write_bytes(b'text\n' * 99)
    assert video.is_clip(tmp_path / name) == is_clip
  assert video.is_clip(tmp_path / 'missing.mp4') and not video.is_clip(tmp_path / 'missing.png')


def test_heic_says_that_it_is_heic(tmp_path):
  for name in ('a.heic', 'a.jpg', 'a.mp4'):
    (tmp_path / name).write_bytes(HEIC)
    assert stills.is_heif(tmp_path / name) and not video.is_clip(tmp_path / name)
    for read in (stills.read_image, video.probe, lambda path: list(video.read_frames(path))):
      with pytest.raises(MediaError) as raised:
        read(tmp_path / name)
      # With the reader installed, it is a damaged picture.
      has_reader = importlib.util.find_spec('pillow_heif')
      assert has_reader or 'is a HEIC picture' in str(raised.value)
      assert name in str(raised.value) and '\n' not in str(raised.value)


def test_heic_is_read(tmp_path):
  pillow_heif = pytest.importorskip('pillow_heif', reason="pip install 'hybrid_jax[heif]'")
  smooth = Image.fromarray(picture()).resize((128, 96))
  pillow_heif.from_pillow(smooth).save(tmp_path / 'a.heic', quality=95)
  rgb = stills.read_image(tmp_path / 'a.heic')
  assert np.abs(rgb.astype(int) - np.asarray(smooth)).mean() < 3
  assert [frame.rgb.shape for frame in video.read_frames(tmp_path / 'a.heic')] == [(96, 128, 3)]
  assert video.probe(tmp_path / 'a.heic').frames == 1 and start_of(tmp_path / 'a.heic') == 0


def test_a_phone_clip_is_a_clip(shared):
  assert video.is_clip(shared('failing/x.3gp'))
  assert sum(1 for _ in video.read_frames(shared('failing/x.3gp'))) == 32
