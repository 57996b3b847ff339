"""Measures what a triplet of packed clips costs on one core, and projects 8 cores from it.

  python -m experiments.cost.input_pipeline --output=experiments/results/input_pipeline.json

Clips of 256 px, as configs/pretrain.py reads them for 1024 px, are drawn (smooth noise, whose JPEGs
are about as large as those of photographs), packed by data.face_clips.pack, and read in one thread:
find the record, decode two frames and one of another person, flip, stack into batches of 8. The
time is the thread's CPU time, so that other programs on the machine do not count; the load of the
machine is noted beside it. Stage 2 adds two masks, drawn here as ellipses.

`projected` is no measurement: 8 cores at that cost, against steps of 60 ms with 8 triplets.
`throughput` is measured in wall time on this machine, with and without worker processes.
"""

import io
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from fractions import Fraction

import numpy as np
from absl import flags
from PIL import Image, ImageDraw

from experiments import script
from hybrid_jax.media import video
from hybrid_jax.training import triplets

SIZE, FRAMES, PEOPLE, BATCH = 256, 50, 6, 8
STEP_S, CORES = 0.060, 8


def write_clip(path: pathlib.Path, seed: int) -> None:
  """Writes a clip of noise with the spectrum of photographs (amplitude 1/f), which moves."""
  rng = np.random.default_rng(seed)
  side = 2 * SIZE
  frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
  spectrum = np.fft.rfft2(rng.normal(size=(3, side, side))) / np.maximum(frequency, 1 / side)
  ground = np.fft.irfft2(spectrum).transpose(1, 2, 0)
  ground = np.clip(128 + 45 * ground / ground.std(), 0, 255).astype(np.uint8)
  with video.VideoWriter(path, SIZE, SIZE, time_base=Fraction(1, 25)) as writer:
    for k in range(FRAMES):
      writer.write(
        np.ascontiguousarray(ground[k : k + SIZE, 2 * k : 2 * k + SIZE]), Fraction(k, 25)
      )


def pack(folder: pathlib.Path) -> str:
  """Packs drawn clips with the command of data/README.md; returns the folder of the set."""
  videos = folder / 'videos'
  videos.mkdir()
  for seed in range(PEOPLE):
    write_clip(videos / f'person{seed}.mp4', seed)
  command = [sys.executable, '-m', 'data.face_clips.pack', str(videos), str(folder / 'packed')]
  command += [f'--size={SIZE}', f'--frames={FRAMES}']
  result = subprocess.run(command, cwd=script.ROOT, capture_output=True, text=True, check=True)
  return re.search(r'packed: (.*)', result.stdout)[1]


def seconds_per_triplet(packed: str, batches: int) -> dict[str, float]:
  """Returns CPU seconds of one thread: a triplet drawn, and its share of stacking a batch."""
  clips = triplets.PackedClips(packed, 'train')
  draw, rng = triplets.DrawTriplet(clips, masks=False, flip=True), np.random.default_rng(0)
  drawn = [draw.random_map(k % len(clips.lengths), rng) for k in range(BATCH)]  # opens the files
  count, began = batches * BATCH, time.thread_time()
  for k in range(count):
    draw.random_map(k % len(clips.lengths), rng)
  read, began = time.thread_time() - began, time.thread_time()
  for _ in range(batches):
    {name: np.stack([triplet[name] for triplet in drawn]) for name in drawn[0]}
  return {'read': read / count, 'stack': (time.thread_time() - began) / count}


def seconds_per_mask(count: int = 200) -> float:
  """Returns CPU seconds of decoding the masks of one frame, a PNG of four channels."""
  masks = []
  for box in ((90, 160, 166, 200), (70, 90, 186, 120), (60, 70, 196, 92), (40, 30, 216, 236)):
    mask = Image.new('L', (SIZE, SIZE))
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    masks.append(mask)
  file = io.BytesIO()
  Image.merge('RGBA', masks).save(file, 'png')
  began = time.thread_time()
  for _ in range(count):
    np.asarray(Image.open(io.BytesIO(file.getvalue())))[..., :3].max(-1)
  return (time.thread_time() - began) / count


def throughput(packed: str, workers: int, batches: int) -> dict[str, float]:
  """Returns triplets per second of wall time, and the load of the machine meanwhile."""
  clips = triplets.PackedClips(packed, 'train')
  iterator = triplets.triplets(clips, batch_size=BATCH, seed=0, flip=True, workers=workers)
  for _ in range(triplets.READ_AHEAD.prefetch_buffer_size + 4):
    next(iterator)  # past the batches that were read ahead while the workers started
  began = time.perf_counter()
  for _ in range(batches):
    next(iterator)
  seconds = time.perf_counter() - began
  iterator.close()
  return {'triplets_per_second': batches * BATCH / seconds, 'load_average': os.getloadavg()[0]}


def main() -> None:
  parser = script.parser(__doc__)
  parser.add_argument('--output', required=True, type=pathlib.Path, help='.json file to write')
  parser.add_argument('--batches', type=int, default=60, help='measured each time (%(default)s)')
  args = parser.parse_args()
  flags.FLAGS.mark_as_parsed()  # Grain's workers read one
  record, load = script.record(), os.getloadavg()[0]
  with tempfile.TemporaryDirectory() as folder:
    packed = pack(pathlib.Path(folder))
    files = sum(f.stat().st_size for f in pathlib.Path(packed).glob('*array_record*'))
    cost, mask = seconds_per_triplet(packed, args.batches), seconds_per_mask()
    stage_1 = cost['read'] + cost['stack']
    stages = {'pretrain': stage_1, 'finetune': stage_1 + 2 * mask}
    measured = {f'{n}_workers': throughput(packed, n, args.batches) for n in (0, 2)}
  projected = {
    stage: {
      'triplets_per_second': CORES / seconds,
      'times_what_the_step_takes': CORES / seconds / (BATCH / STEP_S),
    }
    for stage, seconds in stages.items()
  }
  result = {
    'px': SIZE,
    'batch_size': BATCH,
    'kilobytes_per_frame': files / (PEOPLE * FRAMES) / 1000,
    'cpu_seconds_per_triplet': stages | cost | {'mask': mask},
    'load_average': load,
    'projected': {'cores': CORES, 'step_s': STEP_S} | projected,
    'throughput': measured,
  }
  script.write_json(args.output, result | {'measured': record})


if __name__ == '__main__':
  main()
