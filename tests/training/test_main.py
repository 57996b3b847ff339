"""The training command: its default workdir, and what it says before any work."""

import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from configs import common
from hybrid_jax import cli, environment, main
from hybrid_jax.weights import public

ROOT = pathlib.Path(__file__).resolve().parents[2]


def command(*options, cwd=ROOT, **variables):
  """(exit code, lines of stdout, lines of stderr)"""
  result = subprocess.run(
    [sys.executable, '-m', 'hybrid_jax.main', *options],
    cwd=cwd,
    env=os.environ | {'PYTHONPATH': str(ROOT)} | variables,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert 'Traceback' not in result.stderr, result.stderr
  return result.returncode, result.stdout.splitlines(), result.stderr.splitlines()


def test_the_first_command_names_everything_that_is_missing(tmp_path):
  """Without any other option, from a folder that has the configs but no weights."""
  (tmp_path / 'configs').symlink_to(ROOT / 'configs')
  code, _, lines = command('--config=configs/pretrain.py', cwd=tmp_path)
  assert code == 1
  for field, path in common.paper()['weights'].items():
    (line,) = [line for line in lines if f"config.weights.{field}='{path}'" in line]
    assert public.file_of(field, 'alex').origin in line
  (line,) = [line for line in lines if 'set one of config.data.videos=DIR' in line]
  assert len(lines) == 7 and lines[0] == 'error: training cannot start:'
  assert os.listdir(tmp_path) == ['configs']  # nothing is written


def test_help_says_where_a_run_is_written():
  code, lines, _ = command('--help')
  text = ' '.join(' '.join(lines).split())
  assert '--workdir' in text
  assert 'runs/CONFIG_ARGUMENT' in text and '--config=configs/pretrain.py' in text


@pytest.mark.parametrize(
  ('config', 'workdir'),
  [
    ('configs/pretrain.py', 'runs/pretrain'),
    ('configs/pretrain.py:heads', 'runs/pretrain_heads'),
    ('configs/ablations.py:without_8_10', 'runs/ablations_without_8_10'),
    ('/some/where/my.run.py', 'runs/my.run'),
    ('configs/x.py:a/b,c=1', 'runs/x_a_b_c_1'),
  ],
)
def test_the_default_workdir_is_named_after_the_config(monkeypatch, config, workdir):
  monkeypatch.setattr(flags.FLAGS['config'], '_config_filename', config, raising=False)
  assert cli.default_workdir() == workdir


def test_the_first_line_of_a_run_names_an_accelerator_that_jax_cannot_use(monkeypatch, capsys):
  monkeypatch.setattr(environment, 'missing_accelerator', lambda: 'install the extra')
  monkeypatch.setattr(main, '_CONFIG', type('Flag', (), {'value': None}))
  monkeypatch.setattr(main, '_WORKDIR', type('Flag', (), {'value': 'here'}))
  monkeypatch.setattr(main, 'run', lambda config, workdir, report: report(f'training {workdir}'))
  main.main([])
  assert capsys.readouterr().out.splitlines() == ['install the extra', 'training here']
