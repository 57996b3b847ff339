"""Pastes a re-enacted head back into its picture, and arranges pictures on contact sheets."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hybrid_jax.media import align, stills

_BAND = 64  # rows that are blended together, so that their float32 values stay in the cache
FEATHER = 0.12  # width of the transition inside the border of a crop, of its side


def feather(size: int) -> np.ndarray:
  """Returns the (size, size) float32 mask of a crop: 1 in the middle, 0 at the border."""
  edge = (np.arange(size) + 0.5) / size
  # Distance to the nearer border, 1 from FEATHER inwards.
  ramp = np.clip(np.minimum(edge, 1 - edge) / FEATHER, 0, 1)
  ramp = ramp * ramp * (3 - 2 * ramp)  # smoothstep: no visible edge where the slope would jump
  return np.outer(ramp, ramp).astype(np.float32)


class Paste:
  """Pastes crops into pictures of one size at one square; a square that moves needs a new object.

  Args:
    square: where the crop goes, (4,) as in `align`.
    picture: (h, w) of the pictures, px.
    cover: square of a head in the pictures that must not be seen beside the crop: what the crop
      leaves of it is covered with the repeated border of the crop. By default `square`.

  Attributes:
    rows, columns: slices of the region of the picture that is changed.
    mask: float32 weight of the crop in that region.
  """

  def __init__(self, square: np.ndarray, picture: tuple[int, int], cover: np.ndarray | None = None):
    # px; larger crops are first averaged down to this, since warping alone would alias.
    self._side = max(1, round(align.side_of(square)))
    covered = [square] if cover is None or np.array_equal(cover, square) else [square, cover]
    spots = np.concatenate([align.corners(each) for each in covered])
    # The bounding box of the squares, cut at the picture: warping all of a large frame is slow.
    low = np.clip(np.floor(spots.min(0)), 0, picture[::-1]).astype(int)
    high = np.clip(np.ceil(spots.max(0)), 0, picture[::-1]).astype(int)
    self.rows, self.columns = slice(low[1], high[1]), slice(low[0], high[0])
    self._corner, self._extent, self._square = low, high - low, square
    # A square beside the picture leaves nothing to paste; OpenCV rejects empty targets.
    if min(self._extent) > 0:
      mask = feather(self._side)
      self.mask = np.max([self._warped(mask, each, cv2.BORDER_CONSTANT) for each in covered], 0)
    else:
      self.mask = np.zeros((0, 0), np.float32)
    self._border = ((self.mask > 0) & (self.mask < 1)).astype(np.uint8)

  def _warped(self, crop: np.ndarray, square: np.ndarray, border: int) -> np.ndarray:
    matrix = align.to_picture(square, len(crop))
    # From pixels of the picture to pixels of the region.
    matrix[:, 2] -= self._corner
    # Cubic overshoots, which would push the mask below 0 and above 1.
    interpolation = cv2.INTER_LINEAR if crop.ndim == 2 else cv2.INTER_CUBIC
    extent = tuple(int(length) for length in self._extent)
    return cv2.warpAffine(crop, matrix, extent, flags=interpolation, borderMode=border)

  def __call__(self, rgb: np.ndarray, crop: np.ndarray) -> tuple[np.ndarray, float]:
    """Pastes a crop (s, s, 3) uint8 into a picture (h, w, 3) uint8 -> (new picture, seam).

    The seam is the mean difference, in grey levels, between crop and picture where the mask is
    between 0 and 1.
    """
    result = rgb.copy()
    if not self.mask.size:
      return result, 0.0
    if len(crop) > self._side:
      crop = cv2.resize(crop, (self._side, self._side), interpolation=cv2.INTER_AREA)
    # Replicated, because black from outside would darken the border of a turned crop.
    new = self._warped(crop, self._square, cv2.BORDER_REPLICATE)
    region, steps = result[self.rows, self.columns], 0.0
    for start in range(0, len(region), _BAND):
      band = slice(start, start + _BAND)
      old, mask = region[band], self.mask[band]
      steps += sum(cv2.sumElems(cv2.copyTo(cv2.absdiff(new[band], old), self._border[band])))
      # In this form a pixel whose crop equals the picture stays bit for bit the same.
      change = cv2.subtract(new[band], old, dtype=cv2.CV_32F)
      change = cv2.multiply(change, cv2.merge((mask, mask, mask)), dst=change)
      region[band] = cv2.add(old, change, dtype=cv2.CV_8U)  # rounded to the nearest
    return result, steps / max(3 * int(self._border.sum()), 1)


def fit(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Scales (h, w, 3) uint8 to fit into `size` (h, w), keeps its aspect, and fills with white."""
  h, w = rgb.shape[:2]
  scale = min(size[0] / h, size[1] / w)
  # The epsilon keeps a side that fits exactly from losing a pixel to rounding.
  inner = max(1, math.floor(h * scale + 1e-6)), max(1, math.floor(w * scale + 1e-6))
  smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
  sheet = np.full((*size, 3), 255, np.uint8)
  top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
  scaled = rgb if inner == (h, w) else cv2.resize(rgb, inner[::-1], interpolation=smooth)
  sheet[top : top + inner[0], left : left + inner[1]] = scaled
  return sheet


def even(rgb: np.ndarray) -> np.ndarray:
  """Makes odd sides even by repeating the last row or column: 4:2:0 video has even sides only."""
  h, w = rgb.shape[:2]
  return np.pad(rgb, ((0, h % 2), (0, w % 2), (0, 0)), mode='edge') if h % 2 or w % 2 else rgb


def labelled(
  rows: Sequence[Sequence[np.ndarray]], names: Sequence[str], heads: Sequence[str], side: int = 160
) -> np.ndarray:
  """Returns a contact sheet with a name before each row and a head over each column.

  Args:
    rows: pictures (h, w, 3) uint8 of any size.
    names: one per row; may have several lines.
    heads: one per column.
    side: side of a cell, px.
  """
  # Text needs Pillow: imageio writes pictures but draws nothing.
  font, margin, line = ImageFont.load_default(15), 8, 26
  shown = [[fit(cell, (side, side)) for cell in row] for row in rows]
  cells = stills.grid(shown)
  left = 2 * margin + max(round(font.getlength(line)) for n in names for line in n.split('\n'))
  sheet = Image.new('RGB', (left + cells.shape[1], line + cells.shape[0]), 'white')
  sheet.paste(Image.fromarray(cells), (left, line))
  draw = ImageDraw.Draw(sheet)
  for k, head in enumerate(heads):
    draw.text((left + (k + 0.5) * side, line / 2), head, 'black', font, anchor='mm')
  for k, name in enumerate(names):
    draw.text((margin, line + (k + 0.5) * side), name, 'black', font, anchor='lm')
  return np.asarray(sheet)
