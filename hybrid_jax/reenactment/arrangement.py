"""Arranges one result with its source and driver: the layouts, which clips and live mode share."""

import array

import numpy as np

from hybrid_jax.media import align
from hybrid_jax.media.composite import Paste, fit
from hybrid_jax.reenactment.in_plane import InPlane
from hybrid_jax.reenactment.inputs import Input


class Arrangement:
  """Arranges each result with its source and driver.

  Args:
    layout: one of `options.LAYOUTS`.
    source: the person.
    size: side of the results, px.
    in_plane: where the head of each row goes; None if it stays.

  Attributes:
    shape: (h, w) of the pictures.
    seams: of each pasted picture, the mean step across the border in grey levels.
  """

  def __init__(self, layout: str, source: Input, size: int, in_plane: InPlane | None = None):
    self.layout, self.source, self.size, self.in_plane = layout, source, size, in_plane
    # Not a list: between the frames its numbers would leave holes in the heap, 40 kB each.
    self.seams = array.array('d')
    self._paste: tuple[np.ndarray, Paste] | None = None
    self.shape = {
      'result': (size, size),
      'pasted': source.track.size,
      'side-by-side': (size, 2 * size),
      'grid': (2 * size, 2 * size),
    }[layout]

  @property
  def shows_source(self) -> bool:
    """Whether the source's whole picture is needed."""
    return self.layout in ('pasted', 'grid')

  @property
  def shows_driver(self) -> bool:
    """Whether the driver's picture is needed."""
    return self.layout in ('side-by-side', 'grid')

  def driver(self, rgb: np.ndarray, square: np.ndarray, row: int) -> np.ndarray:
    """Returns the driver's head (size, size, 3), which moves as that of the result of a row does.

    Args:
      rgb: the driving frame. square: (4,), of the head in it.
    """
    place = self.in_plane.still(square, row) if self.in_plane else square
    return align.cut(rgb, place, self.size)

  def picture(
    self,
    image: np.ndarray,
    row: int,
    number: int = 0,
    background: np.ndarray | None = None,
    driver: np.ndarray | None = None,
  ) -> np.ndarray:
    """Returns a picture (*shape, 3) uint8.

    Args:
      image: the result (size, size, 3) uint8 of a `row`.
      number: of the frame of the source.
      background: that frame, where `shows_source`.
      driver: the driver's head, where `shows_driver`; see `driver`.
    """
    if self.layout == 'result':
      return self._result(image, row)
    if self.layout == 'pasted':
      return self._pasted(background, image, number, row)
    if self.layout == 'side-by-side':
      return np.hstack((driver, self._result(image, row)))
    head = align.cut(background, self.source.squares[number], self.size)
    whole = fit(self._pasted(background, image, number, row), (self.size, self.size))
    return np.vstack((np.hstack((head, driver)), np.hstack((self._result(image, row), whole))))

  def _pasted(self, rgb: np.ndarray, image: np.ndarray, number: int, row: int) -> np.ndarray:
    """Returns the whole source frame of a `number`, with the result of a row at its place."""
    own = place = self.source.squares[number]
    if self.in_plane:
      place = self.in_plane.moved(self.in_plane.base(own), row)
    squares = np.stack((place, own))
    # The mask and the maps are kept: a still may have one place for the whole run.
    if self._paste is None or not np.array_equal(self._paste[0], squares):
      self._paste = squares, Paste(place, rgb.shape[:2], own)
    picture, seam = self._paste[1](rgb, image)
    self.seams.append(seam)
    return picture

  def _result(self, image: np.ndarray, row: int) -> np.ndarray:
    """Returns the result of a row alone, moved, its border repeated where it leaves a gap."""
    if not self.in_plane:
      return image
    own = align.upright((0, 0, self.size, self.size))
    return align.cut(image, self.in_plane.still(own, row), self.size)
