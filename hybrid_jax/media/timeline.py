"""Plots of values over time, one below the other on a common axis, drawn with matplotlib."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from hybrid_jax.media import stills

_WIDTH, _STRIP_HEIGHT = 12.0, 1.9  # inches
_DPI = 100  # 1200 px wide
_CURVE, _THRESHOLD = 'tab:blue', 'tab:red'


@dataclasses.dataclass(frozen=True)
class Strip:
  """One plot.

  title: what is drawn.
  values: (t,); NaN leaves a gap.
  threshold: drawn as a dashed line, values below it are marked; None for none.
  unit: label of the vertical axis.
  """

  title: str
  values: np.ndarray
  threshold: float | None = None
  unit: str = ''


def draw(path: str | os.PathLike, seconds: np.ndarray, strips: Sequence[Strip]) -> None:
  """Writes a picture of `strips` over the times `seconds` (t,), 1200 px wide.

  Raises:
    MediaError: the picture cannot be written.
  """
  # Imported here, as it takes half a second and few runs draw. `Figure` and its canvas, not pyplot:
  # pyplot keeps global state and chooses a window system.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure((_WIDTH, _STRIP_HEIGHT * len(strips) + 0.5), _DPI, layout='constrained')
  canvas = FigureCanvasAgg(figure)
  rows = figure.subplots(len(strips), sharex=True, squeeze=False)[:, 0]
  for axes, strip in zip(rows, strips, strict=True):
    _draw_strip(axes, seconds, strip)
  rows[-1].set_xlabel('time (s)')
  figure.align_ylabels(rows)
  canvas.draw()
  # `savefig` would bypass the temporary file and the error messages of `write_image`.
  stills.write_image(path, np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _draw_strip(axes, seconds: np.ndarray, strip: Strip) -> None:
  """Draws one strip; the vertical axis includes 0 to 1, the range of similarity and confidence."""
  values = np.asarray(strip.values, float)
  axes.set_title(strip.title, fontsize=11, loc='left')
  axes.set_ylabel(strip.unit)
  axes.grid(alpha=0.3)
  # The default of 5 % on each side looks like missing frames.
  axes.margins(x=0.01)
  # A value between two gaps has no line to its neighbours, hence the dots.
  axes.plot(seconds, values, color=_CURVE, marker='.', markersize=3)
  shown = [0.0, 1.0, *values[np.isfinite(values)]]
  if strip.threshold is not None:
    shown.append(strip.threshold)
    label = f'threshold {strip.threshold:g}'
    axes.axhline(strip.threshold, color=_THRESHOLD, linestyle='--', label=label)
    low = values < strip.threshold
    axes.plot(np.asarray(seconds)[low], values[low], 'o', color=_THRESHOLD, markersize=5)
    # On the line of the title, where it covers no curve.
    axes.legend(loc='lower right', bbox_to_anchor=(1, 1), fontsize=9, borderaxespad=0.2)
  margin = 0.05 * (max(shown) - min(shown))
  axes.set_ylim(min(shown) - margin, max(shown) + margin)
