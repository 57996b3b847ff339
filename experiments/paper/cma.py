"""Measures cost and gain of Cyclic Manifold Adjustment on sources outside the training data.

  python -m experiments.paper.cma --work runs/cma --output experiments/results/cma.json
  python -m experiments.paper.cma --work ... --output ... --parts cost --workdir runs/heads/finetune

Parts, in this order; each is written to the file when it ends, and --work keeps the tunings:
  cost    a step of the tuner against a bare jitted value_and_grad of eq. 15 with Adam in the same
          run, for both lowerings of the up-convolution; compile times; memory
  choose  rate, lambda and steps of CMA, rate and steps of PTI, by ERROR on the validation split
  test    once: true cross-identity error of the test split without, with CMA and with PTI, paired
  floor   the same errors of the true answers: the lowest that the judges of identity and motion
          can give. The judge of motion has not seen caps and paint, and is no evidence there
The sources are those of out_of_domain.py, and 'inside' beside them. The early stop is off in the
parts choose and test, since its threshold belongs to another perceptual network.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import sys
import time

import jax
import matplotlib.figure
import numpy as np
from tqdm import tqdm

from experiments import script
from experiments.paper import out_of_domain, tunings
from experiments.paper.tunings import (
  BASE,
  KINDS,
  MARKS,
  METRICS,
  SETTINGS,
  VARIANTS,
  Bench,
  judged,
)
from hybrid_jax import cli
from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import rendered
from hybrid_jax.media import composite, replacing, stills
from hybrid_jax.method import cma, networks
from hybrid_jax.reenactment.model import Model, load_model
from hybrid_jax.reenactment.tuning import Adjuster

PARTS = ('cost', 'choose', 'test', 'floor')
ERROR = 'l1'  # against the true answer; settings are chosen by it
RATES = (3e-5, 1e-4, 3e-4)
LAMBDAS = (1.0, 0.0, 0.3, 3.0)  # the first while rates are compared


# --- Cost ----------------------------------------------------------------------------------------


def bare(tuner: cma.Tuner):
  """Returns a plain step: value_and_grad of eq. 15 for one driver, then Adam."""

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(params, opt, job, D, key):
    (loss, _), grads = jax.value_and_grad(tuner.objective, has_aux=True)(params, job, D, key)
    updates, opt = tuner.optimizer.update(grads, opt)
    return cma.descended(params, updates, job.rate), opt, loss

  return step


def resident() -> float:
  """Returns the resident memory of this process on Linux, MiB."""
  for line in open('/proc/self/status'):
    if line.startswith('VmRSS'):
      return int(line.split()[1]) / 1024
  return float('nan')


def cost(model: Model, variants: list[str], rounds: int, steps: int) -> dict:
  """Returns medians over `rounds` rounds, in each of which every program runs `steps` steps."""
  episode = out_of_domain.episode('validation', 'inside', 0)
  programs, result = {}, {}
  # Polyphase from a resolution that no layer has: transposed convolutions everywhere.
  for lowering, polyphase_from in (('polyphase', 0), ('transposed', 1 << 20)):
    for variant in variants:
      config = model.config.copy_and_resolve_references()
      config.model.polyphase_from, config.model.half_dtype = polyphase_from, ''
      options = dataclasses.replace(VARIANTS[variant], steps=rounds * steps + 1)
      tuner = cma.Tuner(networks.build(config.model), options, model.rows)
      drivers = episode.source[None] if variant == 'pti' else episode.pool
      frozen = Adjuster(model, options).frozen
      job = tuner.job(model.G, model.E, frozen, episode.source, drivers)
      state = tuner.start(job)
      began = time.perf_counter()
      loop = tuner.step.lower(state, job).compile()
      result[f'{variant}_{lowering}'] = {'compile_s': time.perf_counter() - began}
      D = jax.tree.map(lambda x: x[:1], job.drivers)
      start = tuner.start(job)
      plain = bare(tuner).lower(start.params, start.opt, job, D, job.key).compile()
      # Lists: state and parameters are replaced after each round.
      programs[variant, lowering] = [loop, state, plain, (start.params, start.opt), job, D]

  times: dict = {name: {'loop': [], 'bare': []} for name in programs}
  for k in tqdm(range(rounds + 1), 'timing'):  # the first round warms up
    for name, (loop, state, plain, (params, opt), job, D) in programs.items():
      began = time.perf_counter()
      for _ in range(1 if k == 0 else steps):
        state, _ = loop(state, job)
      jax.block_until_ready(state)
      middle = time.perf_counter()
      for _ in range(1 if k == 0 else steps):
        params, opt, loss = plain(params, opt, job, D, job.key)
      jax.block_until_ready(loss)
      if k:
        times[name]['loop'].append((middle - began) / steps)
        times[name]['bare'].append((time.perf_counter() - middle) / steps)
      programs[name][1], programs[name][3] = state, (params, opt)
    if k == 1:
      memory = resident()
  for (variant, lowering), taken in times.items():
    ratio = np.array(taken['loop']) / np.array(taken['bare'])
    result[f'{variant}_{lowering}'] |= {
      'step_ms': 1e3 * float(np.median(taken['loop'])),
      f'seconds_of_{BASE.steps}_steps': BASE.steps * float(np.median(taken['loop'])),
      'bare_step_ms': 1e3 * float(np.median(taken['bare'])),
      'loop_over_bare': float(np.median(ratio)),
      'loop_over_bare_rounds': ratio.round(3).tolist(),
    }
  return {
    'programs': result,
    'rounds': rounds,
    'steps_of_a_round': steps,
    'resident_mib': {'after_round_1': memory, f'after_round_{rounds}': resident()},
    'resolution': model.resolution,
  }


# --- Gain ----------------------------------------------------------------------------------------


def choose(bench: Bench, variants: list[str], count: int) -> dict:
  """Returns the mean ERROR of the validation split after each of MARKS, and the best settings.

  First the RATES with the first of LAMBDAS, then the other lambdas with the best rate.
  """
  judge = rendered.Judges()
  some = out_of_domain.episodes('validation', out_of_domain.KINDS, count)
  data = out_of_domain.joined(some)
  ends = rendered.scale(judge, data, True)
  none = judged(judge, np.concatenate([bench.untuned(e) for e in some]), data, ends)
  grid, best = [], {}

  def try_out(variant: str, rate: float, weight: float) -> None:
    bar = tqdm(some, f'{variant}, rate {rate:g}, lambda {weight:g}')
    results = [bench.tuned('validation', e, variant, rate, weight, MARKS) for e in bar]
    for steps in MARKS:
      values = judged(judge, np.concatenate([r[str(steps)] for r in results]), data, ends)
      row = {'variant': variant, 'rate': rate, 'lambda': weight, 'steps': steps}
      row |= {name: float(value.mean()) for name, value in values.items()}
      row['gain'] = script.interval(none[ERROR] - values[ERROR], data['person'])
      grid.append(row)
      if variant not in best or row[ERROR] < best[variant][ERROR]:
        best[variant] = row

  for variant in variants:
    for rate in RATES:
      try_out(variant, rate, 0.0 if variant == 'pti' else LAMBDAS[0])
    rate = best[variant]['rate']
    for weight in () if variant == 'pti' else LAMBDAS[1:]:
      try_out(variant, rate, weight)
  return {
    'sources': len(some),
    'chosen_by': ERROR,
    'none': {name: float(value.mean()) for name, value in none.items()},
    'chosen': {v: {name: row[name] for name in SETTINGS} for v, row in best.items()},
    'grid': grid,
  }


def methods_of(chosen: dict, variants: list[str]) -> dict[str, tuple[str, dict]]:
  """Returns variant and settings of each method to test, by name.

  'cma_lambda_0' (or 'cma_lambda_1' where 0 was chosen) and 'stopped' differ from 'cma' in the one
  thing that they name.
  """
  ours = chosen['cma']
  other, weight = ('cma_lambda_0', 0.0) if ours['lambda'] else ('cma_lambda_1', 1.0)
  methods = {
    'cma': ('cma', ours),
    'pti': ('pti', chosen['pti']),
    other: ('cma', ours | {'lambda': weight}),
    'stopped': ('stopped', ours),
  }
  return {name: of for name, of in methods.items() if of[0] in variants}


def tune_all(
  bench: Bench, episodes: list[out_of_domain.Episode], methods: dict
) -> tuple[dict[str, np.ndarray], dict]:
  """Returns the frames of the test episodes by method, and each method's settings and drift."""
  frames, cost = {'none': np.concatenate([bench.untuned(e) for e in episodes])}, {}
  for name, (variant, settings) in methods.items():
    rate, weight, steps = (settings[key] for key in SETTINGS)
    bar = tqdm(episodes, name)
    results = [bench.tuned('test', e, variant, rate, weight, (steps,)) for e in bar]
    frames[name] = np.concatenate([result[str(steps)] for result in results])
    drift = np.stack([result['drift'] for result in results]).mean(0)
    cost[name] = {
      **settings,
      'identity_similarity_to_untuned': float(drift[0]),
      'perceptual_distance_to_untuned': float(drift[1]),
    }
  return frames, cost


