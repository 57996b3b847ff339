"""Trains and judges the paper's ablations on rendered heads; goes on where it was stopped.

  python -m experiments.paper.ablations --work runs/ablations \
      --output experiments/results/ablations.json

Trainings: every variant of configs/ablations.py with every seed, from the same encoder, within the
same budget of steps (--budget), --processes of them side by side, each on its share of the cores;
what one prints is in the .log beside its folder. At inference the full model is also run with CMA
and with PTI, with rate and steps that cma.py chose on the validation split (--settings), and
with both ends of lambda: 1, the driver's cycle, as the paper has it, and 0.

Everything is judged on the same test episodes of out_of_domain.py, of people whom neither cma.py
nor an earlier run used, against the true answer. The row `truth` is that answer itself: what the
judges of identity and motion say of it is as low as they go. They were not made for caps and paint,
so tables and figure have motion only of sources without. Beside the .json: the table (.md), the
figure (.png) and pictures (_sheet.png).
"""

import argparse
import concurrent.futures
import csv
import importlib.util
import itertools
import json
import os
import pathlib
import queue
import subprocess
import sys
import time

import numpy as np
from tqdm import tqdm

from configs.ablations import STEPS, VARIANTS
from experiments.paper import cma as tunings
from experiments.paper import out_of_domain
from experiments.world.measure import provenance
from hybrid_jax import cli
from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import rendered
from hybrid_jax.media import composite, replacing, stills
from hybrid_jax.reenactment.model import load_model

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Number of the first episode of a kind. Those from 1,000 on were seen by ablations_short.json,
# after which the budget was raised.
FIRST = 2_000
REFERENCE, TRUTH, PTI = 'full', 'truth', 'full_pti'
INFERENCE = {'full_cma': 'cma_lambda_1', 'full_cma_lambda_0': 'cma_lambda_0', PTI: 'pti'}
GROUPS = ('inside', 'out_of_domain', *out_of_domain.KINDS)
CURVES = ('reenactment', 'self_reconstruction', 'anchor_identity', 'puppet_identity')
MOTION = ('expression_error', 'pose_error')
READABLE = ('inside', 'beyond')  # by the judge of motion


def trained(
  work: pathlib.Path, variant: str, seed: int, budget: tuple[int, int], cores: set[int]
) -> dict:
  """Trains one variant on `cores` unless that is done; returns what it took, of its done.json."""
  workdir = work / f'{variant}-{seed}-{budget[0]}+{budget[1]}'
  done, log = workdir / 'done.json', workdir.with_name(workdir.name + '.log')
  if not done.is_file():
    fields = {'train.num_steps': budget[0], 'then.train.num_steps': budget[1]}
    fields |= {'train.seed': seed, 'data.seed': seed}
    command = [sys.executable, '-m', 'hybrid_jax.main', f'--workdir={workdir}']
    command += [f'--config=configs/ablations.py:{variant}']
    command += [f'--config.{name}={value}' for name, value in fields.items()]
    work.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    with (
      log.open('ab') as told,
      subprocess.Popen(command, cwd=ROOT, stdout=told, stderr=told) as process,
    ):
      os.sched_setaffinity(process.pid, cores)
      process.wait()
    if process.returncode or not (workdir / 'finetune/checkpoints' / str(budget[1])).is_dir():
      raise InputError(f'{workdir}: stopped, see {log.name}; the same command goes on')
    with replacing(done) as part:
      # Of the last call: a training that was interrupted took longer.
      taken = {'last_call_s': round(time.perf_counter() - began, 1)}
      part.write_text(json.dumps(taken | {'commit': provenance('')['commit']}) + '\n')
  return json.loads(done.read_text()) | {'workdir': str(workdir / 'finetune')}


def trainings(
  work: pathlib.Path, runs: list[tuple[str, int]], budget: tuple[int, int], processes: int
) -> dict[tuple[str, int], dict]:
  """What `trained` returns for each (variant, seed), `processes` trained at a time."""
  cores, free = sorted(os.sched_getaffinity(0)), queue.SimpleQueue()
  for k in range(min(processes, len(cores))):
    free.put(set(cores[k::processes]))

  def one(run: tuple[str, int]) -> dict:
    mine = free.get()
    try:
      return trained(work, *run, budget, mine)
    finally:
      free.put(mine)

  with concurrent.futures.ThreadPoolExecutor(processes) as pool:
    waiting = {pool.submit(one, run): run for run in runs}
    done = concurrent.futures.as_completed(waiting)
    try:
      return {waiting[of]: of.result() for of in tqdm(done, 'trainings', len(runs))}
    except (InputError, KeyboardInterrupt):
      pool.shutdown(wait=False, cancel_futures=True)
      raise


