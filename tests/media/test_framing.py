"""Framing: the three kinds, and that training, tables and re-enactment cut the same squares."""

import types
from fractions import Fraction

import numpy as np
import pytest

from hybrid_jax.errors import InputError
from hybrid_jax.media import align, clips, faces, framing, stills, tracking, video
from hybrid_jax.media.faces import Face, FaceDetector
from hybrid_jax.reenactment.model import Model

POINTS = np.array([(-12, -10), (12, -10), (0, 2), (-9, 14), (9, 14)], float)
SIZE = (120, 240)


def head(x, y=60.0, roll=0.0, scale=1.0):
  """A face of 40 px at (x, y), turned by `roll` degrees clockwise."""
  a = np.radians(roll)
  turn = np.array([(np.cos(a), np.sin(a)), (-np.sin(a), np.cos(a))])
  box = (x - 18 * scale, y - 26 * scale, 36 * scale, 48 * scale)
  return Face(box, scale * POINTS @ turn + (x, y), 1.0)


def seen(*heads):
  return framing.Seen.of((k / 25, face) for k, face in enumerate(heads))


def cut(kind, *heads, **options):
  return framing.squares(kind, seen(*heads), np.arange(len(heads)) / 25, SIZE, **options)


def eye_height(square, face):
  """Height of the middle of the eyes below the top of the square, over its side."""
  matrix = align.to_picture(square, 1000)
  x = np.linalg.solve(matrix[:, :2], face.landmarks[:2].mean(0) - 0.5 - matrix[:, 2])
  return (x[1] + 0.5) / 1000


def test_a_clip_keeps_one_upright_square_of_ffhqs_side_and_height():
  rng = np.random.default_rng(0)
  heads = [head(100 + x, 60 + y, roll) for x, y, roll in rng.normal(0, (4, 3, 6), (25, 3))]
  squares = cut('clip', *heads)
  assert (squares == squares[0]).all() and squares[0, 3] == 0
  aligned = align.ffhq(np.array([face.landmarks for face in heads]))
  assert 2 * squares[0, 2] == pytest.approx(2 * np.hypot(*aligned[:, 2:].T).mean(), rel=0.03)
  heights = [eye_height(squares[0], face) for face in heads]
  wanted = [eye_height(*pair) for pair in zip(aligned, heads, strict=True)]
  assert np.mean(heights) == pytest.approx(np.mean(wanted), rel=0.03)
  # A head that is found elsewhere in some frames does not move the square of the others.
  outliers = cut('clip', *[head(100)] * 9, *[head(180, scale=2.0)] * 4)
  np.testing.assert_array_equal(outliers[0], align.ffhq(head(100).landmarks))


def test_ffhq_turns_with_each_frame():
  heads = [head(100 + k, roll=3 * k) for k in range(5)]
  expected = align.ffhq(np.array([face.landmarks for face in heads]))
  np.testing.assert_allclose(cut('ffhq', *heads, smoothing=0), expected)
  np.testing.assert_allclose(cut('ffhq', *heads), expected, atol=0.2)  # uniform motion is kept
  between = framing.squares('ffhq', seen(*heads), np.array([-1, 0.02, 9]), SIZE, 0)
  np.testing.assert_allclose(between, [expected[0], expected[:2].mean(0), expected[-1]])


def test_fomm_is_around_all_boxes_and_inside_the_picture():
  squares = cut('fomm', head(100), head(110), head(104, 64))
  box = (82, 34, 46, 52)  # of all three
  np.testing.assert_array_equal(squares, np.tile(align.upright((74, 29, 62, 62)), (3, 1)))
  assert faces.square_box(box, 1.2, SIZE) == (74, 29, 62, 62)
  assert cut('fomm', head(20))[0, 0] == cut('fomm', head(20))[0, 2]  # moved inside


def test_a_slow_drift_does_not_enlarge_the_square():
  """Each box overlaps the one before; beyond 0.25 of the first one a new square begins."""
  heads = [head(40 + 2 * k) for k in range(70)]
  squares = cut('fomm', *heads)
  # Boxes of 36 px overlap by 0.25 at a shift of 21.6 px: 20 px in steps of 2.
  assert 2 * squares[:, 2].max() <= round(1.2 * 56)
  changes = np.flatnonzero(np.diff(squares[:, 0])) + 1
  assert changes.tolist() == [11, 22, 33, 44, 55, 66]
  for square, face in zip(squares, heads, strict=True):
    x, _, w, _ = face.box
    assert square[0] - square[2] <= x and x + w <= square[0] + square[2]


# --- The same square wherever heads are cut out --------------------------------------------------


class Scripted:
  """Finds the head of the frame whose number is its first pixel."""

  def __init__(self, heads):
    self.heads = heads

  def detect(self, rgb, near=None):
    found = self.heads[int(rgb[0, 0, 0])]
    return found if isinstance(found, list) else [found]


