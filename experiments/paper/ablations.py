"""Trains and judges the paper's ablations on rendered heads; resumable.

  python -m experiments.paper.ablations --work runs/ablations \
      --output experiments/results/ablations.json

Trainings: every variant of configs/ablations.py with every seed, from the same encoder, within the
same budget of steps (--budget), --processes at a time, each on its share of the cores and with its
own .log beside its folder. At inference the full model is also run with CMA and with PTI, with the
rate and steps that cma.py chose on the validation split (--settings), and with both ends of lambda:
1, the driver's cycle, as in the paper, and 0.

All rows are judged against the true answer on the same test episodes of out_of_domain.py, of people
that neither cma.py nor an earlier run used. The row `truth` is that answer itself: the lowest
errors that the judges of identity and motion can give. These have not seen caps and paint, so
tables and figure show motion only for sources without. Beside the .json: the table (.md), the
figure (.png) and pictures (_sheet.png).
"""

import argparse
import concurrent.futures
import csv
import itertools
import json
import os
import pathlib
import queue
import subprocess
import sys
import time

import matplotlib.figure
import numpy as np
from tqdm import tqdm

from configs.ablations import STEPS, VARIANTS
from experiments import script
from experiments.paper import out_of_domain, tunings
from hybrid_jax import cli, environment
from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import rendered
from hybrid_jax.media import composite, replacing, stills
from hybrid_jax.reenactment.model import load_model

# Number of the first episode of a kind. ablations_short.json used those from 1,000 on, and the
# budget was raised after it.
FIRST = 2_000
REFERENCE, TRUTH, PTI = 'full', 'truth', 'full_pti'
INFERENCE = {'full_cma': 'cma_lambda_1', 'full_cma_lambda_0': 'cma_lambda_0', PTI: 'pti'}
GROUPS = ('inside', 'out_of_domain', *out_of_domain.KINDS)
CURVES = ('reenactment', 'self_reconstruction', 'anchor_identity', 'puppet_identity')
MOTION = ('expression_error', 'pose_error')
READABLE = ('inside', 'beyond')  # by the judge of motion


def trained(
  work: pathlib.Path,
  config: str,
  variant: str,
  seed: int,
  budget: tuple[int, ...],
  cores: set[int],
) -> dict:
  """Trains one variant of a config file on `cores` unless done; returns its done.json and workdir.

  `budget` is the steps of stage 1 and, where the config has it, of stage 2.

  Raises:
    InputError: the training failed.
  """
  workdir = work / f'{variant}-{seed}-{"+".join(map(str, budget))}'
  last = workdir if len(budget) == 1 else workdir / 'finetune'
  done, log = workdir / 'done.json', workdir.with_name(workdir.name + '.log')
  if not done.is_file():
    fields = dict(zip(('train.num_steps', 'then.train.num_steps'), budget, strict=False))
    fields |= {'train.seed': seed, 'data.seed': seed}
    command = [sys.executable, '-m', 'hybrid_jax.main', f'--workdir={workdir}']
    command += [f'--config={config}:{variant}']
    command += [f'--config.{name}={value}' for name, value in fields.items()]
    work.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    with (
      log.open('ab') as output,
      subprocess.Popen(command, cwd=script.ROOT, stdout=output, stderr=output) as process,
    ):
      # Trainings side by side on all cores would wait for each other's threads.
      os.sched_setaffinity(process.pid, cores)
      process.wait()
    if process.returncode or not (last / 'checkpoints' / str(budget[-1])).is_dir():
      raise InputError(f'{workdir}: stopped, see {log.name}; the same command resumes it')
    # An interrupted training took longer than its last call.
    taken = {'last_call_s': round(time.perf_counter() - began, 1)}
    script.write_json(done, taken | {'commit': environment.commit()})
  return json.loads(done.read_text()) | {'workdir': str(last)}


def trainings(
  work: pathlib.Path,
  config: str,
  runs: list[tuple[str, int]],
  budget: tuple[int, ...],
  processes: int,
) -> dict[tuple[str, int], dict]:
  """Returns the result of `trained` for each (variant, seed), with `processes` at a time."""
  cores, free = sorted(os.sched_getaffinity(0)), queue.SimpleQueue()
  for k in range(min(processes, len(cores))):
    free.put(set(cores[k::processes]))

  def one(run: tuple[str, int]) -> dict:
    mine = free.get()
    try:
      return trained(work, config, *run, budget, mine)
    finally:
      free.put(mine)

  with concurrent.futures.ThreadPoolExecutor(processes) as pool:
    waiting = {pool.submit(one, run): run for run in runs}
    done = concurrent.futures.as_completed(waiting)
    try:
      return {waiting[of]: of.result() for of in tqdm(done, 'trainings', len(runs))}
    # Trainings that run are finished; no other one is started.
    except (InputError, KeyboardInterrupt):
      pool.shutdown(wait=False, cancel_futures=True)
      raise


