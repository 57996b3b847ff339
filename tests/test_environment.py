"""What a result file states of its run."""

import shutil
import subprocess

import jax
import pytest

from hybrid_jax import environment


@pytest.mark.skipif(not shutil.which('git'), reason='needs git')
def test_the_commit_is_that_of_the_repository_that_tracks_the_file(tmp_path, monkeypatch):
  git = ['git', '-c', 'user.name=x', '-c', 'user.email=x@x', '-C', str(tmp_path)]
  for name in ('known.py', 'copy.py'):
    (tmp_path / name).write_text('')
  for arguments in (('init',), ('add', 'known.py'), ('commit', '-m', 'x')):
    subprocess.run([*git, *arguments], check=True, capture_output=True)
  head = subprocess.run([*git, 'rev-parse', 'HEAD'], check=True, capture_output=True, text=True)
  monkeypatch.setattr(environment, '__file__', str(tmp_path / 'known.py'))
  assert environment.commit() == head.stdout[:12] + '+'  # copy.py is new
  monkeypatch.setattr(environment, '__file__', str(tmp_path / 'copy.py'))
  assert environment.commit() is None


def machine(root, *paths):
  """A root folder with these files; a path PATH=TEXT has content."""
  for path in paths:
    name, _, text = path.partition('=')
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
  return root


def pci(vendor, device):
  folder = 'sys/bus/pci/devices/0000:00:04.0'
  return f'{folder}/vendor={vendor}\n', f'{folder}/device={device}\n'


@pytest.mark.parametrize(
  ('paths', 'variables', 'extra'),
  [
    (['dev/nvidia0'], {}, 'cuda'),
    (['dev/nvidiactl'], {}, 'cuda'),
    (['proc/driver/nvidia/version'], {}, 'cuda'),
    (['dev/accel0'], {}, 'tpu'),
    (pci('0x1ae0', '0x0063'), {}, 'tpu'),
    (['dev/vfio/0'], {'TPU_WORKER_ID': '0'}, 'tpu'),
    (['dev/vfio/0'], {}, ''),  # any device that is passed through
    (['dev/accel/accel0'], {}, ''),  # an NPU
    (pci('0x1ae0', '0x0042'), {}, ''),  # Google's network card
    (['dev/null', 'dev/vfio/vfio'], {'TPU_WORKER_ID': '0'}, ''),
  ],
)
def test_an_accelerator_that_jax_cannot_use(tmp_path, monkeypatch, paths, variables, extra):
  monkeypatch.setattr(environment, '_installed', lambda: iter(['jax', 'jaxlib']))
  for name in environment._TPU_VARIABLES:
    monkeypatch.delenv(name, raising=False)
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  line = environment.missing_accelerator(machine(tmp_path, *paths))
  assert '\n' not in line
  if extra:
    assert line.endswith(f"pip install -e '.[{extra}]'")
  else:
    assert line == ''


def test_nothing_is_said_of_an_accelerator_that_was_declined_or_has_its_plugin(
  tmp_path, monkeypatch
):
  root = machine(tmp_path, 'dev/nvidia0')
  monkeypatch.setattr(environment, '_installed', lambda: iter(['jax', 'jax-cuda13-plugin']))
  assert environment.missing_accelerator(root) == ''
  monkeypatch.setattr(environment, '_installed', lambda: iter(['jax']))
  assert environment.missing_accelerator(root)
  before = jax.config.jax_platforms
  jax.config.update('jax_platforms', 'cpu')
  try:
    assert environment.missing_accelerator(root) == ''
  finally:
    jax.config.update('jax_platforms', before)
