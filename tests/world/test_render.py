"""The renderer: deterministic, finite, and its landmarks and masks are where the image has them."""

import jax
import jax.numpy as jnp
import numpy as np
import outcomes
import pytest

from hybrid_jax.world import clips, landmarks, latent, people, render
from hybrid_jax.world.outfits import OUTFIT
from hybrid_jax.world.parameters import IDENTITY, MOTION, SCENE, pack, sample_identity, unpack

SIZE = 64


@pytest.fixture(scope='module')
def draw():
  """Image and masks in [0, 1], of 256 steps, and landmarks; with the program of other tests."""
  renderer = clips.Renderer(SIZE)

  def draw(identity=None, motion=None, scene=None, outfit=None):
    image, masks, points = renderer(
      pack(IDENTITY, glasses=-1, fringe=-1) if identity is None else identity,
      pack(MOTION) if motion is None else motion,
      pack(SCENE) if scene is None else scene,
      outfit,
    )
    return image.astype(np.float32) / 255, masks.astype(np.float32) / 255, points

  return draw


def centre(mask):
  y, x = np.mgrid[:SIZE, :SIZE] + 0.5
  return np.array([(x * mask).sum(), (y * mask).sum()]) / mask.sum() / SIZE


def test_the_same_vectors_give_the_same_image(draw):
  vectors = jax.device_get(people.moment(3, 1))
  first, second = draw(*vectors), draw(*(np.array(v) for v in vectors))
  for a, b in zip(first, second, strict=True):
    np.testing.assert_array_equal(a, b)
  image, masks, points = first
  assert image.shape == (SIZE, SIZE, 3) and image.std() > 0.05
  assert masks.shape == (SIZE, SIZE, len(render.REGIONS)) and points.shape == (68, 2)


ENDS = np.cumsum([len(IDENTITY), len(MOTION), len(SCENE)])


def test_finite_over_the_cube_of_parameters(draw):
  """At corners and in between. A value that is not finite becomes byte 0, which no finite one is:
  before the gamma curve the least is 1e-5.
  """
  cube = np.random.default_rng(0).uniform(size=(50, ENDS[-1])).astype(np.float32)
  cube[::3] = cube[::3].round()
  for row in cube:
    image, _, points = draw(*np.split(row, ENDS[:2]))
    assert image.min() > 0 and image.std() > 0 and np.isfinite(points).all()
  assert np.asarray(clips.to_byte(jnp.array([np.nan, 0.0053]))).tolist() == [0, 1]


@pytest.mark.slow
def test_finite_over_10_000_draws():
  """Over the whole cube of parameters, corners included, at 4 px."""

  def one(key):
    u = jax.random.uniform(key, (ENDS[-1],))
    u = jnp.where(jax.random.uniform(jax.random.fold_in(key, 1)) < 0.3, jnp.round(u), u)
    i, m, s = jnp.split(u, ENDS[:2])
    image, masks = render.render_regions(i, m, s, 4)
    return jnp.isfinite(image).all() & jnp.isfinite(masks).all() & (image.std() > 0)

  good = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=100))(
    jax.random.split(jax.random.key(0), 10_000)
  )
  assert bool(good.all())
  outcomes.write(draws=len(good), finite=int(good.sum()))


def test_landmarks_of_mirrored_poses_are_mirrored():
  """A person without asymmetric traits, turned left and right: exact, by symmetry alone."""
  mirror = np.r_[16:-1:-1, 26:16:-1, 27:31, 35:30:-1, 45:41:-1, 47, 46, 39:35:-1, 41, 40]
  mirror = np.r_[mirror, 54:47:-1, 59:54:-1, 64:59:-1, 67:64:-1]
  identity = pack(IDENTITY)
  motion = {'yaw': 0.4, 'roll': 0.1, 'mouth_shift': 0.5, 'blink_left': 1.0, 'jaw_open': 0.5}
  turned = {'yaw': -0.4, 'roll': -0.1, 'mouth_shift': -0.5, 'blink_right': 1.0, 'jaw_open': 0.5}
  a = landmarks.landmarks(identity, pack(MOTION, **motion))
  b = landmarks.landmarks(identity, pack(MOTION, **turned))
  np.testing.assert_allclose(a[mirror, 0], 1 - b[:, 0], atol=2e-3)
  np.testing.assert_allclose(a[mirror, 1], b[:, 1], atol=2e-3)


@pytest.mark.parametrize('number', range(6))
def test_masks_lie_on_the_landmarks(draw, number):
  identity, motion, scene = jax.device_get(people.moment(people.SPLITS['validation'] + number, 0))
  motion = motion.copy()
  motion[list(MOTION).index('yaw')] = 0.5  # faces forward, so that both sides are seen
  _, masks, points = draw(identity, motion, scene)
  regions = dict(zip(render.REGIONS, np.moveaxis(masks, -1, 0), strict=True))
  assert np.linalg.norm(centre(regions['mouth']) - points[landmarks.MOUTH].mean(0)) < 0.03
  eyes = (points[landmarks.RIGHT_EYE].mean(0) + points[landmarks.LEFT_EYE].mean(0)) / 2
  assert np.linalg.norm(centre(regions['eyes']) - eyes) < 0.03
  assert np.linalg.norm(centre(regions['brows']) - points[landmarks.BROWS].mean(0)) < 0.04
  assert regions['face'].sum() > 5 * regions['mouth'].sum()


