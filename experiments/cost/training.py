"""Runs both stages on packed rendered heads and on real clips, and measures what they cost.

  python -m experiments.cost.training --output=experiments/results/training.json --work=runs/train
  python -m experiments.cost.training --output=... --work=... --videos=DIR --face_detector=FILE

Parts: `heads` (stage 1 and 2 of configs :heads on a packed rendered world), `clips` (both stages of
the same model on packed real clips, from --videos), `data` (batches a second of the data alone),
`packing` (peak memory of packing few and many clips). Nothing made from the clips is kept but
numbers. Parts that were not run keep what the file says of them.
"""

import argparse
import csv
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from experiments.world import measure
from hybrid_jax.media import replacing
from hybrid_jax.training import sources, triplets

ROOT = pathlib.Path(__file__).resolve().parents[2]

PARTS = ('heads', 'clips', 'data', 'packing')


def command(*arguments: str) -> tuple[str, float, float]:
  """(output, seconds, peak GiB) of one of the project's commands; stops where it fails.

  The peak is Linux's VmHWM, read until the end: ru_maxrss would count this process's own memory,
  which a child shares until it runs its command.
  """
  began, peak = time.perf_counter(), 0
  with tempfile.TemporaryFile('w+') as output:
    process = subprocess.Popen(
      [sys.executable, '-m', *arguments], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
    )
    status = pathlib.Path(f'/proc/{process.pid}/status')
    while process.poll() is None:
      found = re.search(r'VmHWM:\s+(\d+) kB', status.read_text())
      peak = int(found[1]) if found else peak  # it has none once it has ended
      time.sleep(0.02)
    output.seek(0)
    told = output.read()
  if process.returncode:
    sys.exit(f'error: {" ".join(arguments)} failed:\n{told[-2000:]}')
  return told, time.perf_counter() - began, peak / 2**20


def table(path: pathlib.Path) -> list[dict[str, float]]:
  return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(path.open())]


