"""The face follower alone, as training crops use it, and on the reference collection."""

from fractions import Fraction

import numpy as np
import pytest

from hybrid_jax.media import MediaError, align, clips, video
from hybrid_jax.media.face_follower import FaceFollower
from hybrid_jax.media.faces import Face, FaceDetector, square_box

FRAME = np.zeros((100, 200, 3), np.uint8)
POINTS = np.array([(-5, -4), (5, -4), (0, 0), (-4, 6), (4, 6)], float)


def face(x, y=40, width=20, height=20):
  return Face((x, y, width, height), POINTS + (x + 10, y + 10), 1.0)


class Scripted:
  """Returns the faces listed for the frame whose number is its first pixel."""

  def __init__(self, script):
    self.script = script

  def detect(self, rgb, near=None):
    return self.script.get(int(rgb[0, 0, 0]), [])


def frames(count, h=100, w=200):
  return (np.full((h, w, 3), number, np.uint8) for number in range(count))


def timed(shown):
  return ((rgb, k / 25) for k, rgb in enumerate(shown))


def followed(script, count, times=None, **options):
  """x of the face followed in each frame, None where it is missing, and the follower."""
  follower = FaceFollower(Scripted(script), **options)
  places = []
  for k, rgb in enumerate(frames(count)):
    found = follower(rgb, None if times is None else times[k])
    places.append(found and found.box[0])
  return places, follower


def test_the_first_face_is_followed_by_overlap():
  script = {
    1: [face(60), face(100, width=18, height=18)],
    2: [face(100, width=30, height=30), face(64)],  # the other one is larger now
    3: [face(100, width=30, height=30)],  # and alone
    4: [face(68, y=42)],
  }
  places, follower = followed(script, 6)
  assert places == [None, 60, 64, None, 68, None]
  assert follower.face is script[4][0] and follower.misses == 1


def test_misses_count_from_the_last_sighting():
  places, follower = followed({2: [face(60)]}, 6)
  assert places == [None, None, 60, None, None, None] and follower.misses == 3
  assert followed({}, 4)[1].misses == 0
  follower.forget()
  assert follower.misses == 0 and follower.face is None


def test_a_box_of_too_little_overlap_is_another_face():
  # Boxes of width 20 shifted by d overlap by (20 - d) / (20 + d): 0.2 at d = 13.3.
  assert followed({0: [face(60)], 1: [face(73)]}, 2)[0] == [60, 73]
  assert followed({0: [face(60)], 1: [face(74)]}, 2)[0] == [60, None]


def test_the_face_is_chosen_anew_only_after_the_time_given():
  script = {0: [face(60)]} | {k: [face(150)] for k in range(1, 8)}
  times = [Fraction(k, 4) for k in range(8)]
  chosen = followed(script, 8, times, forget_after=1.0)[0]
  assert chosen == [60, None, None, None, None, 150, 150, 150]  # at 1.25 s, not at 1 s
  assert followed(script, 8, times)[0] == [60] + [None] * 7


def test_the_choice_is_asked_again_after_forgetting():
  script = {k: [face(60), face(150)] for k in range(4)}
  follower = FaceFollower(Scripted(script), lambda rgb, found: found[-1])
  assert [follower(rgb).box[0] for rgb in frames(2)] == [150, 150]
  follower.forget()
  assert follower(FRAME).box[0] == 150
  assert followed(script, 2)[0] == [60, 60]  # the largest by default: the detector's first


# --- Squares and clips for training --------------------------------------------------------------


def test_head_square_is_around_all_places():
  script = {
    5: [face(60), face(100, width=18, height=18)],
    10: [face(100, width=30, height=30), face(64)],
    15: [face(100, width=30, height=30)],
    20: [face(68, y=42)],
    21: [face(90)],  # between two searches
  }
  squares = clips.head_squares(timed(frames(25)), Scripted(script), 'fomm')
  square = align.upright(square_box((60, 40, 28, 22), 1.2, (100, 200)))
  np.testing.assert_array_equal(squares, np.tile(square, (25, 1)))


