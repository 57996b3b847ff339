"""A result as one page of HTML that needs no other file, no script and no network."""

import collections
import html
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import charts
from hybrid_jax.evaluation.measure import Measured
from hybrid_jax.evaluation.pairing import Aligned
from hybrid_jax.evaluation.results import CORRELATIONS, METRICS
from hybrid_jax.evaluation.squares import resized
from hybrid_jax.media import sequences

SHOWN = 2  # best clips, and as many worst, in the gallery
STRIP, SIDE = 24, 128  # frames of a strip, and px of its panels
TIMELINES = 24  # clips whose error over time is drawn: the worst
# By the first of these that was measured, clips are ranked.
RANKS = ('l1', 'identity_similarity', 'identity_similarity_judge', *CORRELATIONS)

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 64em; margin: 2em auto; padding: 0 1em;
  color: #1d2430; background: #fff }
table { border-collapse: collapse; margin: 1em 0 } caption { text-align: left; color: #5a6472 }
th, td { padding: .25em .7em; border-bottom: 1px solid #dde2e8; text-align: right }
td { vertical-align: top }
th:first-child, td:first-child, .words { text-align: left }
.span { white-space: nowrap }
.wide { overflow-x: auto } .gone td { color: #5a6472 }
svg { width: 100%; display: block }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(24em, 1fr));
  gap: 1em 2em }
text { font-size: 14px; fill: #5a6472 }
polyline { fill: none; stroke: #2563a8; stroke-width: 1.2 } circle { fill: #2563a8; opacity: .6 }
rect { fill: #f3c969; opacity: .5 } .mean { stroke: #b3261e; stroke-width: 2 }
figure { margin: 0 } figcaption { color: #5a6472 }
img { max-width: 100% }
h3 { margin: 0 0 .2em; font-size: 1em }
pre { background: #f4f6f8; padding: 1em; white-space: pre-wrap; overflow-wrap: anywhere }
"""


def page(result: Mapping, clips: Sequence[Measured]) -> str:
  """The whole page. Clips of the gallery are read again."""
  how, rank = result['protocol'], next((n for n in RANKS if n in result['metrics']), None)
  ranked = list(clips)
  if rank:  # the worst first
    ranked = sorted((c for c in clips if rank in c.values), key=lambda c: c.values[rank])
    ranked = ranked if METRICS[rank].more else ranked[::-1]
  parts = [
    f'<p>{how["clips"]} clips, {how["frames"]} frames at {how["resolution"]} px; the reference is '
    f'{_safe(how["reference_is"])}. Commit {_safe(how["commit"] or "unknown")}, {how["date"]}.</p>',
    _table(result),
    _notes(result['problems']),
    _distributions(result, clips),
  ]
  parts += [_gallery(ranked, rank), _timelines(ranked[:TIMELINES], rank)]
  parts += [_clips(result), f'<h2>Protocol</h2><pre>{_safe(json.dumps(how, indent=1))}</pre>']
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>'
    '<meta name="viewport" content="width=device-width">'
    f'<style>{STYLE}</style></head><body><h1>Evaluation</h1>{"".join(parts)}</body></html>\n'
  )


def _safe(text: object) -> str:
  return html.escape(str(text))


def _grid(parts: Sequence[str]) -> str:
  return f'<div class="grid">{"".join(parts)}</div>'


def _number(value: float | None) -> str:
  return '' if value is None else f'{value:.4g}'


def _table(result: Mapping) -> str:
  rows = []
  for name, value in result['metrics'].items():
    metric = METRICS[name]
    better = 'more' if metric.more else 'less'
    interval = f'{_number(value["low"])} to {_number(value["high"])}' if 'low' in value else ''
    rows.append(
      f'<tr><td>{_safe(metric.label)}</td><td class="words">{_safe(metric.unit)}</td>'
      f'<td class="words">{better}</td><td><b>{_number(value["mean"])}</b></td>'
      f'<td>{_number(value.get("deviation"))}</td><td class="span">{interval}</td>'
      f'<td>{value.get("clips", value.get("samples", ""))}</td>'
      f'<td class="words">{_safe(value.get("note", ""))}</td></tr>'
    )
  for name, why in result['not_available'].items():
    rows.append(
      f'<tr class="gone"><td>{_safe(METRICS[name].label)}</td><td class="words" colspan="7">'
      f'not available: {_safe(why)}</td></tr>'
    )
  numbers, words = '<th>{}</th>'.format, '<th class="words">{}</th>'.format
  head = numbers('') + words('unit') + words('better')
  head += ''.join(map(numbers, ('mean', 'deviation', '95 % interval', 'n'))) + words('note')
  return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _notes(lines: Sequence[str]) -> str:
  if not lines:
    return ''
  return f'<h2>Notes</h2><ul>{"".join(f"<li>{_safe(line)}</li>" for line in lines)}</ul>'


def _distributions(result: Mapping, clips: Sequence[Measured]) -> str:
  drawn = []
  for name, value in result['metrics'].items():
    values = [c.values[name] for c in clips if np.isfinite(c.values.get(name, np.nan))]
    if 'low' in value and len(values) > 1:
      picture = charts.dots(values, value['mean'], value['low'], value['high'])
      drawn.append(f'<div><h3>{_safe(METRICS[name].label)}</h3>{picture}</div>')
  if not drawn:
    return ''
  caption = '<p>A dot is a clip, the line their mean, the band its 95 % interval.</p>'
  return f'<h2>Clips</h2>{caption}{_grid(drawn)}'


def _gallery(ranked: Sequence[Measured], rank: str | None) -> str:
  worst = ranked[:SHOWN]
  best = [clip for clip in ranked[: -SHOWN - 1 : -1] if clip not in worst]
  titles = ('Worst', 'Best') if rank else ('First', 'Last')
  parts = []
  for title, chosen in zip(titles, (worst, best), strict=True):
    for clip in chosen:
      value = f', {METRICS[rank].label} {clip.values[rank]:.4g}' if rank else ''
      try:
        frames, seconds = strip(clip, rank)
      except InputError as error:  # the file is no longer what was measured
        parts.append(f'<p>{_safe(clip.pair.name)}: {_safe(error)}</p>')
        continue
      picture = charts.film(frames, seconds, f'{title}: {clip.pair.name}')
      parts.append(
        f'<figure>{picture}<figcaption>{title}: {_safe(clip.pair.name)}{_safe(value)}'
        '</figcaption></figure>'
      )
  panels = ('source, ' if ranked[0].pair.source else '') + 'reference, generated'
  panels += ', difference (3 times)' if rank == 'l1' else ''
  where = 'around its worst frame' if rank in ranked[0].timeline else 'from its first frame on'
  return f'<h2>Gallery</h2><p>{panels}; of each clip a part {where}.</p>{_grid(parts)}'


def strip(clip: Measured, rank: str | None) -> tuple[list[np.ndarray], float]:
  """Frames (SIDE, k SIDE, 3) of a clip, and how long they last, s.

  They are those around its worst moment by `rank`, or the first where that is not of frames.
  """
  start = 0
  if rank in clip.timeline:
    worst = (np.argmin if METRICS[rank].more else np.argmax)(clip.timeline[rank])
    start = max(0, min(int(worst) - STRIP // 2, clip.frames - STRIP))
  aligned = _pairs(clip)
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


def _pairs(clip: Measured) -> Iterator[tuple]:
  paths = clip.pair.reference, clip.pair.generated
  return iter(Aligned(*map(sequences.read, paths), limit=1 << 62))


def _timelines(ranked: Sequence[Measured], rank: str | None) -> str:
  drawn = []
  for clip in ranked:
    lines = {
      metric.label: (clip.timeline[name], metric.more)
      for name, metric in METRICS.items()
      if name in clip.timeline
    }
    if lines:
      picture = charts.timelines(clip.times, lines)
      drawn.append(f'<div><h3>{_safe(clip.pair.name)}</h3>{picture}</div>')
  order = ', worst clips first' if rank else ''
  return f'<h2>Over time{order}</h2>{_grid(drawn)}' if drawn else ''


def _clips(result: Mapping) -> str:
  counted = collections.Counter(name for clip in result['clips'] for name in clip)
  names = [name for name in METRICS if counted[name]]
  head = ''.join(f'<th>{_safe(METRICS[name].label)}</th>' for name in names)
  rows = ''.join(
    f'<tr><td>{_safe(clip["name"])}</td><td>{clip["frames"]}</td>'
    + ''.join(f'<td>{_of_clip(clip, name)}</td>' for name in names)
    + '</tr>'
    for clip in result['clips']
  )
  table = f'<table><tr><th>clip</th><th>frames</th>{head}</tr>{rows}</table>'
  return f'<h2>Every clip</h2><div class="wide">{table}</div>'


def _of_clip(clip: Mapping, name: str) -> str:
  """JSON knows no infinity: a metric that is there and has no number is infinite."""
  return 'infinite' if name in clip and clip[name] is None else _number(clip.get(name))
