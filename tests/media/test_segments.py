"""Videos in segments: joined, they have the frames and times of the whole, whatever the cuts."""

from fractions import Fraction

import av
import numpy as np
import pytest

from hybrid_jax.media.segments import VideoTarget
from hybrid_jax.media.video import read_frames

TIME_BASE = Fraction(1, 12800)


def joined(folder, cuts, name='a.mp4', **options):
  """Writes noise at a variable rate in segments that begin at `cuts`; returns the path."""
  target = VideoTarget(folder / name, TIME_BASE, **options)
  parts = folder / 'parts'
  parts.mkdir(parents=True)
  for k, (first, end) in enumerate(zip(cuts, cuts[1:], strict=False)):
    assert target.done(parts) == k
    with target.segment(parts, k, (31, 33)) as write:
      for number in range(first, end):
        rgb = np.random.default_rng(number).integers(0, 256, (31, 33, 3), np.uint8)
        write(rgb, time_of(number))
  assert target.finish(parts, len(cuts) - 1) == ''
  return folder / name


def time_of(number):
  return (512 * number + 40 * (number % 3)) * TIME_BASE


def clock(path):
  """(pts, dts) in ticks of the packets, in order of decoding, and the tick."""
  with av.open(str(path)) as container:
    packets = [p for p in container.demux(video=0) if p.dts is not None]
    return np.array([(p.pts, p.dts) for p in packets]).T, packets[0].time_base


@pytest.mark.parametrize('cuts', [(0, 1), (0, 2), (0, 1, 2, 20), (0, 7, 20)])
@pytest.mark.parametrize('codec', ['libx264', 'ffv1'])
def test_joined_segments(tmp_path, cuts, codec):
  path = joined(tmp_path, cuts, codec=codec)
  frames = list(read_frames(path))
  assert [frame.time for frame in frames] == [time_of(k) for k in range(cuts[-1])]
  if codec == 'ffv1':
    for k, frame in enumerate(frames):
      expected = np.random.default_rng(k).integers(0, 256, (31, 33, 3), np.uint8)
      np.testing.assert_array_equal(frame.rgb, expected)
  else:
    assert frames[0].rgb.shape == (32, 34, 3)
  (pts, dts), tick = clock(path)
  assert tick == TIME_BASE and (np.diff(dts) > 0).all() and (dts <= pts).all()
