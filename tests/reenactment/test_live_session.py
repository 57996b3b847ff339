"""The parts of live mode: the filter, the motion that is held, figures, and sessions of arrays."""

import math
import re
import time as clock
from fractions import Fraction

import cv2
import numpy as np
import pytest
from reenacting import pixels, run

import hybrid_jax
from hybrid_jax.errors import InputError
from hybrid_jax.media import align, stills, video
from hybrid_jax.media.broadcast import open_source
from hybrid_jax.reenactment.live.capture import Capture
from hybrid_jax.reenactment.live.head import Head
from hybrid_jax.reenactment.live.latency import Latency, Stages
from hybrid_jax.reenactment.live.motion import LiveMotion, Manner
from hybrid_jax.reenactment.live.one_euro import Cutoffs, OneEuro
from hybrid_jax.world import clips, people

RATE = 10  # frames a second of the clip
LOST = range(8, 14)  # its frames without a face
SHAPE = (240, 320)
OWN = np.array([160.0, 120.0, 60.0, 0.0])  # the square of the head, before it moves


# --- The filter ----------------------------------------------------------------------------------


def slow_one_euro(values, times, least, slope, cutoff):
  """Algorithm 1 of Casiez et al. 2012, one number at a time, with the rate of each step."""

  def alpha(fc, rate):
    tau = 1.0 / (2.0 * math.pi * fc)
    period = 1.0 / rate
    return 1.0 / (1.0 + tau / period)

  result, before, speed = [], None, 0.0
  for k, x in enumerate(values):
    if before is None:
      before = x
    else:
      rate = 1.0 / (times[k] - times[k - 1])
      a = alpha(cutoff, rate)
      speed = a * (x - before) * rate + (1.0 - a) * speed
      a = alpha(least + slope * abs(speed), rate)
      before = a * x + (1.0 - a) * before
    result.append(before)
  return result


def test_the_filter_is_that_of_the_paper():
  rng = np.random.default_rng(0)
  times = np.cumsum(rng.uniform(0.01, 0.2, 60))  # of a variable rate
  values = np.cumsum(rng.normal(0, 1, (60, 3)), 0)
  fast = OneEuro(Cutoffs(0.7, 0.3, 1.2))
  found = np.stack([fast(value, time) for value, time in zip(values, times, strict=True)])
  for column, wanted in zip(found.T, values.T, strict=True):
    np.testing.assert_allclose(column, slow_one_euro(wanted, times, 0.7, 0.3, 1.2))
  fast.forget()
  np.testing.assert_array_equal(fast(values[5], 99.0), values[5])


def test_the_defaults_steady_a_still_head_and_follow_a_moving_one():
  """In sides of the head: noise of a detector, and a turn of the head at usual speed."""
  rng, times = np.random.default_rng(0), np.arange(200) / 25
  noise = rng.normal(0, 0.01, 200)
  steady = OneEuro(Cutoffs())
  still = np.array([steady(np.array([x]), t)[0] for x, t in zip(noise, times, strict=True)])
  second = lambda x: np.sqrt((np.diff(x, 2) ** 2).mean())  # noqa: E731
  assert second(still[25:]) < 0.25 * second(noise[25:])
  moving = OneEuro(Cutoffs())
  ramp = np.clip(times - 2, 0, 1)  # one side in a second
  shown = np.array([moving(np.array([x]), t)[0] for x, t in zip(ramp, times, strict=True)])
  lag = (ramp - shown)[60:75]  # is the delay in seconds, at a speed of one
  assert lag.max() < 0.06


# --- Motion --------------------------------------------------------------------------------------


def test_a_lost_motion_is_held_faded_and_comes_back():
  row, own, square = np.full(3, 2.0, np.float32), np.zeros(3, np.float32), OWN
  motion = LiveMotion(own, Manner(hold=1.0, fade=2.0, in_plane=False))
  motion.miss(-1.0)
  np.testing.assert_array_equal(motion.shown()[0], 0)  # never seen
  motion.see(row, square, 0.0, True)
  for time, part in ((0.5, 1), (1.0, 1), (2.0, 0.5), (2.5, 0.25), (4.0, 0.0), (9.0, 0.0)):
    motion.miss(time)
    np.testing.assert_allclose(motion.shown()[0], part * row, atol=1e-6)
  for time, part in ((9.1, 0.5), (9.2, 1.0), (9.3, 1.0)):
    motion.see(row, square, time, False)
    np.testing.assert_allclose(motion.shown()[0], part * row, atol=1e-6)
  motion = LiveMotion(own, Manner(hold=1.0, fade=0.0, in_plane=False))
  motion.see(row, square, 0.0, True)
  motion.miss(1.01)
  assert motion.weight == 0