def stages(work: pathlib.Path, packed: str, steps: tuple[int, int], extra: list[str]) -> dict:
  """Stage 1, then stage 2 from it; losses at the first and the last validation, speed, memory."""
  result = {}
  for stage, count in zip(('pretrain', 'finetune'), steps, strict=True):
    every = max(count // 8, 1)
    fields = {'num_steps': count, 'val_steps': every, 'sample_steps': every, 'log_steps': every}
    arguments = [
      'hybrid_jax.main',
      f'--config=configs/{stage}.py:heads',
      f'--workdir={work / stage}',
      '--config.data.rendered_people=0',
      f'--config.data.packed={packed}',
      *[f'--config.train.{name}={value}' for name, value in fields.items()],
      *([f'--config.train.init_from={work / "pretrain"}'] if stage == 'finetune' else []),
      *extra,
    ]
    output, seconds, peak = command(*arguments)
    log = table(work / stage / 'metrics.csv')
    validation = table(work / stage / 'validation.csv')
    key = f'validation_{stage}/'
    result[stage] = {
      'steps': count,
      'wall_s': seconds,
      'steps_per_second': sorted(row[f'{stage}/steps_per_second'] for row in log[1:])[
        len(log[1:]) // 2
      ],
      'peak_gib': peak,
      'estimate': next((x for x in output.splitlines() if 'GFLOP a step' in x), ''),
      'validation': [
        {'step': int(row['step'])}
        | {
          name: row[key + name]
          for name in ('total', 'self_reconstruction', 'reenactment', 'feature_reconstruction')
          if key + name in row
        }
        for row in validation
      ],
    }
  return result


def data_alone(packed: str, batch: int = 8, seconds: float = 10.0) -> dict:
  """Batches a second of stage 1 and 2 triplets, from records and from memory, in one process."""
  rendered = sources.rendered('train', 24, 2, 12, 64)
  result = {}
  for name, clips in (
    ('packed', triplets.PackedClips(packed, 'train')),
    ('in_memory', rendered),
  ):
    for masks in (False, True):
      batches = iter(triplets.triplets(clips, batch_size=batch, seed=0, masks=masks))
      for _ in range(3):
        next(batches)
      began, count = time.perf_counter(), 0
      while time.perf_counter() - began < seconds:
        next(batches)
        count += 1
      result[f'{name}{"_masks" if masks else ""}_batches_per_second'] = count / (
        time.perf_counter() - began
      )
  return result | {'batch_size': batch, 'px': 64}


def packing(work: pathlib.Path) -> dict:
  """Peak memory of packing 6, 24 and 96 rendered clips of 50 frames, 128 px."""
  folder = work / 'rendered'
  if not folder.is_dir():
    command('hybrid_jax.world', str(folder), '--people=1', '--clips=6', '--size=128', '--seconds=2')
  videos = sorted((folder / 'driving').glob('*.mp4'))
  result = {}
  for count in (6, 24, 96):
    source, packed = work / f'videos-{count}', work / f'packed-{count}'
    for path in (source, packed):
      shutil.rmtree(path, ignore_errors=True)
    for k in range(count):
      (source / f'person{k % 6}').mkdir(parents=True, exist_ok=True)
      shutil.copy(videos[k % len(videos)], source / f'person{k % 6}' / f'clip{k}.mp4')
    output, seconds, peak = command(
      'data.face_clips.pack', str(source), str(packed), '--size=128', '--frames=50'
    )
    result[f'{count}_clips'] = {'peak_gib': peak, 'wall_s': seconds}
  return result


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--output', required=True)
  parser.add_argument('--work', required=True, help='folder for what is made on the way')
  parser.add_argument('--parts', default=','.join(PARTS))
  parser.add_argument('--heads', default='heads_64', help='config of data.synthetic_heads')
  parser.add_argument('--videos', default='', help='folder of real clips')
  parser.add_argument('--face_detector', default='', help='YuNet, .onnx')
  parser.add_argument('--steps', default='800,160', help='of stage 1 and 2')
  args = parser.parse_args()
  output, work = pathlib.Path(args.output), pathlib.Path(args.work).absolute()
  work.mkdir(parents=True, exist_ok=True)
  known = json.loads(output.read_text()) if output.exists() else {}
  steps = tuple(map(int, args.steps.split(',')))
  packed = ''
  if {'heads', 'data'} & set(args.parts.split(',')):
    told, _, _ = command('data.synthetic_heads', str(work / 'packed'), f'--config={args.heads}')
    packed = re.search(r'packed: (.*)', told)[1]
  for part in args.parts.split(','):
    # Before the run, whose processes read the code as it stands now.
    measured = measure.provenance(part) | {
      'command': f'python -m experiments.cost.training --parts={part} --steps={args.steps}'
    }
    if part == 'heads':
      value = stages(work / 'heads', packed, steps, [])
    elif part == 'clips':
      for name in ('clips', 'on_clips'):
        shutil.rmtree(work / name, ignore_errors=True)
      told, _, _ = command(
        'data.face_clips.pack', args.videos, str(work / 'clips'), '--size=64',
        f'--face_detector={args.face_detector}',
      )  # fmt: skip
      clips = re.search(r'packed: (.*)', told)[1]
      used = re.search(r'.*used.*', told)[0]
      # Few steps: all rows of W+ are to be trained before stage 2 uses them.
      extra = ['--config.train.val_batches=2']
      extra += ['--config.progressive.start_steps=20', '--config.progressive.every_steps=2']
      value = stages(work / 'on_clips', clips, (steps[0] // 4, steps[1] // 4), extra)
      value['packing'] = used.strip()
    elif part == 'data':
      value = data_alone(packed)
    elif part == 'packing':
      value = packing(work)
    else:
      sys.exit(f'error: no part {part!r}; known are {", ".join(PARTS)}')
    known[part] = value | {'measured': measured}
    print(json.dumps({part: known[part]}, indent=1), flush=True)
    with replacing(output) as temporary:
      temporary.write_text(json.dumps(known, indent=1) + '\n')


if __name__ == '__main__':
  main()
