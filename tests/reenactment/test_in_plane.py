"""The driver's roll, shift and size: recovered, put back, and left out."""

from fractions import Fraction

import numpy as np
import pytest
from reenacting import frames_of, pixels, run
from small import SIZE

from hybrid_jax import extract_motion
from hybrid_jax.media import align, stills, tracking, video
from hybrid_jax.reenactment import api, in_plane, motion_file, options, render
from hybrid_jax.reenactment.inputs import Input, Inputs

FACE = np.array([(-3, -2), (3, -2), (0, 1), (-2, 4), (2, 4)], float)  # upright, around its middle
RATE = 10


def points(*poses):
  """Landmarks (t, 5, 2) of a face with (centre x, y, size, roll in degrees, clockwise)."""
  centre, size, turn = (
    np.array(v) for v in zip(*((p[:2], p[2], p[3]) for p in poses), strict=True)
  )
  z = (FACE[:, 0] + 1j * FACE[:, 1]) * (size * np.exp(1j * np.radians(turn)))[:, None]
  return np.stack((z.real, z.imag), -1) + centre[:, None]


def motion_of(squares, starts=(0,)):
  ticks = np.arange(len(squares))
  return motion_file.Motion(None, ticks, Fraction(1, RATE), (), starts, '', '', squares)


def pose(square):
  """(cx, cy, side, roll in degrees)"""
  return [*square[:2], align.side_of(square), np.degrees(np.arctan2(square[3], square[2]))]


def test_a_known_similarity_is_recovered():
  """Relative to the reference: in its own axes, and from where the source's head is."""
  squares = align.ffhq(points((50, 40, 1, 0), (52.5, 41, 1.5, 20), (48, 39, 0.5, -10)))
  found = in_plane.measure(motion_of(squares), 0, 1.0, 0.0)
  source = np.array([200.0, 100.0, 0.0, 30.0])  # lies on its side: its right is the picture's down
  side = 2 * 30 / align.side_of(squares[0])
  shift = squares[1, :2] - squares[0, :2]
  wanted = [200 - side * shift[1], 100 + side * shift[0], 90, 110]
  np.testing.assert_allclose(pose(found.moved(source, 0)), pose(source))
  np.testing.assert_allclose(pose(found.moved(source, 1)), wanted)
  for row in range(3):
    np.testing.assert_allclose(found.still(found.moved(source, row), row), source)
    np.testing.assert_allclose(found.still(squares[row], row), squares[0])
  other = in_plane.measure(motion_of(squares), 1, 1.0, 0.0)
  np.testing.assert_allclose(pose(other.moved(source, 1)), pose(source))
  np.testing.assert_allclose(pose(other.moved(source, 0))[2:], [60 / 1.5, 70])


def test_gain_scales_roll_shift_and_size():
  squares = align.ffhq(points((50, 40, 1, 0), (60, 45, 1.5, 20)))
  source = np.array([9.0, 9.0, 2.0, 0.0])
  still, double = (in_plane.measure(motion_of(squares), 0, gain, 0.0) for gain in (0.0, 2.0))
  np.testing.assert_allclose(still.moved(source, 1), source)
  np.testing.assert_allclose(pose(double.moved(source, 1))[2:], [4 * 1.5**2, 40])


@pytest.mark.parametrize('lies', [0, 90, 180, 270])
def test_absolute_motion_has_the_drivers_own_roll(lies):
  """As it has the two other angles; a clip that lies on its side is taken for upright."""
  squares = align.ffhq(points((50, 40, 1, lies + 12), (50, 40, 1, lies - 7)))
  found = in_plane.measure(motion_of(squares), None, 1.0, 0.0)
  for turn in (0, 90, 180, -90):
    tilt = np.radians(turn + 25)
    base = found.base(np.array([20.0, 20.0, 30 * np.cos(tilt), 30 * np.sin(tilt)]))
    rolls = [pose(found.moved(base, row))[3] - turn for row in (0, 1)]
    np.testing.assert_allclose((np.array(rolls) + 180) % 360 - 180, [12, -7], atol=1e-9)


def test_each_shot_begins_where_the_sources_head_is():
  squares = align.ffhq(points((9, 9, 1, 0), (12, 9, 1, 0), (90, 70, 3, 5), (90, 73, 3, 5)))
  motion, source = motion_of(squares, (0, 2)), np.array([20.0, 20.0, 5.0, 0.0])
  for reference in (None, 1):
    found = in_plane.measure(motion, reference, 1.0, 0.0)
    places = [pose(found.moved(source, row)) for row in range(4)]
    np.testing.assert_allclose(places[2], [20, 20, 10, 5])  # the roll is not the camera's
    np.testing.assert_allclose(places[1 if reference else 0], pose(source))
    assert places[3][1] > 20


