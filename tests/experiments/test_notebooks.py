"""The notebooks: valid, without outputs, and their code runs as printed."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / 'experiments' / 'notebooks').glob('*.ipynb'))


def code_cells(path):
  """(source, tags) of each code cell."""
  cells = json.loads(path.read_text())['cells']
  return [
    (''.join(cell['source']), cell['metadata'].get('tags', []))
    for cell in cells
    if cell['cell_type'] == 'code'
  ]


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_nbformat_4_without_outputs(path):
  notebook = json.loads(path.read_text())
  assert notebook['nbformat'] == 4 and notebook['nbformat_minor'] >= 5
  assert set(notebook) == {'cells', 'metadata', 'nbformat', 'nbformat_minor'}
  assert len({cell['id'] for cell in notebook['cells']}) == len(notebook['cells'])
  for cell in notebook['cells']:
    assert cell['cell_type'] in ('markdown', 'code') and isinstance(cell['source'], list)
    assert cell['cell_type'] == 'markdown' or (cell['outputs'], cell['execution_count']) == (
      [],
      None,
    )
  assert path.stat().st_size < 10_000


def test_the_notebook_of_reenactment_runs(tmp_path):
  cells = code_cells(ROOT / 'experiments' / 'notebooks' / 'reenact.ipynb')
  installs = [source for source, tags in cells if 'install' in tags]
  assert installs == ['%pip install -q ../..']
  script = '\n\n'.join(source for source, tags in cells if 'install' not in tags)
  paths = [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
  done = subprocess.run(
    [sys.executable, '-c', script],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
    capture_output=True,
    text=True,
  )
  assert not done.returncode, done.stderr
  assert (tmp_path / 'out' / 'reenacted.mp4').stat().st_size > 1000
