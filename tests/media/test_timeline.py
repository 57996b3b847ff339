"""The timeline: size, gaps, the threshold and what lies below it."""

import numpy as np
import pytest

from hybrid_jax.media import MediaError, stills, timeline

SECONDS = np.arange(50) / 25
BLUE, RED = (31, 119, 180), (214, 39, 40)  # of matplotlib's tab palette


def drawn(path, *strips, seconds=SECONDS):
  timeline.draw(path, seconds, strips)
  return stills.read_image(path)


def pixels(rgb, colour):
  return int((rgb == np.array(colour)).all(-1).sum())


def test_size_and_strips(tmp_path):
  one = drawn(tmp_path / 'a.png', timeline.Strip('a', np.sin(SECONDS)))
  two = drawn(tmp_path / 'b.png', *[timeline.Strip('a', np.sin(SECONDS))] * 2)
  assert one.shape[1] == two.shape[1] == 1200 and one.shape[0] < two.shape[0] < 2 * one.shape[0]
  assert pixels(two, BLUE) > pixels(one, BLUE) > 100 and not pixels(two, RED)


def test_the_threshold_and_values_below_it_are_red(tmp_path):
  high, low = np.full(50, 0.9), np.where(np.arange(50) < 10, 0.2, 0.9)
  line = drawn(tmp_path / 'a.png', timeline.Strip('a', high, 0.5))
  dots = drawn(tmp_path / 'b.png', timeline.Strip('a', low, 0.5))
  assert pixels(line, RED) > 100 and pixels(dots, RED) > pixels(line, RED) + 100


def test_gaps_and_single_values(tmp_path):
  missing = np.full(50, np.nan)
  assert not pixels(drawn(tmp_path / 'a.png', timeline.Strip('a', missing)), BLUE)
  single = missing.copy()
  single[20] = 0.5
  assert pixels(drawn(tmp_path / 'b.png', timeline.Strip('a', single)), BLUE)
  for count in (0, 1):
    strip = timeline.Strip('a', np.full(count, 0.3), 0.5, 'cosine')
    assert drawn(tmp_path / 'c.png', strip, seconds=SECONDS[:count]).shape[1] == 1200


def test_a_path_that_cannot_be_written(tmp_path):
  with pytest.raises(MediaError, match='does not exist'):
    drawn(tmp_path / 'missing' / 'a.png', timeline.Strip('a', np.sin(SECONDS)))
