"""Reads and writes pictures, (h, w, 3) uint8 RGB, upright, in the colours of sRGB.

imageio writes them. Pillow reads them, because imageio's reader cannot be limited to a list of
formats (it would pass EPS files to Ghostscript) and drops the transparency of palette pictures.
"""

import contextlib
import importlib.util
import io
import os
import pathlib
from collections.abc import Sequence

import av
import imageio.v3 as iio
import numpy as np
from PIL import Image, ImageCms, ImageOps, features
from PIL.PngImagePlugin import PngInfo

from hybrid_jax.media import MediaError, colour, reason, refuse_target, replacing
from hybrid_jax.media.pixels import Upright, over_white

# A closed list: other readers of Pillow start external programs (EPS) or allocate without limit.
_FORMATS = ('PNG', 'JPEG', 'JPEG2000', 'WEBP', 'GIF', 'BMP', 'TIFF', 'PPM')
_FORMATS += ('AVIF',) * features.check('avif')
_HEIF_BRANDS = {b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1'}
_MAX_PIXELS = 1 << 26  # 8192 x 8192, 200 MB as RGB
_JPEG_QUALITY = 95


def read_image(path: str | os.PathLike) -> np.ndarray:
  """Reads a picture as a viewer shows it -> (h, w, 3) uint8.

  The EXIF orientation is applied, transparency is composited over white, grey, palette and CMYK
  are converted to RGB, 16 bits are reduced to 8 by v / 257, and an animation gives its first frame.
  Colours are converted to sRGB by the ICC profile, if there is a valid one, and those of HDR
  pictures (PNG and AVIF by their tags, HEIC) by `colour.to_standard`.

  Raises:
    MediaError: the file is missing, empty, damaged, too large, or not in one of `_FORMATS`.
  """
  try:
    # Pillow's message for an empty file is that of an unknown format.
    if not os.path.getsize(path):
      raise MediaError(f'{path}: is empty (0 bytes); replace it')
    with Image.open(path, formats=_formats(path)) as image:
      # The header has the size: a small file that would fill the memory is never decoded.
      if image.width * image.height > _MAX_PIXELS:
        raise Image.DecompressionBombError(f'{image.width}x{image.height} pixels')
      tagged = image.format == 'AVIF' or (image.format == 'PNG' and _has_tags(path))
      wide = _read_wide(path) if tagged else None
      return _to_rgb(ImageOps.exif_transpose(image)) if wide is None else wide
  except MediaError:
    raise
  except Image.DecompressionBombError as error:
    raise MediaError(f'{path}: is too large ({reason(error)}); shrink it first') from error
  except Image.UnidentifiedImageError:
    raise MediaError(f'{path}: is no picture of a known format; give a PNG or JPEG file') from None
  except Exception as error:  # damaged bytes can raise any error in Pillow's decoders
    raise MediaError(f'{path}: cannot be read ({reason(error)}); replace it') from error


def is_picture(path: str | os.PathLike) -> bool:
  """Returns whether a file is a still picture or a GIF by its content, whatever its name."""
  try:
    with Image.open(path, formats=_FORMATS):
      return True
  except Exception:  # as in `read_image`
    return is_heif(path)


def is_heif(path: str | os.PathLike) -> bool:
  """Returns whether a file is a HEIC or HEIF picture by its content."""
  try:
    with open(path, 'rb') as file:
      head = file.read(64)
  except OSError:
    return False
  # The first box of the file: its length, 'ftyp', a brand, a version, and compatible brands.
  size = int.from_bytes(head[:4])
  brands = {head[k : k + 4] for k in (8, *range(16, min(size, len(head)), 4))}
  # AVIF has the same container and names it among its brands, too.
  return head[4:8] == b'ftyp' and bool(brands & _HEIF_BRANDS) and not brands & {b'avif', b'avis'}


def write_image(path: str | os.PathLike, rgb: np.ndarray, comment: str = '') -> None:
  """Writes (h, w, 3) uint8 in the format of the suffix, through a temporary file beside it.

  Args:
    comment: text stored in the file; PNG alone can hold it.

  Raises:
    MediaError: another shape or type, an unknown suffix, or a folder that cannot be written.
  """
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


def _formats(path: str | os.PathLike) -> Sequence[str]:
  """Returns the formats to look for in a file. Raises MediaError for HEIC without its reader."""
  if not is_heif(path):
    return _FORMATS
  if importlib.util.find_spec('pillow_heif') is None:
    raise MediaError(
      f"{path}: is a HEIC picture; pip install 'hybrid_jax[heif]', or convert it to JPEG"
    )
  import pillow_heif  # optional, and registers itself with Pillow for the whole process

  pillow_heif.register_heif_opener()
  return ('HEIF',)


def _has_tags(path: str | os.PathLike) -> bool:
  """Returns whether a PNG states H.273 tags, in a chunk that precedes the pixels."""
  with open(path, 'rb') as file:
    return b'cICP' in file.read(4096)


def _read_wide(path: str | os.PathLike) -> np.ndarray | None:
  """Reads a picture with FFmpeg if its tags state wide colour or high dynamic range; else None.

  Pillow drops these tags, and half of the 16 bits.
  """
  with contextlib.suppress(av.FFmpegError), av.open(f'file:{os.fspath(path)}') as container:
    stream = container.streams.video[0]
    frame = next(container.decode(stream), None)
    if frame and colour.is_wide(frame.color_trc, frame.color_primaries):
      return Upright(frame, stream)(frame)
  return None


def _to_rgb(image: Image.Image) -> np.ndarray:
  profile = image.info.get('icc_profile')
  if image.mode[0] == 'I':  # I;16 in both byte orders; Pillow's own conversion clips at 255
    grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
    image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
  # Without the range of the values any scaling would be a guess.
  if image.mode == 'F':
    raise ValueError('floating-point values of unknown range')
  alpha = None
  # Alpha channels and transparent palette entries or colours.
  if image.has_transparency_data:
    rgba = image.convert('RGBA')
    alpha, image = np.asarray(rgba)[..., 3:], rgba.convert('L' if image.mode == 'LA' else 'RGB')
  rgb = np.asarray(_to_srgb(image, profile)).copy()
  tags = image.info.get('nclx_profile') or {}
  transfer, primaries = tags.get('transfer_characteristics', 1), tags.get('color_primaries', 1)
  # A profile goes before the tags, by the standard of HEIF.
  if not profile and colour.is_wide(transfer, primaries):
    rgb = colour.to_standard(rgb.astype(np.uint16) * 257, transfer, primaries)
  return rgb if alpha is None else over_white(np.concatenate((rgb, alpha), -1))


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
  """Returns the picture in RGB, its colours converted by the profile unless it is invalid."""
  if image.mode not in ('L', 'RGB', 'CMYK'):
    image = image.convert('RGB')
  # A profile that is damaged, or one for other channels: viewers ignore it, too.
  with contextlib.suppress(ImageCms.PyCMSError, OSError):
    if profile:
      source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
      return ImageCms.profileToProfile(
        image,
        source,
        ImageCms.createProfile('sRGB'),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode='RGB',
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
      )
  return image.convert('RGB')
