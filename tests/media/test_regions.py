"""Masks of the regions of a face, from contours and from five points."""

import numpy as np
import pytest

from hybrid_jax.media import clips, faces, regions
from hybrid_jax.media.landmarkers import open_landmarker


def test_region_masks_hold_their_landmarks():
  points = np.array([[0.38, 0.45], [0.62, 0.47], [0.5, 0.6], [0.42, 0.72], [0.6, 0.73]])
  masks = clips.region_masks(points, 64)
  mouth, eyes, brows, face = np.moveaxis(masks, -1, 0) > 0
  at = lambda mask, p: mask[int(p[1] * 64), int(p[0] * 64)]  # noqa: E731
  assert at(eyes, points[0]) and at(eyes, points[1]) and not at(eyes, points[2])
  assert at(mouth, points[3]) and at(mouth, points[4]) and at(face, points[2])
  assert at(brows, points[0] - [0, 0.08]) and not at(brows, points[3])
  assert 0.02 < mouth.mean() < 0.12 and 0.2 < face.mean() < 0.7


def test_masks_follow_the_contours_where_there_are_any():
  five = np.array([[0.38, 0.45], [0.62, 0.45], [0.5, 0.6], [0.42, 0.72], [0.58, 0.72]])
  ellipses = clips.region_masks(five, 256)

  def oval(count, x, y, w, h):
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack((x + w * np.cos(angle), y + h * np.sin(angle)), -1)

  for count, contours in regions._CONTOURS.items():
    points = np.full((count, 2), 0.5)
    for outlines, centres, half in zip(
      contours,
      ([(0.5, 0.72)], five[:2], five[:2] - [0, 0.09]),
      ((0.08, 0.03), (0.05, 0.02), (0.06, 0.005)),
      strict=True,
    ):
      for outline, (x, y) in zip(outlines, centres, strict=True):
        points[list(outline)] = oval(len(outline), x, y, *half)
    corners = {68: ((36, 39), (42, 45)), 478: ((33, 133), (362, 263))}[count]
    for pair, (x, y) in zip(corners, five[:2], strict=True):
      points[list(pair)] = [(x - 0.05, y), (x + 0.05, y)]
    points[[48, 54] if count == 68 else [61, 291]] = five[3:]
    masks = clips.region_masks(points, 256)
    assert masks.shape == ellipses.shape and set(np.unique(masks)) == {0, 255}
    for channel, centre in enumerate(([0.5, 0.72], five[0], five[0] - [0, 0.09])):
      x, y = (256 * np.asarray(centre)).astype(int)
      assert masks[y, x, channel] == 255
      # Contours hold the feature alone, ellipses also what five points may be wrong by.
      assert 0.05 < masks[..., channel].sum() / ellipses[..., channel].sum() < 1
    inside = np.clip((points * 256).astype(int), 0, 255)
    for channel, outlines in enumerate(contours):
      for outline in outlines:
        assert (masks[inside[list(outline), 1], inside[list(outline), 0], channel] == 255).all()
    turned = clips.region_masks(1 - points, 256)[::-1, ::-1]
    assert (turned[..., :3] != masks[..., :3]).mean() < 0.01
  with pytest.raises(ValueError, match='7 landmarks'):
    clips.region_masks(np.zeros((7, 2)), 64)


def test_mediapipe_gives_a_training_clip_its_contours(shared):
  pytest.importorskip('mediapipe')
  task = open_landmarker(shared('models/face_landmarker_v2_with_blendshapes.task'))
  yunet = faces.FaceDetector(shared('models/yunet_n_dynamic.onnx'))
  path = sorted(shared('faces/driving').iterdir())[0]
  fine, rough = (
    clips.read_clip(path, size=128, count=2, detector=d, kind='clip') for d in (task, yunet)
  )
  assert fine.landmarks.shape == rough.landmarks.shape == (2, 5, 2)
  areas = [clip.masks.mean((0, 1, 2)) for clip in (fine, rough)]
  assert (0 < areas[0][:3]).all() and (areas[0][:3] < areas[1][:3]).all()
