"""Converts pictures of wide or high-dynamic-range colour to BT.709 in standard range.

Light is relative to the white of a standard picture, 203 cd/m2 on an HDR display (ITU-R BT.2408).
Standard pictures are encoded for displays with exponent 2.4 (BT.1886), and so are those that are
made here. Transfer functions and primaries have FFmpeg's numbers, which are those of ITU-T H.273.
"""

import functools

import cv2
import numpy as np

_PQ, _HLG = 16, 18
_WHITE = 203.0  # cd/m2
_HLG_PEAK = 1000.0  # cd/m2, of the display for which BT.2100 defines the system exponent 1.2
_HLG_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)
_GAMMA = 2.4
# Light up to here is kept, among it faces; light from here to the peak is compressed. A highlight
# above the peak is white.
_KNEE, _PEAK = 0.75, 1000.0 / _WHITE
# Chromaticities (x, y) of red, green and blue; all have the white D65.
_WIDE = {
  9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),  # BT.2020
  12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}
_BT709 = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_D65 = (0.3127, 0.3290)


def is_wide(transfer: int, primaries: int) -> bool:
  """Returns whether pictures with these tags must be converted by `to_standard`."""
  return transfer in (_PQ, _HLG) or primaries in _WIDE


def to_standard(rgb: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
  """Converts (h, w, 3) uint16 in full range to (h, w, 3) uint8 of BT.709.

  PQ and HLG are tone-mapped; without a tag their primaries are those of BT.2020. Other transfer
  functions are treated as BT.1886. Colours beyond BT.709 are clipped.
  """
  light = _light(transfer)[rgb]  # h w c
  if transfer == _HLG:
    # BT.2100's OOTF: the display raises the luminance of the scene to 1.2.
    luma = np.maximum(light @ _HLG_LUMA, 1e-6)
    light *= (_HLG_PEAK / _WHITE * cv2.pow(luma, 0.2))[..., None]
  hdr = transfer in (_PQ, _HLG)
  matrix = _to_bt709(primaries if primaries in _WIDE else 9 if hdr else 1)
  light = np.maximum(cv2.transform(light, matrix), 0)
  if hdr:
    # All channels by the factor of the largest one: hues are kept, and nothing exceeds 1.
    largest = np.maximum(light.max(-1), 1e-6)
    light *= (_compressed(largest) / largest)[..., None]
  encoded = cv2.pow(np.minimum(light, 1), 1 / _GAMMA)
  return np.rint(255 * encoded).astype(np.uint8)


@functools.cache
def _light(transfer: int) -> np.ndarray:
  """Returns the light of each 16-bit value, float32; for HLG that of the scene, from 0 to 1."""
  v = np.linspace(0, 1, 1 << 16)
  if transfer == _PQ:  # BT.2100, table 4
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    p = v ** (1 / m2)
    light = 10_000 / _WHITE * (np.maximum(p - c1, 0) / (c2 - c3 * p)) ** (1 / m1)
  elif transfer == _HLG:  # BT.2100, table 5
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    light = np.where(v <= 0.5, v**2 / 3, (np.exp((v - c) / a) + b) / 12)
  else:
    light = v**_GAMMA
  return light.astype(np.float32)


def _compressed(light: np.ndarray) -> np.ndarray:
  """Keeps light up to the knee and compresses the rest up to the peak into the range up to 1.

  Reinhard's curve with a white point, x (1 + x / w^2) / (1 + x), on the part above the knee, where
  its slope is 1.
  """
  x, w = (np.clip(light, _KNEE, _PEAK) - _KNEE) / (1 - _KNEE), (_PEAK - _KNEE) / (1 - _KNEE)
  return np.where(light < _KNEE, light, _KNEE + (1 - _KNEE) * x * (1 + x / w**2) / (1 + x))


@functools.cache
def _to_bt709(primaries: int) -> np.ndarray:
  """Returns the matrix (3, 3) from linear RGB with these primaries to that of BT.709."""
  source = _to_xyz(_WIDE.get(primaries, _BT709))
  return (np.linalg.inv(_to_xyz(_BT709)) @ source).astype(np.float32)


def _to_xyz(primaries: tuple) -> np.ndarray:
  xyz = lambda x, y: (x / y, 1, (1 - x - y) / y)  # noqa: E731
  columns = np.array([xyz(*point) for point in primaries]).T
  # Scaled so that equal parts of the three give the white.
  return columns * np.linalg.solve(columns, xyz(*_D65))
