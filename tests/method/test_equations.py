"""The table of method/README.md: each function exists and cites its equation."""

import functools
import importlib
import inspect
import pathlib
import re

from hybrid_jax import method

ROW = re.compile(r'^\| \((\d+)\) \| `(\w+)\.py:([\w.]+)`(?:, `\w+`)* \| (.+) \|$', re.MULTILINE)


def rows():
  """(number, module, dotted name, what it says) of each line of the table."""
  text = (pathlib.Path(method.__file__).parent / 'README.md').read_text()
  return [(int(n), *rest) for n, *rest in ROW.findall(text)]


def test_the_table_has_every_equation_once_and_in_order():
  assert [number for number, *_ in rows()] == list(range(1, 19))


def test_each_function_of_the_table_cites_its_equation():
  for number, name, dotted, _ in rows():
    module = importlib.import_module(f'hybrid_jax.method.{name}')
    function = functools.reduce(getattr, dotted.split('.'), module)
    source = inspect.getsource(function)
    assert re.search(rf'Eqs?\. (\(\d+\), )*\({number}\)', source), (number, name, dotted)
