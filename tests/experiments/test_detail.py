"""Paint and figures of the measurement of detail after tuning."""

import numpy as np

from experiments.paper import cma_detail
from hybrid_jax.models.ops import from_uint8


def test_paint_is_on_the_face_alone_and_finer_than_64_px():
  image = np.full((256, 256, 3), 200, np.uint8)
  face = np.zeros((256, 256), np.uint8)
  face[60:220, 80:180] = 255
  paint = cma_detail.painted(image, face)
  changed = (paint != image).any(-1)
  assert changed.sum() > 300 and not changed[face == 0].any()
  lost = cma_detail.fine(from_uint8(paint.astype(np.float32)), 64)
  # Nearly half of what the lines add is gone at 64 px; nothing is lost of a plain picture.
  added = from_uint8(paint.astype(np.float32)) - from_uint8(np.float32(200))
  assert 0.4 < np.square(lost).mean() / np.square(added).mean() < 1
  assert np.abs(cma_detail.fine(from_uint8(image.astype(np.float32)), 64)).max() < 1e-5
