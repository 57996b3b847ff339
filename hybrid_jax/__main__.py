"""Lists the commands of the package: `python -m hybrid_jax`."""

import ast
import pathlib

from hybrid_jax import cli

COMMANDS = (
  'main', 'reenact', 'app', 'live', 'extract_motion', 'edit_sheet', 'advise', 'jobs', 'evaluate',
  'verify', 'download', 'convert', 'export', 'doctor', 'world',
)  # fmt: skip


def summary(name: str) -> str:
  """The first line of a command's docstring, read without importing the command."""
  folder = pathlib.Path(__file__).parent
  path = (
    folder / f'{name}.py' if (folder / f'{name}.py').is_file() else folder / name / '__main__.py'
  )
  return ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))).splitlines()[0]


def main() -> None:
  """Prints a line for each command."""
  print('Commands; python -m hybrid_jax.NAME --help shows the options and examples of each:\n')
  for name in COMMANDS:
    print(f'  {name:<16}{summary(name)}')


if __name__ == '__main__':
  cli.command(main)
