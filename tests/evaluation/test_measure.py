"""One pair of clips: which frames and clips are measured, and what is left out."""

import dataclasses

import jax
import numpy as np
import pytest
from evaluating import SIZE, clips, write_clip
from parity import GOLDEN

from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import measure, networks, results
from hybrid_jax.evaluation.pairing import Pair


def test_a_clip_that_breaks_off_leaves_nothing_in_the_sets(tmp_path):
  path, reference = tmp_path / 'a.mp4', tmp_path / 'reference.npy'
  (clip,) = clips(0)
  write_clip(path, clip)
  np.save(reference, clip)
  whole = path.read_bytes()
  evaluation = measure.Evaluation(
    networks.Networks(rendered=True, rows=4), measure.Protocol(SIZE, 500, 9)
  )
  pair = Pair('a', path, reference, None)
  path.write_bytes(whole[: len(whole) * 2 // 3])
  with pytest.raises(ValueError, match='a.mp4'):
    evaluation.measure(pair)
  assert not evaluation.sets
  path.write_bytes(whole)
  evaluation.measure(pair)
  assert evaluation.sets['fid_judge'][0].count == 20
  assert evaluation.sets['fvd_judge'][0].count == 2


def test_every_device_has_its_rows(tmp_path):
  (clip,) = clips(5, frames=21)
  for side in ('reference', 'generated'):
    np.save(tmp_path / f'{side}.npy', clip)
  nets = networks.Networks(rows=2)
  given, closeness = [], nets.closeness
  nets.closeness = lambda x, y: given.append(len(x)) or closeness(x, y)
  pair = Pair('a', tmp_path / 'generated.npy', tmp_path / 'reference.npy', None)
  measure.Evaluation(nets, measure.Protocol(SIZE)).measure(pair)
  assert jax.device_count() == 4 and given == [8, 8, 5]


def test_clips_of_fvd_have_no_holes(tmp_path):
  """A clip of 9 cannot be had of frames 0 to 5 and 7 to 14; of 7 to 15 it can."""
  (clip,) = clips(5, frames=16)
  clip = clip / np.float32(255)
  clip[6, 0, 0, 0] = np.nan
  np.save(tmp_path / 'reference.npy', clip)
  nets = networks.Networks(rendered=True, rows=4)
  for frames, count in ((15, 0), (16, 1)):
    np.save(tmp_path / f'{frames}.npy', clip[:frames])
    evaluation = measure.Evaluation(nets, measure.Protocol(SIZE, 500, 9))
    evaluation.measure(Pair('a', tmp_path / f'{frames}.npy', tmp_path / 'reference.npy', None))
    assert evaluation.sets['fid_judge'][0].count == frames - 1
    assert ('fvd_judge' in evaluation.sets) == bool(count)
  assert evaluation.sets['fvd_judge'][0].count == 1


@pytest.mark.slow
def test_clips_that_wait_for_all_devices_are_all_seen(tmp_path):
  (clip,) = clips(5, frames=6 * 9 + 2)
  for side, frames in (('reference', clip), ('generated', clip[::-1])):
    np.save(tmp_path / f'{side}.npy', frames)
  nets = networks.Networks(i3d=str(GOLDEN / 'i3d_reduced.pt'))
  evaluation = measure.Evaluation(nets, measure.Protocol(SIZE, 500, 9))
  assert 1 < jax.device_count() < 6
  evaluation.measure(Pair('a', tmp_path / 'generated.npy', tmp_path / 'reference.npy', None))
  reference, generated = evaluation.sets['fvd']
  alone = [nets.fvd(clip[None, 9 * k : 9 * k + 9]) for k in range(6)]
  assert reference.count == generated.count == 6
  np.testing.assert_allclose(reference.mean(), np.mean(alone, 0)[0], rtol=1e-4, atol=1e-5)


def test_what_is_not_a_number_is_no_infinity(tmp_path):
  (clip,) = clips(5, frames=10)
  np.save(tmp_path / 'a.npy', clip)
  nets = networks.Networks(rows=2)
  nets.lpips, nets.lpips_net = lambda x, y: np.full(len(x), np.nan, np.float32), 'alex'
  evaluation = measure.Evaluation(nets, measure.Protocol(SIZE))
  one = evaluation.measure(Pair('a', tmp_path / 'a.npy', tmp_path / 'a.npy', None))
  assert 'lpips' not in one.values and one.values['psnr'] == np.inf
  assert any('left out of lpips' in note and 'check the weights' in note for note in one.notes)
  other = dataclasses.replace(one, values={'lpips': 1.0, 'psnr': 9.0})
  found = results.result(evaluation, [one, other], [], 1.0)
  assert found['metrics']['lpips']['mean'] == 1 and found['metrics']['lpips']['clips'] == 1
  assert found['metrics']['psnr']['note'] == '1 clips left out, in which every frame is equal'


def test_frames_that_psnr_leaves_out_are_told(tmp_path):
  (clip,) = clips(5, frames=10)
  np.save(tmp_path / 'a.npy', clip)
  clip[4:] += 1
  np.save(tmp_path / 'b.npy', clip)
  evaluation = measure.Evaluation(networks.Networks(rows=2), measure.Protocol(SIZE))
  one = evaluation.measure(Pair('a', tmp_path / 'b.npy', tmp_path / 'a.npy', None))
  assert one.values['psnr'] == pytest.approx(20 * np.log10(255), abs=1e-3)
  assert any('psnr leaves out 4 of 10 frames' in note for note in one.notes)


class Finds:
  """Instead of MediaPipe, which no test can rely on: a head that turns, lost from a moment on."""

  groups = {'pose': 'pose'}

  def __init__(self, lost_from):
    self.seen, self.lost_from = 0, lost_from

  def read(self, rgb):
    self.seen += 1
    number = (self.seen - 1) // 8 // 2 * 8 + (self.seen - 1) % 8  # 8 of a side, then of the other
    generated = (self.seen - 1) // 8 % 2
    if generated and number >= self.lost_from:
      return None
    return {'pose yaw': float(np.sin(number))}, np.zeros((5, 2))


@pytest.mark.parametrize(
  ('lost_from', 'known', 'told'), [(16, True, 0), (13, True, 1), (3, False, 1)]
)
def test_faces_that_were_lost_are_told(tmp_path, lost_from, known, told):
  (clip,) = clips(5, frames=16)
  np.save(tmp_path / 'a.npy', clip)
  nets = networks.Networks(rows=2)
  assert nets.together == 8
  evaluation = measure.Evaluation(nets, measure.Protocol(SIZE))
  evaluation.detector = Finds(lost_from)
  one = evaluation.measure(Pair('a', tmp_path / 'a.npy', tmp_path / 'a.npy', None))
  assert ('pose_correlation_mediapipe' in one.values) == known
  lost = [note for note in one.notes if 'no face in' in note]
  assert len(lost) == told
  assert all(f'no face in {16 - lost_from} of 16 generated frames' in note for note in lost)


def test_shapes_matter_where_squares_are_compared(tmp_path):
  (clip,) = clips(5, frames=4)
  for name, x in (('a', clip), ('wide', clip[:, :16])):
    np.save(tmp_path / f'{name}.npy', x)
  judged, plain = (networks.Networks(rendered=rendered, rows=2) for rendered in (True, False))
  a, wide = tmp_path / 'a.npy', tmp_path / 'wide.npy'
  driven = measure.Protocol(SIZE, answers=False)
  for nets, how, pair, said in (
    (plain, measure.Protocol(SIZE), Pair('a', a, wide, None), 'its reference, 32x16'),
    (judged, driven, Pair('a', a, a, wide), 'its source, 32x16'),
    (judged, driven, Pair('a', a, wide, a), 'its reference, 32x16'),
    (plain, driven, Pair('a', a, wide, wide), ''),
  ):
    evaluation = measure.Evaluation(nets, how)
    if said:
      with pytest.raises(InputError, match=f'a.npy: 32x32 has another aspect ratio than {said}'):
        evaluation.measure(pair)
    else:
      assert evaluation.measure(pair).frames == 4
