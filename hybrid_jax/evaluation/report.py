"""A result as one page of HTML that needs no other file, no script and no network."""

import functools
import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import charts
from hybrid_jax.evaluation.clip import Measured
from hybrid_jax.evaluation.pairing import Aligned
from hybrid_jax.evaluation.results import CORRELATIONS, METRICS
from hybrid_jax.evaluation.squares import resized
from hybrid_jax.media import sequences

SHOWN = 2  # best clips, and as many worst, in the gallery
STRIP, SIDE = 24, 128  # frames of a film, and px of its panels
TIMELINES = 24  # clips whose error over time is drawn: the worst
# Clips are ranked by the first of these that was measured.
RANKS = ('l1', 'identity_similarity', 'identity_similarity_judge', *CORRELATIONS)


def page(result: Mapping[str, Any], clips: Sequence[Measured]) -> str:
  """Returns the page of a result (see `results.result`); clips of the gallery are read again."""
  rank = next((name for name in RANKS if name in result['metrics']), None)
  ranked = list(clips)
  if rank:  # the worst first
    ranked = sorted((c for c in clips if rank in c.values), key=lambda c: c.values[rank])
    ranked = ranked if METRICS[rank].more else ranked[::-1]
  names = {name for clip in result['clips'] for name in clip}
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,  # names of files may contain markup
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters['number'] = lambda value: '' if value is None else f'{value:.4g}'
  environment.filters['pretty'] = functools.partial(json.dumps, indent=1)
  return environment.get_template('report.html').render(
    result=result,
    protocol=result['protocol'],
    metrics=METRICS,
    rank=rank,
    distributions=_distributions(result, clips),
    gallery=_gallery(ranked, rank),
    timelines=_timelines(ranked[:TIMELINES]),
    columns=[name for name in METRICS if name in names],
  )


def _distributions(result: Mapping, clips: Sequence[Measured]) -> list[tuple[str, str]]:
  """Returns (label, chart) of each metric with an interval."""
  drawn = []
  for name, value in result['metrics'].items():
    values = [c.values[name] for c in clips if np.isfinite(c.values.get(name, np.nan))]
    if 'low' in value and len(values) > 1:
      chart = charts.dots(values, value['mean'], value['low'], value['high'])
      drawn.append((METRICS[name].label, chart))
  return drawn


def _gallery(ranked: Sequence[Measured], rank: str | None) -> dict[str, Any]:
  """Returns the films of the worst and the best clips, and what their panels show."""
  worst = ranked[:SHOWN]
  best = [clip for clip in ranked[: -SHOWN - 1 : -1] if clip not in worst]
  titles = ('Worst', 'Best') if rank else ('First', 'Last')
  films = []
  for title, chosen in zip(titles, (worst, best), strict=True):
    for clip in chosen:
      value = f', {METRICS[rank].label} {clip.values[rank]:.4g}' if rank else ''
      item = {'caption': f'{title}: {clip.pair.name}{value}', 'film': '', 'error': ''}
      try:
        item['film'] = charts.film(*strip(clip, rank))
      except InputError as error:  # the file has changed since it was measured
        item['error'] = str(error)
      films.append(item)
  source = 'source, ' if ranked[0].pair.source else ''
  difference = ', difference (3 times)' if rank == 'l1' else ''
  return {
    'films': films,
    'panels': f'{source}reference, generated{difference}',
    'part': 'around its worst frame' if rank in ranked[0].timeline else 'from its first frame on',
  }


def strip(clip: Measured, rank: str | None) -> tuple[list[np.ndarray], float]:
  """Returns at most `STRIP` frames (SIDE, k SIDE, 3) uint8 of a clip, and their duration in s.

  The frames are those around the worst one by `rank`, or the first if `rank` is not per frame.
  """
  start = 0
  if rank in clip.timeline:
    worst = (np.argmin if METRICS[rank].more else np.argmax)(clip.timeline[rank])
    start = max(0, min(int(worst) - STRIP // 2, clip.frames - STRIP))
  paths = clip.pair.reference, clip.pair.generated
  aligned = Aligned(*map(sequences.read, paths), limit=1 << 62)
  chosen = list(itertools.islice(aligned, start, start + STRIP))
  source = []
  if clip.pair.source is not None:
    source = [resized(next(sequences.read(clip.pair.source)).rgb, SIDE)]
  frames = []
  for match in chosen:
    reference, generated = (resized(rgb, SIDE) for rgb in (match.reference, match.generated))
    panels = [*source, reference, generated]
    if rank == 'l1':
      difference = np.abs(reference.astype(int) - generated)
      panels.append((3 * difference).clip(0, 255).astype(np.uint8))
    frames.append(np.hstack(panels))
  times = [match.seconds for match in chosen]
  seconds = times[-1] - times[0] if len(times) > 1 else 1.0
  return frames, min(max(seconds, 0.5), 10.0)


def _timelines(ranked: Sequence[Measured]) -> list[tuple[str, str]]:
  """Returns (name, chart) of each clip that has a metric per frame."""
  drawn = []
  for clip in ranked:
    lines = {
      metric.label: (clip.timeline[name], metric.more)
      for name, metric in METRICS.items()
      if name in clip.timeline
    }
    if lines:
      drawn.append((clip.pair.name, charts.timelines(clip.times, lines)))
  return drawn
