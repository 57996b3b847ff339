"""The judges of the rendered world: networks that measure motion and identity.

A judge is never part of a loss, and has another architecture than the critics that are: a network
that was trained against a judge would learn to please it.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from hybrid_jax.models.ops import adaptive_avg_pool
from hybrid_jax.weights import shipped
from hybrid_jax.world import parameters

SIZE = 64  # px; larger images are pooled to it
# Channels that the motion judge reads with R2 of at least 0.8 on unseen people
# (experiments/results/heads_world.json). Errors of the others say little about a method.
TRUSTED_MOTION = (
  'yaw', 'pitch', 'roll', 'jaw_open', 'smile', 'mouth_shift', 'brow_frown', 'blink_left',
  'blink_right', 'gaze_yaw',
)  # fmt: skip


class Judge(nn.Module):
  """Image (n, h, w, 3) in [-1, 1] -> (n, outputs): plain convolutions with group norm.

  The outputs of `motion` are the 16 motion parameters in [0, 1]; those of `identity` are an
  embedding, which is compared by cosine.
  """

  outputs: int
  widths: Sequence[int] = (32, 64, 96, 96)
  hidden: int = 96

  @nn.compact
  def __call__(self, image: jax.Array) -> jax.Array:
    """See the class."""
    x = adaptive_avg_pool(image, SIZE)
    for width in self.widths:
      for stride in (2, 1):
        # Kernels of 4 px with stride 2, so that every pixel has the same weight; 3 px otherwise.
        x = nn.Conv(width, (2 + stride, 2 + stride), (stride, stride))(x)
        x = jax.nn.silu(nn.GroupNorm(8)(x))
    x = jax.nn.silu(nn.Dense(self.hidden)(x.reshape(x.shape[0], -1)))  # n hidden
    return nn.Dense(self.outputs)(x)


def motion() -> Judge:
  """Returns the network of the weights 'judge_motion'; its outputs are `parameters.MOTION`."""
  return Judge(len(parameters.MOTION))


def identity() -> Judge:
  """Returns the network of the weights 'judge_identity'."""
  return Judge(shipped.JUDGE_EMBEDDING)


def unit(embedding: jax.Array) -> jax.Array:
  """Scales embeddings (n, d) to length 1."""
  return embedding / jnp.linalg.norm(embedding, axis=-1, keepdims=True)
