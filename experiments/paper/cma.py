"""What Cyclic Manifold Adjustment costs and gains on sources that no network can have learnt.

  python -m experiments.paper.cma --work runs/cma --output experiments/results/cma.json
  python -m experiments.paper.cma --work ... --output ... --parts cost --workdir runs/heads/finetune

Parts, in this order; each is written to the file as it ends, and what is in --work is not computed
again:
  cost    a step of the compiled loop against a bare jitted value_and_grad of eq. 15 with Adam in
          the same run, for both lowerings of the up-convolution; compile times; memory
  choose  rate, lambda and steps of CMA, rate and steps of PTI, by ERROR on the validation split
  test    once: true cross-identity error of the test split without, with CMA and with PTI, paired
  floor   the same of the true answers themselves: how low the judges of identity and motion go.
          They were not made for caps and paint, and of such sources their motion says nothing
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
import numpy as np
from tqdm import tqdm

from experiments.paper import out_of_domain
from experiments.world.measure import provenance
from hybrid_jax import cli
from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import images, rendered
from hybrid_jax.media import composite, replacing, stills
from hybrid_jax.method import cma, networks
from hybrid_jax.models.ops import from_uint8
from hybrid_jax.reenactment.model import Model, load_model
from hybrid_jax.reenactment.tuning import Adjuster

PARTS = ('cost', 'choose', 'test', 'floor')
SETTINGS = 'rate', 'lambda', 'steps'
ERROR = 'l1'  # what is chosen by, against the true answer
TOLD = ('l1', 'l1_face', 'ssim', 'identity_score', 'expression_error', 'pose_error')
RATES = (3e-5, 1e-4, 3e-4)
LAMBDAS = (1.0, 0.0, 0.3, 3.0)  # the first while rates are compared
MARKS = (25, 50, 100, 200)  # steps after which a tuning is judged
KINDS = ('inside', *out_of_domain.KINDS)
BATCH = 8
BASE = cma.Options(steps=MARKS[-1], enough_lpips=0.0, pool=out_of_domain.POOL)
# Compiled once each; lambda and rate are inputs of the program.
VARIANTS = {
  'cma': BASE,
  'stopped': dataclasses.replace(BASE, through_encoder=False),
  'pti': dataclasses.replace(BASE, method='pti', pool=1),
}


# --- Tunings -------------------------------------------------------------------------------------


class Bench:
  """One model, its tuners, and the frames that each method gives for an episode, kept in `work`."""

  def __init__(self, model: Model, work: pathlib.Path):
    self.model, self.work = model, work
    self.adjuster = functools.cache(lambda variant: Adjuster(model, VARIANTS[variant]))

  def frames(self, model: Model, episode: out_of_domain.Episode) -> np.ndarray:
    """(TARGETS, 64, 64, 3) uint8 of a model, which may be adjusted."""
    F = model.deformations(list(episode.data['driving']), BATCH)
    return np.stack(list(model.images(model.identity(episode.source), F, BATCH)))

  def untuned(self, episode: out_of_domain.Episode) -> np.ndarray:
    return self.frames(self.model, episode)

  def tuned(
    self,
    split: str,
    episode: out_of_domain.Episode,
    variant: str,
    rate: float,
    weight: float,
    marks: tuple[int, ...],
  ) -> dict:
    """Frames after so many steps: {str(steps): (TARGETS, 64, 64, 3)}, 'drift'."""
    settings = f'{variant}-{rate:g}-{weight:g}-{"-".join(map(str, marks))}'
    name = f'{episode.name.replace(" ", "-")}-{settings}'
    path = self.work / split / f'{name}.npz'
    if path.is_file():
      with np.load(path) as file:
        return dict(file)
    adjuster = self.adjuster(variant)
    drivers = episode.source[None] if variant == 'pti' else episode.pool
    model, tuner = self.model, adjuster.tuner
    job = tuner.job(model.G, model.E, adjuster.frozen, episode.source, drivers)
    job = job.replace(driver_weight=np.float32(weight), rate=np.float32(rate))
    kept = {}
    chunk = int(np.gcd.reduce(marks))
    tuning = tuner.tune(job, chunk)
    for done in range(chunk, marks[-1] + 1, chunk):
      state = next(tuning)
      if done in marks:
        G = cma.adjusted(model.G, cma.delta(model.G, state))
        kept[str(done)] = self.frames(model.with_generator(G, ''), episode)
    kept['drift'] = np.array(tuner.drift(job, state.params))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, open(part, 'wb') as file:
      np.savez_compressed(file, **kept)
    return kept


def judged(
  judge: rendered.Judges, made: np.ndarray, data: dict, ends: dict
) -> dict[str, np.ndarray]:
  values = rendered.measure(judge, np.asarray(from_uint8(made.astype(np.float32))), data, ends)
  return {name: values[name] for name in TOLD}


def interval(values: np.ndarray, person: np.ndarray) -> dict[str, float]:
  return dict(zip(('mean', 'low', 'high'), images.bootstrap(values, person), strict=True))


# --- What it costs -------------------------------------------------------------------------------


def bare(tuner: cma.Tuner):
  """A plain step: value_and_grad of eq. 15 for one driver, then Adam."""

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(params, opt, job, D, key):
    (loss, _), grads = jax.value_and_grad(tuner.objective, has_aux=True)(params, job, D, key)
    updates, opt = tuner.optimizer.update(grads, opt)
    return cma.descended(params, updates, job.rate), opt, loss

  return step


def resident() -> float:
  """MiB of memory that this process holds."""
  for line in open('/proc/self/status'):
    if line.startswith('VmRSS'):
      return int(line.split()[1]) / 1024
  return float('nan')


def cost(model: Model, variants: list[str], rounds: int, steps: int) -> dict:
  """Medians of `rounds` rounds in which everything takes its turn, `steps` steps each."""
  episode = out_of_domain.episode('validation', 'inside', 0)
  programs, result = {}, {}
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
      loop = tuner.run.lower(state, job, np.int32(1)).compile()
      result[f'{variant}_{lowering}'] = {'compile_s': time.perf_counter() - began}
      D = jax.tree.map(lambda x: x[:1], job.drivers)
      start = tuner.start(job)
      plain = bare(tuner).lower(start.params, start.opt, job, D, job.key).compile()
      programs[variant, lowering] = [loop, state, plain, (start.params, start.opt), job, D]

  times: dict = {name: {'loop': [], 'bare': []} for name in programs}
  for k in tqdm(range(rounds + 1), 'timing'):  # the first round warms up
    for name, (loop, state, plain, (params, opt), job, D) in programs.items():
      until = np.int32(1 if k == 0 else 1 + k * steps)
      began = time.perf_counter()
      state = jax.block_until_ready(loop(state, job, until))
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
    'steps_of_one_dispatch': steps,
    'resident_mib': {'after_round_1': memory, f'after_round_{rounds}': resident()},
    'resolution': model.resolution,
  }


# --- What it gains -------------------------------------------------------------------------------


def choose(bench: Bench, variants: list[str], count: int) -> dict:
  """The mean ERROR of the validation split after each of MARKS, and the best settings.

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
    made = [bench.tuned('validation', e, variant, rate, weight, MARKS) for e in bar]
    for steps in MARKS:
      values = judged(judge, np.concatenate([m[str(steps)] for m in made]), data, ends)
      row = {'variant': variant, 'rate': rate, 'lambda': weight, 'steps': steps}
      row |= {name: float(value.mean()) for name, value in values.items()}
      row['gain'] = interval(none[ERROR] - values[ERROR], data['person'])
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


