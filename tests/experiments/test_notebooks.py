"""The notebooks: valid, without outputs, and executed whole with small settings."""

import os
import pathlib
from fractions import Fraction

import nbclient
import nbformat
import numpy as np
import outcomes
import pytest

from configs import pretrain
from hybrid_jax.media import video

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / 'experiments' / 'notebooks').glob('*.ipynb'))


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_has_no_outputs(path):
  notebook = nbformat.read(path, as_version=4)
  nbformat.validate(notebook)
  for cell in notebook.cells:
    assert cell.cell_type == 'markdown' or (cell.outputs, cell.execution_count) == ([], None)
  tags = [tag for cell in notebook.cells for tag in cell.metadata.get('tags', [])]
  assert tags == ['parameters', 'install']
  assert path.stat().st_size < 12_000


def parameters_of(notebook):
  """The cell that sets them."""
  (cell,) = (c for c in notebook.cells if 'parameters' in c.metadata.get('tags', []))
  return cell


def test_a_tpu_of_colab_trains_with_its_own_config():
  path = ROOT / 'experiments' / 'notebooks' / 'train_tpu.ipynb'
  names = {}
  exec(parameters_of(nbformat.read(path, as_version=4)).source, names)
  file, _, variant = names['CONFIG'].partition(':')
  assert (file, names['TOPOLOGY']) == ('configs/pretrain.py', 'v5e:1x1')
  assert pretrain.get_config(variant).optim.micro_batches > 1


def execute(name, folder, monkeypatch, **parameters):
  """Executes a notebook in a folder but for its cell that installs; returns it with outputs."""
  notebook = nbformat.read(ROOT / 'experiments' / 'notebooks' / f'{name}.ipynb', as_version=4)
  tagged = lambda cell, tag: tag in cell.metadata.get('tags', [])  # noqa: E731
  notebook.cells = [cell for cell in notebook.cells if not tagged(cell, 'install')]
  cell = parameters_of(notebook)
  assert all(f'\n{key} = ' in f'\n{cell.source}' for key in parameters)
  cell.source += ''.join(f'\n{key} = {value!r}' for key, value in parameters.items())
  paths = [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
  monkeypatch.setenv('PYTHONPATH', os.pathsep.join(paths))
  client = nbclient.NotebookClient(
    notebook, kernel_name='python3', timeout=600, resources={'metadata': {'path': str(folder)}}
  )
  return client.execute()


def pictures(notebook):
  """The number of outputs that are pictures or videos."""
  kinds = {'image/png', 'text/html'}
  outputs = [out for cell in notebook.cells for out in cell.get('outputs', [])]
  return sum(bool(kinds & set(out.get('data', {}))) for out in outputs)


def test_the_notebook_of_reenactment_runs(tmp_path, monkeypatch):
  done = execute('reenact', tmp_path, monkeypatch, SECONDS=0.24, SIZE=64)
  assert len(list(video.read_frames(tmp_path / 'out' / 'reenacted.mp4'))) == 6
  assert pictures(done) == 2  # the video, and the rows of pictures


@pytest.mark.slow
def test_the_notebook_of_training_runs_and_resumes(tmp_path, monkeypatch):
  rng = np.random.default_rng(0)
  for name in ('ann', 'bob', 'cleo'):
    (tmp_path / 'videos').mkdir(exist_ok=True)
    with video.VideoWriter(tmp_path / 'videos' / f'{name}.mp4', 64, 64, codec='ffv1') as writer:
      for k, frame in enumerate(rng.integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)):
        writer.write(frame, Fraction(k, 25))
  done = execute(
    'train_tpu',
    tmp_path,
    monkeypatch,
    CONFIG=f'{ROOT}/configs/pretrain.py:tiny',
    TOPOLOGY='',
    DATA=[f'--config.data.videos={tmp_path}/videos', '--config.data.batch_size=4'],
    WORKDIR=str(tmp_path / 'run'),
    STEPS=['--config.train.num_steps=2', '--config.train.sample_steps=2'],
    CMA_STEPS=1,
    SIZE=64,
  )
  assert (tmp_path / 'run' / 'checkpoints' / '2').is_dir()
  for name in ('before', 'after'):
    assert (tmp_path / 'out' / f'{name}.mp4').stat().st_size > 1000
  assert pictures(done) >= 3  # samples, the video before, and the sheet of before and after
  outcomes.write(pictures=pictures(done))
