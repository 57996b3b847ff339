"""The person followed: looks, another person in the place, slow clips; the reference collection."""

from fractions import Fraction

import numpy as np
import pytest

from hybrid_jax.media import MediaError, tracking
from hybrid_jax.media.face_follower import FaceFollower
from hybrid_jax.media.faces import Face, FaceDetector
from hybrid_jax.media.identity import Looks
from hybrid_jax.media.video import VideoWriter

POINTS = np.array([(-5, -4), (5, -4), (0, 0), (-4, 6), (4, 6)], float)
RED, BLUE, DARK = (200, 90, 70), (70, 90, 200), (150, 60, 40)


def frame_of(*people):
  """(frame, faces) of people (x, colour, side of the box)."""
  rgb, found = np.full((120, 240, 3), 120, np.uint8), []
  for x, colour, side in people:
    rgb[20:110, max(0, x - 26) : x + 26] = colour
    found.append(Face((x - side / 2, 50.0, side, side), POINTS * side / 20 + (x, 60), 1.0))
  return rgb, found


class Scripted:
  def __init__(self, frames):
    self.frames = iter(frames)

  def detect(self, rgb, near=None):
    return next(self.frames)


def followed(frames, interval=Fraction(1, 25), looks=None):
  """x of the face followed in each frame, and whether only others are seen."""
  rgbs, found = zip(*frames, strict=True)
  follower = FaceFollower(Scripted(found), forget_after=1.0, looks=looks or Looks())
  places = []
  for k, rgb in enumerate(rgbs):
    face = follower(rgb, k * interval)
    places.append(((face.box[0] + face.box[2] / 2) if face else None, follower.other))
  return places


def test_a_person_who_left_is_held_until_back():
  here, wall = (60, RED, 20), (180, BLUE, 20)
  frames = [frame_of(here, wall)] * 3 + [frame_of(wall)] * 40 + [frame_of(here, wall)] * 3
  expected = [(60, False)] * 3 + [(None, True)] * 40 + [(60, False)] * 3
  assert followed(frames) == expected


def test_another_person_in_the_same_place_is_not_followed():
  frames = [frame_of((60, RED, 20))] * 3 + [frame_of((60, BLUE, 20))] * 30
  assert followed(frames)[2:] == [(60, False)] + [(None, True)] * 30


def test_a_slow_clip_follows_the_moving_head():
  frames = [frame_of((x, RED, 20)) for x in (60, 130, 60, 190, 120)]
  places = [(x, False) for x in (60, 130, 60, 190, 120)]
  assert followed(frames, Fraction(1)) == followed(frames, Fraction(1, 2)) == places
  # At 25 frames a second no head moves that far.
  assert followed(frames)[:2] == [(60, False), (None, True)]


def test_a_slow_clip_takes_the_face_of_the_same_looks():
  frames = [frame_of((60, RED, 20)), frame_of((60, BLUE, 20), (190, RED, 20))]
  assert followed(frames, Fraction(1)) == [(60, False), (190, False)]


def test_another_size_asks_for_more_likeness():
  looks = Looks()
  looks._colours, looks._side = [np.array([1.0, 0])], 20.0
  looks.likeness = lambda rgb, face: 0.88
  for side, same in ((20, True), (22, True), (60, False)):
    _, (face,) = frame_of((60, RED, side))
    looks_like = np.array([0.88, 0.475])
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr('hybrid_jax.media.identity._colours', lambda *_: looks_like)  # noqa: B023
      assert looks.include(None, face, moved=True) == same


def test_an_embedding_decides_in_doubt():
  """The light changes the colours; the embedding does not see that. A stranger is embedded once."""
  asked = []

  def embed(crop):
    asked.append(1)
    return np.eye(2)[int(crop[..., 2].mean() > crop[..., 0].mean())]

  here, dark, wall = (60, RED, 20), (190, DARK, 20), (180, BLUE, 20)
  frames = [frame_of(here)] * 3 + [frame_of(wall)] * 30 + [frame_of(dark)] * 3
  assert followed(frames, looks=Looks(embed, 16))[-3:] == [(190, False)] * 3
  assert len(asked) <= 4
  # Without it, this change of light looks like another person.
  assert followed(frames)[-1] == (None, True)


def test_views_of_a_person_are_limited():
  looks = Looks()
  for grey in range(10, 250, 12):
    looks.add(*_first(frame_of((60, (grey, grey, 250 - grey), 20))))
  assert len(looks._colours) == 8


def _first(frame):
  return frame[0], frame[1][0]


def test_a_clip_without_the_wanted_person(tmp_path):
  with VideoWriter(tmp_path / 'a.mp4', 120, 240, time_base=Fraction(1, 25)) as writer:
    for k in range(3):
      writer.write(frame_of((60, RED, 20))[0], Fraction(k, 25))
  embed = lambda crop: np.eye(2)[0]  # noqa: E731
  choose = tracking.likeness(np.array([0.3, 0.95]), embed, 16)
  detector = Scripted([frame_of((60, RED, 20))[1]] * 3)
  with pytest.raises(MediaError, match='faces in 3 of its 3 frames, none of them the wanted one'):
    tracking.track(tmp_path / 'a.mp4', detector, choose)


# --- The reference collection --------------------------------------------------------------------


def test_the_speaker_leaves_and_returns(shared):
  detector = FaceDetector(shared('models/yunet_n_dynamic.onnx'))
  clip = tracking.track(shared('failing/t_leave.mp4'), detector, tracking.largest)
  assert np.flatnonzero(clip.missing).tolist() == list(range(38, 101))
  assert clip.others_line == 'another face from 1.52 s to 4.04 s: not followed'
  assert np.nanmax(clip.points[..., 0]) < 400


def test_a_head_that_moves_at_one_frame_a_second(shared):
  detector = FaceDetector(shared('models/yunet_n_dynamic.onnx'))
  clip = tracking.track(shared('failing/t_move1.mp4'), detector, tracking.largest)
  assert not clip.missing.any() and clip.others_line == ''
