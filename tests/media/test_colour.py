"""Wide colour and high dynamic range: tagged clips of known colours are read as those colours."""

import struct
import zlib

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from hybrid_jax.media import MediaError, colour, stills
from hybrid_jax.media.video import read_frames

PQ, HLG, SDR = 16, 18, 14
BT2020, P3 = 9, 12


def standard():
  """A smooth BT.709 picture, none of it a highlight."""
  y, x = np.mgrid[:32, :48]
  return np.stack((40 + 150 * x / 48, 40 + 150 * y / 32, 0 * x + 90), -1).astype(np.uint8)


def signal(rgb, transfer, primaries):
  """(h, w, 3) uint8 of BT.709 as a signal in [0, 1], by the inverse formulas of BT.2100."""
  matrix = np.linalg.inv(colour._to_bt709(primaries).astype(float))
  light = np.clip((rgb / 255) ** 2.4 @ matrix.T, 0, None)
  if transfer == PQ:
    y = (203 * light / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375
  if transfer == HLG:
    shown = 203 / 1000 * light
    luma = np.maximum(shown @ (0.2627, 0.678, 0.0593), 1e-9)[..., None]
    scene = shown * luma ** (1 / 1.2 - 1)
    logarithm = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), logarithm)
  return light ** (1 / 2.4)


def write_tagged(path, values, transfer, primaries, codec='ffv1', matrix=None):
  """A clip of one 10-bit frame of a signal in [0, 1]."""
  wide = primaries == BT2020
  frame = av.VideoFrame.from_ndarray(np.rint(65535 * values).astype(np.uint16), 'rgb48le')
  frame = frame.reformat(
    format='yuv444p10le',
    dst_colorspace=Colorspace.BT2020 if wide else Colorspace.ITU709,
    dst_color_range=ColorRange.MPEG,
  )
  frame.colorspace = matrix or (9 if wide else 1)
  frame.color_trc, frame.color_primaries = transfer, primaries
  with av.open(str(path), 'w') as file:
    stream = file.add_stream(codec, rate=25)
    stream.height, stream.width = values.shape[:2]
    stream.pix_fmt, context = 'yuv444p10le', stream.codec_context
    context.colorspace, context.color_range = frame.colorspace, ColorRange.MPEG
    context.color_trc, context.color_primaries = transfer, primaries
    file.mux(stream.encode(frame))
    file.mux(stream.encode(None))
  return path


@pytest.mark.parametrize(
  'transfer, primaries', [(PQ, BT2020), (HLG, BT2020), (SDR, BT2020), (1, P3), (PQ, P3), (1, 1)]
)
@pytest.mark.parametrize('name, codec', [('a.mkv', 'ffv1'), ('a.mp4', 'libx264')])
def test_tagged_clips_are_read_as_the_colours_they_show(tmp_path, name, codec, transfer, primaries):
  values = signal(standard(), transfer, primaries)
  path = write_tagged(tmp_path / name, values, transfer, primaries, codec)
  rgb = next(read_frames(path)).rgb.astype(int)
  error = np.abs(rgb - standard())
  assert error.mean() < (0.6 if codec == 'ffv1' else 5)  # H.264 loses some


def test_colours_without_a_matrix_are_refused(tmp_path):
  write_tagged(tmp_path / 'a.mkv', standard() / 255, PQ, BT2020, matrix=14)
  with pytest.raises(MediaError, match='ICtCp'):
    next(read_frames(tmp_path / 'a.mkv'))


def test_highlights_are_compressed_and_greys_stay_grey():
  nits = np.array([0, 10, 100, 203, 400, 1000, 4000, 10000])
  y = (nits / 10000) ** 0.1593017578125
  code = ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375
  grey = np.rint(65535 * np.repeat(code[None, :, None], 3, 2)).astype(np.uint16)
  rgb = colour.to_standard(grey, PQ, BT2020)[0].astype(int)
  assert (np.ptp(rgb, axis=1) <= 1).all() and (np.diff(rgb[:, 0]) >= 0).all()
  # Black and 100 nits are unchanged, white is slightly darker, 1,000 nits and more are white.
  np.testing.assert_allclose(rgb[[0, 2, 3], 0], (0, 255 * (100 / 203) ** (1 / 2.4), 241), atol=1)
  assert (rgb[5:] == 255).all() and 241 < rgb[4, 0] < 255


def test_a_png_with_tags_of_hdr(tmp_path):
  """The chunk cICP: primaries, transfer function, matrix, full range."""
  Image.fromarray(np.full((8, 8, 3), 130, np.uint8)).save(tmp_path / 'a.png')
  plain = (tmp_path / 'a.png').read_bytes()
  chunk = b'cICP' + bytes((BT2020, PQ, 0, 1))
  tagged = struct.pack('>I', 4) + chunk + struct.pack('>I', zlib.crc32(chunk))
  (tmp_path / 'b.png').write_bytes(plain[:33] + tagged + plain[33:])  # after IHDR
  expected = colour.to_standard(np.full((1, 1, 3), 130 * 257, np.uint16), PQ, BT2020)
  assert (stills.read_image(tmp_path / 'a.png') == 130).all()
  np.testing.assert_allclose(stills.read_image(tmp_path / 'b.png')[4, 4], expected[0, 0], atol=1)


def test_an_hlg_clip_is_like_its_standard_version(shared):
  wide = next(read_frames(shared('failing/hlg.mov'))).rgb.astype(float)
  plain = next(read_frames(shared('failing/ts_plain.ts'))).rgb
  assert np.abs(wide - plain).mean() < 5  # 29 if it is not converted
