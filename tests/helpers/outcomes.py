"""Results of slow tests as committed files: the ordinary suite leaves these tests out."""

import json
import os
import pathlib

from hybrid_jax import environment

RESULTS = pathlib.Path(__file__).resolve().parents[2] / 'experiments' / 'results' / 'slow_tests'


def write(**figures) -> None:
  """Writes the figures of the running test, and how they were made, under the test's name."""
  test = os.environ['PYTEST_CURRENT_TEST'].split(' ')[0]  # file::name, set by pytest
  result = {
    **figures,
    'command': f'python -m pytest -n0 -m slow {test}',
    'commit': environment.commit(),
    'device': environment.processor(),
  }
  RESULTS.mkdir(exist_ok=True)
  path = RESULTS / f'{test.split("::test_")[1].split("[")[0]}.json'
  path.write_text(json.dumps(result, indent=1) + '\n')
