"""The part `cma_step` of `accelerator`: a step of CMA at the generator's resolution, with memory.

Needs what `accelerator_parts` needs; imports are inside for the same reason.
"""

import statistics
import sys
import time
from typing import Any

from experiments.cost.accelerator_parts import (
  available_memory,
  calibrated,
  emit,
  emit_memory,
  paper_config,
  set_precision,
)

POOL = 2  # drivers; a step takes one, and the others cost memory only


def tuner_of(config: Any, steps: int) -> tuple[Any, Any]:
  """Returns the tuner of a config, and a function key -> (state, job) with random weights."""
  import jax
  import jax.numpy as jnp

  from hybrid_jax.method import cma, networks

  nets = networks.build(config.model)
  tuner = cma.Tuner(nets, cma.Options(steps=steps, pool=POOL, enough_lpips=0.0))

  def start(key):
    keys = jax.random.split(key, 4)
    size = config.model.resolution
    frames = jax.random.randint(keys[0], (1 + POOL, size, size, 3), 0, 256).astype(jnp.uint8)
    # Noise of the encoder's size: that of the generator's size pools to grey.
    seen = jax.random.uniform(keys[1], (2, nets.frame_size, nets.frame_size, 3), minval=-1)
    frozen, E = networks.random_frozen(nets, keys[2]), networks.init_encoder(nets, keys[3])
    E = calibrated(nets.hybrid.encoder, E, seen, method='pyramid')
    frozen = {'lpips': frozen['lpips'], 'generator': frozen['generator']}
    job = tuner.job(frozen['generator'], E, frozen, frames[0], frames[1:])
    return tuner.start(job), job

  return tuner, start


def cma_step(config: Any = None, repeats: int = 0) -> None:
  """A step of CMA, float32 as in use, one driver; by default the paper's networks at 1024 px.

  Raises:
    FloatingPointError: a loss is not finite.
  """
  import jax

  cpu = jax.default_backend() == 'cpu'
  repeats = repeats or (2 if cpu else 25)
  for precision in ('float32',) if cpu else ('float32', 'tf32'):
    set_precision(precision)
    # As `reenactment.tuning` builds them.
    used = config or paper_config('float32', polyphase_from=0)
    tuner, start = tuner_of(used, repeats + 1)
    name = f'cma_step {precision} {used.model.resolution} px'
    began = time.perf_counter()
    compiled = tuner.step.lower(*jax.eval_shape(start, jax.random.key(0))).compile()
    emit(f'{name} compile', time.perf_counter() - began, 's')
    memory = compiled.memory_analysis()
    need = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    emit(f'{name} memory by the compiler', need / 2**30, 'GiB')
    if cpu and need > available_memory():
      print(f'{name}: does not fit in memory, not run', file=sys.stderr)
      continue
    state, job = jax.jit(start)(jax.random.key(0))
    times = []
    for _ in range(repeats + 1):
      began = time.perf_counter()
      state, finished = compiled(state, job)
      if bool(finished):  # waits for the step
        emit(name, None, 'ms', finite=False)
        raise FloatingPointError(f'{name}: the loss is not finite')
      times.append(time.perf_counter() - began)
    emit(name, statistics.median(times[1:]) * 1e3, 'ms', finite=True)
    del state, job, compiled  # before the next case takes the memory
  emit_memory('cma_step')