def comparisons(values: dict[str, dict[str, np.ndarray]], here: np.ndarray, person) -> dict:
  """Returns the errors of each method on the frames `here`, and differences between methods."""
  (other,) = (name for name in values if name.startswith('cma_lambda'))
  pairs = [('none', 'cma'), ('pti', 'cma'), ('none', 'pti')]
  pairs += [(other, 'cma'), ('none', other), ('pti', other), ('stopped', 'cma')]
  return {
    'errors': {
      name: {metric: script.interval(x[here], person[here]) for metric, x in of.items()}
      for name, of in values.items()
    },
    # Above zero: the second has the smaller value.
    'paired': {
      f'{a} - {b}': {
        metric: script.interval((values[a][metric] - values[b][metric])[here], person[here])
        for metric in METRICS
      }
      for a, b in pairs
      if {a, b} <= set(values)
    },
  }


def test(bench: Bench, variants: list[str], chosen: dict, count: int) -> tuple[dict, np.ndarray]:
  """Returns errors and paired differences by kind and over all KINDS out of domain; and a sheet."""
  judge = rendered.Judges()
  episodes = out_of_domain.episodes('test', KINDS, count)
  data = out_of_domain.joined(episodes)
  ends = rendered.scale(judge, data, True)
  frames, cost = tune_all(bench, episodes, methods_of(chosen, variants))
  values = {name: judged(judge, of, data, ends) for name, of in frames.items()}
  kind, targets = tunings.kinds_of(episodes), out_of_domain.TARGETS
  result = {'settings': cost, 'sources_of_a_kind': count, 'frames_of_a_source': targets}
  for group in ('out_of_domain', *KINDS):
    here = kind != 'inside' if group == 'out_of_domain' else kind == group
    result[group] = comparisons(values, here, data['person'])
  columns = [data['source'], data['driving'], data['truth'], *frames.values()]
  shown = [(k * count + j) * targets for k in range(len(KINDS)) for j in range(min(3, count))]
  rows = [[column[k] for column in columns] for k in shown]
  titles = ['source', 'driver', 'truth', *frames]
  return result, composite.labelled(rows, [kind[k] for k in shown], titles, 112)


