"""Clips for the tests of the evaluation."""

from fractions import Fraction

import numpy as np

from hybrid_jax.media import video

SIZE = 32


def clips(seed, count=1, frames=20, size=SIZE):
  """Smooth noise that drifts, uint8, away from both ends of the range."""
  rng = np.random.default_rng(seed)
  for _ in range(count):
    ground = rng.integers(60, 190, (size // 4, size // 4, 3)).repeat(4, 0).repeat(4, 1)
    yield np.stack([np.roll(ground, k, 1) for k in range(frames)]).astype(np.uint8)


def write_clip(path, clip, fps=25):
  h, w = clip.shape[1:3]
  with video.VideoWriter(path, h, w, time_base=Fraction(1, fps), codec='ffv1') as writer:
    for k, rgb in enumerate(clip):
      writer.write(rgb, Fraction(k, fps))
