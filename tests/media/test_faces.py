"""Boxes, squares and crops; YuNet on the reference collection."""

import numpy as np
import pytest

from hybrid_jax.media import MediaError
from hybrid_jax.media import faces as faces_lib
from hybrid_jax.media.faces import FaceDetector, crop_square, overlap, square_box
from hybrid_jax.media.stills import read_image

PORTRAITS = {
  'src_01_astronaut.png': 1,
  'src_02_adams.jpg': 1,
  'src_03_tom_cruise.jpg': 1,
  'src_04_surprised_old_man.jpeg': 1,
  'src_05_neutral_woman.jpeg': 1,
  'src_06_grimace_beard.jpg': 1,  # found only when shrunk
  'src_07_woman_glasses.jpg': 1,
  'src_08_man_sofa.jpg': 1,
  'src_09_group_meeting.jpeg': 4,
  'src_10_aligned_man_glasses.jpg': 1,
}


@pytest.fixture(scope='module')
def detector(request):
  path = request.config.rootpath.parent / 'shared/models/yunet_n_dynamic.onnx'
  if not path.exists():
    pytest.skip('the reference collection is not beside this checkout: no YuNet')
  return FaceDetector(path)


def test_square_box_lies_inside_where_it_fits():
  assert square_box((80, 40, 20, 10), 2.0, (100, 200)) == (70, 25, 40, 40)
  assert square_box((0, 0, 20, 10), 2.0, (100, 200)) == (0, 0, 40, 40)
  assert square_box((190, 95, 10, 5), 4.0, (100, 200)) == (160, 60, 40, 40)


def test_square_box_holds_the_picture_where_it_is_larger():
  x, y, side, _ = square_box((10, 0, 60, 90), 2.0, (100, 120))
  assert side == 180 and x <= 0 and y <= 0 and x + side >= 120 and y + side >= 100
  assert square_box((10, 0, 60, 90), 1.2, (100, 200)) == (0, -8, 108, 108)


def test_crop_square_repeats_the_edge():
  y, x = np.mgrid[:20, :30]
  rgb = np.stack((x, y, 0 * x), -1).astype(np.uint8)
  np.testing.assert_array_equal(crop_square(rgb, (5, 6, 8, 8), 8), rgb[6:14, 5:13])
  crop = crop_square(rgb, (-4, 14, 10, 10), 10)
  np.testing.assert_array_equal(crop[..., 0], np.tile([0] * 5 + [1, 2, 3, 4, 5], (10, 1)))
  np.testing.assert_array_equal(crop[:, 0, 1], [14, 15, 16, 17, 18, 19, 19, 19, 19, 19])


def test_crop_square_does_not_alias():
  stripes = np.zeros((64, 64, 3), np.uint8)
  stripes[:, ::2] = 200
  np.testing.assert_allclose(crop_square(stripes, (0, 0, 64, 64), 16).astype(int), 100, atol=1)
  assert crop_square(stripes, (0, 0, 8, 8), 32).shape == (32, 32, 3)


def test_overlap():
  assert overlap((0, 0, 2, 2), (0, 0, 2, 2)) == 1
  assert overlap((0, 0, 2, 2), (1, 0, 2, 2)) == pytest.approx(1 / 3)
  assert overlap((0, 0, 2, 2), (2, 0, 2, 2)) == 0


@pytest.mark.parametrize('content', [None, b'', b'no model\n' * 99, b'\x08\x07\x12\x04test'])
def test_invalid_detector_files(tmp_path, content):
  path = tmp_path / 'yunet.onnx'
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(MediaError, match='yunet.onnx') as raised:
    FaceDetector(path)
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize('name', PORTRAITS)
def test_faces_of_the_portraits(shared, detector, name):
  rgb = read_image(shared(f'faces/portraits/{name}'))
  faces = detector.detect(rgb)
  assert len(faces) >= PORTRAITS[name]
  areas = [face.box[2] * face.box[3] for face in faces]
  assert areas == sorted(areas, reverse=True)
  for face in faces[: PORTRAITS[name]]:
    x, y, w, h = face.box
    assert face.landmarks.shape == (5, 2) and 0.6 <= face.score <= 1
    assert (face.landmarks > (x, y)).all() and (face.landmarks < (x + w, y + h)).all()
    right_eye, left_eye, nose, right_mouth, left_mouth = face.landmarks
    assert right_eye[0] < left_eye[0] and right_mouth[0] < left_mouth[0]  # the person's right
    assert right_eye[1] < nose[1] < right_mouth[1]


def test_coordinates_do_not_depend_on_the_scale(shared, detector, monkeypatch):
  rgb = read_image(shared('faces/portraits/src_05_neutral_woman.jpeg'))
  full = detector.detect(rgb)[0]
  monkeypatch.setattr(faces_lib, '_LONG_SIDES', (320,))
  assert overlap(detector.detect(rgb)[0].box, full.box) > 0.8


@pytest.mark.parametrize('name', ['cat_face.jpg', 'no_face_photo.jpg', 'one_pixel.png'])
def test_no_face(shared, detector, name):
  assert detector.detect(read_image(shared(f'faces/hostile/{name}'))) == []