@pytest.fixture
def clip_of(monkeypatch):
  """A clip of 25 numbered frames a second, without a file."""

  def make(count):
    def frames(path, **_):
      shown = (np.full((*SIZE, 3), k, np.uint8) for k in range(count))
      return (video.Frame(rgb, Fraction(k, 25)) for k, rgb in enumerate(shown))

    monkeypatch.setattr(video, 'read_frames', frames)
    info = types.SimpleNamespace(time_base=Fraction(1, 25))
    monkeypatch.setattr(video, 'probe', lambda path: info)
    found = lambda crops, *_: (np.full((len(crops), 5, 2), 0.5),) * 2  # noqa: E731
    monkeypatch.setattr(clips, 'find_landmarks', found)
    return frames('')

  return make


def cut_in_training(monkeypatch, heads, kind, **options):
  """(times, squares) that `read_clip` cuts."""
  squares, real = [], align.cut

  def cut(rgb, square, size):
    squares.append(square)
    return real(rgb, square, size)

  monkeypatch.setattr(align, 'cut', cut)
  detector = Scripted(heads)
  clip = clips.read_clip('a.mp4', size=16, count=50, detector=detector, kind=kind, **options)
  monkeypatch.setattr(align, 'cut', real)
  return clip.times, np.array(squares)


@pytest.mark.parametrize('kind', framing.KINDS)
def test_training_tables_and_reenactment_cut_alike(clip_of, monkeypatch, kind):
  heads = [head(100 + k / 5, 60 - k / 8, 0.5 * k) for k in range(31)]
  frames = clip_of(31)
  track = tracking.track('a.mp4', Scripted(heads), tracking.chooser('largest'))
  wanted = tracking.squares(track, kind, framing.SMOOTHING)
  shown = ((frame.rgb, float(frame.time)) for frame in frames)
  tables = clips.head_squares(shown, Scripted(heads), kind)
  times, training = cut_in_training(monkeypatch, heads, kind)
  assert len(times) == len(tables) == 31
  # Uniform motion: every fifth frame has the median of all, and both ends.
  np.testing.assert_allclose(tables, wanted, atol=1e-6)
  np.testing.assert_allclose(training, wanted, atol=1e-6)


def test_a_training_clip_and_a_table_end_where_the_head_leaves_its_first_box(clip_of, monkeypatch):
  heads = [head(40 + 2 * k) for k in range(60)]
  frames = clip_of(60)
  shown = ((frame.rgb, float(frame.time)) for frame in frames)
  tables = clips.head_squares(shown, Scripted(heads), 'fomm')
  times, squares = cut_in_training(monkeypatch, heads, 'fomm')
  # Searched at 0, 5, 10 and 15, where the box has moved by 30 of 36 px.
  assert len(tables) == 15 and times[-1] * 25 == pytest.approx(9)
  assert 2 * squares[0, 2] == 67 and (tables == tables[0]).all()  # 1.2 times 56 px
  times, _ = cut_in_training(monkeypatch, heads, 'clip')
  assert times[-1] * 25 == pytest.approx(59)


def test_the_box_of_a_data_set_says_which_face(clip_of, monkeypatch):
  heads = [[head(60, scale=1.2), head(180)] for _ in range(11)]
  clip_of(11)
  right = dict(box=(0.2, 0.8, 0.6, 0.9))
  assert cut_in_training(monkeypatch, heads, 'clip')[1][0, 0] == 60
  _, squares = cut_in_training(monkeypatch, heads, 'clip', **right)
  np.testing.assert_array_equal(squares[0], align.ffhq(head(180).landmarks))
  with pytest.raises(InputError, match='a.mp4: no face in it'):
    cut_in_training(monkeypatch, heads, 'clip', box=(0.8, 1, 0, 0.1))


def test_landmarks_alone_give_the_box_of_a_detector(shared):
  detector = FaceDetector(shared('models/yunet_n_dynamic.onnx'))
  for name in ('src_05_neutral_woman.jpeg', 'src_07_woman_glasses.jpg'):
    found = detector.detect(stills.read_image(shared(f'faces/portraits/{name}')))[0]
    assert faces.overlap(tuple(framing.box_of(found.landmarks)), found.box) > 0.7


# --- Data and models of earlier versions ---------------------------------------------------------


def test_the_framing_of_a_model():
  def trained(**data):
    data = {'videos': '', 'packed': '', 'face_detector': ''} | data
    config = types.SimpleNamespace(data=data_of(data))
    return Model(config, None, {}, {}, 0, 'runs/a')

  class data_of(dict):
    __getattr__ = dict.__getitem__

  assert trained(crop_scale=1.8).crop == 'ffhq'  # of the rendered world
  assert trained(videos='v', crop_scale=1.8).crop == 'clip'  # square clips, taken whole
  assert trained(videos='v', face_detector='y', framing='fomm').crop == 'fomm'
  for source in ({'videos': 'v', 'face_detector': 'y'}, {'packed': 'p'}):
    with pytest.raises(InputError, match='runs/a: was trained on squares of 1.8 face boxes') as e:
      _ = trained(**source, crop_scale=1.8).crop
    assert '\n' not in str(e.value)