def test(bench: Bench, variants: list[str], chosen: dict, count: int) -> tuple[dict, np.ndarray]:
  """Errors of each method and paired differences, by kind and of all KINDS out of domain; a sheet.

  'cma_lambda_0' (or 'cma_lambda_1' where 0 was chosen) and 'stopped' are CMA with the settings of
  'cma' but for the one thing they name.
  """
  ours, pti = chosen['cma'], chosen['pti']
  other, weight = ('cma_lambda_0', 0.0) if ours['lambda'] else ('cma_lambda_1', 1.0)
  methods = {
    'cma': ('cma', ours),
    'pti': ('pti', pti),
    other: ('cma', ours | {'lambda': weight}),
    'stopped': ('stopped', ours),
  }
  methods = {name: of for name, of in methods.items() if of[0] in variants}
  judge = rendered.Judges()
  some = out_of_domain.episodes('test', KINDS, count)
  data = out_of_domain.joined(some)
  ends = rendered.scale(judge, data, True)
  made, cost = {'none': np.concatenate([bench.untuned(e) for e in some])}, {}
  for name, (variant, settings) in methods.items():
    rate, weight, steps = (settings[key] for key in SETTINGS)
    bar = tqdm(some, name)
    tunings = [bench.tuned('test', e, variant, rate, weight, (steps,)) for e in bar]
    made[name] = np.concatenate([t[str(steps)] for t in tunings])
    drift = np.stack([t['drift'] for t in tunings]).mean(0)
    cost[name] = {
      **settings,
      'identity_similarity_to_untuned': float(drift[0]),
      'perceptual_distance_to_untuned': float(drift[1]),
    }
  values = {name: judged(judge, frames, data, ends) for name, frames in made.items()}
  kind = np.repeat([e.name.split()[0] for e in some], out_of_domain.TARGETS)
  pairs = [('none', 'cma'), ('pti', 'cma'), ('none', 'pti')]
  pairs += [(other, 'cma'), ('none', other), ('pti', other), ('stopped', 'cma')]
  pairs = [pair for pair in pairs if set(pair) <= set(made)]
  targets = out_of_domain.TARGETS
  result = {'settings': cost, 'sources_of_a_kind': count, 'frames_of_a_source': targets}
  for group in ('out_of_domain', *KINDS):
    here = kind != 'inside' if group == 'out_of_domain' else kind == group
    person = data['person'][here]
    result[group] = {
      'errors': {
        name: {metric: interval(x[here], person) for metric, x in of.items()}
        for name, of in values.items()
      },
      # Above zero: the second has the smaller value.
      'paired': {
        f'{a} - {b}': {
          metric: interval((values[a][metric] - values[b][metric])[here], person) for metric in TOLD
        }
        for a, b in pairs
      },
    }
  columns = [data['source'], data['driving'], data['truth'], *made.values()]
  shown = [(k * count + j) * targets for k in range(len(KINDS)) for j in range(min(3, count))]
  rows = [[column[k] for column in columns] for k in shown]
  heads_ = ['source', 'driver', 'truth', *made]
  return result, composite.labelled(rows, [kind[k] for k in shown], heads_, 112)


