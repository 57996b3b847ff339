"""Measures generated clips against their references, a few frames in memory at a time.

Keeps a mean per clip, a few numbers per frame, and the moments of the features of all clips. A clip
that cannot be read to its end contributes to none of them.
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

AHEAD = 8  # frames that are decoded ahead


class Evaluation:
  """Measures pairs of clips one after another.

  Args:
    detector: a .task or .onnx file, see `open_detector`; '' for none.
    openface_folders: folders of OpenFace's .csv files of the reference and of the generated clips.

  Attributes:
    sets: by metric, moments of the features of all references and of all generated clips.

  Raises:
    InputError: a file or folder cannot be used.
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
    """Closes the detector; MediaPipe fails if that is left to the end of the interpreter."""
    if self.detector is not None:
      self.detector.close()

  def measure(self, pair: Pair, progress: Callable[[int], None] = lambda frames: None) -> Measured:
    """Measures a pair.

    Args:
      progress: is called with the number of frames that were measured so far.

    Raises:
      InputError: the pair cannot be measured; `sets` is unchanged.
    """
    clip = Clip(pair, self.networks, self.protocol, self.detector, self.openface)
    # Decoding runs in threads while the networks run on the device.
    frames = (prefetch(sequences.read(path), AHEAD) for path in (pair.reference, pair.generated))
    aligned = Aligned(*frames, self.protocol.frames)
    for matches in batched(aligned, self.networks.together):
      clip.add(matches)
      progress(aligned.compared)
    if not aligned.compared:
      notes = '; '.join(aligned.notes) or 'no frames at the same times'
      raise InputError(f'{pair.generated}: cannot be compared with {pair.reference} ({notes})')
    measured = clip.finish(aligned.notes, aligned.timeless)
    # Only now, because a clip that breaks off must not leave features of its first frames.
    for name, both in clip.sets.items():
      known = self.sets.setdefault(name, (frechet.Moments(), frechet.Moments()))
      for total, part in zip(known, both, strict=True):
        total.merge(part)
    return measured
