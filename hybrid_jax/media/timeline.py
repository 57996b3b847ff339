"""Values over time as a picture, drawn with Pillow."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hybrid_jax.media import stills

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP = 960, 150, 70, 20, 28
_INK, _FAINT, _LINE, _BAD = (40, 40, 40), (215, 215, 215), (25, 95, 170), (200, 40, 40)


@dataclasses.dataclass(frozen=True)
class Strip:
  """One curve: `values` (t,), NaN where there are none; `least` is drawn as a line, or None."""

  title: str
  values: np.ndarray
  least: float | None = None


def draw(path: str | os.PathLike, seconds: np.ndarray, strips: Sequence[Strip]) -> None:
  """Writes a picture of curves below each other over `seconds` (t,).

  Raises:
    MediaError: the picture cannot be written.
  """
  sheet = Image.new('RGB', (_WIDTH, _HEIGHT * len(strips) + 30), 'white')
  pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
  begin, end = (float(seconds[0]), float(seconds[-1])) if len(seconds) else (0.0, 0.0)
  across = lambda t: _LEFT + (t - begin) / ((end - begin) or 1) * (_WIDTH - _LEFT - _RIGHT)  # noqa: E731
  for k, strip in enumerate(strips):
    top, bottom = k * _HEIGHT + _TOP, (k + 1) * _HEIGHT - 8
    pen.text((_LEFT, top - 20), strip.title, _INK, font)
    known = strip.values[np.isfinite(strip.values)]
    extremes = np.append(known, [0, 1] if strip.least is None else [0, 1, strip.least])
    low, high = float(extremes.min()), float(extremes.max())
    down = lambda v, a=bottom, b=top, lo=low, hi=high: a - (v - lo) / (hi - lo) * (a - b)  # noqa: E731
    for value in (low, high):
      pen.line((_LEFT, down(value), _WIDTH - _RIGHT, down(value)), _FAINT)
      pen.text((_LEFT - 8, down(value)), f'{value:.3g}', _INK, font, 'rm')
    if strip.least is not None:
      pen.line((_LEFT, down(strip.least), _WIDTH - _RIGHT, down(strip.least)), _BAD)
    points = [
      (across(t), down(v)) if np.isfinite(v) else None
      for t, v in zip(seconds, strip.values, strict=True)
    ]
    for a, b in zip(points, points[1:], strict=False):
      if a and b:
        pen.line((*a, *b), _LINE, 2)
    for point, value in zip(points, strip.values, strict=True):
      if point and (len(points) == 1 or (strip.least is not None and value < strip.least)):
        x, y = point
        pen.ellipse((x - 3, y - 3, x + 3, y + 3), _BAD if strip.least is not None else _LINE)
  bottom = _HEIGHT * len(strips)
  for share in (0, 0.25, 0.5, 0.75, 1):
    time = begin + share * (end - begin)
    pen.text((across(time), bottom + 4), f'{time:.2f} s', _INK, font, 'ma')
  stills.write_image(path, np.asarray(sheet))
