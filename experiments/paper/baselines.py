"""What was fixed about other systems before any of them was trained (`baselines.json`).

Widths, steps, seeds, driving signals, pinned commits and deviations from public code. Results state
the entry of each row; our own trainings take their steps, batch and seeds from here.
"""

import json
import pathlib
from typing import Any

PROTOCOL: dict[str, Any] = json.loads(pathlib.Path(__file__).with_suffix('.json').read_text())


def rows() -> dict[str, str]:
  """Returns the system of each row of a table."""
  return {row: name for name, system in PROTOCOL['systems'].items() for row in system['rows']}


def stated(row: str) -> dict[str, Any]:
  """Returns what a result states of the system of a row; {} for one outside the protocol.

  The name of a row may be followed by its seed or budget, as in 'FOMM, seed 1'.
  """
  known = [name for name in rows() if row == name or row.startswith(f'{name}, ')]
  if not known:
    return {}
  name = max(known, key=len)  # 'FOMM, relative' and not 'FOMM'
  system = PROTOCOL['systems'][rows()[name]]
  return {**system, 'row': system['rows'][name], 'budget': PROTOCOL['budget']}
