"""Ranks pictures and frames as sources, by the model's own reconstruction of them.

A source is good if G(w_id, s_f), the model's reconstruction, and G(w_id, 0), its anchor (the person
at rest), both resemble it: the sum of both distances ranks the sources.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.media import composite
from hybrid_jax.progress import Progress
from hybrid_jax.reenactment.inputs import Input, open_input
from hybrid_jax.reenactment.model import Model
from hybrid_jax.reenactment.options import CropOptions


@dataclasses.dataclass(frozen=True, eq=False)
class Advice:
  """A source, and how well the model reconstructs it.

  Attributes:
    source: the opened file.
    frame: number of the frame of a clip; 0 of a picture.
    pictures: crop, self-reconstruction and anchor, (size, size, 3) uint8.
    reconstruction, anchor: mean distance of these pictures to the crop, grey levels.
  """

  source: Input
  frame: int
  pictures: tuple[np.ndarray, np.ndarray, np.ndarray]
  reconstruction: float
  anchor: float

  @property
  def score(self) -> float:
    """The sum of both distances; lower is better."""
    return self.reconstruction + self.anchor

  @property
  def name(self) -> str:
    """The file name, with the time of the frame of a clip."""
    path = pathlib.Path(self.source.path).name
    return f'{path} {self.source.track.seconds[self.frame]:.2f} s' if self.source.moving else path


def assess(model: Model, source: Input, frame: int, crop: np.ndarray) -> Advice:
  """The model's reconstruction and anchor of a crop (size, size, 3) uint8, and their distances."""
  F = next(model.deformations([crop], 1))
  # Both pictures in one batch; a zero deformation gives the anchor of eq. (8), G(w_id, 0).
  images = model.images(model.identity(crop), [F, np.zeros_like(F)], 2)
  reconstruction, anchor = (composite.fit(image, crop.shape[:2]) for image in images)
  # Compared at the size of the crop, which the encoder has seen: a generator with more pixels is
  # not penalised for detail that the crop lacks. As float32, since uint8 would wrap.
  distances = [float(np.abs(x.astype(np.float32) - crop).mean()) for x in (reconstruction, anchor)]
  return Advice(source, frame, (crop, reconstruction, anchor), *distances)


def rank(
  model: Model, paths: Sequence[str], crop: CropOptions, count: int, progress: Progress
) -> tuple[list[Advice], list[str]]:
  """Ranks sources: (advice, the best first, with `count` frames of each clip; error messages).

  Args:
    paths: pictures and clips; each that cannot be used gives one error message.
    count: number of frames taken of each clip, evenly spaced over those with a face.

  Raises:
    InputError: no file can be used.
  """
  found, errors = [], []
  for path in paths:
    try:
      with tempfile.TemporaryDirectory() as folder:
        # The track is kept nowhere: frames are read again by number below, not tracked again.
        source = open_input(path, crop, model, pathlib.Path(folder) / 'track.npz', progress)
    # One unusable file among many candidates does not end the ranking.
    except InputError as error:
      errors.append(str(error))
      continue
    faces = np.flatnonzero(~source.missing)
    # `unique`, since a clip may have fewer frames than `count`; the rising order is needed by
    # `Input.crops`, which decodes the clip once from its start.
    frames = faces[np.unique(np.linspace(0, len(faces) - 1, count).round().astype(int))].tolist()
    crops = source.crops(frames, model.size)
    for frame, head in zip(progress(frames, path, len(frames)), crops, strict=True):
      found.append(assess(model, source, frame, head))
  if not found:
    raise InputError('; '.join(errors))
  return sorted(found, key=lambda advice: advice.score), errors


def rows_of(ranked: Sequence[Advice]) -> Iterator[dict]:
  """Yields the rows of the table, by column; distances in grey levels, times in seconds."""
  for rank, advice in enumerate(ranked, start=1):
    yield {
      'rank': rank,
      'file': advice.source.path,
      'frame': advice.frame,
      'seconds': f'{advice.source.track.seconds[advice.frame]:.3f}',
      'score': f'{advice.score:.3f}',
      'reconstruction': f'{advice.reconstruction:.3f}',
      'anchor': f'{advice.anchor:.3f}',
    }


def sheet(ranked: Sequence[Advice]) -> np.ndarray:
  """Returns a contact sheet (h, w, 3) uint8: source, reconstruction and anchor, a row of each."""
  names = [f'{k}. {a.name}\nscore {a.score:.1f}' for k, a in enumerate(ranked, start=1)]
  heads = ['source', 'reconstruction', 'anchor']
  return composite.labelled([a.pictures for a in ranked], names, heads)
