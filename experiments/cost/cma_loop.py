"""Compares three loops over the steps of CMA: on the host, lax.while_loop and lax.scan.

  python -m experiments.cost.cma_loop --output experiments/results/cma_loop.json
  python -m experiments.cost.cma_loop --output ... --part tpu     # needs libtpu, and no TPU

The host loop calls one compiled step, and reads the host every STEPS steps ('host') or reads the
flag of the step before ('late', as `method.cma` does); the others compute STEPS steps at once.
Gradients of convolutions are jax's own ('automatic') or written as convolutions in the layout that
XLA's CPU compiler computes fast ('canonical', a custom gradient: forward mode is lost).

Parts:
  cpu  medians over rounds, in each of which every program runs STEPS steps of the bundled model
  tpu  cycles that the compiler for one TPU v5e estimates for the kernels of a step, and memory
"""

import contextlib
import functools
import json
import pathlib
import re
import time
from unittest import mock

import jax
import numpy as np
from tqdm import tqdm

from experiments import script
from experiments.cost.accelerator_parts import paper_config
from experiments.cost.accelerator_tuning import tuner_of

STEPS = 25
PROGRAMS = (
  ('late', 'automatic'), ('late', 'canonical'), ('while', 'canonical'), ('scan', 'canonical'),
  ('host', 'automatic'), ('while', 'automatic'),
)  # fmt: skip
BASE = 'late, automatic'
PLAIN = jax.lax.conv_general_dilated


# --- The gradient --------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _canonical(x, kernel, strides, padding, dimension_numbers):
  return PLAIN(x, kernel, strides, padding, dimension_numbers=dimension_numbers)


def _forward(x, kernel, *sizes):
  return _canonical(x, kernel, *sizes), (x, kernel)


def _backward(strides, padding, dimension_numbers, residuals, dy):
  (x, kernel), (stride, _), ((pad, _), _) = residuals, strides, padding
  k, sizes = kernel.shape[0], list(zip(x.shape[1:3], dy.shape[1:3], strict=True))
  dx = PLAIN(
    dy,
    kernel[::-1, ::-1].transpose(0, 1, 3, 2),
    (1, 1),
    [(k - 1 - pad, n - stride * (m - 1) - 1 + pad) for n, m in sizes],
    lhs_dilation=strides,
    dimension_numbers=dimension_numbers,
  )
  dk = PLAIN(
    x.transpose(3, 1, 2, 0),  # i h w n
    dy.transpose(1, 2, 0, 3),  # h w n o
    (1, 1),
    [(pad, k + stride * (m - 1) - n - pad) for n, m in sizes],
    rhs_dilation=strides,
    dimension_numbers=dimension_numbers,
  )
  return dx, dk.transpose(1, 2, 0, 3)


_canonical.defvjp(_forward, _backward)


def gradient(kind: str):
  """Returns a context in which convolutions are traced with a gradient of this kind."""
  if kind == 'automatic':
    return contextlib.nullcontext()

  def conv(x, kernel, window_strides, padding, *, dimension_numbers=None, **others):
    if others or dimension_numbers != ('NHWC', 'HWIO', 'NHWC'):
      return PLAIN(
        x, kernel, window_strides, padding, dimension_numbers=dimension_numbers, **others
      )
    sizes = tuple(window_strides), tuple(map(tuple, padding)), dimension_numbers
    return _canonical(x, kernel, *sizes)

  return mock.patch.object(jax.lax, 'conv_general_dilated', conv)


# --- The loops -----------------------------------------------------------------------------------


def looped(step, loop: str):
  """Returns a function (state, job) -> state: one step for the host's loops, STEPS otherwise."""
  if loop in ('host', 'late'):
    return step

  def run(state, job):
    until = state.step + STEPS
    if loop == 'scan':
      return jax.lax.scan(lambda s, _: (step(s, job)[0], None), state, None, STEPS)[0]
    return jax.lax.while_loop(
      lambda s: (s.step < until) & ~s.finished, lambda s: step(s, job)[0], state
    )

  return run


def compiled(tuner, loop: str, kind: str, *arguments):
  """Returns the compiled program, and the seconds that compiling took."""
  began = time.perf_counter()
  with gradient(kind):
    # A function of its own, so that no trace with another gradient is reused.
    step = lambda state, job: tuner._step(state, job)  # noqa: E731
    program = jax.jit(looped(step, loop), donate_argnums=0).lower(*arguments).compile()
  return program, time.perf_counter() - began


