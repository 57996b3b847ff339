"""The re-enactment command on real clips and photographs."""

import numpy as np
import pytest
from ml_collections import ConfigDict
from reenacting import frames_of, packets, pixels, run

from configs import common
from hybrid_jax.media import stills, video
from hybrid_jax.media.composite import even, fit
from hybrid_jax.media.faces import FaceDetector
from hybrid_jax.method import networks
from hybrid_jax.reenactment.inputs import open_picture
from hybrid_jax.reenactment.model import Model
from hybrid_jax.reenactment.options import CropOptions


@pytest.mark.parametrize('name', ['drive_01_conan_obrien.mp4', 'drive_02_vfr_man_suit.mp4'])
def test_times_and_sound_of_real_clips_come_through(model, inputs, shared, tmp_path, name):
  """29.97 frames a second, and a variable rate; the face is found once, to save time."""
  driving = shared(f'faces/driving/{name}')
  times = [time for time, _ in packets(driving, 'video')]
  detector = FaceDetector(shared('models/yunet_n_dynamic.onnx'))
  face = detector.detect(next(video.read_frames(driving)).rgb)[0]
  np.savez(tmp_path / 'face.npz', landmarks=np.tile(face.landmarks, (len(times), 1, 1)))
  options = {'driving': str(driving), 'driving_landmarks': str(tmp_path / 'face.npz')}
  run(model, inputs, tmp_path / 'a.mp4', **options)
  assert [time for time, _ in packets(tmp_path / 'a.mp4', 'video')] == times
  assert packets(tmp_path / 'a.mp4', 'audio') == packets(driving, 'audio')


def test_a_detector_finds_both_faces(model, inputs, shared, tmp_path, capsys):
  """Photographs with a detector, a moving background, ten frames without a face."""
  detector = str(shared('models/yunet_n_dynamic.onnx'))
  clip = str(shared('faces/hostile/black_start.mp4'))
  portrait = str(shared('faces/portraits/src_05_neutral_woman.jpeg'))
  options = {'driving': clip, 'source': portrait, 'face_detector': detector, 'layout': 'pasted'}
  assert run(model, inputs, tmp_path / 'a.mp4', **options) == 40
  output = capsys.readouterr().out
  assert (
    output.count('crop ffhq') == 2 and output.count('no face in 10 of 40 frames (0-9): hold') == 2
  )
  assert pixels(tmp_path / 'a.mp4')[0].shape[:2] == even(stills.read_image(portrait)).shape[:2]


def test_the_face_that_looks_like_a_picture(shared, tmp_path):
  """The bundled embedder chooses between two people side by side, in either order."""
  paths = [
    shared(f'faces/portraits/{n}') for n in ('src_03_tom_cruise.jpg', 'src_05_neutral_woman.jpeg')
  ]
  detector = str(shared('models/yunet_n_dynamic.onnx'))
  heads = [fit(stills.read_image(path), (256, 256)) for path in paths]
  config = ConfigDict(common.heads())
  shipped = Model(config, networks.build(config.model), {}, {}, 0, 'shipped')
  for order in ((0, 1), (1, 0)):
    stills.write_image(tmp_path / 'both.png', np.hstack([heads[k] for k in order]))
    for k, path in enumerate(paths):
      crop_options = CropOptions(detector, face=f'like={path}')
      found = open_picture(str(tmp_path / 'both.png'), crop_options, shipped)
      assert (found.squares[0, 0] < 256) == (order[0] == k)


def test_a_clip_that_breaks_off_is_rendered_that_far(model, inputs, shared, tmp_path, capsys):
  driving = str(shared('faces/hostile/truncated_mid.mp4'))
  assert run(model, inputs, tmp_path / 'a.mp4', driving=driving) == 30
  assert 'breaks off after 30 frames' in capsys.readouterr().out.splitlines()[-2]
  assert len(frames_of(tmp_path / 'a.mp4')) == 30
