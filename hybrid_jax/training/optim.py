"""Ranger, the encoder's optimiser: RAdam inside Lookahead with centralised gradients, as in e4e.

Symbols: `m`, `v` first and second moment, `t` step of a parameter, `slow` the Lookahead weights.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class RangerState(NamedTuple):
  """State of `ranger`, a tree of arrays like the parameters in each field."""

  count: Any  # steps of each parameter since its first gradient
  mu: Any
  nu: Any
  slow: Any


def centralize(gradient: jax.Array) -> jax.Array:
  """Returns the gradient minus its mean over all axes but the last, per output channel.

  Output channels are last in HWIO and (i, o) kernels, first in PyTorch; optax.centralize takes the
  first axis.
  """
  if gradient.ndim < 2:
    return gradient
  return gradient - jnp.mean(gradient, axis=tuple(range(gradient.ndim - 1)), keepdims=True)


class Coefficients(NamedTuple):
  """What a step of RAdam takes from the step number alone, each (leaves,)."""

  rate: jax.Array  # learning rate, first moment's bias corrected
  rectified: jax.Array  # bool: whether the second moment is used
  rectification: jax.Array


def radam_coefficients(
  t: jax.Array, learning_rate: float, b1: float, b2: float, sma_threshold: float
) -> Coefficients:
  """Returns the coefficients of RAdam (Liu et al. 2020) of leaves at their steps t (leaves,)."""
  # 1 - b^t by expm1: in float32 the plain difference is off by 1e-4 in the first steps.
  t = jnp.maximum(t, 1).astype(jnp.float32)
  decay1, decay2 = (-jnp.expm1(t * math.log(b)) for b in (b1, b2))
  # Rectification: n is the length of the approximated moving average.
  n_max = 2 / (1 - b2) - 1
  n = n_max - 2 * t * (1 - decay2) / decay2
  rectified = n > sma_threshold
  ratio = (n - 4) / (n_max - 4) * (n - 2) / n * n_max / (n_max - 2)
  rectification = jnp.sqrt(decay2 * jnp.where(rectified, ratio, 1.0))
  return Coefficients(learning_rate / decay1, rectified, rectification)


def ranger(
  learning_rate: float,
  *,
  b1: float = 0.95,
  b2: float = 0.999,
  eps: float = 1e-5,
  sma_threshold: float = 5.0,
  slow_steps: int = 6,
  slow_rate: float = 0.5,
  weight_decay: float = 0.0,
  min_centralized_rank: int = 2,
) -> optax.GradientTransformation:
  """Returns Ranger of omertov/encoder4editing `training/ranger.py`, with that file's defaults.

  It differs from `optax.lookahead(optax.radam(...))`: the parameters are the fast weights and the
  slow copy is in the state, and epsilon is added to sqrt(v) *before* bias correction.

  Args:
    sma_threshold: below this length of the moving average the step has no second moment.
    slow_steps, slow_rate: every `slow_steps` steps, slow += slow_rate (fast - slow), fast = slow.
    weight_decay: decoupled, times the learning rate.
    min_centralized_rank: gradients of at least this rank are centralised (4: convolutions only).
  """

  def init(params):
    return RangerState(
      count=jax.tree.map(lambda _: jnp.zeros((), jnp.int32), params),
      mu=jax.tree.map(jnp.zeros_like, params),
      nu=jax.tree.map(jnp.zeros_like, params),
      slow=jax.tree.map(jnp.copy, params),
    )

  def update(grads, state, params):
    grads = jax.tree.map(lambda g: centralize(g) if g.ndim >= min_centralized_rank else g, grads)
    # PyTorch skips a parameter without a gradient, so that its count and warm-up start at its first
    # gradient. Without this, a head that is switched on late would start with v near zero, no bias
    # correction left, and steps of several learning rates.
    t = jnp.stack(jax.tree.leaves(state.count))
    moved = jnp.stack([jnp.any(g != 0) for g in jax.tree.leaves(grads)])
    t = jnp.where((t > 0) | moved, t + 1, 0)
    mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
    nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, grads)
    # The scalars of all leaves are computed at once: one by one, they were a fifth of the program.
    c = radam_coefficients(t, learning_rate, b1, b2, sma_threshold)
    synchronise = (t > 0) & (t % slow_steps == 0)

    def update_leaf(i, p, m, v, slow):
      adaptive = c.rectification[i] * m / (jnp.sqrt(v) + eps)
      step = c.rate[i] * jnp.where(c.rectified[i], adaptive, m)
      fast = jnp.where(t[i] > 0, p * (1 - weight_decay * learning_rate) - step, p)
      slow = jnp.where(synchronise[i], slow + slow_rate * (fast - slow), slow)
      return jnp.where(synchronise[i], slow, fast) - p, slow

    index = jax.tree.unflatten(jax.tree.structure(params), range(len(t)))
    count = jax.tree.map(lambda i: t[i], index)
    pairs = jax.tree.map(update_leaf, index, params, mu, nu, state.slow)
    updates, slow = jax.tree.transpose(jax.tree.structure(params), None, pairs)
    return updates, RangerState(count, mu, nu, slow)

  return optax.GradientTransformation(init, update)