def test_head_square_without_a_face():
  with pytest.raises(MediaError, match='a.mp4: no face in the 2 frames searched'):
    clips.head_squares(timed(frames(10)), Scripted({}), 'clip', name='a.mp4')


def read_scripted(monkeypatch, script, count, frames_wanted=50, kind='clip'):
  """`read_clip` of frames numbered in their first pixel; the numbers of the frames it keeps."""
  at = lambda k: video.Frame(next(frames(1)) + np.uint8(k), Fraction(k, 25))  # noqa: E731
  monkeypatch.setattr(clips.video, 'read_frames', lambda path, **_: map(at, range(count)))
  found = lambda crops, *_: 2 * (np.full((len(crops), 5, 2), 0.5),)  # noqa: E731
  monkeypatch.setattr(clips, 'find_landmarks', found)
  clip = clips.read_clip(
    'a.mp4', size=16, count=frames_wanted, detector=Scripted(script), kind=kind
  )
  return np.rint(clip.times * 25).astype(int).tolist()


def test_a_clip_lasts_from_the_first_to_the_last_sighting(monkeypatch):
  script = {k: [face(60)] for k in (5, 10, 20)} | {35: [face(60)]}
  # Found at 5, 10 and 20, missed at 15 alone; missed at 25 and 30, which ends the clip.
  assert read_scripted(monkeypatch, script, 60) == list(range(5, 20))
  assert read_scripted(monkeypatch, {k: [face(60)] for k in range(60)}, 12) == list(range(12))


def test_a_clip_ends_where_the_face_jumps(monkeypatch):
  script = {k: [face(60)] for k in range(20)} | {k: [face(150)] for k in range(20, 60)}
  assert read_scripted(monkeypatch, script, 60) == list(range(15))


# --- The reference collection --------------------------------------------------------------------


@pytest.fixture(scope='module')
def detector(request):
  path = request.config.rootpath.parent / 'shared/models/yunet_n_dynamic.onnx'
  if not path.exists():
    pytest.skip('the reference collection is not beside this checkout: no YuNet')
  return FaceDetector(path)


def sightings(path, detector):
  """{frame number: face or None} of the frames that training searches."""
  follower = FaceFollower(detector)
  searched = enumerate(video.read_frames(path))
  return {k: follower(frame.rgb) for k, frame in searched if k % clips.SEARCH_EVERY == 0}


@pytest.mark.parametrize(
  'name, missing', [('black_start.mp4', [0, 5]), ('face_lost_midway.mp4', [20, 25])]
)
def test_frames_without_a_face(shared, detector, name, missing):
  found = sightings(shared(f'faces/hostile/{name}'), detector)
  assert [k for k, face in found.items() if face is None] == missing


@pytest.mark.parametrize(
  'name', ['drive_02_vfr_man_suit.mp4', 'drive_06_head_turn.gif', 'drive_10_woman_indoor.webm']
)
def test_head_squares_of_real_clips(shared, detector, name):
  rgbs = [frame.rgb for frame in video.read_frames(shared(f'faces/driving/{name}'))]
  assert None not in sightings(shared(f'faces/driving/{name}'), detector).values()
  x, y, half, roll = square = clips.head_squares(timed(rgbs), detector, 'fomm')[0]
  assert x >= half and y >= half and not roll
  assert x + half <= rgbs[0].shape[1] and y + half <= rgbs[0].shape[0]
  crop = align.cut(rgbs[0], square, 256)
  assert crop.shape == (256, 256, 3) and detector.detect(crop)


def test_two_faces_and_no_face(shared, detector):
  found = sightings(shared('faces/hostile/two_faces.mp4'), detector)
  centres = [face.box[0] + face.box[2] / 2 for face in found.values() if face]
  assert min(centres) > 240 or max(centres) < 240  # one of the two throughout
  path = shared('faces/hostile/no_face_testpattern.mp4')
  with pytest.raises(MediaError, match='no face'):
    shown = ((frame.rgb, float(frame.time)) for frame in video.read_frames(path))
    clips.head_squares(shown, detector, 'clip')
