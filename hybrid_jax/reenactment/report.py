"""Stage 4: the report of a finished re-enactment.

Numbers for callers, lines for people. A report does not print: the command, a table of jobs and
the Python API each show it in their own way.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from hybrid_jax.reenactment import quality


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
  """A finished re-enactment.

  Attributes:
    output: the file or folder written.
    frames: number of pictures. shape: their (h, w).
    seconds: duration of the run.
    reused: pictures that an earlier run had rendered.
    notes: lines on the inputs and the sound, such as missing faces or a clip that breaks off.
    seams: grey levels across the border of each picture pasted in this run; empty for other
      layouts.
    tuning: one line about CMA or PTI; '' without.
    jitter: of the motion, see `motion.Jitter`.
    jitter_before: the same before smoothing; None without smoothing.
    measured: the quality of each frame; None if not measured.
    least_identity: the smallest identity similarity wanted of each frame; None for no limit.
  """

  output: str
  frames: int
  shape: tuple[int, int]
  seconds: float
  reused: int
  notes: tuple[str, ...]
  seams: np.ndarray
  tuning: str
  jitter: float
  jitter_before: float | None
  measured: quality.Measured | None
  least_identity: float | None

  # Computed when asked for: `measured` is the only copy of the figures.
  @property
  def quality(self) -> dict[str, Any]:
    """The summary of `measured`; {} if nothing was measured."""
    return self.measured.summary() if self.measured else {}

  @property
  def low_quality(self) -> str:
    """One line if a frame is below `least_identity`; otherwise ''."""
    return quality.below(self.quality, self.least_identity, self.output)

  def lines(self) -> Iterator[str]:
    """Yields the report for people, one line per item; details are indented."""
    h, w = self.shape
    yield f'{self.output}: {self.frames} frames of {w}x{h} in {self.seconds:.1f} s'
    for line in self._details():
      yield f'  {line}'

  def _details(self) -> Iterator[str]:
    if self.reused:
      yield f'{self.reused} of them were rendered by an earlier run'
    yield from filter(None, self.notes)
    # Neighbouring pixels of an untouched picture differ by some grey levels too: the figure
    # compares runs with each other, not with 0.
    if len(self.seams):
      yield (
        f'seam: {np.mean(self.seams):.1f} grey levels across the border on average, '
        f'{np.max(self.seams):.1f} at worst'
      )
    if self.tuning:
      yield self.tuning
    before = '' if self.jitter_before is None else f', {self.jitter_before:.2f} before smoothing'
    # Both figures, since smoothing is judged by what it changed.
    yield f'jitter of the motion: {self.jitter:.2f}{before}'
    if self.quality:
      yield from quality.lines(self.quality)