def test_relative_motion_starts_anew_at_a_key():
  own, rows = np.array([5.0, 0.0]), [np.array([k, 1.0]) for k in (3.0, 1.0, 2.0, 4.0)]
  squares = [OWN + (10 * k, 0, 0, 0) for k in range(4)]
  motion = LiveMotion(own, Manner(True, 2.0, 0.2))
  motion.calibrate()  # before any face: nothing to start from
  shown = []
  for k, (row, square) in enumerate(zip(rows, squares, strict=True)):
    motion.see(row, square, 0.1 * k, k == 0)
    shown.append(motion.shown())
  for row, place in shown[:2]:
    np.testing.assert_array_equal(row, own)
    np.testing.assert_allclose(place.moved(OWN, 0), OWN)
  np.testing.assert_allclose([row for row, _ in shown[2:]], [(7, 0), (11, 0)])
  # The most neutral frame is the second one: the third is 10 px to its right, times the gain.
  np.testing.assert_allclose(shown[2][1].moved(OWN, 0), OWN + (20, 0, 0, 0), atol=0.5)
  motion.calibrate()
  np.testing.assert_array_equal(motion.shown()[0], own)
  np.testing.assert_allclose(motion.shown()[1].moved(OWN, 0), OWN)


def test_a_square_that_is_fixed_settles_in_a_second(small_clip, detector):
  """Crops of 'clip' and 'fomm' stay where the first second has put them."""
  from hybrid_jax.media import tracking
  from hybrid_jax.media.landmarkers import open_landmarker

  for kind in ('clip', 'fomm'):
    tracker = tracking.Tracker(open_landmarker(detector), tracking.chooser('largest'))
    head = Head(tracker, kind, Cutoffs())
    seen = [head(rgb, Fraction(k, RATE)) for k, rgb in enumerate(small_clip[: LOST[0]])]
    repeated = head(small_clip[0], Fraction(3))
    assert seen[0].cut and not any(one.cut for one in seen[1:])
    assert all(one.square[3] == 0 for one in seen)  # upright
    np.testing.assert_array_equal(repeated.square, head(small_clip[1], Fraction(31, 10)).square)


# --- Figures -------------------------------------------------------------------------------------


def test_latencies_are_counted_without_keeping_them():
  values, latency = np.random.default_rng(0).lognormal(-3, 0.5, 5000), Latency()
  assert latency.quantile(0.5) == 0
  for value in values:
    latency.add(float(value))
  for share in (0.5, 0.95):
    assert latency.quantile(share) == pytest.approx(np.quantile(values, share), rel=0.01)
  assert latency.figures()['latency_worst_ms'] == round(1e3 * values.max(), 2)
  latency.add(1e9)
  assert latency.worst == 1e9 and latency.quantile(0.5) < 1


def test_shares_of_stages_add_up():
  stages = Stages()
  for name in 'ab':
    with stages(name):
      pass
  assert sum(stages.shares().values()) == pytest.approx(1, abs=1e-3)


# --- Sessions ------------------------------------------------------------------------------------


def test_a_session_is_a_function_of_frames(model, inputs):
  """Arrays in, arrays out; the frames of `Model.reenact`."""
  source, driving = stills.read_image(inputs[0]), pixels(inputs[1])[:6]
  session = model.live(source)
  live = np.stack([session(frame, k / 25) for k, frame in enumerate(driving)])
  clip = model.reenact(source, driving, progress=None, quality=False, batch_size=4).frames
  assert np.abs(live.astype(int) - clip).max() <= 1
  np.testing.assert_array_equal(session.hold(0.3), live[-1])
  assert session(driving[0]).shape == session.shape + (3,)  # the time is now
  beside = model.live(hybrid_jax.crop(inputs[0]), layout='side-by-side')
  assert beside.hold().shape == (*beside.shape, 3)  # before any frame
  with pytest.raises(InputError, match=r'frame: float64 \(2, 2\); give'):
    session(np.zeros((2, 2)))
  with pytest.raises(InputError, match='smoth: not an option; options are .*hold'):
    model.live(source, smoth=1)
  with pytest.raises(InputError, match='nowhere.png: no such file'):
    model.live('nowhere.png')


