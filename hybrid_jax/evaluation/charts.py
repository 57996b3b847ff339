"""Small drawings for a page: SVG as text, and pictures as data in the page itself."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

POINTS = 400  # of a line at most
WIDTH, HEIGHT, LEFT = 560, 90, 56


def dots(values: Sequence[float], mean: float, low: float, high: float) -> str:
  """One dot a clip along an axis, their mean and its interval."""
  first, last = _ends(np.array([*values, low, high]))
  x = lambda v: LEFT + (v - first) / (last - first) * (WIDTH - LEFT - 12)  # noqa: E731
  marks = ''.join(f'<circle cx="{x(v):.1f}" cy="26" r="3"/>' for v in values)
  band = f'<rect x="{x(low):.1f}" y="12" width="{max(x(high) - x(low), 1):.1f}" height="28"/>'
  line = f'<path class="mean" d="M{x(mean):.1f} 10V42"/>'
  ends = ''.join(_text(x(v), 56, f'{v:.3g}', anchor) for v, anchor in
                 ((first, 'start'), (last, 'end')))  # fmt: skip
  return f'<svg viewBox="0 0 {WIDTH} 62" class="dots">{band}{marks}{line}{ends}</svg>'


def timeline(times: np.ndarray, values: np.ndarray) -> str:
  """A line over time; of more than `POINTS` values the ends of each stretch's range are drawn."""
  known = np.isfinite(values)
  times, values = times[known], values[known]
  if not len(values):
    return '<p>nothing finite to draw</p>'
  parts = np.array_split(np.arange(len(values)), min(POINTS // 2, len(values)))
  ends = [part[f(values[part])] for part in parts for f in (np.argmin, np.argmax)]
  kept = np.unique(ends) if len(values) > POINTS else np.arange(len(values))
  low, high = _ends(values[kept])
  start, end = _ends(times)
  x = LEFT + (times[kept] - start) / (end - start) * (WIDTH - LEFT - 12)
  y = HEIGHT - 18 - (values[kept] - low) / (high - low) * (HEIGHT - 28)
  points = ' '.join(f'{a:.1f},{b:.1f}' for a, b in zip(x, y, strict=True))
  labels = _text(LEFT - 6, 14, f'{high:.3g}', 'end')
  labels += _text(LEFT - 6, HEIGHT - 16, f'{low:.3g}', 'end')
  labels += _text(WIDTH - 12, HEIGHT - 3, f'{end:.2f} s', 'end')
  return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}"><polyline points="{points}"/>{labels}</svg>'


def film(frames: Sequence[np.ndarray], seconds: float, alt: str) -> str:
  """An animated WebP inside the page; `seconds` is how long it lasts."""
  pictures, file = [Image.fromarray(frame) for frame in frames], io.BytesIO()
  each = max(20, round(1000 * seconds / len(pictures)))
  pictures[0].save(
    file, 'WEBP', save_all=True, append_images=pictures[1:], duration=each, loop=0, quality=70
  )
  data = base64.b64encode(file.getvalue()).decode()
  return f'<img alt="{html.escape(alt)}" src="data:image/webp;base64,{data}">'


def _ends(values: np.ndarray) -> tuple[float, float]:
  low, high = float(values.min()), float(values.max())
  room = 0 if high > low else max(abs(low), 1) * 1e-3
  return low - room, high + room


def _text(x: float, y: float, said: str, anchor: str) -> str:
  return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}">{html.escape(said)}</text>'
