"""Outside judges find rendered heads to be faces, and read from them what was rendered.

A thousand heads take minutes: experiments/world/measure.py, outcome in experiments/results.
"""

import jax
import numpy as np
import pytest

from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import blendshapes
from hybrid_jax.media import faces
from hybrid_jax.world import clips, landmarks, people
from hybrid_jax.world.parameters import MOTION, SCENE, pack


@pytest.fixture(scope='module')
def renderer():
  return clips.Renderer(256)


@pytest.fixture(scope='module')
def heads(renderer):
  """24 people at random moments: images and exact landmarks in px."""
  numbers = people.SPLITS['validation'] + np.arange(24)
  drawn = [renderer(*jax.device_get(people.moment(n, 0))) for n in numbers]
  return [(image, np.asarray(landmarks.five_points(points)) * 256) for image, _, points in drawn]


def test_yunet_finds_each_head_where_it_is(heads, shared):
  detector = faces.FaceDetector(shared('models/yunet_n_dynamic.onnx'))
  errors = []
  for image, points in heads:
    found = detector.detect(image)
    assert len(found) == 1 and found[0].score > 0.8
    errors.append(np.linalg.norm(found[0].landmarks - points, axis=1).mean())
  assert np.mean(errors) < 7 and max(errors) < 15  # px of 256


def test_mediapipe_reads_the_rendered_expression(renderer, shared):
  pytest.importorskip('mediapipe', reason='needs the extra [mediapipe], which tests do not')
  judge = blendshapes.Landmarker(shared('models/face_landmarker_v2_with_blendshapes.task'))
  person = people.identity(people.SPLITS['validation'] + 3)
  read = lambda **m: judge(renderer(person, pack(MOTION, **m), pack(SCENE))[0])  # noqa: E731
  rest = read()
  for name, value in {
    'jaw_open': 0.9, 'smile': 0.9, 'pucker': 1.0, 'blink_left': 1.0, 'blink_right': 1.0,
    'gaze_yaw': 0.4, 'yaw': 0.4, 'pitch': 0.25, 'roll': 0.2,
  }.items():  # fmt: skip
    assert read(**{name: value})[name] > rest[name] + 0.1, name
  assert read(yaw=-0.4)['yaw'] < rest['yaw'] - 0.2
  gaze = lambda **m: judge.read(renderer(person, pack(MOTION, **m), pack(SCENE))[0]).gaze  # noqa: E731
  assert gaze(gaze_yaw=0.4)['x'] > gaze()['x'] + 0.2 > gaze(gaze_yaw=-0.4)['x'] + 0.4
  assert gaze(gaze_pitch=0.28)['y'] < gaze(gaze_pitch=-0.28)['y'] - 0.1
  assert judge(np.full((256, 256, 3), 127, np.uint8)) is None
  judge.close()


def test_a_missing_landmarker_is_told(tmp_path):
  with pytest.raises(InputError, match='no such file; give face_landmarker'):
    blendshapes.Landmarker(tmp_path / 'none.task')