def curves(workdir: pathlib.Path) -> dict[str, list[float]]:
  """Returns steps of stage 1 and its validation losses CURVES, also those without a weight."""
  with open(workdir / 'validation.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  columns = {name: f'validation_pretrain/{name}' for name in CURVES}
  return {
    name: [float(row[key]) for row in rows] for name, key in {'step': 'step', **columns}.items()
  }


def answers(
  work: pathlib.Path, workdir: str, episodes: list[out_of_domain.Episode], settings: dict
) -> dict[str, np.ndarray]:
  """Returns a training's frames of all episodes: untuned ('none'), and by method of `settings`."""
  model = load_model(workdir)
  bench = tunings.Bench(model, work / 'tunings' / model.digest()[:12])
  frames = {'none': np.concatenate([bench.untuned(e) for e in episodes])}
  for method, values in settings.items():
    rate, weight, steps = (values[key] for key in tunings.SETTINGS)
    bar, variant = tqdm(episodes, method), method.split('_')[0]
    tuned = [bench.tuned('ablations', e, variant, rate, weight, (steps,)) for e in bar]
    frames[method] = np.concatenate([t[str(steps)] for t in tuned])
  return frames


def summary(
  values: dict[str, list[dict[str, np.ndarray]]],
  here: np.ndarray,
  person: np.ndarray,
  reference: str = REFERENCE,
) -> dict:
  """Returns errors of each row, and paired differences to `reference`; with CMA also to PTI.

  `values` has (n,) of each metric by row and seed, `here` chooses frames, `person` groups those.
  The seeds are averaged, so an interval is over people only; 'seeds' has each seed's difference.
  """
  result: dict = {}
  for name, seeds in values.items():
    others = {f'minus_{reference}': reference}
    others |= {'minus_pti': PTI} if name.startswith('full_cma') and PTI in values else {}
    result[name] = {}
    for metric in tunings.METRICS:
      x = np.stack([of[metric][here] for of in seeds])
      result[name][metric] = script.interval(x.mean(0), person)
      for key, other in others.items():
        gap = x - np.stack([of[metric][here] for of in values[other]])
        gap = script.interval(gap.mean(0), person) | {'seeds': gap.mean(1).tolist()}
        result[name][metric][key] = gap
  return result


def is_shown(metric: str, group: str) -> bool:
  """Returns whether the judge of a metric can read the sources of a group."""
  return group in READABLE or metric not in MOTION


def table(result: dict) -> str:
  """Returns Markdown: a row per variant and group, with the difference to full and its interval."""
  lines = [
    f'Means over {len(result["seeds"])} seeds; in brackets the difference to `full` with its 95 % '
    'interval over people. Higher is better for ssim and identity_score (1: the person, 0: '
    'another), lower for the others. `truth` is the true answer itself.',
    '',
  ]
  for group in GROUPS:
    metrics = [metric for metric in tunings.METRICS if is_shown(metric, group)]
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
  """Draws differences to the full model with intervals, and validation losses of stage 1 below.

  A tick is a seed; the losses are means over seeds.
  """
  metrics = ('l1', 'identity_score', *MOTION)
  names = [name for name in result[GROUPS[0]] if name not in (REFERENCE, TRUTH)]
  fig = matplotlib.figure.Figure(figsize=(13, 6.4), layout='constrained')
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


def judge_all(
  work: pathlib.Path,
  runs: dict[tuple[str, int], dict],
  episodes: list[out_of_domain.Episode],
  inference: dict[str, str],
  settings: dict,
) -> tuple[dict, dict[str, np.ndarray]]:
  """Returns the errors of each row by seed, and the frames of its first seed.

  `inference` has the row of each tuning method, `settings` those of the method. Raises InputError.
  """
  judge, data = rendered.Judges(), out_of_domain.joined(episodes)
  ends = rendered.scale(judge, data, True)
  variants = dict.fromkeys(variant for variant, _ in runs)
  values: dict = {name: [] for name in (*variants, *inference.values())}
  shown: dict[str, np.ndarray] = {}
  for (variant, _), run in runs.items():
    tuned = settings if variant == REFERENCE else {}
    names = {'none': variant} | inference
    for method, frames in answers(work, run['workdir'], episodes, tuned).items():
      shown.setdefault(names[method], frames)
      values[names[method]].append(tunings.judged(judge, frames, data, ends))
  answer = tunings.judged(judge, data['truth'], data, ends)
  values[TRUTH] = [answer] * len({seed for _, seed in runs})
  return values, shown


def write_sheet(
  path: pathlib.Path, episodes: list[out_of_domain.Episode], shown: dict[str, np.ndarray]
) -> None:
  """Writes pictures of about 12 episodes: source, driver, truth and every row."""
  data, kind = out_of_domain.joined(episodes), tunings.kinds_of(episodes)
  columns = [data['source'], data['driving'], data['truth'], *shown.values()]
  rows = range(0, len(kind), out_of_domain.TARGETS * max(1, len(episodes) // 12))
  pictures = [[column[k] for column in columns] for k in rows]
  titles = ['source', 'driver', 'truth', *shown]
  stills.write_image(path, composite.labelled(pictures, [kind[k] for k in rows], titles, 112))


def parse_args() -> argparse.Namespace:
  parser = script.parser(__doc__)
  add = parser.add_argument
  add('--output', type=pathlib.Path, required=True, help='.json file to write')
  add('--work', type=pathlib.Path, required=True, help='folder of trainings and tunings')
  add('--settings', type=pathlib.Path, default=script.RESULTS / 'cma.json', help='of cma.py')
  add('--seeds', default='0,1,2', help='(%(default)s)')
  add('--variants', default=','.join(VARIANTS), help='(%(default)s)')
  add('--inference', default=','.join(INFERENCE), help='rows of the full model (%(default)s)')
  add('--budget', default=','.join(map(str, STEPS)), help='steps of stage 1 and 2 (%(default)s)')
  add('--processes', type=int, default=1, help='trainings at a time, on CPUs (%(default)s)')
  add('--count', type=int, default=8, help='test sources of a kind (%(default)s)')
  return parser.parse_args()


def check(args: argparse.Namespace) -> tuple[list[tuple[str, int]], tuple[int, int], dict, dict]:
  """Returns the trainings, their budget, the rows of `--inference` by method, and its settings.

  Raises:
    InputError: an option is wrong, or the file of settings is missing.
  """
  if not args.settings.is_file():
    raise InputError(
      f'{args.settings}: no such file; run python -m experiments.paper.cma --parts choose first'
    )
  chosen = json.loads(args.settings.read_text())['choose']['chosen']
  chosen |= {f'cma_lambda_{weight}': chosen['cma'] | {'lambda': float(weight)} for weight in (0, 1)}
  inference = {INFERENCE.get(row, ''): row for row in args.inference.split(',')}
  if '' in inference:
    raise InputError(f'--inference={args.inference}: choose from {", ".join(INFERENCE)}')
  variants, seeds = args.variants.split(','), list(map(int, args.seeds.split(',')))
  if REFERENCE not in variants or not set(variants) <= set(VARIANTS):
    raise InputError(f'--variants: {REFERENCE} and any others of {", ".join(VARIANTS)}')
  budget = tuple(map(int, args.budget.split(',')))
  if len(budget) != 2:
    raise InputError(f'--budget={args.budget}: two numbers, the steps of stage 1 and 2')
  trainings = [(variant, seed) for seed, variant in itertools.product(seeds, variants)]
  return trainings, budget, inference, {method: chosen[method] for method in inference}


def main() -> None:
  args = parse_args()
  work = args.work.absolute()
  record = script.record()
  try:
    wanted, budget, inference, settings = check(args)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    cli.use_compilation_cache()
    done = trainings(work, 'configs/ablations.py', wanted, budget, args.processes)
    runs = {run: done[run] for run in wanted}  # in order, and not as they ended
    episodes = out_of_domain.episodes('test', tunings.KINDS, args.count, FIRST)
    values, shown = judge_all(work, runs, episodes, inference, settings)
  except InputError as error:
    sys.exit(f'error: {error}')
  kind = tunings.kinds_of(episodes)
  person = out_of_domain.joined(episodes)['person']
  result: dict = {
    'budget_steps': budget,
    'seeds': list(dict.fromkeys(seed for _, seed in wanted)),
    'settings': settings,
    'sources_of_a_kind': args.count,
    'trainings': {
      f'{v}-{s}': {key: run.get(key) for key in ('last_call_s', 'commit')}
      for (v, s), run in runs.items()
    },
    'validation': {
      f'{v}-{s}': curves(pathlib.Path(run['workdir']).parent) for (v, s), run in runs.items()
    },
  }
  for group in GROUPS:
    here = kind != 'inside' if group == 'out_of_domain' else kind == group
    result[group] = summary(values, here, person[here])
  script.write_json(args.output, result | {'measured': record})
  markdown = table(result)
  args.output.with_suffix('.md').write_text(markdown)
  figure(args.output.with_suffix('.png'), result)
  write_sheet(args.output.with_name(f'{args.output.stem}_sheet.png'), episodes, shown)
  print(markdown)


if __name__ == '__main__':
  main()
