"""Whether a face is the person followed: by the colours of the head, or by an embedding of it.

Both compare crops of FFHQ's alignment with a gallery of the person, which grows while the face is
followed, so that a head that has turned is known from both sides.
"""

from collections.abc import Callable

import cv2
import numpy as np

from hybrid_jax.media import align
from hybrid_jax.media.faces import Face

# (size, size, 3) uint8 aligned crop -> (d,) embedding of length 1.
Embed = Callable[[np.ndarray], np.ndarray]

# Least cosine of two embeddings of one person. Measured with the bundled network: 0.66 or more for
# one person, 0.33 for nine of ten pairs of rendered people, 0.45 for pairs of real ones.
SAME_PERSON = 0.4

# Similarity of colours, in [0, 1]: 0.88 or more for one person in ten real clips, in which half of
# the pairs of people reach 0.40 and one in fifty 0.82.
_SAME_COLOURS = 0.85
_RESIZED = 0.07  # more is asked of a face of another size ...
_SIZE_CHANGE = 0.5  # ... from this change on, of the logarithm of its side
_SWAPPED = 0.6  # less, in the same place, is another person; more may be a hand or a flash
_NEW_VIEW = 0.95  # less similar views are added to the gallery

_SIDE = 64  # px of the crop whose colours are compared
_FACE, _HAIR = (slice(24, 48), slice(20, 44)), (slice(4, 16), slice(16, 48))
_BINS, _RANGES = (6, 8, 8), ((0, 256), (96, 160), (96, 160))  # of L, a and b
_GALLERY = 8  # views


class Looks:
  """The looks of the person followed.

  Args:
    embed: the model's ArcFace; None compares colours alone. It is asked only where place and
      colours leave a doubt, since it costs more than the detector.
    size: side of the crops that `embed` takes, px.
  """

  def __init__(self, embed: Embed | None = None, size: int = _SIDE):
    self._embed, self._size = embed, size
    self.forget()

  def forget(self) -> None:
    """Forgets the person, as at a cut."""
    self._colours, self._crops, self._embeddings, self._side = [], [], {}, 0.0
    self._stranger = None  # colours of the face that was rejected last

  def add(self, rgb: np.ndarray, face: Face) -> None:
    """Adds the view of the person in a frame (h, w, 3) uint8, unless a similar one is known."""
    self._side = max(face.box[2:])
    if self._colours and self.likeness(rgb, face) >= _NEW_VIEW:
      return
    if len(self._colours) == _GALLERY:
      # Not the first view: it is the one that was chosen.
      del self._colours[1], self._crops[1]
      self._embeddings.clear()
    self._colours.append(_colours(rgb, face))
    self._crops.append(self._crop(rgb, face) if self._embed else None)

  def likeness(self, rgb: np.ndarray, face: Face) -> float:
    """Returns the similarity of colours to the most similar view, in [0, 1]; 1 before any view."""
    return float(np.max(self._colours @ _colours(rgb, face))) if self._colours else 1.0

  def include(self, rgb: np.ndarray, face: Face, moved: bool) -> bool:
    """Returns whether a face is the person.

    Args:
      moved: whether it is elsewhere than the person was seen last, or was lost in between.
    """
    if not self._colours:
      return True
    colours = _colours(rgb, face)
    likeness = float(np.max(self._colours @ colours))
    if not moved and likeness >= _SAME_COLOURS:
      return True
    if self._embed:
      # A stranger who stays is not embedded in every frame.
      if self._stranger is not None and self._stranger @ colours > max(likeness, _NEW_VIEW):
        return False
      wanted = self._embed(self._crop(rgb, face))
      same = max(self._embedding(k) @ wanted for k in range(len(self._crops))) >= SAME_PERSON
      self._stranger = self._stranger if same else colours
      return bool(same)
    change = abs(np.log(max(face.box[2:]) / self._side)) / _SIZE_CHANGE
    return likeness >= (_SAME_COLOURS + _RESIZED * min(1.0, change) if moved else _SWAPPED)

  def _crop(self, rgb: np.ndarray, face: Face) -> np.ndarray:
    return align.cut(rgb, align.ffhq(face.landmarks), self._size)

  def _embedding(self, k: int) -> np.ndarray:
    if k not in self._embeddings:
      self._embeddings[k] = self._embed(self._crops[k])
    return self._embeddings[k]


def _colours(rgb: np.ndarray, face: Face) -> np.ndarray:
  """Returns the square roots of histograms of the face and of the hair, one vector of length 1."""
  # Sampled without averaging, which would take longer than the detector: histograms do not alias.
  matrix = align.to_picture(align.ffhq(face.landmarks), _SIDE)
  flags, border = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_REPLICATE
  crop = cv2.warpAffine(rgb, matrix, (_SIDE, _SIDE), flags=flags, borderMode=border)
  lab = cv2.cvtColor(crop, cv2.COLOR_RGB2LAB)
  parts = []
  for region in (_FACE, _HAIR):
    # Vivid colours count in the outermost bins.
    pixels = np.clip(lab[region].reshape(-1, 3), *np.array(_RANGES).T)
    counts = np.histogramdd(pixels, _BINS, _RANGES)[0]
    # Neighbouring bins share their counts: a slight change of light is not another colour.
    smooth = cv2.GaussianBlur(counts.reshape(_BINS[0], -1).astype(np.float32), (0, 0), 0.7)
    parts.append(smooth.ravel() / max(smooth.sum(), 1e-9))
  # The product of two such vectors is the Bhattacharyya coefficient of the histograms.
  return np.sqrt(np.concatenate(parts) / 2)
