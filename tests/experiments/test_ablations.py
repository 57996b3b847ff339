"""What the ablations are judged on, and how their table is made, on known numbers."""

import re
import types

import numpy as np

from experiments.paper import ablation_tables, ablations, out_of_domain, tunings
from hybrid_jax.world.outfits import OUTFIT


def test_differences_are_paired_by_frame_and_seed():
  rng, people = np.random.default_rng(0), np.repeat(np.arange(4), 6)
  noise = [{name: rng.random(24) for name in tunings.METRICS} for _ in range(3)]
  shifted = lambda by: [{name: x + by for name, x in of.items()} for of in noise]  # noqa: E731
  values = {'full': noise, 'without': shifted(0.5), 'full_pti': shifted(2), 'full_cma': shifted(3)}
  values['truth'] = [{name: np.zeros(24) for name in noise[0]}] * 3
  groups = {g: ablations.summary(values, np.ones(24, bool), people) for g in ablations.GROUPS}
  found = groups['inside']
  for name, key, gap in (
    ('full', 'minus_full', 0), ('without', 'minus_full', 0.5), ('full_cma', 'minus_pti', 1)
  ):  # fmt: skip
    row = found[name]['l1'][key]
    np.testing.assert_allclose([row['mean'], row['low'], row['high'], *row['seeds']], gap)
  assert 'minus_pti' not in found['without']['l1']
  row = found['truth']['l1']['minus_full']
  assert row['low'] < row['mean'] < row['high'] < 0  # people differ
  table = ablations.table(groups | {'seeds': [0, 1, 2]})
  parts = dict(zip(ablations.GROUPS, re.split(r'### .*\n', table)[1:], strict=True))
  for group, part in parts.items():
    assert ('pose_error' in part) == (group in ablations.READABLE)
    assert '| full_cma minus full_pti | (+1.0000; +1.0000 to +1.0000) |' in part
    assert f'| full | {found["full"]["l1"]["mean"]:.4f} |' in part


def test_sources_are_out_of_domain_and_always_the_same():
  ordinary = np.full(47, 0.5)
  for kind in ('inside', *out_of_domain.KINDS):
    identity, outfit = out_of_domain.appearance(kind, 3, ordinary)
    again = out_of_domain.appearance(kind, 3, ordinary)
    np.testing.assert_array_equal(identity, again[0])
    np.testing.assert_array_equal(outfit, again[1])
    outside = (identity < 0) | (identity > 1)
    assert outside.sum() == (out_of_domain.PUSHED if kind == 'beyond' else 0)
    worn = sum(outfit[k] > 0 for k, (low, _) in enumerate(OUTFIT.values()) if low < 0)
    assert worn == (kind in out_of_domain.WORN), kind


def test_orderings_of_the_paper_are_judged_by_intervals_and_seeds():
  rng = np.random.default_rng(1)
  noise = [[rng.random() for _ in range(12)] for _ in range(3)]

  def row(motion: float, distances: list[float]) -> ablation_tables.Row:
    """Three seeds of 12 clips, two of each person; the distance belongs to the set."""
    made = []
    for distance, values in zip(distances, noise, strict=True):
      clips = [
        types.SimpleNamespace(
          pair=types.SimpleNamespace(person=str(k // 2)),
          values={'pose_correlation_truth': x + motion},
        )
        for k, x in enumerate(values)
      ]
      mean = float(np.mean(values)) + motion
      metrics = {'pose_correlation_truth': {'mean': mean}, 'fid_judge': {'mean': distance}}
      made.append(({'metrics': metrics}, clips))
    return made

  full, worse = row(0, [1.0, 2.0, 3.0]), row(-0.1, [1.1, 2.1, 3.1])
  mixed = row(0, [0.9, 2.1, 3.1])
  judge = ablation_tables.agreement
  assert judge(worse, full, 'pose_correlation_truth') == 'yes'  # a correlation: less is worse
  assert judge(full, worse, 'pose_correlation_truth') == 'no'
  assert judge(worse, full, 'fid_judge') == 'yes'
  assert judge(full, worse, 'fid_judge') == 'no'
  assert judge(mixed, full, 'fid_judge') == 'open'  # the seeds disagree
  found = ablation_tables.summary({'full': full, 'worse': worse}, 'full')
  gap = found['worse']['pose_correlation_truth']['difference']
  np.testing.assert_allclose([gap['mean'], gap['low'], gap['high'], *gap['seeds']], -0.1)
  np.testing.assert_allclose(found['worse']['fid_judge']['difference']['seeds'], 0.1)
  assert 'difference' not in found['full']['fid_judge']
