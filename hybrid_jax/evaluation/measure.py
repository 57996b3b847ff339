"""Measures generated clips against their references, one frame in memory at a time.

Of each clip a mean is kept, of each frame a few numbers, of the sets the moments of their features.
A clip that cannot be read to its end leaves nothing behind.
"""

from collections.abc import Callable, Sequence

from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import frechet, openface
from hybrid_jax.evaluation.clip import Clip, Measured, Protocol
from hybrid_jax.evaluation.detectors import open_detector
from hybrid_jax.evaluation.networks import Networks, file_facts
from hybrid_jax.evaluation.pairing import Aligned, Pair
from hybrid_jax.media import sequences
from hybrid_jax.media.prefetch import prefetch
from hybrid_jax.models.batching import batched

__all__ = ['Evaluation', 'Measured', 'Protocol']

AHEAD = 8  # frames decoded ahead


class Evaluation:
  """Measures pairs of clips one after another; `sets` are the moments of all that succeeded.

  Args:
    detector: a .task or .onnx file, see `open_detector`; '' for none.
    openface_folders: .csv files of the reference and of the generated clips, by their names.
  """

  def __init__(
    self,
    networks: Networks,
    protocol: Protocol,
    detector: str = '',
    openface_folders: Sequence[str] | None = None,
  ):
    self.networks, self.protocol = networks, protocol
    self.openface = openface_folders and tuple(map(openface.find, openface_folders))
    self.detector = open_detector(detector)
    self.detector_file = file_facts(detector) if detector else None
    self.sets: dict[str, tuple[frechet.Moments, frechet.Moments]] = {}

  def close(self) -> None:
    """MediaPipe must not be left to the end of the interpreter."""
    if self.detector is not None:
      self.detector.close()

  def measure(self, pair: Pair, progress: Callable[[int], None] = lambda n: None) -> Measured:
    """Raises InputError where the pair cannot be measured; nothing of it is kept then."""
    one = Clip(pair, self.networks, self.protocol, self.detector, self.openface)
    aligned = Aligned(
      *(prefetch(sequences.read(path), AHEAD) for path in (pair.reference, pair.generated)),
      self.protocol.frames,
    )
    for chunk in batched(aligned, self.networks.together):
      one.add(chunk)
      progress(len(chunk))
    if not aligned.compared:
      what = '; '.join(aligned.notes) or 'no frames at the same times'
      raise InputError(f'{pair.generated}: cannot be compared with {pair.reference} ({what})')
    measured = one.finish(aligned.notes, aligned.timeless)
    for name, both in one.sets.items():
      known = self.sets.setdefault(name, (frechet.Moments(), frechet.Moments()))
      for total, part in zip(known, both, strict=True):
        total.merge(part)
    return measured
