"""First pass over a clip: face, shots and squares; files of landmarks; detectors on real files."""

import json
from fractions import Fraction

import numpy as np
import pytest

from hybrid_jax.media import MediaError, align, stills, tracking
from hybrid_jax.media.faces import Face, FaceDetector
from hybrid_jax.media.landmarkers import open_landmarker, read_landmarks
from hybrid_jax.media.video import VideoWriter

POINTS = np.array([(-5, -4), (5, -4), (0, 0), (-4, 6), (4, 6)], float)


class Scripted:
  """Gives faces at the listed x, or (x, width), frame by frame."""

  def __init__(self, script):
    self.script = iter(script)

  def detect(self, rgb, near=None):
    return [face_at(*np.atleast_1d(where)) for where in next(self.script)]


def face_at(x, width=30.0):
  return Face((x - width / 2, 20.0, width, 30.0), POINTS + (x, 35), 1.0)


def write(path, greys, shape=(64, 128)):
  with VideoWriter(path, *shape, time_base=Fraction(1, 25)) as writer:
    for k, grey in enumerate(greys):
      writer.write(np.full((*shape, 3), grey, np.uint8), Fraction(k, 25))
  return path


def centres(clip):
  return clip.points[:, 2, 0].tolist()


@pytest.mark.parametrize(
  'rule, expected', [('largest', 60), ('left', 20), ('right', 100), ('1', 60), ('7', 100)]
)
def test_the_face_chosen_first_is_followed(tmp_path, rule, expected):
  script = [[(60, 40.0), (100, 30.0), (20, 30.0)]] + [[(20, 30.0), (100, 30.0)]] * 2
  path = write(tmp_path / 'a.mp4', [100] * 3)
  clip = tracking.track(path, Scripted(script), tracking.chooser(rule))
  places = [expected] + [expected if expected != 60 else np.nan] * 2
  np.testing.assert_array_equal(centres(clip), places)


def test_invalid_values_of_the_face_option():
  for rule in ('tallest', '-1', '1.5', ''):
    with pytest.raises(MediaError, match='--face='):
      tracking.chooser(rule)


def test_a_cut_chooses_anew_and_ends_the_shot(tmp_path):
  path = write(tmp_path / 'a.mp4', [100] * 4 + [200] * 4)
  script = Scripted([[20]] * 4 + [[90, 20]] * 4)
  clip = tracking.track(path, script, tracking.chooser('right'))
  assert clip.cuts == (0, 4)
  assert centres(clip) == [20] * 4 + [90] * 4
  squares = tracking.squares(clip, 'ffhq', 0.2)
  np.testing.assert_allclose(squares[:4], squares[:1].repeat(4, 0), atol=1e-9)
  assert squares[3, 0] == pytest.approx(20) and squares[4, 0] == pytest.approx(90)


def test_a_face_missing_for_a_second_is_chosen_anew(tmp_path):
  path = write(tmp_path / 'a.mp4', [100] * 60)
  script = Scripted([[20]] * 5 + [[100]] * 55)
  clip = tracking.track(path, script, tracking.chooser('left'))
  found = np.flatnonzero(~clip.missing)
  assert found.tolist() == [*range(5), *range(30, 60)]  # after one second without it


def test_squares_between_faces_and_a_fixed_one(tmp_path):
  path = write(tmp_path / 'a.mp4', [100] * 6)
  clip = tracking.track(path, Scripted([[20], [], [], [50], [50], []]), tracking.chooser('0'))
  assert clip.missing.tolist() == [False, True, True, True, True, True]  # 50 is another face
  clip = tracking.track(path, Scripted([[20], [], [26], [32], [], []]), tracking.chooser('0'))
  squares = tracking.squares(clip, 'ffhq', 0)
  np.testing.assert_allclose(squares[:, 0], [20, 23, 26, 32, 32, 32])
  np.testing.assert_array_equal(squares[0], align.ffhq(clip.points[0]))
  fixed = tracking.squares(clip, 'fomm', 0)
  assert (fixed == fixed[0]).all() and fixed[0, 2] == 25  # 1.2 times the union's 42 px, halved
  middle = tracking.squares(clip, 'clip', 0)
  np.testing.assert_array_equal(middle, np.tile(align.ffhq(clip.points[2]), (6, 1)))
  with pytest.raises(MediaError, match='128x64 is not square'):
    tracking.squares(clip, 'whole', 0)


def test_a_track_is_read_back(tmp_path):
  path = write(tmp_path / 'a.mp4', [100] * 3 + [250] * 2)
  clip = tracking.track(path, Scripted([[20], [], [20], [50], [50]]), tracking.chooser('0'))
  clip.save(tmp_path / 'a.npz')
  again = tracking.Track.load(tmp_path / 'a.npz')
  for name in ('ticks', 'points', 'boxes'):
    np.testing.assert_array_equal(getattr(again, name), getattr(clip, name))
  for name in ('time_base', 'cuts', 'size', 'broken'):
    assert getattr(again, name) == getattr(clip, name)
  assert [again.time(k) for k in range(5)] == [Fraction(k, 25) for k in range(5)]
  read = read_landmarks(tmp_path / 'a.npz', clip.size, 5)  # its own format is one of the files'
  np.testing.assert_array_equal(read, clip.points)