def test_the_pupils_are_dark_where_the_eyes_are(draw):
  """Pixels against landmarks: eye centres darker than the white beside them, lids when shut not."""
  identity = pack(IDENTITY, glasses=-1, fringe=-1, eye_light=0, skin=0.1, hooded=0)
  image, _, points = draw(identity)
  for eye in (landmarks.RIGHT_EYE, landmarks.LEFT_EYE):
    x, y = (points[eye].mean(0) * SIZE).astype(int)
    assert image[y, x].mean() < 0.6 * image[y + 6, x].mean()  # pupil against cheek
  shut, _, _ = draw(identity, pack(MOTION, blink_left=1, blink_right=1))
  assert shut[y - 1 : y + 1, x].mean() > image[y - 1 : y + 1, x].mean()


def test_each_motion_parameter_does_what_its_name_says(draw):
  rest = draw()[2]
  eye_open = lambda p, eye: p[eye][4:6, 1].sum() - p[eye][1:3, 1].sum()  # noqa: E731

  def moved(**motion):
    return draw(motion=pack(MOTION, **motion))[2]

  assert moved(yaw=0.5)[30, 0] > rest[30, 0] + 0.03  # nose to the image's right
  assert moved(pitch=0.3)[30, 1] < rest[30, 1] - 0.01  # and up
  tilt = moved(roll=0.2)
  assert tilt[45, 1] < rest[45, 1] and tilt[36, 1] > rest[36, 1]  # counter-clockwise
  assert moved(jaw_open=1)[66, 1] > rest[66, 1] + 0.03  # lower lip falls
  smile, pucker = moved(smile=1), moved(pucker=1)
  assert smile[48, 1] < rest[48, 1] - 0.01 and smile[48, 0] < rest[48, 0]
  assert pucker[54, 0] - pucker[48, 0] < 0.8 * (rest[54, 0] - rest[48, 0])
  assert moved(lip_raise=1)[62, 1] < rest[62, 1] - 0.005
  assert moved(mouth_shift=1)[57, 0] > rest[57, 0] + 0.005
  assert moved(brow_raise=1)[19, 1] < rest[19, 1] - 0.01
  assert moved(brow_frown=1)[21, 1] > rest[21, 1] + 0.005
  # The person's left eye is at the image's right.
  wink = moved(blink_left=1)
  assert eye_open(wink, landmarks.LEFT_EYE) < 0.2 * eye_open(rest, landmarks.LEFT_EYE)
  assert eye_open(wink, landmarks.RIGHT_EYE) > 0.9 * eye_open(rest, landmarks.RIGHT_EYE)
  assert eye_open(moved(squint=1), landmarks.LEFT_EYE) < 0.8 * eye_open(rest, landmarks.LEFT_EYE)


def test_gaze_and_tongue_change_only_eyes_and_mouth(draw):
  image, masks, _ = draw()
  mouth, eyes = masks[..., 0] > 0, masks[..., 1] > 0
  for motion, region in (({'gaze_yaw': 0.4}, eyes), ({'gaze_pitch': 0.1}, eyes)):
    other = draw(motion=pack(MOTION, **motion))[0]
    change = np.abs(other - image).max(-1)
    assert change[region].max() > 0.15
    assert change[~region].mean() < 0.1 * change[region].mean()
  talk, tongue = (draw(motion=pack(MOTION, jaw_open=0.8, tongue_out=x))[0] for x in (0, 1))
  assert np.abs(talk - tongue)[mouth].max() > 0.1


def test_the_crop_is_ffhqs(draw):
  """Side: the larger of 4 eye distances and 3.6 eye-to-mouth; centre a tenth below the eyes."""
  identity = pack(IDENTITY)
  points = landmarks.five_points(landmarks.landmarks(identity, pack(MOTION)))
  eyes, mouth = points[:2].mean(0), points[3:].mean(0)
  eye_to_mouth = np.linalg.norm(mouth - eyes)
  side = max(4 * np.linalg.norm(points[1] - points[0]), 3.6 * eye_to_mouth)
  assert side == pytest.approx(1, abs=0.06)
  assert eyes[0] == pytest.approx(0.5, abs=0.01)
  assert eyes[1] == pytest.approx(0.5 - 0.1 * eye_to_mouth, abs=0.02)


