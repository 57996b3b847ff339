"""Pictures in and out by Pillow: (h, w, 3) uint8 RGB, upright. Colour profiles are ignored."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from hybrid_jax.media import MediaError, reason, replacing
from hybrid_jax.media.pixels import over_white

# A closed list: other readers of Pillow run outside programs (EPS) or fill memory unasked.
_FORMATS = ('PNG', 'JPEG', 'JPEG2000', 'WEBP', 'GIF', 'BMP', 'TIFF', 'PPM')
_MAX_PIXELS = 1 << 26  # 8192 x 8192


def read_image(path: str | os.PathLike) -> np.ndarray:
  """Reads a picture as it is meant to be seen.

  The EXIF orientation is obeyed, transparency lies over white, grey, palette and CMYK become RGB,
  16 bits become 8 by v / 257, and of an animation the first frame is taken.

  Raises:
    MediaError: the file is missing, empty, damaged, too large, or not of a kind listed above.
  """
  try:
    if not os.path.getsize(path):
      raise MediaError(f'{path}: is empty (0 bytes); replace it')
    with Image.open(path, formats=_FORMATS) as image:
      if image.width * image.height > _MAX_PIXELS:  # Known before any pixel is decoded.
        raise Image.DecompressionBombError(f'{image.width}x{image.height} pixels')
      return _to_rgb(ImageOps.exif_transpose(image))
  except MediaError:
    raise
  except Image.DecompressionBombError as error:
    raise MediaError(f'{path}: is too large ({reason(error)}); shrink it first') from error
  except Image.UnidentifiedImageError:
    raise MediaError(f'{path}: is no picture of a known kind; give a PNG or JPEG file') from None
  except Exception as error:  # Damaged bytes can provoke any error of Pillow's decoders.
    raise MediaError(f'{path}: cannot be read ({reason(error)}); replace it') from error


def write_image(path: str | os.PathLike, rgb: np.ndarray, comment: str = ''):
  """Writes (h, w, 3) uint8 in the format of the suffix, through a temporary file beside it.

  A `comment` goes into PNG files.
  """
  path = pathlib.Path(path)
  if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
    raise MediaError(f'{path}: a picture is uint8 (h, w, 3), not {rgb.dtype} {rgb.shape}')
  text = PngInfo()
  if comment:
    text.add_text('Comment', comment)
  with replacing(path) as part:
    try:
      Image.fromarray(rgb).save(part, quality=95, pnginfo=text)  # Each format takes its own.
    except (OSError, ValueError, KeyError) as error:
      raise MediaError(f'{path}: cannot be written ({reason(error)}); try .png') from error


def grid(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
  """A contact sheet of equally large (h, w, 3) uint8 pictures; short rows are filled with white."""
  cells = [cell for row in rows for cell in row]
  if not cells or len({cell.shape for cell in cells}) > 1:
    raise MediaError('a contact sheet needs at least one picture, and all of one size')
  h, w, _ = cells[0].shape
  sheet = np.full((len(rows) * h, max(map(len, rows)) * w, 3), 255, np.uint8)
  for i, row in enumerate(rows):
    for j, cell in enumerate(row):
      sheet[i * h : (i + 1) * h, j * w : (j + 1) * w] = cell
  return sheet


def _to_rgb(image: Image.Image) -> np.ndarray:
  if image.mode[0] == 'I':  # I;16 in its byte orders; Pillow's own conversion clips at 255.
    grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
    return np.repeat(((grey + 128) // 257).astype(np.uint8)[..., None], 3, axis=2)
  if image.mode == 'F':
    raise ValueError('floating-point values of unknown range')
  if image.has_transparency_data:
    return over_white(np.asarray(image.convert('RGBA')))
  return np.asarray(image.convert('RGB')).copy()
