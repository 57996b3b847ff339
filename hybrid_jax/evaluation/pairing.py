"""Pairs generated clips with reference clips by name, and their frames by time."""

import dataclasses
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.media import sequences
from hybrid_jax.media.video import Frame

# A generated clip has the name of its reference, or SOURCE_as_REFERENCE, or SOURCE--REFERENCE.
JOINTS = ('_as_', '--')
# A gap in a clip must not be filled with a frame from its other side.
FARTHEST = 0.1  # seconds between two frames that are compared, at most
TICK = 1e-3  # seconds, to which containers round
RATES = 0.005  # frame rates that differ less than this, relative, count as equal
SHOWN = 5  # names in a line


@dataclasses.dataclass(frozen=True)
class Pair:
  """Paths of clips that belong together.

  Attributes:
    source: None without a folder of sources.
    person: whom the clip shows, because clips of one person are not independent; '' stands for the
      clip's own name.
  """

  name: str
  generated: pathlib.Path
  reference: pathlib.Path
  source: pathlib.Path | None
  person: str = ''

  def __post_init__(self):
    # The way to set a field of a frozen dataclass.
    object.__setattr__(self, 'person', self.person or self.name)


def pair(
  reference: str | os.PathLike,
  generated: str | os.PathLike,
  source: str | os.PathLike = '',
  person: Callable[[str], str] = str,
) -> tuple[list[Pair], list[str]]:
  """Pairs the clips of two or three folders by name.

  Args:
    person: maps the name of a source (a file of `source`, or the first part of
      SOURCE_as_REFERENCE), or else of the clip, to its person; by default every name is a person.

  Returns:
    The pairs, and a line about each kind of clip without a counterpart.

  Raises:
    InputError: a folder has no clips, or no clip has a counterpart.
  """
  references, clips = sequences.find(reference), sequences.find(generated)
  sources = sequences.find(source, stills_too=True) if source else {}
  pairs, alone, orphans, answered = [], [], [], set()
  # The whole name is tried first: it may contain a joint without meaning one.
  for name, path in clips.items():
    own, other = (_named(name, known, k) for k, known in enumerate((sources, references)))
    answered.add(other)
    if other is None:
      alone.append(name)
    elif source and own is None:
      orphans.append(name)
    else:
      # Without sources, the person is the first part of a name SOURCE_as_REFERENCE.
      shown = own or next((a for a, b in _halves(name) if b == other), name)
      pairs.append(Pair(name, path, references[other], sources.get(own), person(shown)))
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


def check_answers(pairs: Iterable[Pair]) -> None:
  """Raises InputError for a pair of two names, whose reference is probably a driving clip."""
  for one in pairs:
    if sequences.name_of(one.reference) != one.name:
      raise InputError(
        f'{one.generated}: by its name {one.reference.name} drives another person; give --source, '
        'or say --reference-is=driver, or answer'
      )


def _halves(name: str) -> list[tuple[str, str]]:
  """Splits a name at every joint into (source, reference)."""
  return [
    (name[: found.start()], name[found.end() :])
    for joint in JOINTS
    for found in re.finditer(re.escape(joint), name)
  ]


def _named(name: str, known: Mapping, half: int) -> str | None:
  """Returns which of `known` a generated clip names: as a whole, or by its half 0 or 1."""
  return next((x for x in (name, *(h[half] for h in _halves(name))) if x in known), None)


def _listed(names: list[str]) -> str:
  more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
  return f'{", ".join(names[:SHOWN])}{more} {"has" if len(names) == 1 else "have"}'


class Match(NamedTuple):
  """Frames (h, w, 3) uint8 that are compared; `number` is the reference frame's, from 0."""

  number: int
  seconds: float
  reference: np.ndarray
  generated: np.ndarray