def floor(count: int) -> dict:
  """What the judges say of the true answers of the test split, by kind."""
  judge = rendered.Judges()
  some = out_of_domain.episodes('test', KINDS, count)
  data = out_of_domain.joined(some)
  values = judged(judge, data['truth'], data, rendered.scale(judge, data, True))
  kind = np.repeat([e.name.split()[0] for e in some], out_of_domain.TARGETS)
  return {
    of: {name: interval(x[kind == of], data['person'][kind == of]) for name, x in values.items()}
    for of in KINDS
  }


def figure(path: pathlib.Path, chosen: dict) -> None:
  """ERROR of the validation split over steps, a line for each variant and lambda."""
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot as plt

  variants = list(chosen['chosen'])
  size = 4 * len(variants), 3.6
  fig, axes = plt.subplots(1, len(variants), figsize=size, sharey=True, squeeze=False)
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
  plt.close(fig)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--output', type=pathlib.Path, required=True, help='.json file to write')
  parser.add_argument('--work', type=pathlib.Path, required=True, help='folder of what is made')
  parser.add_argument('--workdir', default='', help='of a training run (the shipped model)')
  parser.add_argument('--parts', default=','.join(PARTS))
  parser.add_argument('--variants', default=','.join(VARIANTS))
  parser.add_argument('--rounds', type=int, default=7, help='of the timing')
  parser.add_argument('--steps', type=int, default=20, help='of one dispatch in the timing')
  parser.add_argument('--choose_on', type=int, default=4, help='validation sources of a kind')
  parser.add_argument('--test_on', type=int, default=16, help='test sources of a kind')
  args = parser.parse_args()
  parts = args.parts.split(',')
  if unknown := set(parts) - set(PARTS):
    sys.exit(f'error: no part {", ".join(unknown)}; known are {", ".join(PARTS)}')
  variants = args.variants.split(',')
  needed = {'cma', 'pti'} if {'choose', 'test'} & set(parts) else set()
  if not needed <= set(variants) <= set(VARIANTS):
    sys.exit(f'error: --variants are of {", ".join(VARIANTS)}; cma and pti are chosen and tested')
  record = json.loads(args.output.read_text()) if args.output.is_file() else {}
  if 'test' in parts and 'test' in record:
    sys.exit(f'error: {args.output}: the test split was run, which is done once')
  if 'test' in parts and 'choose' not in parts and 'choose' not in record:
    sys.exit('error: part test takes its settings from part choose, which comes first')
  if 'cost' not in parts:  # it times compiling
    cli.use_compilation_cache()
  try:
    model = load_model(args.workdir)
  except InputError as error:
    sys.exit(f'error: {error}')
  bench = Bench(model, args.work / model.digest()[:12])
  for part in (part for part in PARTS if part in parts):
    measured = provenance(part) | {'command': 'python ' + ' '.join(sys.argv)}
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
    with replacing(args.output) as temporary:
      temporary.write_text(json.dumps(record, indent=1) + '\n')
    print(json.dumps({part: {k: v for k, v in value.items() if k != 'grid'}}, indent=1), flush=True)


if __name__ == '__main__':
  main()
