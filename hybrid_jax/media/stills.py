"""Reads and writes pictures, (h, w, 3) uint8 RGB, upright. Colour profiles are ignored.

imageio writes them. Pillow reads them, because imageio's reader cannot be limited to a list of
formats (it would pass EPS files to Ghostscript) and drops the transparency of palette pictures.
"""

import os
import pathlib
from collections.abc import Sequence

import imageio.v3 as iio
import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from hybrid_jax.media import MediaError, reason, refuse_target, replacing
from hybrid_jax.media.pixels import over_white

# A closed list: other readers of Pillow start external programs (EPS) or allocate without limit.
_FORMATS = ('PNG', 'JPEG', 'JPEG2000', 'WEBP', 'GIF', 'BMP', 'TIFF', 'PPM')
_MAX_PIXELS = 1 << 26  # 8192 x 8192, 200 MB as RGB
_JPEG_QUALITY = 95


def read_image(path: str | os.PathLike) -> np.ndarray:
  """Reads a picture as a viewer shows it -> (h, w, 3) uint8.

  The EXIF orientation is applied, transparency is composited over white, grey, palette and CMYK
  are converted to RGB, 16 bits are reduced to 8 by v / 257, and an animation gives its first frame.

  Raises:
    MediaError: the file is missing, empty, damaged, too large, or not in one of `_FORMATS`.
  """
  try:
    # Pillow's message for an empty file is that of an unknown format.
    if not os.path.getsize(path):
      raise MediaError(f'{path}: is empty (0 bytes); replace it')
    with Image.open(path, formats=_FORMATS) as image:
      # The header has the size: a small file that would fill the memory is never decoded.
      if image.width * image.height > _MAX_PIXELS:
        raise Image.DecompressionBombError(f'{image.width}x{image.height} pixels')
      return _to_rgb(ImageOps.exif_transpose(image))
  except MediaError:
    raise
  except Image.DecompressionBombError as error:
    raise MediaError(f'{path}: is too large ({reason(error)}); shrink it first') from error
  except Image.UnidentifiedImageError:
    raise MediaError(f'{path}: is no picture of a known format; give a PNG or JPEG file') from None
  except Exception as error:  # damaged bytes can raise any error in Pillow's decoders
    raise MediaError(f'{path}: cannot be read ({reason(error)}); replace it') from error


def write_image(path: str | os.PathLike, rgb: np.ndarray, comment: str = '') -> None:
  """Writes (h, w, 3) uint8 in the format of the suffix, through a temporary file beside it.

  Args:
    comment: text stored in the file; PNG alone can hold it.

  Raises:
    MediaError: another shape or type, an unknown suffix, or a folder that cannot be written.
  """
  path = pathlib.Path(path)
  if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
    raise MediaError(f'{path}: a picture is uint8 (h, w, 3), not {rgb.dtype} {rgb.shape}')
  # PNG stores text in chunks of its own, which Pillow takes as an object.
  text = PngInfo()
  if comment:
    text.add_text('Comment', comment)
  with replacing(path) as part:
    try:
      # Each format ignores the options of the others.
      iio.imwrite(part, rgb, plugin='pillow', quality=_JPEG_QUALITY, pnginfo=text)
    except (OSError, ValueError, KeyError) as error:
      # A full disk is no fault of the format.
      other = '' if getattr(error, 'errno', None) else '; try .png'
      raise MediaError(f'{path}: cannot be written ({reason(error)}){other}') from error


def check_target(path: str | os.PathLike) -> None:
  """Raises MediaError if `write_image` cannot write `path`: to be called before any work."""
  refuse_target(path)
  suffix = pathlib.Path(path).suffix
  try:
    iio.imwrite('<bytes>', np.zeros((8, 8, 3), np.uint8), plugin='pillow', extension=suffix)
  except Exception as error:  # KeyError, ValueError and OSError of the writers, for one fault
    raise MediaError(f'{path}: no picture is written as {suffix!r}; give .png or .jpg') from error


def grid(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
  """Arranges (h, w, 3) uint8 pictures of one size in rows; short rows are filled with white.

  Raises:
    MediaError: no picture, or pictures of different sizes.
  """
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
  if image.mode[0] == 'I':  # I;16 in both byte orders; Pillow's own conversion clips at 255
    grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
    return np.repeat(((grey + 128) // 257).astype(np.uint8)[..., None], 3, axis=2)
  # Without the range of the values any scaling would be a guess.
  if image.mode == 'F':
    raise ValueError('floating-point values of unknown range')
  # Alpha channels and transparent palette entries or colours.
  if image.has_transparency_data:
    return over_white(np.asarray(image.convert('RGBA')))
  return np.asarray(image.convert('RGB')).copy()
