"""The compiled programs of a model, each compiled once, also where several threads need it."""

import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hybrid_jax.method.networks import Networks
from hybrid_jax.models.ops import from_uint8, to_uint8


class Program:
  """A jitted function; a call waits while another thread compiles it, and does not repeat that."""

  def __init__(self, function: Callable):
    # Without the lock, JAX would compile the same program in both threads.
    self._function, self._lock = jax.jit(function), threading.Lock()

  def __call__(self, *arguments: Any) -> Any:
    """Calls the function."""
    with self._lock:
      return self._function(*arguments)

  def lower(self, *arguments: Any) -> jax.stages.Lowered:
    """Does what `lower` of a jitted function does."""
    return self._function.lower(*arguments)

  def compile(self, *arguments: Any) -> Any:
    """Compiles it for arrays, or shapes, and returns the shapes of the results."""
    with self._lock:
      lowered = self._function.lower(*arguments)
      lowered.compile()  # JAX keeps it for calls with the same shapes
    return lowered.out_info


class Programs:
  """The three compiled steps of one network, at its precision. Frames are uint8 (n, h, w, 3)."""

  def __init__(self, networks: Networks):
    # Weights are arguments of the programs, never closures: closed-over arrays would be compiled in
    # as constants, and a tuned generator could not share the programs.
    hybrid = networks.hybrid
    edges = np.cumsum(hybrid.encoder.deformation_widths)

    def identity(E, G, image, rows):
      return hybrid.identity(E, G, from_uint8(image), rows)  # Eq. (1)

    def deformation(E, frames):
      F = jnp.concatenate(hybrid.deformation(E, from_uint8(frames)), -1).astype(jnp.float32)
      return F, jnp.isfinite(F).all()  # Eq. (2)

    def synthesis(G, W_S, F, edits=None):
      # The last edge is the width of all layers: what follows it are strengths of edits, (n, 0)
      # without edits.
      *F_D, strength = jnp.split(F, edges, axis=-1)
      dW, ds = edits.times(strength) if edits else (0.0, None)
      W = jnp.repeat(W_S, len(F), axis=0)
      R = hybrid.reenact(G, W, tuple(F_D), dW_edit=dW, ds_edit=ds)  # Eqs. (3) and (4)
      # Of the float image: in uint8, NaN is a number like any other.
      return to_uint8(R), jnp.isfinite(R).all()

    self.identity, self.deformation, self.synthesis = map(
      Program, (identity, deformation, synthesis)
    )
