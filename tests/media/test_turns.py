"""Scales and turns: which of the detections of a picture, at several of each, count as faces."""

import cv2
import numpy as np
import pytest

from hybrid_jax.media import MediaError, clips, stills, tracking, turns
from hybrid_jax.media.faces import Face, FaceDetector, is_plausible, overlap
from hybrid_jax.media.landmarkers import MediaPipe, open_landmarker
from hybrid_jax.reenactment.inputs import crop_picture
from hybrid_jax.reenactment.options import CropOptions

# Right eye, left eye, nose, corners of the mouth in a box of side 1 at the origin.
POINTS = np.array([(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)])


class Net:
  """Stands for OpenCV's YuNet: finds (x, y, side, score), fractions of the long side, by a rule.

  rule(long side of the input, turn of the picture) -> list; the turn is that of the brightest edge,
  which is on top of an untouched picture.
  """

  def __init__(self, rule):
    self.rule, self.searched = rule, []

  def setInputSize(self, size):  # noqa: N802 (OpenCV's name)
    self.size = size

  def detect(self, bgr):
    assert bgr.shape[1::-1] == tuple(self.size)
    long, turn = max(bgr.shape[:2]), self.turn(bgr)
    self.searched.append((long, turn))
    rows = []
    for x, y, side, score in self.rule(long, turn):
      points = (POINTS * side + (x, y)) * long
      rows.append([x * long, y * long, side * long, side * long, *points.ravel(), score])
    return None, np.array(rows, np.float32) if rows else None

  def turn(self, bgr):
    edges = (bgr[0], bgr[:, 0], bgr[-1], bgr[:, -1])  # top, left, bottom, right
    return int(np.argmax([edge.mean() for edge in edges]))


def detector_of(rule):
  detector = FaceDetector.__new__(FaceDetector)
  detector._net = Net(rule)
  return detector


