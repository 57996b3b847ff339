"""Outside judges find rendered heads to be faces, and read from them what was rendered.

A thousand heads of 256 px take minutes: experiments/world/measure.py, whose outcome is
experiments/results/heads_world.json.
"""

import cv2
import jax
import numpy as np
import pytest

from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import blendshapes
from hybrid_jax.media import faces
from hybrid_jax.world import clips, landmarks, people
from hybrid_jax.world.parameters import MOTION, SCENE, pack

SIZE = 256  # of what the judges see, px


@pytest.fixture(scope='module')
def draw():
  """Renders a picture of `SIZE` px and its landmarks in px.

  Enlarged from 64 px: the whole suite compiles one size of the renderer.
  """
  renderer = clips.Renderer(64)

  def draw(*vectors):
    image, _, points = renderer(*jax.device_get(vectors))
    image = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    return image, np.asarray(points) * SIZE

  return draw


def test_yunet_finds_each_head_where_it_is(draw, shared):
  """Ten people at random moments."""
  detector = faces.FaceDetector(shared('models/yunet_n_dynamic.onnx'))
  moment, errors = jax.jit(lambda n: people.moment(n, 0)), []
  for n in people.SPLITS['validation'] + np.arange(10):
    image, points = draw(*moment(n))
    found = detector.detect(image)
    assert len(found) == 1 and found[0].score > 0.8
    errors.append(np.linalg.norm(found[0].landmarks - landmarks.five_points(points), axis=1).mean())
  assert np.mean(errors) < 7 and max(errors) < 15  # px of 256


def test_mediapipe_reads_the_rendered_expression(draw, shared):
  pytest.importorskip('mediapipe', reason='needs the extra [mediapipe], which tests do not')
  judge = blendshapes.Landmarker(shared('models/face_landmarker_v2_with_blendshapes.task'))
  person = people.identity(people.SPLITS['validation'] + 3)
  read = lambda **m: judge(draw(person, pack(MOTION, **m), pack(SCENE))[0])  # noqa: E731
  rest = read()
  for name, value in {
    'jaw_open': 0.9, 'smile': 0.9, 'pucker': 1.0, 'blink_left': 1.0, 'blink_right': 1.0,
    'gaze_yaw': 0.4, 'yaw': 0.4, 'pitch': 0.25, 'roll': 0.2,
  }.items():  # fmt: skip
    assert read(**{name: value})[name] > rest[name] + 0.1, name
  assert read(yaw=-0.4)['yaw'] < rest['yaw'] - 0.2
  gaze = lambda **m: judge.read(draw(person, pack(MOTION, **m), pack(SCENE))[0]).gaze  # noqa: E731
  assert gaze(gaze_yaw=0.4)['x'] > gaze()['x'] + 0.2 > gaze(gaze_yaw=-0.4)['x'] + 0.4
  assert gaze(gaze_pitch=0.28)['y'] < gaze(gaze_pitch=-0.28)['y'] - 0.1
  assert judge(np.full((256, 256, 3), 127, np.uint8)) is None
  judge.close()


def test_a_missing_landmarker_is_told(tmp_path):
  with pytest.raises(InputError, match='no such file; give face_landmarker'):
    blendshapes.Landmarker(tmp_path / 'none.task')
