"""The scripts of the paper's tables, on a few rendered frames."""

import json
import pathlib
import subprocess
import sys

import pytest

EXPERIMENTS = pathlib.Path(__file__).parents[1] / 'experiments'


def run(script, folder, *options):
  command = [sys.executable, EXPERIMENTS / script, f'--output={folder / "table.json"}', *options]
  return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('script', 'clips'),
  [
    ('table1_same_identity.py', 2),
    ('table2_cross_identity.py', 2),
    ('table3_one_shot_robustness.py', 50),
  ],
)
def test_tables_of_rendered_heads(tmp_path, script, clips):
  done = run(script, tmp_path, '--people=2', '--frames=16')
  assert not done.returncode, done.stderr
  record = json.loads((tmp_path / 'table.json').read_text())
  ours = record['rows']['ours']
  assert ours['protocol']['clips'] == clips and not ours['problems']
  assert ours['metrics']['pose_correlation_truth']['mean'] > 0.5
  assert record['rows']['FOMM'] is None and len(record['model_sha256']) == 64
  if 'robustness' in record:
    spread = record['robustness']['ours']['l1']
    assert 0 < spread['deviation_over_sources'] and 0 < spread['deviation'] < spread['mean']
    assert (tmp_path / record['heat_map']['file']).is_file()
  else:
    copy = record['rows']['copy of the source']
    assert ours['metrics']['l1']['mean'] < copy['metrics']['l1']['mean']


@pytest.mark.parametrize(
  ('options', 'said'),
  [
    (['--videos=nowhere'], '--videos needs --cropper'),
    (['--videos=nowhere', '--cropper=nowhere.onnx'], 'no such face detector'),
    (['--method=FOMM'], 'give NAME=DIR'),
    (['--people=0'], '--people=0: at least 1'),
  ],
)
@pytest.mark.slow
def test_mistakes_are_one_line(tmp_path, options, said):
  done = run('table1_same_identity.py', tmp_path, *options)
  lines = done.stderr.strip().splitlines()
  assert done.returncode == 1 and lines[-1].startswith('error: ') and said in lines[-1], lines
  assert 'Traceback' not in done.stderr
