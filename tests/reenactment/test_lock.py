"""Runs that share an output, or find the parts of another run."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from reenacting import run

from hybrid_jax.errors import InputError
from hybrid_jax.reenactment import lock, render
from hybrid_jax.reenactment.lock import only_run

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOLDER = (
  'import sys, time\n'
  'from hybrid_jax.reenactment.lock import only_run\n'
  'with only_run(sys.argv[1]):\n'
  '  print("held", flush=True)\n'
  '  time.sleep(600)\n'
)


def test_a_second_run_is_refused_and_the_parts_of_the_first_stay(model, inputs, tmp_path):
  output = tmp_path / 'a.mp4'
  with only_run(output):
    (tmp_path / '.a.mp4.parts').mkdir()
    (tmp_path / '.a.mp4.parts' / '00000.mp4').touch()
    with pytest.raises(
      InputError, match=f'a.mp4: another run is writing it .process {os.getpid()} on .*since'
    ):
      run(model, inputs, output, layout='grid')
    assert (tmp_path / '.a.mp4.parts' / '00000.mp4').is_file()
    with only_run(tmp_path / 'b.mp4'):
      pass
  assert run(model, inputs, output) and not list(tmp_path.glob('.*'))


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
  output = tmp_path / 'a.mp4'
  command = [sys.executable, '-c', HOLDER, str(output)]
  process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
  assert process.stdout.readline() == 'held\n'
  with pytest.raises(InputError, match=f'process {process.pid} '), only_run(output):
    pass
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert lock.place(output).is_file()
  with only_run(output):
    assert json.loads(lock.place(output).read_text())['pid'] == os.getpid()
  assert not lock.place(output).exists()


def test_an_owner_on_another_machine_counts_while_it_is_renewed(tmp_path, monkeypatch):
  path = lock.place(tmp_path / 'a.mp4')
  owner = {'host': 'far', 'pid': 7, 'started': '2026-01-02 03:04:05', 'boot': 'another'}
  path.write_text(json.dumps(owner))
  with pytest.raises(InputError, match='process 7 on far.* if that has died, wait [89]'):
    with only_run(tmp_path / 'a.mp4'):
      pass
  assert json.loads(path.read_text()) == owner
  long_ago = time.time() - lock.STALE - 5
  os.utime(path, (long_ago, long_ago))
  monkeypatch.setattr(lock, 'RENEWED', 0.01)
  with only_run(tmp_path / 'a.mp4'):
    os.utime(path, (long_ago, long_ago))
    time.sleep(0.3)
    assert path.stat().st_mtime > long_ago + 1
  path.write_text('damaged')
  with only_run(tmp_path / 'a.mp4'):
    pass


def test_parts_are_named_where_they_are_kept_continued_and_removed(
  model, inputs, tmp_path, monkeypatch, capsys
):
  class Killed(Exception):
    pass

  def broken(*args, **kwargs):
    raise Killed

  monkeypatch.setattr(render, 'SEGMENT', 8)
  with monkeypatch.context() as patch, pytest.raises(Killed):
    patch.setattr('hybrid_jax.media.segments.VideoTarget.finish', broken)
    run(model, inputs, tmp_path / 'a.mp4')
  assert '.a.mp4.parts is kept: the same command' in capsys.readouterr().out
  with monkeypatch.context() as patch, pytest.raises(Killed):
    patch.setattr('hybrid_jax.media.segments.VideoTarget.finish', broken)
    run(model, inputs, tmp_path / 'a.mp4')
  assert 'goes on from the parts of an earlier run in' in capsys.readouterr().out
  run(model, inputs, tmp_path / 'a.mp4', layout='grid')
  out = capsys.readouterr().out
  assert '.a.mp4.parts: parts of a run with other options' in out and 'earlier run' not in out
  assert not list(tmp_path.glob('.*'))
