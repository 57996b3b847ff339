"""The README: its Python lines and its commands run as printed, and its links lead somewhere."""

import importlib
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / 'README.md').read_text()
PAGES = [ROOT / 'README.md', *ROOT.glob('*/README.md'), *ROOT.glob('hybrid_jax/*/README.md')]


def block(name):
  """The text of the code block after <!-- name -->."""
  return re.search(rf'<!-- {name} -->\n```\w+\n(.*?)```', README, re.S)[1]


def commands():
  """Each `python -m hybrid_jax...` of the README and of the pages beside the code."""
  for page in PAGES:
    for code in re.findall(r'```sh\n(.*?)```', page.read_text(), re.S):
      for line in code.replace('\\\n', ' ').splitlines():
        for part in line.split('&&'):
          words = shlex.split(part.split('#')[0])
          if words[:2] == ['python', '-m'] and words[2].startswith('hybrid_jax'):
            yield page.relative_to(ROOT), words[2:]


def test_the_python_lines_run_as_printed(tmp_path):
  small = ['--people=2', '--clips=2', '--size=64', '--seconds=0.4']
  for command in (['-m', 'hybrid_jax.world', 'out/', *small], ['-c', block('python')]):
    environment = {'PYTHONPATH': str(ROOT), 'TMPDIR': str(tmp_path)}
    result = subprocess.run(
      [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True,
      env={**os.environ, **environment},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
  assert (tmp_path / 'out' / 'with_glasses.mp4').stat().st_size > 1000


@pytest.mark.slow
def test_the_first_commands_run_as_printed(tmp_path):
  """In a fresh environment, from a fresh clone: minutes."""
  subprocess.run(['git', 'clone', '-q', str(ROOT), str(tmp_path / 'clone')], check=True)
  for name in ('run', 'python', 'train'):
    text = block(name)
    text = f'. .venv/bin/activate && python - <<"END"\n{text}END\n' if name == 'python' else text
    text = f'. .venv/bin/activate && {text}' if name == 'train' else text
    subprocess.run(['bash', '-euc', text], cwd=tmp_path / 'clone', check=True)
  assert (tmp_path / 'clone' / 'out' / 'reenacted.mp4').is_file()
  assert (tmp_path / 'clone' / 'runs' / 'pretrain_heads' / 'reenacted.mp4').is_file()


def test_the_options_of_printed_commands_exist():
  parsers = {}
  found = list(commands())
  assert len(found) > 10
  for page, (module, *words) in found:
    if module not in parsers:
      command = [sys.executable, '-m', module, '--help']
      parsers[module] = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    for word in words:
      if word.startswith('--') and not word.startswith('--config.'):
        name = word.split('=')[0]
        assert name in parsers[module] or f'[no]{name[2:]}' in parsers[module], (page, module, word)


@pytest.mark.parametrize('page', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(page):
  for target in re.findall(r'\]\(([^)#\s]+)', page.read_text()):
    if '://' not in target:
      assert (page.parent / target).exists(), target


def test_the_suite_is_what_ci_runs():
  script = (ROOT / '.ci' / 'run').read_text()
  printed = re.search(r'\$\((sed .* README\.md \| sed .*)\)"', script)[1]
  found = subprocess.run(['bash', '-c', printed], cwd=ROOT, capture_output=True, text=True).stdout
  assert found == block('test') and found.endswith('python -m pytest\n')


def test_length():
  assert len(README.splitlines()) <= 200


def test_public_names_of_the_readme():
  module = importlib.import_module('hybrid_jax')
  for name in re.findall(r'hybrid_jax\.(\w+)\(', block('python')):
    assert hasattr(module, name)
