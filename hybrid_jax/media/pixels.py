"""Conversion between FFmpeg's frames and (h, w, 3) uint8 RGB: colour, aspect, orientation."""

from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from hybrid_jax.media import colour

# Without the last two flags swscale repeats chroma samples and rounds down.
_SCALING = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
# FFmpeg's AVColorSpace, the tag of a stream -> matrix of swscale.
_MATRICES = {
  # BT.470 BG (5) and SMPTE 170M (6) have the coefficients of BT.601. Numbers that are missing here
  # (unspecified, YCgCo, ...) are treated as untagged.
  1: Colorspace.ITU709,
  4: Colorspace.FCC,
  5: Colorspace.ITU601,
  6: Colorspace.ITU601,
  7: Colorspace.SMPTE240M,
  9: Colorspace.BT2020,
  10: Colorspace.BT2020,
}


class Upright:
  """Converts the decoded frames of one stream to upright RGB with square pixels, all of one size.

  Args:
    first: the first frame, which sets the size and the orientation.
    stream: its stream, for the aspect of the pixels.

  Attributes:
    size: (h, w) of the pictures returned, px.
  """

  def __init__(self, first: av.VideoFrame, stream: av.VideoStream):
    # 0 or None where the stream does not state it.
    aspect = stream.sample_aspect_ratio or 1
    if not Fraction(1, 8) <= aspect <= 8:
      aspect = 1  # a damaged header
    self._height, self._width = first.height, max(1, round(first.width * aspect))
    # The display matrix: stored column p, row q is shown at column a p + c q, row b p + d q.
    # Phones write rotations by multiples of 90 degrees, possibly mirrored; of the fixed-point
    # numbers only the signs matter, and which one of a row is larger.
    matrix = next((s for s in first.side_data if s.type.name == 'DISPLAYMATRIX'), None)
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5] if matrix else (1, 0, 0, 0, 1)
    self._lying = abs(int(b)) > abs(int(a))
    x, y = (c, b) if self._lying else (a, d)
    self._flips = slice(None, None, -1 if y < 0 else 1), slice(None, None, -1 if x < 0 else 1)
    self.size = (self._width, self._height) if self._lying else (self._height, self._width)

  def __call__(self, frame: av.VideoFrame) -> np.ndarray:
    """Returns a frame as (h, w, 3) uint8; transparency is composited over white."""
    pixels, matrix, full = frame.format, None, None
    # GIF frames are palettes whose transparent entry is not visible in the components.
    alpha = pixels.has_palette or any(part.is_alpha for part in pixels.components)
    if not pixels.is_rgb and not pixels.has_palette:
      # Players assume BT.709 for untagged streams of high definition, BT.601 for smaller ones.
      large = frame.width >= 1280 or frame.height > 576
      matrix = _MATRICES.get(frame.colorspace, Colorspace.ITU709 if large else Colorspace.ITU601)
      # The yuvj formats are an older way to tag full range, without a range of the stream.
      full = frame.color_range == ColorRange.JPEG or pixels.name.startswith('yuvj')
    wide = colour.is_wide(frame.color_trc, frame.color_primaries)
    rgb = frame.reformat(
      width=self._width,
      height=self._height,
      # Tone mapping in 8 bits would show steps.
      format=('rgba64le' if alpha else 'rgb48le') if wide else 'rgba' if alpha else 'rgb24',
      src_colorspace=matrix,
      src_color_range=full if full is None else ColorRange.JPEG if full else ColorRange.MPEG,
      dst_color_range=ColorRange.JPEG,
      interpolation=_SCALING,
    ).to_ndarray()
    if wide:
      standard = colour.to_standard(rgb[..., :3], frame.color_trc, frame.color_primaries)
      rgb = np.concatenate((standard, (rgb[..., 3:] >> 8).astype(np.uint8)), -1)
    rgb = over_white(rgb) if alpha else rgb
    # Transposed first: the flips are those of the picture shown.
    rgb = rgb.transpose(1, 0, 2) if self._lying else rgb
    # OpenCV rejects views with negative strides.
    return np.ascontiguousarray(rgb[self._flips])


def to_yuv(rgb: np.ndarray) -> av.VideoFrame:
  """Converts (h, w, 3) uint8 with even sides to yuv420p, BT.709 in limited range."""
  return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format='rgb24').reformat(
    format='yuv420p',
    dst_colorspace=Colorspace.ITU709,
    dst_color_range=ColorRange.MPEG,
    interpolation=_SCALING | Interpolation.FULL_CHR_H_INP,
  )


def to_rgb0(rgb: np.ndarray) -> av.VideoFrame:
  """Converts (h, w, 3) uint8 to FFV1's pixel format without loss."""
  return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format='rgb24').reformat(
    format='bgr0'
  )


def over_white(rgba: np.ndarray) -> np.ndarray:
  """Composites (h, w, 4) uint8 with straight alpha over white -> (h, w, 3) uint8."""
  # Integers, so that alpha 0 and 255 are exact. The largest sum, 255 * 255 + 127, fits in 16 bits.
  rgb, alpha = rgba[..., :3].astype(np.uint16), rgba[..., 3:].astype(np.uint16)
  return ((rgb * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