def test_a_missing_face_stays_at_its_last_place():
  squares = np.arange(24.0).reshape(6, 4)
  missing = np.array([1, 0, 1, 1, 0, 0], bool)
  rows = in_plane.held(squares, missing, (0, 3))[:, 0] / 4
  np.testing.assert_array_equal(rows, [0, 1, 1, 3, 4, 5])


def test_jitter_of_a_detector_is_smoothed():
  """A still head with noise of 1 px in each landmark: the corners move by a fraction of it."""
  rng = np.random.default_rng(0)
  noisy = points(*[(200, 150, 10, 0)] * 100) + rng.normal(0, 1, (100, 5, 2))
  ticks, nowhere = np.arange(100), np.zeros((100, 4))
  track = tracking.Track(ticks, Fraction(1, 25), noisy, nowhere, (0,), (300, 400), '')
  shake = []
  for seconds in (0.0, options.CropOptions().smooth):
    found = in_plane.measure(motion_of(tracking.squares(track, 'ffhq', seconds)), None, 1, 0)
    corners = [align.corners(found.moved(np.array([50, 50, 50, 0.0]), k)) for k in range(100)]
    shake.append(np.sqrt((np.diff(corners, 2, 0) ** 2).sum(-1).mean()))
  assert shake[0] > 3 and shake[1] < 0.25


# --- Compositing ---------------------------------------------------------------------------------


def still_input(rgb, square):
  size, none = rgb.shape[:2], np.zeros((1, 5, 2))
  track = tracking.Track(np.zeros(1, int), Fraction(1), none, none[:, :4, 0], (0,), size, '')
  return Input('array', track, square[None], rgb, 'ffhq', True)


