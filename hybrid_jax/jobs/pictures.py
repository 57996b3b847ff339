"""Thumbnails for the report: source, driver, and three moments of the result."""

import itertools
import pathlib
from collections.abc import Sequence

import imageio.v3 as iio
import numpy as np

from hybrid_jax.evaluation.charts import data_uri
from hybrid_jax.media import MediaError, stills, video
from hybrid_jax.media.composite import fit
from hybrid_jax.reenactment import motion_file
from hybrid_jax.reenactment.options import Options

SIDE = 96  # px; the page shows them at 72
# Frames of a clip that are decoded, from its first one: thumbnails need not decode an hour. The
# three moments are moments of these.
_DECODED = 240


def strip(options: Options) -> str:
  """Returns the thumbnails side by side, a JPEG as a data URI; unreadable clips are white."""
  # A data URI, so that the page can be sent or moved alone. One JPEG per row: five would each
  # repeat its tables, in a page of thousands of rows.
  cells = _moments(options.source, (0,))
  if not motion_file.is_motion(options.driving):
    cells = [*cells, *_moments(options.driving, (0.5,))]
  cells = [*cells, *_moments(options.output, (0, 0.5, 1))]
  sheet = stills.grid([[fit(cell, (SIDE, SIDE)) for cell in cells]])
  return data_uri(iio.imwrite('<bytes>', sheet, extension='.jpg', quality=80), 'image/jpeg')


def _moments(path: str, positions: Sequence[float]) -> list[np.ndarray]:
  """Returns pictures at `positions` from 0 to 1 of a clip, a picture or a folder of pictures."""
  if pathlib.Path(path).is_dir():
    names = sorted(pathlib.Path(path).glob('*.png'))
    return [stills.read_image(names[round(at * (len(names) - 1))]) for at in positions]
  # A still has one moment; it is repeated, so that all rows of the page have the same columns.
  if not video.is_clip(path):
    return [stills.read_image(path)] * len(positions)
  small = []
  try:
    for frame in itertools.islice(video.read_frames(path), _DECODED):
      # Shrunk while decoding: 240 frames of 4K would be 6 GB.
      small.append(fit(frame.rgb, (SIDE, SIDE)))
  except MediaError:
    pass  # shows the frames before the damage
  small = small or [np.full((SIDE, SIDE, 3), 255, np.uint8)]
  return [small[round(at * (len(small) - 1))] for at in positions]
