"""Small drawings for a page: SVG as text, and pictures as data in the page itself."""

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

POINTS = 280  # of a line at most
WIDTH, LEFT = 560, 56
LINE = 64  # height of a line over time
SAME = 1e-5  # a line that varies less, relative to its values, is level: the rest is rounding


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


def timelines(times: np.ndarray, lines: Mapping[str, tuple[np.ndarray, bool]]) -> str:
  """Lines over one time, below each other, by label: values (t,), and whether more is better.

  Of more than `POINTS` values the worst in each stretch is drawn.
  """
  start, end = _ends(times)
  drawn = []
  for k, (label, (values, more)) in enumerate(lines.items()):
    top = k * LINE
    drawn.append(_text(LEFT, top + 13, label, 'start'))
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
      drawn.append(_text(LEFT, top + 36, 'nothing finite to draw', 'start'))
      continue
    worst = np.argmin if more else np.argmax
    parts = np.array_split(known, min(POINTS, len(known)))
    kept = np.array([part[worst(values[part])] for part in parts])
    least, most = float(values[kept].min()), float(values[kept].max())
    constant = most - least <= SAME * max(abs(least), abs(most))
    low, high = (least - 1, least + 1) if constant else (least, most)
    x = LEFT + (times[kept] - start) / (end - start) * (WIDTH - LEFT - 12)
    y = top + LINE - 6 - (values[kept] - low) / (high - low) * (LINE - 26)
    points = ' '.join(f'{a:.1f},{b:.1f}' for a, b in zip(x, y, strict=True))
    drawn.append(f'<polyline points="{points}"/>')
    for place, value in ((42, least),) if constant else ((28, high), (LINE - 3, low)):
      drawn.append(_text(LEFT - 6, top + place, f'{value:.3g}', 'end'))
  height = len(lines) * LINE + 16
  drawn.append(_text(LEFT, height - 3, f'{start:.2f} s', 'start'))
  drawn.append(_text(WIDTH - 12, height - 3, f'{end:.2f} s', 'end'))
  return f'<svg viewBox="0 0 {WIDTH} {height}">{"".join(drawn)}</svg>'


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
