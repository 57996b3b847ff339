"""Motion of a clip and of its reference from files beside them: OpenFace's, and the true one.

Both give, by group, the channels of the reference and of the generated clip at the same moments,
NaN where there are none. What is doubtful about them is added to `notes`.
"""

import pathlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import openface
from hybrid_jax.evaluation.networks import trusted
from hybrid_jax.evaluation.pairing import TICK, Pair, nearest
from hybrid_jax.media import reason
from hybrid_jax.media.sequences import name_of
from hybrid_jax.world import parameters

MOTION = len(parameters.MOTION)
GROUPS = ('expression', 'gaze', 'pose')  # of the true motion
LOST = 0.1  # share of the moments without a counterpart that is worth a note

Channels = dict[str, tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]]


def of_openface(
  pair: Pair, folders: Sequence[Mapping[str, pathlib.Path]], frames: int, notes: list[str]
) -> Channels:
  """Of the first `frames` of the reference. Raises InputError where a file lacks, or is no such."""
  names = name_of(pair.reference), pair.name
  for side, name, files in zip(('reference', 'generated'), names, folders, strict=True):
    if name not in files:
      raise InputError(f'no {name}.csv of the {side} clip')
  paths = [files[name] for name, files in zip(names, folders, strict=True)]
  whole, generated = map(openface.read, paths)
  known = whole.first(frames)
  index = nearest(_from_first(known.times), _from_first(generated.times))
  _doubt_clock(paths[1], known.times, generated.times, index, len(whole.times) > frames, notes)
  for side, readings in (('reference', known), ('generated', generated)):
    gone = (~np.isfinite(list(readings.channels.values())).any(0)).sum()
    if gone > LOST * len(readings.times):
      notes.append(
        f'{paths[1]}: no face in {gone} of {len(readings.times)} rows of the {side} clip'
      )
  moved = {name: _at(index, x) for name, x in generated.channels.items()}
  aligned = openface.Readings(known.times, moved)
  return {group: (known.group(group), aligned.group(group)) for group in openface.GROUPS}


def of_truth(
  pair: Pair, times: np.ndarray, read: np.ndarray, notes: list[str], timeless: bool = False
) -> Channels:
  """True motion of the rendered reference, and the judge's reading (t, 16) of generated frames.

  `times` (t,) are seconds from the reference's first frame, or where it is `timeless` numbers. {}
  where no NAME.npz lies beside it.

  Raises:
    InputError: what lies there holds no true motion.
  """
  path = truth_file(pair)
  if not path.is_file():
    return {}
  try:
    with np.load(path) as file:
      clock, motion = (np.asarray(file[name], np.float64) for name in ('times', 'motion'))
  except (
    OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error
  ) as error:  # fmt: skip
    raise InputError(f'{path}: no true motion can be read ({reason(error)})') from error
  if clock.ndim != 1 or motion.shape != (len(clock), MOTION) or not (np.diff(clock) > 0).all():
    raise InputError(
      f'{path}: times {clock.shape} and motion {motion.shape}; increasing times (t,) and motion '
      f'(t, {MOTION}) are needed'
    )
  if timeless:
    index = np.where(times < len(clock), times, -1).astype(int)
  else:
    index = nearest(times, _from_first(clock))
  if (index < 0).mean() > LOST:
    notes.append(f'{path}: knows nothing of {(index < 0).sum()} of {len(index)} frames')
  known, names = _at(index, motion), list(parameters.MOTION)
  return {
    group: tuple({n: x[:, names.index(n)] for n in trusted(group)} for x in (known, read))
    for group in GROUPS
  }


def truth_file(pair: Pair) -> pathlib.Path:
  """Where the true motion of a rendered reference lies, if anywhere."""
  return pair.reference.with_name(f'{name_of(pair.reference)}.npz')


def _from_first(times: np.ndarray) -> np.ndarray:
  return times - times[:1]


def _at(index: np.ndarray, values: np.ndarray) -> np.ndarray:
  """values[index], NaN where the index is -1."""
  if not len(values):
    return np.full((len(index), *values.shape[1:]), np.nan)
  found = values[index].astype(np.float64)
  found[index < 0] = np.nan
  return found


def _doubt_clock(
  path: pathlib.Path,
  known: np.ndarray,
  generated: np.ndarray,
  index: np.ndarray,
  cut: bool,
  notes: list[str],
) -> None:
  """Clocks that disagree shift the signals. `cut`: the reference goes on, and so may the clip."""
  (wanted, rows), (lasts, made) = ((np.ptp(times), len(times)) for times in (known, generated))
  frame = max(wanted / max(rows - 1, 1), lasts / max(made - 1, 1)) + TICK
  if (index < 0).mean() > LOST:
    notes.append(f'{path}: no row at the time of {(index < 0).sum()} of {len(index)} frames')
  elif wanted - lasts > frame or (lasts - wanted > frame and not (cut and made > rows)):
    notes.append(
      f'{path}: lasts {lasts:.2f} s, and its reference {wanted:.2f} s; were both made at the same '
      'frame rate?'
    )