def marked(h, w):
  """A picture with a bright edge on top."""
  rgb = np.zeros((h, w, 3), np.uint8)
  rgb[: h // 20] = 200
  return rgb


@pytest.mark.parametrize('turn', turns.ALL)
def test_points_of_a_turned_picture_are_moved_back(turn):
  rgb = np.zeros((30, 50, 3), np.uint8)
  rgb[7, 11] = 255
  y, x = np.argwhere(turns.turned(rgb, turn)[..., 0] == 255)[0] + 0.5
  np.testing.assert_allclose(turns.back(np.array([(x, y)]), turn, (30, 50)), [(11.5, 7.5)])
  # A head that is upright in the turned picture has this turn in the untouched one.
  assert turns.turn_of(turns.back(POINTS * 10, turn, (30, 50))) == turn


@pytest.mark.parametrize('degrees, turn', [(44, 0), (46, 1), (-44, 0), (-46, 3), (170, 2)])
def test_the_turn_of_a_rolled_head(degrees, turn):
  a = np.deg2rad(degrees)
  clockwise = np.array([(np.cos(a), -np.sin(a)), (np.sin(a), np.cos(a))])
  rolled = POINTS @ clockwise.T
  assert turns.roll(rolled) == pytest.approx(degrees) and turns.turn_of(rolled) == turn
  assert is_plausible(rolled) == (abs(degrees) < 60)


def test_landmarks_out_of_proportion_are_no_face():
  assert is_plausible(POINTS)
  for k, place in ((0, (-2, 0.4)), (2, (0.5, 1.5)), (3, (-2, 0.8))):
    points = POINTS.copy()
    points[k] = place
    assert not is_plausible(points)
  assert not is_plausible(np.zeros((5, 2)))


def test_the_best_score_over_all_scales_wins():
  face, part = (0.2, 0.1, 0.6, 0.95), (0.3, 0.15, 0.2, 0.88)
  detector = detector_of(lambda long, turn: [part] if long > 700 else [face])
  found = detector.detect(marked(1600, 1200))
  assert [one.score for one in found] == [pytest.approx(0.95)]
  np.testing.assert_allclose(found[0].box, np.array((0.2, 0.1, 0.6, 0.6)) * 1600, rtol=1e-3)
  # Certain, and therefore not searched in other turns.
  assert detector._net.searched == [(1600, 0), (640, 0), (320, 0), (160, 0)]


def test_of_scales_that_agree_the_finest_counts():
  rule = lambda long, turn: [(0.2, 0.1, 0.2 + 1 / long, 0.93 if long > 700 else 0.95)]  # noqa: E731
  found = detector_of(rule).detect(marked(1600, 1200))
  assert len(found) == 1 and found[0].score == pytest.approx(0.93)


@pytest.mark.parametrize('turn', turns.ALL)
def test_the_best_turn_wins(turn):
  """Upside down, a face is found as an upright one as well, with a lower score."""
  face, contrary = (0.35, 0.35, 0.3, 0.94), (0.35, 0.35, 0.3, 0.9)
  rule = lambda long, at: {0: [face], 2: [contrary]}.get(at, [])  # noqa: E731
  rgb = turns.turned(marked(400, 400), turn)
  found = detector_of(rule).detect(rgb)
  assert len(found) == 1 and found[0].score == pytest.approx(0.94)
  assert turns.turn_of(found[0].landmarks) == (4 - turn) % 4


@pytest.mark.parametrize('score, upright, turned', [(0.79, 0, 0), (0.82, 1, 0), (0.87, 1, 1)])
def test_what_resembles_a_face_is_none(score, upright, turned):
  thing = (0.3, 0.2, 0.3, score)
  for turn, count in ((0, upright), (1, turned)):
    rule = lambda long, at, turn=turn: [thing] if at == turn else []  # noqa: E731
    assert len(detector_of(rule).detect(marked(400, 400))) == count


def test_a_turned_thing_does_not_join_upright_faces():
  rule = lambda long, at: [(0.1, 0.1, 0.2, 0.9)] if at == 0 else [(0.1, 0.6, 0.3, 0.87)]  # noqa: E731
  assert len(detector_of(rule).detect(marked(400, 400))) == 1


def test_a_face_that_is_followed_is_searched_at_its_scale_and_turn():
  detector = detector_of(lambda long, turn: [(0.2, 0.1, 0.4, 0.65)] if turn == 1 else [])
  size = (1200, 1600)
  points = turns.back((POINTS * 0.4 + (0.2, 0.1)) * 1600, 1, size)
  corner = turns.back(np.array([(0.2, 0.5)]) * 1600, 1, size)[0]
  near = Face((*corner, 640, 640), points, 0.9)
  found = detector.detect(marked(*size), near)
  assert len(found) == 1 and overlap(found[0].box, near.box) > 0.95
  assert detector._net.searched == [(875, 1)]  # at which it has 350 px
  assert detector.detect(marked(*size)) == []  # less is enough only there


def test_mediapipe_counts_the_turns():
  """Which turn each view finds -> the turn of the face."""
  for views, expected in (
    ({0: 0}, [0]),
    ({0: 0, 1: 2, 2: 2, 3: 2}, [2]),
    ({1: 1, 2: 1}, [1]),
    ({2: 2}, []),
    ({0: 0, 2: 2}, [0]),
    ({}, []),
  ):
    landmarker = MediaPipe.__new__(MediaPipe)
    points = lambda turn: turns.back(POINTS * 40, turn, (40, 40))  # noqa: E731
    landmarker._search = lambda rgb, view, views=views, points=points: (
      [Face((0, 0, 40, 40), points(views[view]), 1.0)] if view in views else []
    )
    found = landmarker.detect(np.zeros((40, 40, 3), np.uint8))
    assert [turns.turn_of(face.landmarks) for face in found] == expected, views


def test_training_refuses_turned_heads():
  detector = detector_of(lambda long, turn: [(0.2, 0.1, 0.6, 0.95)] if turn == 2 else [])
  crops = np.stack([marked(64, 64)] * 2)
  with pytest.raises(MediaError, match='a.mp4: the head lies on its side or upside down'):
    clips.find_landmarks(crops, detector, 'a.mp4')


# --- The reference collection --------------------------------------------------------------------


@pytest.mark.parametrize(
  'name, square, line',
  [
    ('closeup_p1_60.jpg', (1525, 1880, 1600, 0), 'crop ffhq'),
    ('s_upside.png', (130, 128, -133, 0), 'head turned by 17'),
    ('s_tiny_in_8k.jpg', (3054, 2556, 63, 0), 'crop ffhq of 126 px'),
  ],
)
def test_pictures_that_were_cropped_wrongly(shared, name, square, line):
  rgb = stills.read_image(shared(f'failing/{name}'))
  options = CropOptions(str(shared('models/yunet_n_dynamic.onnx')), crop='ffhq')
  found = crop_picture(rgb, name, options)
  np.testing.assert_allclose(found.squares[0], square, atol=0.04 * abs(square[2]) + 10)
  assert line in found.describe('source', 256)


@pytest.mark.parametrize('turn', turns.ALL)
@pytest.mark.parametrize(
  'model', ['yunet_n_dynamic.onnx', 'face_landmarker_v2_with_blendshapes.task']
)
def test_turned_portraits(shared, model, turn):
  if model.endswith('.task'):
    pytest.importorskip('mediapipe')
  detector = open_landmarker(shared(f'models/{model}'))
  for name in ('src_05_neutral_woman.jpeg', 'src_10_aligned_man_glasses.jpg'):
    rgb = stills.read_image(shared(f'faces/portraits/{name}'))
    rgb = cv2.resize(rgb, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA)
    found = detector.detect(turns.turned(rgb, turn))
    assert [turns.turn_of(face.landmarks) for face in found] == [(4 - turn) % 4]


def test_a_close_up_is_followed(shared):
  """The clip's face fills more than 60 per cent of the frame, enlarged to 1280 px."""
  detector = FaceDetector(shared('models/yunet_n_dynamic.onnx'))
  path = shared('faces/driving/drive_09_woman_frown.mov')
  rgb = cv2.resize(next(tracking.video.read_frames(path)).rgb, (1280, 1280))
  first = detector.detect(rgb)[0]
  again = detector.detect(rgb, first)
  assert overlap(again[0].box, first.box) > 0.8 and first.box[3] > 600