def run_steps(program, loop: str, state, job):
  """Returns the state after STEPS more steps, read by the host."""
  if loop not in ('host', 'late'):
    state = program(state, job)
  else:
    before = False
    for _ in range(STEPS):
      state, finished = program(state, job)
      if loop == 'late':
        assert not bool(before)
        before = finished
  return jax.block_until_ready(state)


def cpu(rounds: int) -> dict:
  """Returns seconds of a step and of compiling of each program, and how far results differ."""
  from experiments.paper import out_of_domain
  from experiments.paper.tunings import BASE as OPTIONS
  from hybrid_jax.method import cma
  from hybrid_jax.reenactment import tuning
  from hybrid_jax.reenactment.model import load_model

  model, episode = load_model(''), out_of_domain.episode('validation', 'inside', 0)
  tuner, frozen = tuning.program(model, OPTIONS)
  job = tuner.job(model.G, model.E, frozen, episode.source, episode.pool)
  programs, states, compile_s = {}, {}, {}
  for pair in tqdm(PROGRAMS, 'compiling'):
    name = ', '.join(pair)
    programs[name], compile_s[name] = compiled(tuner, *pair, tuner.start(job), job)
    states[name] = tuner.start(job)
  times: dict = {name: [] for name in programs}
  for k in tqdm(range(rounds + 1), 'timing'):  # the first round warms up
    for name, program in programs.items():
      began = time.perf_counter()
      states[name] = run_steps(program, name.split(',')[0], states[name], job)
      if k:
        times[name].append((time.perf_counter() - began) / STEPS)
    if k == 0:
      ends = {name: cma.delta(model.G, state) for name, state in states.items()}
  base = {key: x for key, x in ends[BASE].items()}
  size = max(np.abs(x).max() for x in base.values())
  differ = lambda end: max(float(np.abs(end[key] - x).max() / size) for key, x in base.items())  # noqa: E731
  over = {name: np.array(taken) / np.array(times[BASE]) for name, taken in times.items()}
  return {
    'resolution': model.resolution,
    'rounds': rounds,
    'steps_of_a_round': STEPS,
    'programs': {
      name: {
        'step_ms': 1e3 * float(np.median(times[name])),
        f'over_{BASE}': float(np.median(over[name])),
        'over_rounds': over[name].round(3).tolist(),
        'compile_s': compile_s[name],
        # Of the tuned generator's change after STEPS steps, of the largest change.
        'largest_difference': differ(ends[name]),
      }
      for name in programs
    },
  }


def tpu(resolution: int) -> dict:
  """Returns estimated cycles, memory and seconds of compiling for one TPU v5e."""
  from jax.experimental import topologies
  from jax.sharding import SingleDeviceSharding

  topology = topologies.get_topology_desc(platform='tpu', topology_name='v5e:1x1')
  sharding = SingleDeviceSharding(topology.devices[0])
  config = paper_config('float32', polyphase_from=0)
  config['model'] |= {'resolution': resolution, 'remat_from': 256}
  rows = 2 * (resolution.bit_length() - 2)
  config['model']['identity_split'] = (3, 4, rows - 7)
  tuner, start = tuner_of(config, STEPS)
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    jax.eval_shape(start, jax.random.key(0)),
  )
  result: dict = {'resolution': resolution, 'device': 'one TPU v5e, compiled ahead of time'}
  for loop in ('host', 'while', 'scan'):
    program, took = compiled(tuner, loop, 'automatic', *shapes)
    memory, text = program.memory_analysis(), program.as_text()
    cycles = sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', text)))
    result[loop] = {
      'estimated_cycles_of_a_step': cycles,
      'arguments_gib': memory.argument_size_in_bytes / 2**30,
      'temporaries_gib': memory.temp_size_in_bytes / 2**30,
      'compile_s': took,
    }
    print(loop, result[loop], flush=True)
  return result


def main() -> None:
  parser = script.parser(__doc__)
  add = parser.add_argument
  add('--output', type=pathlib.Path, required=True, help='.json file to update')
  add('--part', default='cpu', choices=('cpu', 'tpu'))
  add('--rounds', type=int, default=5, help='of the timing (%(default)s)')
  add('--resolution', type=int, default=1024, help='of the part tpu (%(default)s)')
  args = parser.parse_args()
  measured = script.record()
  value = cpu(args.rounds) if args.part == 'cpu' else tpu(args.resolution)
  record = json.loads(args.output.read_text()) if args.output.is_file() else {}
  record[args.part] = value | {'measured': measured}
  script.write_json(args.output, record)
  print(json.dumps(value, indent=1))


if __name__ == '__main__':
  main()
