"""The re-enactment command killed five times, and its memory: pytest -m slow, some minutes each."""

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

from experiments.cost import reenact_memory
from hybrid_jax.training import checkpoint

pytestmark = pytest.mark.slow


ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def workdir(model, tmp_path_factory):
  """A workdir of the small random model, as training leaves one."""
  folder = str(tmp_path_factory.mktemp('workdir'))
  checkpoint.write_config(folder, model.config.to_dict())
  with checkpoint.manager(folder) as checkpoints:
    checkpoints.save(0, args=ocp.args.Composite(encoder=ocp.args.StandardSave(model.E)))
  return folder


def test_killed_at_five_random_points(workdir, tmp_path):
  """kill -9 while rendering; the frames equal those of an uninterrupted run."""
  frames, rng, at = 1100, np.random.default_rng(0), []
  reenact_memory.write_inputs(tmp_path, frames)

  def start(name):
    command = [sys.executable, '-m', 'hybrid_jax.reenact', f'--workdir={workdir}']
    command += [f'--source={tmp_path}/source.png', f'--driving={tmp_path}/driver.mp4']
    command += ['--layout=pasted', f'--output={tmp_path}/{name}']
    return subprocess.Popen(
      command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )

  def finish(process):
    output, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, output[-2000:]
    return output

  finish(start('whole.mp4'))
  for segments in sorted(rng.integers(0, 4, 5).tolist()):
    process = start('killed.mp4')
    parts = tmp_path / '.killed.mp4.parts'
    while not (parts / 'motion.safetensors').is_file() or len(list(parts.glob('0*'))) < segments:
      assert process.poll() is None, process.communicate()[0][-2000:]
      time.sleep(0.01)
    time.sleep(float(rng.uniform(0, 0.3)))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    at.append(len(list(parts.glob('0*'))))
  output = finish(start('killed.mp4'))
  assert f'{256 * at[-1]} of them were rendered by an earlier run' in output or not at[-1]
  whole, killed = frames_of(tmp_path / 'whole.mp4'), frames_of(tmp_path / 'killed.mp4')
  assert len(whole) == frames
  assert [frame.time for frame in whole] == [frame.time for frame in killed]
  for a, b in zip(whole, killed, strict=True):
    np.testing.assert_array_equal(a.rgb, b.rgb)
  result = {'killed_with_segments': at, 'of': -(-frames // 256), 'frames_equal': True}
  path = ROOT / 'experiments' / 'results' / 'reenact_interruptions.json'
  path.write_text(json.dumps(result) + '\n')


@pytest.mark.skipif(not hasattr(os, 'wait4'), reason='needs os.wait4, for peak memory')
def test_memory_does_not_grow_with_the_length(workdir):
  runs = reenact_memory.repeated([500, 10_000], 3, workdir)
  assert reenact_memory.slope(reenact_memory.medians(runs)) <= 1, runs