@pytest.fixture(scope='module')
def small_clip():
  """A rendered head that moves, turns and grows; it is away in the frames LOST."""
  draw = clips.Renderer(64)
  person, motion, scene = clips.vectors(people.SPLITS['validation'] + 1, 0, np.linspace(0, 4, 3))
  heads = [cv2.resize(draw(person, m, scene)[0], (160, 160)) for m in motion]
  ground, frames = heads[0][:4, :4].mean((0, 1)), []
  for k in range(20):
    rgb = np.full((*SHAPE, 3), ground, np.uint8)
    if k not in LOST:
      turn, side = 0.15 * np.sin(k), 60 * (1 + 0.1 * np.sin(1.7 * k))
      place = np.array([160 + 3 * k, 120 - k, side * np.cos(turn), side * np.sin(turn)])
      matrix = align.to_picture(place, 160)
      cv2.warpAffine(heads[k % 3], matrix, SHAPE[::-1], rgb, borderMode=cv2.BORDER_TRANSPARENT)
    frames.append(rgb)
  return np.stack(frames)


@pytest.fixture(scope='module')
def detector(shared):
  return str(shared('models/yunet_n_dynamic.onnx'))


@pytest.mark.parametrize('options', [{}, {'motion': 'relative', 'layout': 'pasted'}], ids=str)
def test_a_followed_head_moves_as_in_reenact(model, small_clip, detector, tmp_path, options):
  """Crop, place and expression, with a face that is lost and held, and smoothing off."""
  source, driving = tmp_path / 'source.png', tmp_path / 'driver.mkv'
  stills.write_image(source, small_clip[0])
  with video.VideoWriter(driving, *SHAPE, time_base=Fraction(1, RATE), codec='ffv1') as writer:
    for k, rgb in enumerate(small_clip):
      writer.write(rgb, Fraction(k, RATE))
  session = model.live(
    source, face_detector=detector, min_cutoff=0, hold=9, calibration=0, **options
  )
  live = np.stack([session(rgb, Fraction(k, RATE)) for k, rgb in enumerate(small_clip)])
  options |= {'smooth': 0.0, 'face_detector': detector, 'codec': 'ffv1'}
  reference = {'reference': 0} if 'motion' in options else {}
  run(model, (str(source), str(driving), None), tmp_path / 'a.mp4', **options, **reference)
  assert session.missing == len(LOST)
  assert np.abs(live.astype(int) - pixels(tmp_path / 'a.mp4')).max() <= 1
  assert np.ptp(live, 0).max() > 20


def test_a_lost_face_fades_and_a_size_may_change(model, small_clip, detector):
  session = model.live(small_clip[0], face_detector=detector, min_cutoff=0, hold=0.1, fade=0.2)
  neutral = session.hold(0.0)
  shown = [session(rgb, Fraction(k, RATE)) for k, rgb in enumerate(small_clip[:14])]
  np.testing.assert_array_equal(shown[LOST[0]], shown[LOST[0] - 1])
  change = [np.abs(picture.astype(int) - neutral).mean() for picture in shown]
  assert change[7] > change[9] > 0 and not any(change[11:])
  # The face is back, in frames of twice the size: place and size count from here, as after a cut.
  large = [cv2.resize(rgb, None, fx=2, fy=2) for rgb in small_clip[14:17]]
  back = [session(rgb, Fraction(15 + k, RATE)) for k, rgb in enumerate(large)]
  assert session.missing == len(LOST) and all(picture.shape == neutral.shape for picture in back)
  assert np.abs(back[-1].astype(int) - neutral).mean() > 1


# --- Addresses -----------------------------------------------------------------------------------


def test_what_an_address_lacks_is_one_line():
  cases = {
    'nope://x': 'nope://x: cannot be opened .Protocol not found.',
    'tcp://127.0.0.1:9': 'tcp://127.0.0.1:9: cannot be opened .Connection refused.',
    'rtsp://127.0.0.1:9/a': 'rtsp://127.0.0.1:9/a: cannot be opened .Connection refused.',
    'udp://127.0.0.1:58431': 'sends nothing',
  }
  for name, message in cases.items():
    began = clock.monotonic()
    with Capture(open_source(name), True, 0.4 if 'tcp' in name else 1.0) as capture:
      while not capture.ended:
        capture.take(0.2)
    assert re.search(message, capture.reason) and '\n' not in capture.reason
    # An address that is wrong is not tried again.
    assert name[0] != 'n' or clock.monotonic() - began < 0.9


def test_a_password_is_not_shown():
  source = open_source('rtsp://me:secret@camera.local/live?token=secret')
  assert source.shown == 'rtsp://camera.local/live'
