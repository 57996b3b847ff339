"""What a result file states of its run."""

import shutil
import subprocess

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
