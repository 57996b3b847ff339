"""Measures time, memory and losses of both stages on packed rendered heads and on real clips.

  python -m experiments.cost.training --output=experiments/results/training.json --work=runs/train
  python -m experiments.cost.training --output=... --work=... --videos=DIR --face_detector=FILE

Parts: `heads` (stage 1 and 2 of configs :heads on a packed rendered world), `clips` (both stages of
the same model on packed real clips, from --videos), `data` (batches per second of the data alone),
`packing` (peak memory of packing few and many clips). The result has no picture of the clips.
Parts that are not run keep their entry in the file.
"""

import csv
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from experiments import script
from hybrid_jax.training import sources, triplets

PARTS = ('heads', 'clips', 'data', 'packing')


def command(*arguments: str) -> tuple[str, float, float]:
  """Runs one of the project's commands; returns its output, seconds and peak GiB.

  Exits if the command fails.
  """
  # The peak is Linux's VmHWM, read until the end: ru_maxrss would count this process's own memory,
  # which a child shares until it runs its command.
  began, peak = time.perf_counter(), 0
  with tempfile.TemporaryFile('w+') as output:
    process = subprocess.Popen(
      [sys.executable, '-m', *arguments], cwd=script.ROOT, stdout=output, stderr=subprocess.STDOUT
    )
    status = pathlib.Path(f'/proc/{process.pid}/status')
    while process.poll() is None:
      found = re.search(r'VmHWM:\s+(\d+) kB', status.read_text())
      peak = int(found[1]) if found else peak  # it has none once it has ended
      time.sleep(0.02)
    output.seek(0)
    text = output.read()
  if process.returncode:
    sys.exit(f'error: {" ".join(arguments)} failed:\n{text[-2000:]}')
  return text, time.perf_counter() - began, peak / 2**20


def table(path: pathlib.Path) -> list[dict[str, float]]:
  """Reads a .csv file of numbers."""
  return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(path.open())]


def stages(work: pathlib.Path, packed: str, steps: tuple[int, int], extra: list[str]) -> dict:
  """Runs stage 1, then stage 2 from it; returns validation losses, speed and memory of each."""
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
      # Without the first row, which has the compilation.
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
  """Returns batches per second of both stages' triplets, from records and from memory."""
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
  """Returns the peak memory of packing 6, 24 and 96 rendered clips of 50 frames, 128 px."""
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


def real_clips(work: pathlib.Path, videos: str, face_detector: str, steps: tuple[int, int]) -> dict:
  """Packs real clips and runs both stages on them, for a quarter of the steps."""
  for name in ('clips', 'on_clips'):
    shutil.rmtree(work / name, ignore_errors=True)
  output, _, _ = command(
    'data.face_clips.pack', videos, str(work / 'clips'), '--size=64',
    f'--face_detector={face_detector}',
  )  # fmt: skip
  packed = re.search(r'packed: (.*)', output)[1]
  # The steps are few, and all rows of W+ must be in training before stage 2 uses them.
  extra = ['--config.train.val_batches=2']
  extra += ['--config.progressive.start_steps=20', '--config.progressive.every_steps=2']
  result = stages(work / 'on_clips', packed, (steps[0] // 4, steps[1] // 4), extra)
  return result | {'packing': re.search(r'.*used.*', output)[0].strip()}


def main() -> None:
  parser = script.parser(__doc__)
  add = parser.add_argument
  add('--output', required=True, type=pathlib.Path, help='.json file to update')
  add('--work', required=True, type=pathlib.Path, help='folder of data and runs')
  add('--parts', default=','.join(PARTS), help='(%(default)s)')
  add('--heads', default='heads_64', help='config of data.synthetic_heads (%(default)s)')
  add('--videos', default='', help='folder of real clips')
  add('--face_detector', default='', help='YuNet, .onnx')
  add('--steps', default='800,160', help='of stage 1 and 2 (%(default)s)')
  args = parser.parse_args()
  parts, work = args.parts.split(','), args.work.absolute()
  if unknown := [part for part in parts if part not in PARTS]:
    sys.exit(f'error: --parts={args.parts}: no part {unknown[0]!r}; choose from {", ".join(PARTS)}')
  work.mkdir(parents=True, exist_ok=True)
  known = json.loads(args.output.read_text()) if args.output.exists() else {}
  steps = tuple(map(int, args.steps.split(',')))
  packed = ''
  if {'heads', 'data'} & set(parts):
    output, _, _ = command('data.synthetic_heads', str(work / 'packed'), f'--config={args.heads}')
    packed = re.search(r'packed: (.*)', output)[1]
  for part in parts:
    # Before each part, whose processes import the code as it is then.
    record = script.record()
    if part == 'heads':
      value = stages(work / 'heads', packed, steps, [])
    elif part == 'clips':
      value = real_clips(work, args.videos, args.face_detector, steps)
    elif part == 'data':
      value = data_alone(packed)
    else:
      value = packing(work)
    known[part] = value | {'measured': record}
    print(json.dumps({part: known[part]}, indent=1), flush=True)
    script.write_json(args.output, known)


if __name__ == '__main__':
  main()