def test_no_face_at_all(tmp_path):
  path = write(tmp_path / 'a.mp4', [100] * 3)
  with pytest.raises(MediaError, match='no face in its 3 frames'):
    tracking.track(path, Scripted([[]] * 3), tracking.chooser('0'))


def test_likeness_takes_the_nearest_embedding():
  rgb = np.zeros((64, 128, 3), np.uint8)
  rgb[:, 64:] = 200
  embed = lambda crop: np.array([crop.mean() / 255, 1 - crop.mean() / 255])  # noqa: E731
  choose = tracking.likeness(np.array([1.0, 0.0]), embed, 16)
  assert choose(rgb, [face_at(25), face_at(100)]).box[0] == 85
  choose = tracking.likeness(np.array([0.0, 1.0]), embed, 16)
  assert choose(rgb, [face_at(25), face_at(100)]).box[0] == 10


# --- Files of landmarks --------------------------------------------------------------------------


def test_files_of_landmarks(tmp_path):
  points = np.random.default_rng(0).uniform(2, 60, (4, 68, 2))
  points[2] = np.nan
  np.savez(tmp_path / 'a.npz', landmarks=points)
  listed = [None if np.isnan(face).any() else face.tolist() for face in points]
  (tmp_path / 'a.json').write_text(json.dumps(listed))
  rows = [[k, *face.ravel()] for k, face in enumerate(points) if k != 2]
  (tmp_path / 'a.csv').write_text('\n'.join(['frame', *(','.join(map(str, r)) for r in rows)]))
  for suffix in ('npz', 'json', 'csv'):
    read = read_landmarks(tmp_path / f'a.{suffix}', (64, 128), 4)
    np.testing.assert_allclose(read, align.five_points(points))
  np.savez(tmp_path / 'b.npz', landmarks=points / (128, 64))
  np.testing.assert_allclose(
    read_landmarks(tmp_path / 'b.npz', (64, 128)), align.five_points(points)
  )


@pytest.mark.parametrize(
  'name, content, message',
  [
    ('a.txt', '', 'are read from'),
    ('a.json', '[[1, 2', 'no landmarks can be read'),
    ('a.json', '[null, null]', 'no landmarks can be read'),
    ('a.json', '[[[1, 2], [3, 4]]]', '2 landmarks a face'),
    ('a.json', '5', 'no landmarks can be read'),
    ('a.csv', 'frame,x0,y0\n', 'no landmarks can be read'),
    ('a.csv', 'frame,x0\n0,nose', 'no landmarks can be read'),
    ('a.csv', 'h\n3,1,1,2,2,3,3,4,4,5,5', 'holds 4 frames, the clip 3'),
    ('a.npz', 'no zip', 'no landmarks can be read'),
    ('missing.npz', None, 'No such file'),
  ],
)
def test_invalid_files_of_landmarks(tmp_path, name, content, message):
  if content is not None:
    (tmp_path / name).write_text(content)
  frames = 3 if 'holds' in message else None
  with pytest.raises(MediaError, match=message) as caught:
    read_landmarks(tmp_path / name, (64, 64), frames)
  assert name in str(caught.value) and '\n' not in str(caught.value)


# --- Real files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
  'name, missing, cuts',
  [
    ('black_start.mp4', range(10), (0, 10)),
    ('face_lost_midway.mp4', range(20, 30), (0, 20, 30)),
    ('two_faces.mp4', (), (0,)),
  ],
)
def test_hostile_clips(shared, name, missing, cuts):
  detector = FaceDetector(shared('models/yunet_n_dynamic.onnx'))
  clip = tracking.track(shared(f'faces/hostile/{name}'), detector, tracking.chooser('left'))
  assert np.flatnonzero(clip.missing).tolist() == list(missing) and clip.cuts == cuts
  assert clip.boxes[~clip.missing][:, 0].max() < clip.size[1] / 2 or name != 'two_faces.mp4'


def test_detectors_agree_on_a_portrait(shared):
  """Two detectors' crops of the same 1024 px portrait differ by some hundredths of their side."""
  pytest.importorskip('mediapipe')
  rgb = stills.read_image(shared('faces/portraits/src_10_aligned_man_glasses.jpg'))
  squares = []
  for model in ('yunet_n_dynamic.onnx', 'face_landmarker_v2_with_blendshapes.task'):
    found = open_landmarker(shared(f'models/{model}')).detect(rgb)
    assert len(found) == 1
    squares.append(align.ffhq(found[0].landmarks))
  assert np.abs(squares[0] - squares[1]).max() < 60
  for square in squares:  # the picture is aligned already
    np.testing.assert_allclose(square, (512, 512, 512, 0), atol=60)


def test_an_invalid_task_file(tmp_path):
  pytest.importorskip('mediapipe')
  (tmp_path / 'a.task').write_text('no model')
  with pytest.raises(MediaError, match='is not a FaceLandmarker model'):
    open_landmarker(tmp_path / 'a.task')
