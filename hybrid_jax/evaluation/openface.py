"""Reads action units, gaze and head pose from the .csv files of OpenFace 2.0's FeatureExtraction.

Baltrusaitis et al. 2018. OpenFace itself is not needed.
"""

import csv
import dataclasses
import os
import pathlib
import re

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.media import reason

CONFIDENT = 0.5  # rows of lower confidence may not show the face
GROUPS = {
  'au': re.compile(r'AU\d\d_r'),  # intensities 0 to 5; the binary AUxx_c are not used
  'gaze': re.compile(r'gaze_angle_[xy]'),  # radians
  'pose': re.compile(r'pose_R[xyz]'),  # radians
}


@dataclasses.dataclass(frozen=True, eq=False)
class Readings:
  """Signals of one face.

  Attributes:
    times: (t,) seconds, increasing.
    channels: signals (t,) by name, NaN where the face was not found.
  """

  times: np.ndarray
  channels: dict[str, np.ndarray]

  def group(self, name: str) -> dict[str, np.ndarray]:
    """Returns the channels of 'au', 'gaze' or 'pose'."""
    return {key: x for key, x in self.channels.items() if GROUPS[name].fullmatch(key)}

  def first(self, frames: int) -> 'Readings':
    """Returns the readings of the first `frames` frames."""
    return Readings(self.times[:frames], {name: x[:frames] for name, x in self.channels.items()})


def read(path: str | os.PathLike) -> Readings:
  """Reads one face of a file: of several faces the one with the largest sum of confidences.

  Rows without success, or with less confidence than `CONFIDENT`, become NaN.

  Raises:
    InputError: the file does not exist, or is not one of OpenFace's.
  """
  try:
    with open(path, newline='') as file:
      rows = csv.reader(file, skipinitialspace=True)  # version 2.0 writes ', ' between names
      names = [name.strip() for name in next(rows, [])]
      table = np.array([[_number(value) for value in row] for row in rows if row])
  except (OSError, ValueError) as error:
    raise InputError(f'{path}: no table can be read ({reason(error)})') from error
  missing = {'frame', 'timestamp', 'confidence', 'success'} - set(names)
  channels = [name for name in names if any(p.fullmatch(name) for p in GROUPS.values())]
  if missing or not channels:
    what = f'column {sorted(missing)[0]}' if missing else 'columns AU.._r, gaze_angle_ or pose_R'
    raise InputError(f"{path}: no {what}; give a .csv of OpenFace 2.0's FeatureExtraction")
  if not table.size:
    raise InputError(f'{path}: has no rows; run OpenFace again')
  column = {name: table[:, k] for k, name in enumerate(names)}
  # A frame has one row per face, all with the same time.
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
  """Parses a number; OpenFace on Windows writes NaN as '-nan(ind)'."""
  return np.nan if text.strip().lstrip('-').startswith('nan') else float(text)


def find(folder: str | os.PathLike) -> dict[str, pathlib.Path]:
  """Returns the .csv files of a folder by name without suffix.

  Raises:
    InputError: the folder has none.
  """
  found = {path.stem: path for path in sorted(pathlib.Path(folder).glob('*.csv'))}
  if not found:
    raise InputError(f'{folder}: not a folder of OpenFace .csv files')
  return found
