"""24 jobs in 3 processes, one killed and started again, two rows bad: pytest -m slow, minutes."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import orbax.checkpoint as ocp
import pytest
from reenacting import frames_of
from small import write_clip

from hybrid_jax.jobs import table as table_of_jobs
from hybrid_jax.jobs import work
from hybrid_jax.provenance.verification import verify
from hybrid_jax.training import checkpoint

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).resolve().parents[2]
PROCESSES, ROWS, BAD = 3, 24, {5: 'no such file', 14: 'invalid choice'}


def test_one_of_three_processes_is_killed(model, inputs, tmp_path):
  workdir = str(tmp_path / 'workdir')
  checkpoint.write_config(workdir, model.config.to_dict())
  with checkpoint.manager(workdir) as checkpoints:
    checkpoints.save(0, args=ocp.args.Composite(encoder=ocp.args.StandardSave(model.E)))
  for k in range(4):
    write_clip(tmp_path / f'driver_{k}.mp4', k, frames=20 + k)
  table = tmp_path / 'jobs.csv'
  with table.open('w', newline='') as file:
    rows = csv.writer(file)
    rows.writerow(('source', 'driving', 'output', 'options'))
    for n in range(1, ROWS + 1):
      source = tmp_path / 'missing.png' if n == 5 else inputs[0]
      options = '--layout=upside-down' if n == 14 else ('', '--layout=grid')[n % 2]
      rows.writerow((source, tmp_path / f'driver_{n % 4}.mp4', tmp_path / f'{n}.mp4', options))

  def start(k):
    command = [sys.executable, '-m', 'hybrid_jax.jobs', f'--jobs={table}', f'--workdir={workdir}']
    command += ['--options=--quality', f'--shard={k}/{PROCESSES}']
    return subprocess.Popen(
      command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )

  report, began = tmp_path / 'jobs.csv.report', time.time()
  jobs = dict(enumerate(table_of_jobs.read(str(table), '--quality'), 1))
  running = [start(k) for k in range(PROCESSES)]
  of_first = range(1, ROWS + 1, PROCESSES)
  marked = lambda: [n for n in of_first if work.mark_of(report, jobs[n]).is_file()]  # noqa: E731
  while len(marked()) < 3:
    assert running[0].poll() is None, running[0].communicate()[0][-2000:]
    time.sleep(0.02)
  running[0].send_signal(signal.SIGKILL)
  assert running[0].wait() == -signal.SIGKILL
  before = {n: (tmp_path / f'{n}.mp4').stat().st_mtime_ns for n in marked()}
  running[0].communicate()
  running[0] = start(0)
  outputs = [process.communicate(timeout=1200)[0] for process in running]
  codes = [process.returncode for process in running]
  assert codes == [0, 1, 0 if all(n % 3 != 0 for n in BAD) else 1], (
    outputs
  )  # rows 5 and 14 are of 1

  # The restarted process skipped the finished rows and ran the others.
  assert outputs[0].count('finished earlier') == len(before)
  again = [n for n, at in before.items() if (tmp_path / f'{n}.mp4').stat().st_mtime_ns != at]
  assert not again
  # Every good output exists once and complete, without partial files beside it.
  good = [n for n in range(1, ROWS + 1) if n not in BAD]
  assert sorted(int(p.stem) for p in tmp_path.glob('[0-9]*.mp4')) == good
  assert not list(tmp_path.glob('.*.parts')) and not list(tmp_path.glob('.*.part.*'))
  for n in good:
    assert len(frames_of(tmp_path / f'{n}.mp4')) == 20 + n % 4
    assert verify(str(tmp_path / f'{n}.mp4')).verdict == 'verified'
  # The report agrees.
  written = list(csv.DictReader((report / 'report.csv').open()))
  assert [int(row['row']) for row in written] == list(range(1, ROWS + 1))
  for row in written:
    n = int(row['row'])
    if n in BAD:
      assert row['status'] == 'failed' and BAD[n] in row['error']
    else:
      assert row['status'] == 'done' and int(row['frames']) == 20 + n % 4 and not row['error']
      assert row['identity_by'] == 'not available: the model has a random ArcFace'
  page = (report / 'index.html').read_text()
  assert f'{ROWS} rows: {len(good)} done, {len(BAD)} failed' in page
  assert page.count('src="data:image/jpeg;base64,') == len(good) and 'href=' not in page
  result = {
    'rows': ROWS,
    'processes': PROCESSES,
    'bad_rows': sorted(BAD),
    'killed_after_rows': len(before),
    'good_outputs_that_exist_once': len(good),
    'outputs_rendered_again': len(again),
    'failed_rows_in_report': sum(row['status'] == 'failed' for row in written),
    'seconds': round(time.time() - began, 1),
    'seconds_a_row_median': float(np.median([float(row['took_s']) for row in written])),
    'device': f'{os.cpu_count()} CPU cores',
    'command': 'pytest -m slow tests/jobs/test_jobs_long.py',
  }
  path = ROOT / 'experiments' / 'results' / 'jobs.json'
  path.write_text(json.dumps(result, indent=1) + '\n')
