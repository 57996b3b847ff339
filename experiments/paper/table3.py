"""Table 3, one-shot robustness: does it matter which frame the source is?

  python -m experiments.paper.table3 --frames=32 \\
      --output=experiments/results/table3_heads.json

Five sources of each person are driven by five clips of the same person, whose true answers are
known. The deviation that matters is the one over the sources of one driving clip. With --videos the
sources are frames of the first half of each video, and the driving clips five parts of its second
half.

Beside the .json file a heat map .png is written: error (L1) by source (rows) and frame (columns,
the driving clips one after another), one block of rows per person.
"""

import collections
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence

import matplotlib.figure
import numpy as np
from tqdm import tqdm

from experiments.paper import inputs, pairs, tables
from hybrid_jax.errors import InputError
from hybrid_jax.media import replacing, stills

SOURCES = DRIVERS = 5


def fill(table: tables.Table) -> None:
  """Re-enacts every source with every clip of its person; measures rows and robustness."""
  reference, ours, sources = table.make('reference', 'ours', 'sources')
  people = list((rendered if table.rendered else real)(table, reference))
  if not people:
    raise InputError(f'{table.args.videos}: no video is long enough and has a face')
  wanted = []
  for person, portraits in people:
    for s, portrait in enumerate(portraits):
      path = sources / f'{person}_s{s}.png'
      stills.write_image(path, portrait)
      for d in range(DRIVERS):
        name, clip = f'{person}_s{s}_as_{person}_d{d}', reference / f'{person}_d{d}.mp4'
        wanted.append(pairs.Pair(name, path, clip))
  table.begin(wanted)
  for pair in tqdm(wanted, desc='re-enacting', unit='clip'):
    table.reenact(pair.source, pair.driving, ours / f'{pair.name}.mp4')
  for name, folder in {tables.OURS: ours, **table.methods}.items():
    table.row(name, folder, reference, source=sources, answers=True, clip_of=person_of)
  names = [person for person, _ in people]
  if tables.OURS not in table.clips:
    raise InputError(table.left_out[-1])
  for row, clips in table.clips.items():
    measured = collections.Counter(person_of(clip.pair.name) for clip in clips)
    for person in names:
      if measured[person] < SOURCES * DRIVERS:
        table.leave_out(f'{row}: {person}: only {measured[person]} clips can be measured')
  spread = {row: robustness(clips, names) for row, clips in table.clips.items()}
  path = table.args.output.with_suffix('.png')
  lowest, highest = draw(path, table.clips[tables.OURS], names)
  table.write(
    robustness=spread, heat_map={'file': path.name, 'l1_dark': lowest, 'l1_yellow': highest}
  )
  for metric, value in spread[tables.OURS].items():
    print(f'{metric}: ' + ', '.join(f'{key} {x:.4g}' for key, x in value.items()))


def rendered(table: tables.Table, folder: pathlib.Path) -> Iterator[tuple[str, list[np.ndarray]]]:
  """Writes each person's driving clips into `folder`; yields their name and portraits."""
  for k in tqdm(range(table.args.people), desc='people', unit='person'):
    # Sources two seconds apart, so that they differ; they are of another clip than the drivers.
    moments = inputs.motion_of(k, 0, 10 * tables.FPS)[:: 2 * tables.FPS][:SOURCES]
    portraits = inputs.render(table.folder / 'portraits.mp4', k, moments)
    for d in range(DRIVERS):
      motion = inputs.motion_of(k, d + 1, table.args.frames)
      inputs.render(folder / f'person_{k:03d}_d{d}.mp4', k, motion)
    yield f'person_{k:03d}', portraits