def test_every_identity_and_scene_parameter_shows(draw):
  """At a base that wears everything, so that no parameter hides another."""
  shown = {'glasses': 0.5, 'fringe': 0.3, 'hair_length': 0.6, 'beard': 0.5, 'age': 0.5}
  rest, _, _ = draw(pack(IDENTITY, **shown, lip_tint=0.6, grey=-2), pack(MOTION, smile=0.3))
  for table, name in [(t, n) for t in (IDENTITY, SCENE) for n in t]:
    changes = []
    for end in table[name]:
      values = {name: end}
      if table is IDENTITY:
        values = shown | {'lip_tint': 0.6, 'grey': -2} | values
        if name == 'moustache':
          values['beard'] = -0.9
        if name == 'eye_hue':
          values['eye_light'] = 1.0
        if name == 'hair_red':
          values['hair_dark'] = 0.0
      identity = pack(IDENTITY, **values) if table is IDENTITY else pack(IDENTITY, **shown)
      scene = pack(SCENE, **values) if table is SCENE else pack(SCENE)
      changes.append(draw(identity, pack(MOTION, smile=0.3), scene)[0])
    assert np.abs(changes[0] - changes[1]).max() > 0.02, name


def test_pack_and_unpack_are_inverse_and_refuse_unknown_names():
  values = unpack(MOTION, pack(MOTION, yaw=0.3, smile=-0.4))
  assert float(values.yaw) == pytest.approx(0.3) and float(values.smile) == pytest.approx(-0.4)
  assert all(
    float(x) == pytest.approx(0, abs=1e-6)
    for n, x in vars(values).items()
    if n not in ('yaw', 'smile')
  )
  with pytest.raises(KeyError, match='no parameter smlie; choose from yaw'):
    pack(MOTION, smlie=1)


def test_motion_is_a_function_of_time_and_key():
  t = jnp.array([0.0, 1.3, 7.7])
  clip = people.act(7, 0, t)
  # Entered again at one moment: the same to rounding.
  np.testing.assert_allclose(people.act(7, 0, t[1:2])[0], clip[1], atol=1e-5)
  assert np.abs(people.act(7, 1, t) - clip).max() > 0.05
  assert np.abs(people.act(8, 0, t) - clip).max() > 0.05


def test_clips_blink_talk_and_look_about():
  t = jnp.arange(0, 60, 0.04)
  motion = np.asarray(people.act(11, 0, t))
  assert motion.min() >= 0 and motion.max() <= 1
  named = {name: motion[:, k] for k, name in enumerate(MOTION)}
  blinks = np.diff((named['blink_left'] > 0.5).astype(int)).clip(0).sum()
  assert 12 <= blinks <= 40  # about one in three seconds
  assert np.abs(np.diff(motion, axis=0)).max(0)[0] < 0.05  # the head does not jump
  assert all(channel.std() > 0.02 for channel in named.values())


def test_people_are_drawn_with_their_correlations():
  drawn = jax.vmap(sample_identity)(jax.random.split(jax.random.key(1), 2000))
  named = {name: np.asarray(drawn[:, k]) for k, name in enumerate(IDENTITY)}
  assert min(x.min() for x in named.values()) >= 0 and max(x.max() for x in named.values()) <= 1
  assert np.corrcoef(named['skin'], named['hair_dark'])[0, 1] > 0.3
  assert np.corrcoef(named['beard'], named['hair_length'])[0, 1] < -0.3
  lo, hi = IDENTITY['glasses']
  assert 0.2 < np.mean(lo + (hi - lo) * named['glasses'] > 0) < 0.5


def test_z_keeps_the_length_of_its_parameters():
  """Two people, one a stretched copy of the other, differ also after the mapping's pixel norm."""
  i, m, s = people.moment(0, 0)
  z = jnp.stack([latent.z(x, m, s, 128) for x in (i, 0.5 + 0.5 * (i - 0.5))])
  normed = z * jax.lax.rsqrt(jnp.mean(jnp.square(z), -1, keepdims=True))
  assert float(jnp.abs(normed[0] - normed[1]).max()) > 0.1
  assert z.shape == (2, 128) and float(z[0, -1]) == 2


@pytest.mark.slow
def test_outfits_are_worn_where_they_belong(draw):
  wear = lambda outfit: draw(outfit=outfit)[0]  # noqa: E731
  nothing = {name: -1.0 for name, (low, _) in OUTFIT.items() if low < 0}
  bare = wear(pack(OUTFIT, **nothing))
  np.testing.assert_allclose(bare, draw()[0], atol=0.02)  # what is not worn is not seen
  for name, (x, y), (least, most) in (
    ('cap', (0.5, 0.15), (0.08, 0.5)),
    ('patch', (0.63, 0.47), (0.005, 0.15)),
    ('nose', (0.5, 0.62), (0.005, 0.08)),
    ('bars', (0.5, 0.62), (0.005, 0.2)),
    ('half', (0.65, 0.6), (0.05, 0.4)),
    ('clown', (0.5, 0.6), (0.1, 0.6)),
  ):
    image = wear(pack(OUTFIT, **nothing | {name: 1.0}))
    changed = (np.abs(image - bare).max(-1) > 0.1).astype(float)
    assert least < changed.mean() < most, name
    np.testing.assert_allclose(centre(changed), (x, y), atol=0.1, err_msg=name)
  outcomes.write(outfits=6)
