"""What the scripts of this folder share: options, the record of a run, JSON files, intervals."""

import argparse
import json
import pathlib
import sys
from typing import Any

import numpy as np

from hybrid_jax import environment
from hybrid_jax.evaluation import images
from hybrid_jax.media import replacing
from hybrid_jax.world import people

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'experiments' / 'results'


def parser(description: str) -> argparse.ArgumentParser:
  """Returns a parser that shows a module's docstring as printed, and its `python -m` command."""
  # Python 3.11 would call the program by its file, which cannot be run.
  spec = getattr(sys.modules['__main__'], '__spec__', None)
  return argparse.ArgumentParser(
    prog=f'python -m {spec.name}' if spec else None,
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )


def record() -> dict:
  """Returns what a result states of its run: command, commit, date, device, versions, seeds.

  Call it before anything is written or trained: the code may change during a long run.
  """
  seeds = {'world': people.SEED, 'first_test_person': people.SPLITS['test']}
  return environment.record() | {'seeds': seeds}


def write_json(path: pathlib.Path, value: Any, allow_nan: bool = True) -> None:
  """Writes a result, whole or not at all."""
  with replacing(path) as part:
    part.write_text(json.dumps(value, indent=1, allow_nan=allow_nan) + '\n')


def interval(values: np.ndarray | list, person: np.ndarray | None = None) -> dict[str, float]:
  """Returns mean, low and high: a 95 % bootstrap interval of the mean of (n,) values.

  Values of one `person` (n,) are drawn together, since they are not independent evidence.
  """
  ends = images.bootstrap(np.asarray(values), person)
  return dict(zip(('mean', 'low', 'high'), ends, strict=True))