def curves(workdir: pathlib.Path) -> dict[str, list[float]]:
  """Steps of stage 1, and its validation losses CURVES; a loss without weight is told too."""
  with open(workdir / 'validation.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  columns = {name: f'validation_pretrain/{name}' for name in CURVES}
  return {
    name: [float(row[key]) for row in rows] for name, key in {'step': 'step', **columns}.items()
  }


def answers(
  work: pathlib.Path, workdir: str, some: list[out_of_domain.Episode], settings: dict
) -> dict[str, np.ndarray]:
  """Frames of all episodes by a training: 'none', and of each method of `settings`."""
  model = load_model(workdir)
  bench = tunings.Bench(model, work / 'tunings' / model.digest()[:12])
  made = {'none': np.concatenate([bench.untuned(e) for e in some])}
  for method, values in settings.items():
    rate, weight, steps = (values[key] for key in tunings.SETTINGS)
    bar, variant = tqdm(some, method), method.split('_')[0]
    tuned = [bench.tuned('ablations', e, variant, rate, weight, (steps,)) for e in bar]
    made[method] = np.concatenate([t[str(steps)] for t in tuned])
  return made


def summary(
  values: dict[str, list[dict[str, np.ndarray]]], here: np.ndarray, person: np.ndarray
) -> dict:
  """Errors of each row, and paired differences to full; of those with CMA also to PTI.

  Frames of one person are drawn together, and the seeds are averaged: the interval says how sure
  the difference is over people. 'seeds' has it for each seed alone.
  """
  result: dict = {}
  for name, seeds in values.items():
    others = {'minus_full': REFERENCE}
    others |= {'minus_pti': PTI} if name.startswith('full_cma') and PTI in values else {}
    result[name] = {}
    for metric in tunings.TOLD:
      x = np.stack([of[metric][here] for of in seeds])
      result[name][metric] = tunings.interval(x.mean(0), person)
      for key, other in others.items():
        gap = x - np.stack([of[metric][here] for of in values[other]])
        gap = tunings.interval(gap.mean(0), person) | {'seeds': gap.mean(1).tolist()}
        result[name][metric][key] = gap
  return result


def shown(metric: str, group: str) -> bool:
  return group in READABLE or metric not in MOTION


def table(result: dict) -> str:
  """Markdown: a row for each variant and group, mean and interval of the difference to full."""
  lines = [
    f'Means over {len(result["seeds"])} seeds; in brackets the difference to `full` with its 95 % '
    'interval over people. More is better of ssim and identity_score (1: the person, 0: another), '
    'less of the others. `truth` is the true answer itself.',
    '',
  ]
  for group in GROUPS:
    metrics = [metric for metric in tunings.TOLD if shown(metric, group)]
    lines += [f'### {group.replace("_", " ")}', '', '| | ' + ' | '.join(metrics) + ' |']
    lines.append('|---' * (1 + len(metrics)) + '|')
    for key in ('minus_full', 'minus_pti'):
      for name, of in result[group].items():
        if key == 'minus_pti' and key not in of['l1']:
          continue
        cells = []
        for metric in metrics:
          cell, gap = f'{of[metric]["mean"]:.4f}', of[metric][key]
          gap = f'{gap["mean"]:+.4f}; {gap["low"]:+.4f} to {gap["high"]:+.4f}'
          cell = cell if name == REFERENCE else f'{cell} ({gap})'
          cells.append(f'({gap})' if key == 'minus_pti' else cell)
        of_pti = f' minus {PTI}' if key == 'minus_pti' else ''
        lines.append(f'| {name}{of_pti} | ' + ' | '.join(cells) + ' |')
    lines.append('')
  return '\n'.join(lines)


def figure(path: pathlib.Path, result: dict) -> None:
  """Above, paired differences to the full model with intervals, and each seed as a tick.

  Below, what stage 1 does to the validation losses, mean over seeds.
  """
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot as plt

  metrics = ('l1', 'identity_score', *MOTION)
  names = [name for name in result[GROUPS[0]] if name not in (REFERENCE, TRUTH)]
  fig = plt.figure(figsize=(13, 6.4), layout='constrained')
  above, below = fig.subfigures(2, 1)
  axes = above.subplots(1, len(metrics), sharey=True)
  for ax, metric in zip(axes, metrics, strict=True):
    groups = READABLE if metric in MOTION else GROUPS[:2]
    for offset, group in zip((-0.15, 0.15), groups, strict=True):
      gaps = [result[group][name][metric]['minus_full'] for name in names]
      y, mean = np.arange(len(names)) + offset, np.array([gap['mean'] for gap in gaps])
      reach = np.abs([[gap['low'] for gap in gaps], [gap['high'] for gap in gaps]] - mean)
      bars = ax.errorbar(mean, y, xerr=reach, fmt='o', label=group.replace('_', ' '))
      for row, gap in zip(y, gaps, strict=True):
        ax.plot(gap['seeds'], [row] * len(gap['seeds']), '|', color=bars[0].get_color())
    ax.axvline(0, color='grey', lw=0.8)
    better = 'right' if metric == 'identity_score' else 'left'
    ax.set(title=f'{metric} minus full', xlabel=f'{better} is better')
    ax.set(yticks=range(len(names)), yticklabels=names)
    ax.legend(fontsize=7)
  axes[0].invert_yaxis()
  for ax, term in zip(below.subplots(1, len(CURVES)), CURVES, strict=True):
    for variant in dict.fromkeys(name.rpartition('-')[0] for name in result['validation']):
      of = [x for name, x in result['validation'].items() if name.rpartition('-')[0] == variant]
      ax.plot(of[0]['step'], np.mean([x[term] for x in of], 0), marker='.', label=variant)
    ax.set(title=f'validation: {term}', xlabel='step of stage 1')
  ax.legend(fontsize=7)
  with replacing(path) as part:
    fig.savefig(part, format='png', dpi=110)
  plt.close(fig)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--output', type=pathlib.Path, required=True, help='.json file to write')
  parser.add_argument('--work', type=pathlib.Path, required=True, help='folder of trainings')
  parser.add_argument('--settings', default=str(ROOT / 'experiments/results/cma.json'))
  parser.add_argument('--seeds', default='0,1,2')
  parser.add_argument('--variants', default=','.join(VARIANTS))
  parser.add_argument('--inference', default=','.join(INFERENCE), help='rows of the full model')
  parser.add_argument('--budget', default=','.join(map(str, STEPS)), help='steps of stage 1 and 2')
  parser.add_argument('--processes', type=int, default=1, help='trainings at a time (CPU)')
  parser.add_argument('--count', type=int, default=8, help='test sources of a kind')
  args = parser.parse_args()
  if not importlib.util.find_spec('matplotlib'):  # told now, and not after hours
    sys.exit("error: the figure needs matplotlib: pip install -e '.[experiments]'")
  settings = pathlib.Path(args.settings)
  if not settings.is_file():
    sys.exit(f'error: {settings}: no such file; run experiments/paper/cma.py --parts choose first')
  chosen = json.loads(settings.read_text())['choose']['chosen']
  chosen |= {f'cma_lambda_{weight}': chosen['cma'] | {'lambda': float(weight)} for weight in (0, 1)}
  inference = {INFERENCE.get(row, ''): row for row in args.inference.split(',')}
  if '' in inference:
    sys.exit(f'error: --inference={args.inference}: some of {", ".join(INFERENCE)}')
  chosen = {method: chosen[method] for method in inference}
  variants, seeds = args.variants.split(','), list(map(int, args.seeds.split(',')))
  if REFERENCE not in variants or not set(variants) <= set(VARIANTS):
    sys.exit(f'error: --variants has {REFERENCE} and others of {", ".join(VARIANTS)}')
  budget = tuple(map(int, args.budget.split(',')))
  if len(budget) != 2:
    sys.exit(f'error: --budget={args.budget}: two numbers, the steps of stage 1 and 2')
  args.output.parent.mkdir(parents=True, exist_ok=True)
  work = args.work.absolute()
  measured = provenance('') | {'command': 'python ' + ' '.join(sys.argv)}
  cli.use_compilation_cache()

  every = [(variant, seed) for seed, variant in itertools.product(seeds, variants)]
  try:
    runs = trainings(work, every, budget, args.processes)
  except InputError as error:
    sys.exit(f'error: {error}')
  judge = rendered.Judges()
  some = out_of_domain.episodes('test', tunings.KINDS, args.count, FIRST)
  data = out_of_domain.joined(some)
  ends = rendered.scale(judge, data, True)
  values: dict = {name: [] for name in (*variants, *inference.values())}
  first: dict = {}  # frames of the first seed
  for variant, seed in every:
    workdir = runs[variant, seed]['workdir']
    try:
      made = answers(work, workdir, some, chosen if variant == REFERENCE else {})
    except InputError as error:
      sys.exit(f'error: {error}')
    names = {'none': variant} | inference
    for method, frames in made.items():
      first.setdefault(names[method], frames)
      values[names[method]].append(tunings.judged(judge, frames, data, ends))

  answer = tunings.judged(judge, data['truth'], data, ends)
  values[TRUTH] = [answer] * len(seeds)
  kind = np.repeat([e.name.split()[0] for e in some], out_of_domain.TARGETS)
  result: dict = {
    'budget_steps': budget,
    'seeds': seeds,
    'settings': chosen,
    'sources_of_a_kind': args.count,
    'trainings': {
      f'{v}-{s}': {key: runs[v, s].get(key) for key in ('last_call_s', 'commit')} for v, s in every
    },
    'validation': {
      f'{v}-{s}': curves(pathlib.Path(runs[v, s]['workdir']).parent) for v, s in every
    },
  }
  for group in GROUPS:
    here = kind != 'inside' if group == 'out_of_domain' else kind == group
    result[group] = summary(values, here, data['person'][here])
  with replacing(args.output) as part:
    part.write_text(json.dumps(result | {'measured': measured}, indent=1) + '\n')
  told = table(result)
  args.output.with_suffix('.md').write_text(told)
  figure(args.output.with_suffix('.png'), result)
  columns = [data['source'], data['driving'], data['truth'], *first.values()]
  rows = range(0, len(kind), out_of_domain.TARGETS * max(1, len(some) // 12))
  pictures = [[column[k] for column in columns] for k in rows]
  sheet = composite.labelled(
    pictures, [kind[k] for k in rows], ['source', 'driver', 'truth', *first], 112
  )
  stills.write_image(args.output.with_name(f'{args.output.stem}_sheet.png'), sheet)
  print(told)


if __name__ == '__main__':
  main()
