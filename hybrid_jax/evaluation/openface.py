"""Action units, gaze and head pose as OpenFace 2.0's FeatureExtraction writes them (.csv).

Baltrusaitis et al. 2018. OpenFace itself is not needed to read its files.
"""

import csv
import dataclasses
import os
import pathlib
import re

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.media import reason

CONFIDENT = 0.5  # below this OpenFace is not sure to have found the face
GROUPS = {
  'au': re.compile(r'AU\d\d_r'),  # intensities 0 to 5; the binary AUxx_c are not used
  'gaze': re.compile(r'gaze_angle_[xy]'),  # radians
  'pose': re.compile(r'pose_R[xyz]'),  # radians
}


@dataclasses.dataclass(frozen=True, eq=False)
class Readings:
  """times: (t,) seconds, increasing. channels: (t,) by name, NaN where the face was not found."""

  times: np.ndarray
  channels: dict[str, np.ndarray]

  def group(self, name: str) -> dict[str, np.ndarray]:
    """Channels of 'au', 'gaze' or 'pose'."""
    return {key: x for key, x in self.channels.items() if GROUPS[name].fullmatch(key)}

  def first(self, frames: int) -> 'Readings':
    """The first so many."""
    return Readings(self.times[:frames], {name: x[:frames] for name, x in self.channels.items()})


def read(path: str | os.PathLike) -> Readings:
  """One face of a file: of several the one with the largest sum of confidences.

  Column names may be preceded by spaces, as version 2.0 writes them. Rows without success, or with
  less confidence than `CONFIDENT`, are NaN.

  Raises:
    InputError: no such file, or none of OpenFace's.
  """
  try:
    with open(path, newline='') as file:
      rows = csv.reader(file, skipinitialspace=True)
      names = [name.strip() for name in next(rows, [])]
      table = np.array([[_number(value) for value in row] for row in rows if row])
  except (OSError, ValueError) as error:
    raise InputError(f'{path}: no table can be read ({reason(error)})') from error
  lacking = {'frame', 'timestamp', 'confidence', 'success'} - set(names)
  channels = [name for name in names if any(p.fullmatch(name) for p in GROUPS.values())]
  if lacking or not channels:
    what = f'column {sorted(lacking)[0]}' if lacking else 'columns AU.._r, gaze_angle_ or pose_R'
    raise InputError(f"{path}: no {what}; give a .csv of OpenFace 2.0's FeatureExtraction")
  if not table.size:
    raise InputError(f'{path}: has no rows; run OpenFace again')
  column = {name: table[:, k] for k, name in enumerate(names)}
  frames, first = np.unique(column['frame'], return_index=True)
  times = column['timestamp'][first]
  if not (np.diff(times) > 0).all():
    raise InputError(f'{path}: its timestamps do not increase; run OpenFace over the whole clip')
  values = {name: np.full(len(frames), np.nan) for name in channels}
  sure = (column['success'] == 1) & (column['confidence'] >= CONFIDENT)
  faces = column.get('face_id', np.zeros(len(table)))
  if sure.any():
    confidence = lambda face: column['confidence'][sure & (faces == face)].sum()  # noqa: E731
    sure &= faces == max(np.unique(faces), key=confidence)
  at = np.searchsorted(frames, column['frame'][sure])
  for name in channels:
    values[name][at] = column[name][sure]
  return Readings(times, values)


def _number(text: str) -> float:
  """Of NaN Windows writes '-nan(ind)'."""
  return np.nan if text.strip().lstrip('-').startswith('nan') else float(text)


def find(folder: str | os.PathLike) -> dict[str, pathlib.Path]:
  """The .csv files of a folder by name without suffix. Raises InputError where there are none."""
  found = {path.stem: path for path in sorted(pathlib.Path(folder).glob('*.csv'))}
  if not found:
    raise InputError(f'{folder}: no folder of OpenFace .csv files')
  return found
