"""Runs of several processes, and runs that are killed: losses equal those of a quiet run.

Each starts three to seven runs of half a minute: pytest -m slow tests/test_interruptions.py
"""

import csv
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import cluster
import numpy as np
import outcomes
import pytest
from small import write_clip

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = [
  '--config.model.resolution=32',
  '--config.model.channel_base=512',
  '--config.model.channel_max=16',
  '--config.model.w_dim=16',
  '--config.model.frame_size=32',
  '--config.model.encoder_units=(1,1,1,1)',
  '--config.model.head_width=16',
  '--config.model.identity_split=(2,3,3)',
  '--config.model.deformation_layers=(0,2,3,5,6)',
  '--config.model.deformation_split=(2,2,1)',
  '--config.model.arcface_size=16',
  '--config.model.arcface_units=(1,1,1,1)',
  '--config.loss.resolution=32',
  '--config.train.log_steps=1',
  '--config.train.val_batches=1',
]


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  folder = tmp_path_factory.mktemp('videos')
  for seed in range(5):
    write_clip(folder / f'person{seed}.mp4', seed)
  return folder


def command_of(videos, workdir, *fields):
  command = [sys.executable, '-m', 'hybrid_jax.main', '--config=configs/pretrain.py:tiny', *SMALL]
  return [*command, f'--workdir={workdir}', f'--config.data.videos={videos}', *fields]


