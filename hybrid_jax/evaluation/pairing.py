"""Which generated clip answers which reference clip, and which of their frames belong together."""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.media import sequences
from hybrid_jax.media.video import Frame

# A generated clip is called as its reference, or SOURCE_as_REFERENCE, or SOURCE--REFERENCE.
JOINTS = ('_as_', '--')
FARTHEST = 0.1  # seconds between two frames that are compared, at most
TICK = 1e-3  # seconds, to which containers round
SHOWN = 5  # names in a line


@dataclasses.dataclass(frozen=True)
class Pair:
  """Paths of clips that belong together; `source` is None where none was given."""

  name: str
  generated: pathlib.Path
  reference: pathlib.Path
  source: pathlib.Path | None


def pair(
  reference: str | os.PathLike, generated: str | os.PathLike, source: str | os.PathLike = ''
) -> tuple[list[Pair], list[str]]:
  """Clips of two or three folders by name, and a line for each way in which the folders disagree.

  Raises:
    InputError: a folder has no clips, or not one clip has a counterpart.
  """
  references, made = sequences.find(reference), sequences.find(generated)
  sources = sequences.find(source, stills_too=True) if source else {}
  pairs, alone, orphans, answered = [], [], [], set()
  for name, path in made.items():
    own, other = (_named(name, known) for known in (sources, references))
    answered.add(other)
    if other is None:
      alone.append(name)
    elif source and own is None:
      orphans.append(name)
    else:
      pairs.append(Pair(name, path, references[other], sources.get(own)))
  unanswered = [name for name in references if name not in answered]
  lines = []
  for names, here, there in (
    (alone, generated, reference),
    (unanswered, reference, generated),
    (orphans, generated, source),
  ):
    if names:
      lines.append(f'{here}: {_listed(names)} no counterpart in {there}')
  if not pairs:
    raise InputError(f'no clip can be compared: {"; ".join(lines)}; give both the same name')
  return pairs, lines


def _named(name: str, known: Mapping) -> str | None:
  """Which of the `known` a generated clip names: it has the name, or it is a part of its own."""
  parts = (part for joint in JOINTS if joint in name for part in name.split(joint, 1))
  return next((part for part in (name, *parts) if part in known), None)


def _listed(names: list[str]) -> str:
  more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
  return f'{", ".join(names[:SHOWN])}{more} {"has" if len(names) == 1 else "have"}'


class Aligned:
  """Frames of two clips at the same moments: iterates over (seconds, reference, generated).

  Both clocks begin at the clip's own first frame. To every reference frame belongs the generated
  frame that is nearest in time, unless it is farther away than half of the way to its own nearest
  neighbour, or than `FARTHEST`. Where a clip knows no times, frames belong together by their
  number, and seconds are those of the other clip, or numbers where that knows none either.

  After the iteration `notes` says in a line each what was not compared, and why.
  """

  def __init__(self, reference: Iterable[Frame], generated: Iterable[Frame], limit: int):
    self._reference, self._generated, self.limit = reference, generated, limit
    self.compared, self.notes = 0, []

  def __iter__(self) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    counted, reference, generated = _clocks(self._reference, self._generated)
    held, after = next(generated, None), next(generated, None)
    if held is None:
      raise InputError('the generated clip has no frames')
    gaps = broken = numbers = 0
    ended, step, t, before = False, 0, 0, None
    for k, (now, frame, seconds) in enumerate(itertools.islice(reference, self.limit)):
      numbers, step, t = k + 1, now - t, now
      while after is not None and abs(after[0] - t) <= abs(held[0] - t):
        before, held, after = held, after, next(generated, None)
      reach = _reach([abs(other[0] - held[0]) for other in (before, after) if other], counted)
      if after is None and t - held[0] > reach:
        ended = True
        break
      if abs(held[0] - t) > reach:
        gaps += 1
      elif frame.rgb is None or held[1].rgb is None:
        broken += 1
      else:
        self.compared += 1
        yield float(held[2] if seconds is None else seconds), frame.rgb, held[1].rgb
    while after is not None and after[0] - t < step - TICK:  # while the last frame is shown
      after = next(generated, None)
    if ended:
      self.notes.append(f'ends before its reference: {self.compared} frames compared')
    elif after is not None and numbers < self.limit:
      self.notes.append(f'goes on after its reference: {self.compared} frames compared')
    if gaps:
      self.notes.append(f'has no frame at the time of {gaps} frames of the reference')
    if broken:
      self.notes.append(f'{broken} frames are not finite, in it or its reference, and left out')


def _reach(intervals: list, counted: bool) -> float:
  """How far a frame with these intervals to its neighbours may be from the time asked for."""
  return min([*(x / 2 + TICK for x in intervals), 0.5 if counted else FARTHEST])


Timed = tuple[Fraction | int, Frame, Fraction | int | None]


def _clocks(
  reference: Iterable[Frame], generated: Iterable[Frame]
) -> tuple[bool, Iterator[Timed], Iterator[Timed]]:
  """(by number?, reference, generated): each as (clock, frame, seconds from its first frame)."""
  streams = []
  for frames in (reference, generated):
    frames = iter(frames)
    first = next(frames, None)
    streams.append((first, itertools.chain([] if first is None else [first], frames)))
  counted = any(first is not None and first.time is None for first, _ in streams)

  def timed(first, frames):
    for number, frame in enumerate(frames):
      seconds = None if first.time is None else frame.time - first.time
      if seconds is None and all(f is None or f.time is None for f, _ in streams):
        seconds = number
      yield number if counted else seconds, frame, seconds

  return counted, *(timed(*stream) for stream in streams)


def nearest(reference: np.ndarray, generated: np.ndarray) -> np.ndarray:
  """For each reference time (t,) the index of the generated time that `Aligned` takes; -1: none.

  Both are seconds, increasing; each clock begins at its first entry.
  """
  if not len(reference) or not len(generated):
    return np.full(len(reference), -1)
  reference, generated = reference - reference[0], generated - generated[0]
  right = np.searchsorted(generated, reference).clip(0, len(generated) - 1)
  left = (right - 1).clip(0)
  near = np.where(
    np.abs(generated[right] - reference) <= np.abs(generated[left] - reference), right, left
  )
  interval = np.diff(generated, prepend=-np.inf, append=np.inf)
  reach = np.minimum(np.minimum(interval[near], interval[near + 1]) / 2 + TICK, FARTHEST)
  return np.where(np.abs(generated[near] - reference) <= reach, near, -1)