def centre_of(red):
  """(x, y) of the middle of what is red."""
  weight = np.maximum(red[..., 0].astype(float) - red[..., 1], 0)
  y, x = np.indices(weight.shape) + 0.5
  return [(weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()]


def test_the_head_lands_where_the_drivers_goes():
  """The source's own head, blue, is covered; the gap behind the new one is filled."""
  y, x = np.indices((64, 64)) - 31.5
  head = np.full((64, 64, 3), 90, np.uint8)
  head[np.hypot(x + 9, y) < 6] = (255, 0, 0)  # off the middle: its place shows roll and size
  square = np.array([100.0, 70.0, 32.0, 0.0])
  rgb = np.full((160, 200, 3), 90, np.uint8)
  rgb[50:90, 80:120] = (0, 0, 255)
  squares = align.ffhq(points((50, 40, 2, 0), (57, 37, 2.6, 40)))
  scale = 64 / align.side_of(squares[0])
  place = in_plane.measure(motion_of(squares), 0, 1.0, 0.0)
  images, rows, times = [head] * 2, np.arange(2), np.zeros(2)
  turned = 1.3 * 9 * np.array([-np.cos(np.radians(40)), -np.sin(np.radians(40))])
  moved = scale * (squares[1, :2] - squares[0, :2]) + turned
  for layout, start in (('pasted', square[:2]), ('result', (32, 32))):
    arrange = render.Layout(layout, Inputs(still_input(rgb, square), None), 64, place)
    first, last = arrange(images, rows, rows, times)
    np.testing.assert_allclose(centre_of(first), np.array(start) - (9, 0), atol=0.1)
    np.testing.assert_allclose(centre_of(last), start + moved, atol=0.3)
    if layout == 'pasted':
      assert (last[..., 2] < 110).all()  # no blue is left; cubic sampling overshoots
      np.testing.assert_array_equal(last[:20, :20], rgb[:20, :20])
    else:
      np.testing.assert_array_equal(first, head)
      np.testing.assert_array_equal(last[[0, 0, -1], [0, -1, 0]], 90)


@pytest.fixture
def turning(inputs, tmp_path):
  """Options with landmarks of a driving head that turns, moves and is missing in two frames."""
  poses = [(12 + k / 4, 14, 1 + k / 50, k) for k in range(len(inputs[2]))]
  found = points(*poses)
  found[[7, 8]] = np.nan
  np.savez(tmp_path / 'turning.npz', landmarks=found)
  return {'driving_landmarks': str(tmp_path / 'turning.npz'), 'crop': 'ffhq', 'smooth': 0.0}


def heads_of(inputs, given):
  """The crops that the model sees, of the frames with a face."""
  with np.load(given['driving_landmarks']) as file:
    squares = align.ffhq(file['landmarks'])
  frames = zip(frames_of(inputs[1]), squares, strict=True)
  return [align.cut(f.rgb, square, SIZE) for f, square in frames if np.isfinite(square[0])], squares


def test_the_option_turns_it_off_and_on(model, inputs, turning, tmp_path, capsys):
  """Off, the pictures are those of the networks; on, they are these, moved."""
  run(model, inputs, tmp_path / 'off.mkv', codec='ffv1', in_plane=False, **turning)
  assert 'put back' not in capsys.readouterr().out
  run(model, inputs, tmp_path / 'on.mkv', codec='ffv1', **turning)
  assert 'roll of 0 to 22 degrees' in capsys.readouterr().out
  off, on = pixels(tmp_path / 'off.mkv'), pixels(tmp_path / 'on.mkv')
  heads, squares = heads_of(inputs, turning)
  W_S = model.identity(stills.read_image(inputs[0]))
  alone = np.stack(list(model.images(W_S, model.deformations(heads, 4), 4)))
  np.testing.assert_array_equal(np.delete(off, [7, 8], 0)[:4], alone[:4])
  np.testing.assert_array_equal(on[8], on[6])  # held, place and all
  own = align.upright((0, 0, SIZE, SIZE))
  squares[7:9] = squares[6]
  place = in_plane.measure(motion_of(squares), None, 1.0, 0.0)
  expected = [align.cut(rgb, place.still(own, k), SIZE) for k, rgb in enumerate(off)]
  np.testing.assert_array_equal(on, expected)
  assert (on[-1] != off[-1]).any() and (on[0] == off[0]).all()


def test_a_motion_file_and_the_api_do_the_same(model, inputs, turning, tmp_path):
  run(model, inputs, tmp_path / 'clip.mkv', codec='ffv1', **turning)
  wanted, path = pixels(tmp_path / 'clip.mkv'), str(tmp_path / 'm.safetensors')
  flags = [f'--{k.replace("_", "-")}={v}' for k, v in turning.items()]
  arguments = [f'--driving={inputs[1]}', f'--output={path}', '--batch-size=4', *flags]
  extract_motion.extract_motion(model, extract_motion.parse_args(arguments))
  run(model, inputs, tmp_path / 'file.mkv', codec='ffv1', driving=path)
  np.testing.assert_array_equal(pixels(tmp_path / 'file.mkv'), wanted)
  given = {'progress': None, 'quality': False, 'batch_size': 4, **turning}
  clip = api.reenact(model, inputs[0], inputs[1], **given)
  np.testing.assert_array_equal(clip.frames, wanted)
  assert clip.record['options']['in_plane'] is True
  level = api.reenact(model, inputs[0], inputs[1], in_plane=False, **given)
  assert (level.frames[-1] != wanted[-1]).any() and level.record['options']['in_plane'] is False


def test_a_resumed_run_moves_on(model, inputs, turning, tmp_path, monkeypatch):
  monkeypatch.setattr(render, 'SEGMENT', 8)
  given = {'codec': 'ffv1', 'layout': 'grid', 'on_missing': 'skip', **turning}
  run(model, inputs, tmp_path / 'whole.mkv', **given)
  real, left = video.VideoWriter.write, iter(range(12))

  def write(self, rgb, time):
    if next(left, None) is None:
      raise RuntimeError('killed')
    real(self, rgb, time)

  with monkeypatch.context() as patch:
    patch.setattr(video.VideoWriter, 'write', write)
    with pytest.raises(RuntimeError):
      run(model, inputs, tmp_path / 'killed.mkv', **given)
  run(model, inputs, tmp_path / 'killed.mkv', **given)
  np.testing.assert_array_equal(pixels(tmp_path / 'killed.mkv'), pixels(tmp_path / 'whole.mkv'))


@pytest.mark.parametrize('crop', ['clip', 'whole', 'ffhq'])
def test_a_fixed_square_has_nothing_to_put_back(model, inputs, tmp_path, crop):
  """Also where each frame is aligned to the same landmarks, of a tilted head."""
  given = {'crop': crop, 'codec': 'ffv1', 'layout': 'pasted'}
  face = points(*[(16, 14, 1.5, 9)] * len(inputs[2]))
  if crop == 'clip':
    face[3:] += 2  # moves within the square of its clip
  np.savez(tmp_path / 'fixed.npz', landmarks=face)
  given['driving_landmarks'] = str(tmp_path / 'fixed.npz')
  for name, on in (('on', True), ('off', False)):
    run(model, inputs, tmp_path / f'{name}.mkv', in_plane=on, **given)
  np.testing.assert_array_equal(pixels(tmp_path / 'on.mkv'), pixels(tmp_path / 'off.mkv'))


def test_a_head_that_crosses_the_picture_stays_in_its_square():
  """Small shifts are the driver's own, larger ones approach a limit in the same direction."""
  steps = np.array([0.0, 0.2, 0.3, 1.0, -8.0])
  squares = np.tile([100.0, 80.0, 20.0, 0.0], (5, 1))
  squares[:, 0] += 20 * steps
  shift = in_plane.measure(motion_of(squares), None, 1.0, 0.0).shift
  np.testing.assert_allclose(shift[:3], steps[:3], atol=1e-12)
  assert in_plane.FREE < shift[3].real < -shift[4].real <= in_plane.MOST and not shift.imag.any()
