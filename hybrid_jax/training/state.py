"""Everything that training changes, in one donated tree, and the pool of past latents."""

from typing import Any

import flax
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class LatentPool:
  """e4e's pool of past w vectors; `count` says how many of the rows are filled."""

  latents: jax.Array  # size d
  count: jax.Array


@flax.struct.dataclass
class TrainState:
  """A pure tree: no functions and none of the frozen networks."""

  step: jax.Array
  key: jax.Array
  encoder: Any  # {'params', 'batch_stats'}
  encoder_opt: Any
  critic: Any
  critic_opt: Any
  r1: jax.Array  # the last penalty: it is computed every few steps only
  pool_real: LatentPool
  pool_fake: LatentPool


def empty_pool(size: int, w_dim: int) -> LatentPool:
  return LatentPool(jnp.zeros((size, w_dim)), jnp.zeros((), jnp.int32))


def query_pool(pool: LatentPool, w: jax.Array, key: jax.Array) -> tuple[jax.Array, LatentPool]:
  """Stores the w vectors (n, d) one by one; half of the time a full pool gives a past one back.

  While the pool fills, every vector is stored and returned (omertov/encoder4editing,
  LatentCodesPool). A pool of size 0 returns its input.
  """
  size = pool.latents.shape[0]
  if size == 0:
    return w, pool

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