def floor(count: int) -> dict:
  """Returns the errors of the true answers of the test split, by kind."""
  judge = rendered.Judges()
  episodes = out_of_domain.episodes('test', KINDS, count)
  data = out_of_domain.joined(episodes)
  values = judged(judge, data['truth'], data, rendered.scale(judge, data, True))
  kind, person = tunings.kinds_of(episodes), data['person']
  return {
    of: {name: script.interval(x[kind == of], person[kind == of]) for name, x in values.items()}
    for of in KINDS
  }


def figure(path: pathlib.Path, chosen: dict) -> None:
  """Draws ERROR of the validation split over steps, a line for each rate and lambda."""
  variants = list(chosen['chosen'])
  fig = matplotlib.figure.Figure(figsize=(4 * len(variants), 3.6))
  axes = fig.subplots(1, len(variants), sharey=True, squeeze=False)
  for ax, variant in zip(axes[0], variants, strict=True):
    rows = [row for row in chosen['grid'] if row['variant'] == variant]
    for rate, weight in dict.fromkeys((row['rate'], row['lambda']) for row in rows):
      line = [row for row in rows if (row['rate'], row['lambda']) == (rate, weight)]
      steps, errors = [0], [chosen['none'][ERROR]]
      steps += [row['steps'] for row in line]
      errors += [row[ERROR] for row in line]
      ax.plot(steps, errors, marker='.', label=f'rate {rate:g}, lambda {weight:g}')
    ax.set(title=variant, xlabel='steps')
    ax.legend(fontsize=7)
  axes[0, 0].set_ylabel(f'{ERROR} against the true answer')
  fig.tight_layout()
  with replacing(path) as part:
    fig.savefig(part, format='png', dpi=110)