class Aligned:
  """Iterates over the frames of two clips at the same moments, as `Match`.

  Both clocks start at the clip's own first frame. Each reference frame is matched with the
  generated frame nearest in time, unless that is farther away than half the distance to its own
  nearest neighbour, or than `FARTHEST`. If a clip has no times, frames are matched by number, and
  their seconds are those of the other clip, or the numbers if neither has times.

  Args:
    limit: number of reference frames to use.

  Attributes:
    compared: number of matches so far.
    notes: after the iteration, a line about each reason why frames were not compared.
    timeless: whether the seconds are numbers.
  """

  def __init__(self, reference: Iterable[Frame], generated: Iterable[Frame], limit: int):
    self._reference, self._generated, self.limit = reference, generated, limit
    self.compared, self.notes, self.timeless = 0, [], False

  def __iter__(self) -> Iterator[Match]:
    counted, self.timeless, shift, reference, generated = _clocks(self._reference, self._generated)
    held, after = next(generated, None), next(generated, None)
    if held is None:
      raise InputError('the generated clip has no frames')
    gaps = broken = numbers = 0
    held_number = 0
    ended, step, t, before = False, 0, 0, None
    for k, (now, frame, number, seconds) in enumerate(itertools.islice(reference, self.limit)):
      numbers, step, t = k + 1, now - t, now
      # Advances to the nearest frame; both clips are decoded once, so it never goes back.
      while after is not None and abs(after[0] - t) <= abs(held[0] - t):
        before, held, after = held, after, next(generated, None)
        held_number += 1
      # Past half of its interval a frame is no longer the one that is shown.
      reach = _reach([abs(other[0] - held[0]) for other in (before, after) if other], counted)
      if after is None and t - held[0] > reach:
        ended = True
        break
      if abs(held[0] - t) > reach:
        gaps += 1
      elif frame.rgb is None or held[1].rgb is None:  # a .npy frame with NaN
        broken += 1
      else:
        self.compared += 1
        seconds = held[3] if seconds is None else seconds
        yield Match(number, float(seconds), frame.rgb, held[1].rgb)
    if not (counted or gaps):  # gaps change the mean rate, and have a note of their own
      self._compare_rates(t, numbers - 1, held[0], held_number)
    # Generated frames within the duration of the last reference frame do not make the clip longer.
    while after is not None and after[0] - t < step - TICK:
      after = next(generated, None)
    if abs(shift) > (1 if counted else step / 2):
      self.notes.append(
        f'begins {abs(float(shift)):.6g} {"frames" if counted else "s"} '
        f'{"after" if shift > 0 else "before"} its reference; the first frame of each is compared'
      )
    if ended:
      self.notes.append(f'ends before its reference: {self.compared} frames compared')
    elif after is not None and numbers < self.limit:
      self.notes.append(f'goes on after its reference: {self.compared} frames compared')
    if gaps:
      self.notes.append(f'has no frame at the time of {gaps} frames of the reference')
    if broken:
      self.notes.append(f'{broken} frames are not finite, in it or its reference, and left out')

  def _compare_rates(self, *spans: Fraction | int) -> None:
    """Notes frame rates that differ, other than by a whole multiple.

    A clip that was made frame by frame but written at another rate would be compared at the wrong
    moments.

    Args:
      spans: seconds and number of intervals of the reference, then of the generated clip.
    """
    if min(spans) <= 0:
      return
    reference, generated = spans[1] / spans[0], spans[3] / spans[2]
    # Twice the rate is a choice, 25 for 24 is a mistake.
    ratio = float(max(reference, generated) / min(reference, generated))
    if abs(ratio - round(ratio)) > RATES * ratio:
      self.notes.append(
        f'has {float(generated):.4g} frames a second and its reference {float(reference):.4g}: '
        'those nearest in time are compared; if they correspond one to one, write both at one rate'
      )


def _reach(intervals: list, counted: bool) -> float:
  """Returns how far a frame with these intervals to its neighbours may be from the time wanted."""
  # A clip of one frame has no intervals: it is compared with the reference's first frame alone.
  reach = min(intervals, default=0) / 2 + TICK
  return min(reach, 0.5 if counted else FARTHEST)


Timed = tuple[Fraction | int, Frame, int, Fraction | int | None]


def _clocks(
  reference: Iterable[Frame], generated: Iterable[Frame]
) -> tuple[bool, bool, Fraction | int, Iterator[Timed], Iterator[Timed]]:
  """Puts two clips on clocks that start at their first frames.

  Returns:
    (whether the clocks are frame numbers, whether neither clip has times, how much later the first
    generated frame is by its own clock, reference, generated). The last two yield (clock, frame,
    number, seconds), all counted from the clip's first frame.
  """
  streams = []
  for frames in (reference, generated):
    frames = iter(frames)
    first = next(frames, None)
    streams.append((first, itertools.chain([] if first is None else [first], frames)))
  without_times = [first is None or first.time is None for first, _ in streams]
  counted = any(first is not None and first.time is None for first, _ in streams)
  starts = [first and (first.number if counted else first.time) for first, _ in streams]
  shift = 0 if None in starts else starts[1] - starts[0]

  def timed(first, frames):
    for k, frame in enumerate(frames):
      number = k if first.number is None else frame.number - first.number
      seconds = None if first.time is None else frame.time - first.time
      if seconds is None and all(without_times):
        seconds = number
      yield number if counted else seconds, frame, number, seconds

  return counted, all(without_times), shift, *(timed(*stream) for stream in streams)


def nearest(reference: np.ndarray, generated: np.ndarray) -> np.ndarray:
  """Returns for each reference time (t,) the index of the generated time that `Aligned` matches.

  -1 stands for none. Both arguments are seconds on one clock, increasing.
  """
  if not len(reference) or not len(generated):
    return np.full(len(reference), -1)
  right = np.searchsorted(generated, reference).clip(0, len(generated) - 1)
  left = (right - 1).clip(0)
  near = np.where(
    np.abs(generated[right] - reference) <= np.abs(generated[left] - reference), right, left
  )
  # The first and the last frame have one neighbour, a single one has none.
  interval = np.diff(generated, prepend=-np.inf, append=np.inf)
  interval = interval if len(generated) > 1 else np.zeros(2)
  reach = np.minimum(np.minimum(interval[near], interval[near + 1]) / 2 + TICK, FARTHEST)
  return np.where(np.abs(generated[near] - reference) <= reach, near, -1)
