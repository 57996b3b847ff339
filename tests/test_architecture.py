"""The structure of the code: order of imports, sizes, and what library modules must not do."""

import ast
import io
import json
import pathlib
import subprocess
import sys
import tokenize

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'hybrid_jax'
PRODUCT = [p for name in ('hybrid_jax', 'configs', 'data') for p in (ROOT / name).rglob('*.py')]
CODE = [*PRODUCT, *(ROOT / 'experiments').rglob('*.py')]
# Read as one story each, and therefore longer than 60 lines: the training loop and the objective.
LONG = {('loop.py', 'train'), ('objective.py', 'make_objective'), ('objective.py', 'objective')}

# Imports go from a row to rows above it. Modules of the last row are commands.
ORDER = [
  {'errors', 'environment', 'progress', 'models'},
  {'media'},
  {'world', 'method'},
  {'weights'},
  {'training'},
  {'evaluation', 'provenance'},
  {'reenactment'},
  {'ahead'},
  {'jobs', 'page'},
  {'cli'},
  {
    'main', 'reenact', 'live', 'evaluate', 'convert', 'export', 'doctor', 'verify',
    'extract_motion', 'edit_sheet', 'advise', 'download', 'app',
  },
]  # fmt: skip
COMMANDS = {'__main__', *ORDER[-1]}


def imported(tree):
  """Dotted names that a file imports."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def is_command(path):
  """Whether a file is run by `python -m`."""
  return path.stem in COMMANDS if path.parent == PACKAGE else path.stem == '__main__'


def test_imports_only_go_up():
  level = {name: i for i, names in enumerate(ORDER) for name in names}
  for path in PACKAGE.rglob('*.py'):
    here = path.relative_to(PACKAGE).with_suffix('').parts[0]
    for name in imported(ast.parse(path.read_text())):
      assert name.split('.')[0] != 'torch', path
      if here in ('__init__', '__main__') or not name.startswith('hybrid_jax.'):
        continue
      other = name.split('.')[1]
      if other == '__version__':
        continue
      # The command of a wing, such as jobs/__main__.py, stands above the wing.
      above = is_command(path) and other == 'cli'
      assert level[other] < level[here] or other == here or above, f'{path} imports {name}'


def test_library_modules_do_not_print_read_arguments_or_import_commands():
  # cli.py is shared by the commands, and part of them.
  for path in PACKAGE.rglob('*.py'):
    if is_command(path) or path.name == 'cli.py':
      continue
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
      if isinstance(node, ast.Name):
        assert node.id not in ('print', 'input'), f'{path}:{node.lineno}'
      if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        name, place = f'{node.value.id}.{node.attr}', f'{path}:{node.lineno}'
        # environment.py records the command line of a run; it does not act on it.
        allowed = path.name == 'environment.py' and name == 'sys.argv'
        assert allowed or name not in ('sys.argv', 'sys.exit', 'flags.FLAGS'), place
    for name in imported(tree):
      parts = name.split('.')
      if parts[0] == 'hybrid_jax':
        assert not set(parts[1:2]) & (COMMANDS | {'cli'}) and '__main__' not in parts, (path, name)


def test_files_have_at_most_400_lines_and_functions_60():
  found = []
  for path in [*CODE, *(ROOT / 'tests').rglob('*.py')]:
    text = path.read_text()
    if (count := len(text.splitlines())) > 400:
      found.append(f'{path}: {count} lines')
    if path not in CODE:
      continue
    for node in ast.walk(ast.parse(text)):
      if isinstance(node, ast.FunctionDef) and (path.name, node.name) not in LONG:
        if (count := node.end_lineno - node.lineno + 1) > 60:
          found.append(f'{path}: {node.name} has {count} lines')
  assert not found


def test_imports_stand_at_the_top():
  mark = 'noqa: ' + 'E402'
  assert not [path for path in [*CODE, *(ROOT / 'tests').rglob('*.py')] if mark in path.read_text()]


def test_comments_are_6_to_13_per_cent_of_the_product():
  lines = comments = 0
  for path in PRODUCT:
    text = path.read_text()
    lines += len(text.splitlines())
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments += len({t.start[0] for t in tokens if t.type == tokenize.COMMENT})
  assert 0.06 <= comments / lines <= 0.13, comments / lines


def test_accelerator_script_needs_only_jax_flax_optax_numpy():
  """Its golden part runs, and passes, where the project's other dependencies cannot be imported."""
  code = (
    'import sys, runpy\n'
    'for name in ("ml_collections", "grain", "tensorflow_datasets", "clu", "av", "cv2", "orbax",'
    ' "tensorflow", "PIL", "imageio", "tqdm", "platformdirs", "matplotlib", "jinja2",'
    ' "safetensors"): sys.modules[name] = None\n'
    'sys.argv = ["accelerator", "--worker", "--parts=golden"]\n'
    'runpy.run_module("experiments.cost.accelerator", run_name="__main__", alter_sys=True)\n'
  )
  result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
  assert result.returncode == 0, result.stderr
  lines = [json.loads(line[7:]) for line in result.stdout.splitlines() if line.startswith('RESULT')]
  assert len(lines) == 5 and all(line['ok'] for line in lines)
