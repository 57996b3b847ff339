"""Charts and films as data URIs: a page that shows them needs no other file."""

import base64
import io
from collections.abc import Mapping, Sequence

import imageio.v3 as iio
import matplotlib
import numpy as np
from matplotlib.figure import Figure  # without pyplot, which keeps every figure in a global list

POINTS = 280  # of a line at most
LEVEL = 1e-5  # a line that varies less, relative to its values, is drawn level: rounding errors
BLUE, RED, YELLOW, GREY = '#2563a8', '#b3261e', '#f3c969', '#5a6472'
_STYLE = {
  'font.size': 8.5,
  'axes.edgecolor': GREY,
  'text.color': GREY,
  'xtick.color': GREY,
  'ytick.color': GREY,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'svg.fonttype': 'none',  # text stays text, which is a tenth of the size of its outlines
  'svg.hashsalt': 'hybrid_jax',  # the same data give the same file
}


def dots(values: Sequence[float], mean: float, low: float, high: float) -> str:
  """Draws a dot per clip, their mean as a line and its interval [low, high] as a band."""
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(5.6, 0.6), layout='constrained')
    axes = figure.subplots()
    axes.spines['left'].set_visible(False)
    axes.set_yticks([])
    axes.axvspan(low, high, color=YELLOW, alpha=0.5)
    axes.plot(values, np.zeros(len(values)), 'o', color=BLUE, alpha=0.6, markersize=4)
    axes.axvline(mean, color=RED)
    axes.locator_params(axis='x', nbins=5)
    return _svg(figure)


def timelines(times: np.ndarray, lines: Mapping[str, tuple[np.ndarray, bool]]) -> str:
  """Draws lines below each other over `times` (t,), seconds.

  Args:
    lines: by label the values (t,), of which those that are not finite are left out, and whether
      more is better. Of more than `POINTS` values the worst in each stretch is drawn.
  """
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(5.6, 0.7 * len(lines) + 0.2), layout='constrained')
    rows = figure.subplots(len(lines), sharex=True, squeeze=False)[:, 0]
    for axes, (label, (values, more)) in zip(rows, lines.items(), strict=True):
      axes.set_title(label, loc='left', fontsize='medium', pad=2)
      kept = worst_of_stretches(values, more)
      if not len(kept):
        axes.set_yticks([])
        axes.text(0.5, 0.5, 'no finite value', transform=axes.transAxes, ha='center', va='center')
        continue
      axes.plot(times[kept], values[kept], color=BLUE, linewidth=1)
      low, high = float(values[kept].min()), float(values[kept].max())
      level = high - low <= LEVEL * max(abs(low), abs(high))
      ticks = [low] if level else [low, high]
      axes.set_yticks(ticks, [f'{tick:.3g}' for tick in ticks])
      if level:
        axes.set_ylim(low - 1, low + 1)
    rows[-1].xaxis.set_major_formatter('{x:g} s')
    return _svg(figure)


def worst_of_stretches(values: np.ndarray, more: bool) -> np.ndarray:
  """Returns at most `POINTS` indices in order: of each stretch its worst finite value.

  A mean over a stretch would hide a single bad frame.
  """
  finite = np.flatnonzero(np.isfinite(values))
  if not len(finite):
    return finite
  worst = np.argmin if more else np.argmax
  stretches = np.array_split(finite, min(POINTS, len(finite)))
  return np.array([stretch[worst(values[stretch])] for stretch in stretches])


def film(frames: Sequence[np.ndarray], seconds: float) -> str:
  """Makes an animated WebP of frames (h, w, 3) uint8 that lasts `seconds` and repeats."""
  duration = max(20, round(1000 * seconds / len(frames)))  # ms; browsers slow down shorter ones
  data = iio.imwrite(
    '<bytes>', np.stack(frames), extension='.webp', duration=duration, loop=0, quality=70
  )
  return data_uri(data, 'image/webp')


def data_uri(data: bytes, kind: str) -> str:
  """Returns the contents of a file of MIME type `kind` as a data URI."""
  return f'data:{kind};base64,{base64.b64encode(data).decode()}'


def _svg(figure: Figure) -> str:
  file = io.BytesIO()
  # Without a date and a transparent ground: a page may be dark.
  figure.savefig(file, format='svg', transparent=True, metadata={'Date': None})
  return data_uri(file.getvalue(), 'image/svg+xml')
