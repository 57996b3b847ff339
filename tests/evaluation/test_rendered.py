"""Pairs of rendered people with their true answer, and the judges' scales."""

import json
import pathlib

import numpy as np
import pytest

from hybrid_jax.evaluation import judges, rendered
from hybrid_jax.models.ops import from_uint8

RESULTS = pathlib.Path(__file__).resolve().parents[2] / 'experiments' / 'results'


@pytest.fixture(scope='module')
def judge():
  return rendered.Judges()


@pytest.fixture(scope='module', params=[True, False], ids=['cross', 'same'])
def measured(request, judge):
  """Data of 6 sources by 3 frames, and metrics of the truth, of the source and of the driver."""
  data = rendered.pairs(0, 6, 3, request.param)
  ends = rendered.scale(judge, data, request.param)
  image = lambda name: from_uint8(data[name].astype(np.float32))  # noqa: E731
  methods = {name: rendered.measure(judge, image(name), data, ends) for name in ('truth', 'source')}
  methods['driving'] = rendered.measure(judge, image('driving'), data, ends)
  return request.param, data, methods


def test_trusted_channels_are_those_that_were_measured():
  r2 = json.loads((RESULTS / 'heads_world.json').read_text())['critics']['judge_motion']['r2']
  assert judges.TRUSTED_MOTION == tuple(name for name in r2 if r2[name] >= 0.8)


def test_the_truth_is_near_itself(measured):
  _, _, methods = measured
  assert methods['truth']['l1'].max() == methods['truth']['l1_face'].max() == 0
  np.testing.assert_allclose(methods['truth']['ssim'], 1, atol=1e-6)
  assert methods['truth']['identity_score'].mean() == pytest.approx(1, abs=1e-4)


def test_copies_are_judged_for_what_they_are(measured):
  """The source has the person and not the motion; another person's driver the reverse."""
  cross, data, methods = measured
  assert len(np.unique(data['person'])) == 6 and len(data['truth']) == 18
  truth, source, driving = (methods[name] for name in ('truth', 'source', 'driving'))
  assert source['identity_score'].mean() > 0.9
  assert source['expression_error'].mean() > 2 * truth['expression_error'].mean()
  assert source['pose_error'].mean() > 4 * truth['pose_error'].mean()
  if cross:
    assert abs(driving['identity_score'].mean()) < 1e-4
    assert driving['expression_error'].mean() < 0.6 * source['expression_error'].mean()
    assert driving['l1'].mean() > source['l1'].mean() > 0
  else:
    np.testing.assert_array_equal(data['driving'], data['truth'])


def test_pairs_follow_from_their_seed_and_batches_change_nothing(judge):
  a, b, c = (rendered.pairs(seed, 2, 3, True) for seed in (1, 1, 2))
  np.testing.assert_array_equal(a['truth'], b['truth'])
  assert not np.array_equal(a['person'], c['person'])
  image = np.random.default_rng(0).uniform(-1, 1, (rendered.BATCH + 3, 64, 64, 3))
  both = judge.read(image)
  np.testing.assert_allclose(both[-2:], judge.read(image[-2:]), atol=1e-5)
