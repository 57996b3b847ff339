"""Everything that training changes, in one tree, and the pool of past latents.

The tree is donated to the step, which reuses its buffers: a state is invalid once it was stepped.
"""

from typing import Any

import flax
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class LatentPool:
  """e4e's pool of past w vectors (size, d), of which the first `count` are filled."""

  latents: jax.Array
  count: jax.Array


@flax.struct.dataclass
class TrainState:
  """State of a run between two steps: arrays only, without the frozen networks."""

  step: jax.Array
  key: jax.Array
  encoder: Any  # {'params', 'batch_stats'}
  encoder_opt: Any
  critic: Any
  critic_opt: Any
  r1: jax.Array  # the last R1 penalty, logged also in the steps that do not compute it
  pool_real: LatentPool
  pool_fake: LatentPool


def empty_pool(size: int, w_dim: int) -> LatentPool:
  """Returns a pool for `size` vectors with none in it."""
  return LatentPool(jnp.zeros((size, w_dim)), jnp.zeros((), jnp.int32))


def query_pool(pool: LatentPool, w: jax.Array, key: jax.Array) -> tuple[jax.Array, LatentPool]:
  """Returns w vectors (n, d), about half of them past ones, and the updated pool.

  LatentCodesPool of omertov/encoder4editing: while the pool fills, each vector is stored and
  returned; from then on, with probability 1/2, a vector takes the place of a stored one, which is
  returned. A pool of size 0 returns its input.
  """
  size = pool.latents.shape[0]
  if size == 0:
    return w, pool

  # One after another, as in e4e: a vector may be exchanged for one stored in the same call.
  def one(pool, inputs):
    w, key = inputs
    key_swap, key_index = jax.random.split(key)
    full = pool.count >= size
    swap = full & jax.random.bernoulli(key_swap)
    index = jnp.where(full, jax.random.randint(key_index, (), 0, size), pool.count)
    index = jnp.minimum(index, size - 1)
    past = pool.latents[index]
    stored = jnp.where(full & ~swap, past, w)
    pool = LatentPool(pool.latents.at[index].set(stored), jnp.minimum(pool.count + 1, size))
    return pool, jnp.where(swap, past, w)

  pool, returned = jax.lax.scan(one, pool, (w, jax.random.split(key, w.shape[0])))
  return returned, pool