def real(table: tables.Table, folder: pathlib.Path) -> Iterator[tuple[str, list[np.ndarray]]]:
  """Yields the same for real clips; those that are too short are left out."""
  (whole,) = table.make('whole')
  for name, path, times in inputs.head_clips(table, whole):
    half = len(times) // 2
    parts = np.array_split(np.arange(half, len(times)), DRIVERS)
    if half < SOURCES or min(map(len, parts)) < 2:
      table.leave_out(f'{name}: {len(times)} frames are too few')
      continue
    chosen = set(np.linspace(0, half - 1, SOURCES).round().astype(int))
    frames = inputs.frames_in(path)  # an iterator: the second half is read after the first
    portraits = [rgb for k, rgb in enumerate(itertools.islice(frames, half)) if k in chosen]
    for d, part in enumerate(parts):
      clock = [times[k] - times[part[0]] for k in part]
      shown = zip(itertools.islice(frames, len(part)), clock, strict=True)
      inputs.write_clip(folder / f'{name}_d{d}.mp4', shown)
    yield name, portraits


def person_of(source: str) -> str:
  """Returns PERSON of the name PERSON_sK of a source, or PERSON_sK_as_PERSON_dK of a clip."""
  return source.split('_as_')[0].rpartition('_s')[0]


def grids(clips: Sequence, people: Sequence[str], value: Callable) -> list[list[list]]:
  """Returns value(clip) by person, source and driver; None where the clip is missing."""
  known = {clip.pair.name: value(clip) for clip in clips}
  return [
    [[known.get(f'{person}_s{s}_as_{person}_d{d}') for d in range(DRIVERS)] for s in range(SOURCES)]
    for person in people
  ]


def robustness(clips: Sequence, people: Sequence[str]) -> dict[str, dict[str, float]]:
  """Returns by metric the mean and the deviations, over all clips and over the sources of a driver.

  Deviations are of one person, and averaged over the people of whom every clip has the metric.
  """
  found = {}
  for metric in dict.fromkeys(metric for clip in clips for metric in clip.values):
    values = np.array(grids(clips, people, lambda c, m=metric: c.values.get(m)), float)  # p s d
    values = values[np.isfinite(values).all((1, 2))]
    if not len(values):
      continue
    found[metric] = {
      'mean': float(values.mean()),
      'deviation': float(values.std((1, 2), ddof=1).mean()),
      'deviation_over_sources': float(values.std(1, ddof=1).mean()),
      'people': len(values),
    }
  return found


def draw(path: pathlib.Path, clips: Sequence, people: Sequence[str]) -> tuple[float, float]:
  """Writes the heat map; returns the errors of its darkest and brightest colour."""
  errors = grids(clips, people, lambda c: c.timeline['l1'])
  longest = max(len(x) for person in errors for row in person for x in row if x is not None)
  values = np.full((len(people), SOURCES, DRIVERS, longest), np.nan)
  for k, s, d in np.ndindex(*values.shape[:3]):
    if errors[k][s][d] is not None:
      values[k, s, d, : len(errors[k][s][d])] = errors[k][s][d]
  # Percentiles, since one bad frame would darken all others.
  low, high = map(float, np.nanpercentile(values, (1, 99)))
  size = 11, 0.6 + 1.1 * len(people)
  fig = matplotlib.figure.Figure(figsize=size, layout='constrained')
  axes = fig.subplots(len(people), DRIVERS, squeeze=False)
  for (k, d), ax in np.ndenumerate(axes):
    image = ax.imshow(values[k, :, d], aspect='auto', vmin=low, vmax=high, interpolation='nearest')
    ax.set_yticks(range(SOURCES) if d == 0 else [])
    ax.tick_params(labelsize=7)
    if k == 0:
      ax.set_title(f'driving clip {d}', fontsize=9)
    if d == 0:
      ax.set_ylabel(f'{people[k]}\nsource', fontsize=8)
    if k < len(people) - 1:
      ax.set_xticks([])
    else:
      ax.set_xlabel('frame', fontsize=8)
  fig.colorbar(image, ax=axes, label='L1 to the true answer (0 to 255)')
  with replacing(path) as part:
    fig.savefig(part, format='png', dpi=110)
  return low, high


if __name__ == '__main__':
  options = tables.parser(__doc__)
  options.set_defaults(people=5)
  tables.run('table3', options.parse_args(), fill)
