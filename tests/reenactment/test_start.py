"""What a short re-enactment waits for: imports, weights, and programs that are compiled."""

import dataclasses
import pathlib
import subprocess
import sys
import threading

import jax
from reenacting import run

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_a_command_starts_without_training_libraries_and_loads_without_compiling():
  """In a process of its own: other tests import everything."""
  code = (
    'import sys, jax\n'
    'from hybrid_jax import live, reenact\n'
    'from hybrid_jax.reenactment.model import load_model\n'
    'events = []\n'
    'jax.monitoring.register_event_duration_secs_listener(\n'
    '  lambda name, seconds, **rest: events.append(name))\n'
    'load_model("").digests\n'
    'assert not [name for name in events if "compile" in name], events\n'
    'slow = {"orbax", "grain", "clu", "tensorflow", "matplotlib", "mediapipe", "c2pa"}\n'
    'assert not slow & set(sys.modules), slow & set(sys.modules)\n'
  )
  result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
  assert result.returncode == 0, result.stderr


def test_programs_compile_in_threads_and_once(model, inputs, tmp_path):
  """Those of a run; a second one finds them."""
  fresh, threads = dataclasses.replace(model, memo={}), []  # without the programs of other tests

  def listen(name, seconds, **rest):
    if name.endswith('backend_compile_duration'):
      threads.append(threading.current_thread().name)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    for name in 'ab':
      run(fresh, inputs, tmp_path / f'{name}.mp4')
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert threads == 3 * ['compiler']
