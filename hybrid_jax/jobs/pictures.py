"""Thumbnails of a clip for the report: source, driver, and three moments of the result."""

import base64
import io
import itertools
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from hybrid_jax import reenact
from hybrid_jax.media import MediaError, stills, video
from hybrid_jax.media.composite import fit
from hybrid_jax.reenactment import motion_file
from hybrid_jax.reenactment.inputs import is_moving

SIDE = 96  # px
_LOOK = 240  # frames of a clip that are looked at, from its beginning


def strip(options: reenact.Options) -> str:
  """A JPEG as a data URL; a clip that cannot be read is white."""
  moments = (0, 0.5, 1)
  cells = _moments(options.source, (0,))
  driven = [] if motion_file.is_motion(options.driving) else _moments(options.driving, (0.5,))
  cells = [*cells, *driven, *_moments(options.output, moments)]
  sheet = stills.grid([[fit(cell, (SIDE, SIDE)) for cell in cells]])
  file = io.BytesIO()
  Image.fromarray(sheet).save(file, 'JPEG', quality=80)
  return 'data:image/jpeg;base64,' + base64.b64encode(file.getvalue()).decode()


def _moments(path: str, shares: Sequence[float]) -> list[np.ndarray]:
  """Pictures at these shares of a clip, a picture or a folder of them."""
  if pathlib.Path(path).is_dir():
    names = sorted(pathlib.Path(path).glob('*.png'))
    return [stills.read_image(names[round(share * (len(names) - 1))]) for share in shares]
  if not is_moving(path):
    return [stills.read_image(path)] * len(shares)
  small = []
  try:
    for frame in itertools.islice(video.read_frames(path), _LOOK):
      small.append(fit(frame.rgb, (SIDE, SIDE)))
  except MediaError:
    pass  # it breaks off
  small = small or [np.full((SIDE, SIDE, 3), 255, np.uint8)]
  return [small[round(share * (len(small) - 1))] for share in shares]