def parse_args() -> argparse.Namespace:
  parser = script.parser(__doc__)
  add = parser.add_argument
  add('--output', type=pathlib.Path, required=True, help='.json file to update')
  add('--work', type=pathlib.Path, required=True, help='folder that keeps the tunings')
  add('--workdir', default='', help='of a training run (default: the bundled model)')
  add('--parts', default=','.join(PARTS), help='(%(default)s)')
  add('--variants', default=','.join(VARIANTS), help='(%(default)s)')
  add('--rounds', type=int, default=7, help='of the timing (%(default)s)')
  add('--steps', type=int, default=20, help='of a round of the timing (%(default)s)')
  add('--choose_on', type=int, default=4, help='validation sources of a kind (%(default)s)')
  add('--test_on', type=int, default=16, help='test sources of a kind (%(default)s)')
  return parser.parse_args()


def check(args: argparse.Namespace, record: dict) -> tuple[list[str], list[str]]:
  """Returns the parts and variants to run; `record` is the result so far.

  Raises:
    InputError: they cannot be run.
  """
  parts, variants = args.parts.split(','), args.variants.split(',')
  if unknown := set(parts) - set(PARTS):
    raise InputError(f'--parts: no {", ".join(unknown)}; choose from {", ".join(PARTS)}')
  needed = {'cma', 'pti'} if {'choose', 'test'} & set(parts) else set()
  if not needed <= set(variants) <= set(VARIANTS):
    raise InputError(
      f'--variants: choose from {", ".join(VARIANTS)}; parts choose and test need cma and pti'
    )
  # Settings that were changed after a look at the test split would be fitted to it.
  if 'test' in parts and 'test' in record:
    raise InputError(f'{args.output}: has the part test already, which is run once')
  if 'test' in parts and 'choose' not in parts and 'choose' not in record:
    raise InputError('part test takes its settings from part choose: run that first')
  return parts, variants


def main() -> None:
  args = parse_args()
  record = json.loads(args.output.read_text()) if args.output.is_file() else {}
  try:
    parts, variants = check(args, record)
    if 'cost' not in parts:  # it times compiling
      cli.use_compilation_cache()
    model = load_model(args.workdir)
  except InputError as error:
    sys.exit(f'error: {error}')
  bench = Bench(model, args.work / model.digest()[:12])
  for part in (part for part in PARTS if part in parts):
    measured = script.record()
    if part == 'cost':
      value = cost(model, variants, args.rounds, args.steps)
    elif part == 'choose':
      value = choose(bench, variants, args.choose_on)
      figure(args.output.with_name(f'{args.output.stem}_choice.png'), value)
    elif part == 'floor':
      value = floor(args.test_on)
    else:
      value, sheet = test(bench, variants, record['choose']['chosen'], args.test_on)
      stills.write_image(args.output.with_suffix('.png'), sheet)
    record[part] = value | {'measured': measured}
    script.write_json(args.output, record)
    print(json.dumps({part: {k: v for k, v in value.items() if k != 'grid'}}, indent=1), flush=True)


if __name__ == '__main__':
  main()
