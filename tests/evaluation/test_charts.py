"""Drawings of the report."""

import re

import numpy as np

from hybrid_jax.evaluation import charts


def test_a_long_timeline_keeps_its_lowest_and_its_highest_moment():
  values = np.ones(5000)
  values[1234], values[4321] = -1, 3
  drawn = charts.timeline(np.arange(5000) / 25, values)
  assert '>3<' in drawn and '>-1<' in drawn
  points = np.array([p.split(',') for p in re.search('points="(.*?)"', drawn)[1].split()], float)
  assert len(points) <= charts.POINTS and (np.diff(points[:, 0]) >= 0).all()
  low, high = points[points[:, 1].argmax(), 0], points[points[:, 1].argmin(), 0]
  span = charts.WIDTH - 12 - charts.LEFT
  np.testing.assert_allclose(
    (np.array([low, high]) - charts.LEFT) / span, [0.2468, 0.8644], atol=2e-3
  )