def start(videos, workdir, cache, *fields, devices=1):
  environment = os.environ | {
    'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
    'JAX_COMPILATION_CACHE_DIR': str(cache),
  }
  return subprocess.Popen(
    command_of(videos, workdir, *fields),
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(process):
  try:
    output, _ = process.communicate(timeout=1500)  # half a minute on quiet cores
  finally:
    process.kill()
  assert process.returncode == 0, output[-2000:]
  return output


def rows(workdir, name='metrics.csv'):
  table = list(csv.DictReader((workdir / name).open()))
  return [{k: v for k, v in row.items() if 'per_second' not in k} for row in table]


def test_sigterm_saves_and_the_run_goes_on_as_if_nothing_had_been(videos, tmp_path):
  """Also: validation on held-out people, the best encoder, versions, the estimate, a profile."""
  cache = tmp_path / 'cache'
  fields = [
    '--config.train.num_steps=12',
    '--config.train.checkpoint_steps=5',
    '--config.train.val_steps=4',
    '--config.train.sample_steps=12',
  ]
  profile = ['--config.train.profile_from=1']
  output = finish(start(videos, tmp_path / 'quiet', cache, *fields, *profile))
  assert 'held out: ' in output and 'GiB of temporaries' in output and 'GFLOP a step' in output
  quiet = tmp_path / 'quiet'
  assert [int(r['step']) for r in rows(quiet, 'validation.csv')] == [4, 8, 12]
  best = json.loads((quiet / 'best.json').read_text())
  totals = {
    int(r['step']): float(r['validation_pretrain/total']) for r in rows(quiet, 'validation.csv')
  }
  assert best['step'] == min(totals, key=totals.get)
  assert list((quiet / 'best').iterdir()) and list((quiet / 'profile').rglob('*.xplane.pb'))
  assert 'jax' in json.loads((quiet / 'versions.json').read_text())

  stopped = tmp_path / 'stopped'
  process = start(videos, stopped, cache, *fields)
  for _ in range(3000):
    if (stopped / 'metrics.csv').exists() and len(rows(stopped)) >= 2:
      break
    time.sleep(0.1)
  process.send_signal(signal.SIGTERM)
  assert 'SIGTERM: saved at step' in finish(process)
  assert 'resumed at step' in finish(start(videos, stopped, cache, *fields))
  assert rows(quiet) == rows(stopped)
  assert rows(quiet, 'validation.csv') == rows(stopped, 'validation.csv')


def test_two_processes_give_the_losses_of_one(videos, tmp_path):
  """jax.distributed on this machine, each process reading its part of every batch.

  Each holds a half of the state; one process alone goes on from their checkpoint.
  """
  cache = tmp_path / 'cache'
  fields = [f'--config.train.{name}_steps=3' for name in ('num', 'checkpoint', 'val', 'sample')]
  finish(start(videos, tmp_path / 'one', cache, *fields, devices=2))
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    port = probe.getsockname()[1]
  join = [f'--coordinator=localhost:{port}', '--processes=2']
  both = [
    start(videos, tmp_path / 'two', cache, *fields, *join, f'--process={k}') for k in range(2)
  ]
  for process in both:
    finish(process)
  assert_same_losses(tmp_path, 3)
  for name in ('validation.csv', 'best.json', 'samples/0000003.png'):
    assert (tmp_path / 'two' / name).is_file()
  # Stage 1 of other processes is also what a run of two can start from.
  begin = ['--config.train.num_steps=1', f'--config.train.init_from={tmp_path / "two"}', *join]
  both = [start(videos, tmp_path / 'next', cache, *begin, f'--process={k}') for k in range(2)]
  for process in both:
    finish(process)
  for name, devices in (('one', 2), ('two', 1)):
    more = ['--config.train.num_steps=5']
    finish(start(videos, tmp_path / name, cache, *fields, *more, devices=devices))
  assert_same_losses(tmp_path, 5)


def on_a_cluster(job, videos, workdir, cache, *fields):
  command = command_of(videos, workdir, '--coordinator=auto', *fields)
  variables = {'JAX_COMPILATION_CACHE_DIR': str(cache)}
  return cluster.start(job, command, env=variables, cwd=ROOT, stderr=subprocess.STDOUT)


def test_one_of_two_hosts_is_preempted_and_both_go_on_as_if_nothing_had_been(videos, tmp_path):
  """--coordinator=auto; the signal comes to the second process, which writes nothing."""
  cache, job = tmp_path / 'cache', os.getpid()  # JAX derives the port from the job
  fields = ['--config.train.num_steps=40', '--config.train.checkpoint_steps=40']
  fields += ['--config.train.val_steps=20', '--config.train.sample_steps=40']
  for process in on_a_cluster(job, videos, tmp_path / 'quiet', cache, *fields):
    finish(process)
  stopped = tmp_path / 'stopped'
  first, second = on_a_cluster(job + 1, videos, stopped, cache, *fields)
  while not (stopped / 'metrics.csv').exists() or len(rows(stopped)) < 2:
    assert first.poll() is None and second.poll() is None
    time.sleep(0.1)
  second.send_signal(signal.SIGTERM)
  output = finish(first)
  finish(second)
  (saved,) = (int(p.name) for p in (stopped / 'checkpoints').iterdir())
  assert f'SIGTERM: saved at step {saved};' in output and saved < 40
  first, second = on_a_cluster(job + 2, videos, stopped, cache, *fields)
  assert f'resumed at step {saved}' in finish(first)
  finish(second)
  assert len(rows(stopped)) == 40
  for name in ('metrics.csv', 'validation.csv'):
    assert rows(tmp_path / 'quiet', name) == rows(stopped, name)
  outcomes.write(stopped_at=saved, of=40, losses_equal_in_every_digit=True)


def assert_same_losses(folder, steps):
  one, two = rows(folder / 'one'), rows(folder / 'two')
  assert len(one) == len(two) == steps
  for a, b in zip(one, two, strict=True):
    for name in a:
      np.testing.assert_allclose(float(a[name]), float(b[name]), rtol=1e-5, atol=1e-7, err_msg=name)


def test_killed_at_five_random_points(videos, tmp_path):
  """kill -9; the log of the run that goes on equals an uninterrupted one's in every digit."""
  cache, total = tmp_path / 'cache', 60
  fields = [
    f'--config.train.num_steps={total}',
    '--config.train.checkpoint_steps=7',
    '--config.train.val_steps=20',
  ]
  finish(start(videos, tmp_path / 'quiet', cache, *fields))
  killed, rng, at = tmp_path / 'killed', random.Random(0), []
  targets = sorted(rng.sample(range(3, total - 2), 5))
  for target in targets:
    process = start(videos, killed, cache, *fields)
    while process.poll() is None:
      if (killed / 'metrics.csv').exists():
        done = rows(killed)
        if done and int(done[-1]['step']) >= target:
          process.kill()
          at.append(int(done[-1]['step']))
          break
      time.sleep(0.02)
    process.communicate()
  finish(start(videos, killed, cache, *fields))
  assert rows(tmp_path / 'quiet') == rows(killed)
  result = {'killed_at': at, 'of': total, 'losses_equal_in_every_digit': True}
  (ROOT / 'experiments' / 'results' / 'interruptions.json').write_text(json.dumps(result) + '\n')


def test_patience_stops_at_the_first_validation_that_is_no_better(videos, tmp_path):
  fields = ['--config.train.num_steps=40', '--config.train.checkpoint_steps=40']
  fields += ['--config.train.val_steps=1', '--config.train.patience=1']
  finish(start(videos, tmp_path / 'run', tmp_path / 'cache', *fields))
  table = rows(tmp_path / 'run', 'validation.csv')
  values = [float(row['validation_pretrain/total']) for row in table]
  last = len(values)
  assert [int(row['step']) for row in table] == list(range(1, last + 1)) and 1 < last < 40
  assert values[:-1] == sorted(values[:-1], reverse=True) and values[-1] >= values[-2]
  assert json.loads((tmp_path / 'run' / 'best.json').read_text())['step'] == last - 1
  assert [p.name for p in (tmp_path / 'run' / 'checkpoints').iterdir()] == [str(last)]
