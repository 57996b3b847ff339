"""Motion of a clip and of its reference from files beside them: OpenFace's, and ground truth.

Both readers return, by group, the channels of the reference and of the generated clip at the same
moments, NaN where one is missing. They add doubts about the data to `notes`.
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
GROUPS = ('expression', 'gaze', 'pose')  # of the ground truth
LOST = 0.1  # a larger share of moments without a counterpart is noted

Channels = dict[str, tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]]


def of_openface(
  pair: Pair, folders: Sequence[Mapping[str, pathlib.Path]], frames: int, notes: list[str]
) -> Channels:
  """Reads OpenFace's files of the first `frames` frames of the reference.

  Args:
    folders: .csv files of the references and of the generated clips, by name.

  Raises:
    InputError: a file is missing, or is not one of OpenFace's.
  """
  names = name_of(pair.reference), pair.name
  for side, name, files in zip(('reference', 'generated'), names, folders, strict=True):
    if name not in files:
      raise InputError(f'no {name}.csv of the {side} clip')
  paths = [files[name] for name, files in zip(names, folders, strict=True)]
  # The generated clip may be longer than the part of the reference that is used, so only the
  # reference is cut; matching by time leaves out the rest.
  whole, generated = map(openface.read, paths)
  known = whole.first(frames)
  # Both clocks start at the first row of their clip, as those of `Aligned` at its first frame.
  index = nearest(_from_first(known.times), _from_first(generated.times))
  _doubt_clock(paths[1], known.times, generated.times, index, len(whole.times) > frames, notes)
  for side, readings in (('reference', known), ('generated', generated)):
    missing = (~np.isfinite(list(readings.channels.values())).any(0)).sum()
    if missing > LOST * len(readings.times):
      notes.append(
        f'{paths[1]}: no face in {missing} of {len(readings.times)} rows of the {side} clip'
      )
  moved = {name: _at(index, x) for name, x in generated.channels.items()}
  aligned = openface.Readings(known.times, moved)
  return {group: (known.group(group), aligned.group(group)) for group in openface.GROUPS}


def of_truth(
  pair: Pair, times: np.ndarray, read: np.ndarray, notes: list[str], timeless: bool = False
) -> Channels:
  """Reads the true motion of a rendered reference, NAME.npz beside it; {} if there is no such file.

  Args:
    times: (t,) of the generated frames, seconds from the reference's first frame; their numbers if
      `timeless`.
    read: (t, 16), the judge's readings of the generated frames.

  Raises:
    InputError: the file holds no motion.
  """
  path = truth_file(pair)
  if not path.is_file():
    return {}
  try:
    with np.load(path) as file:
      clock, motion = (np.asarray(file[name], np.float64) for name in ('times', 'motion'))
  # NumPy raises errors of many types for damaged archives.
  except (
    OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error
  ) as error:  # fmt: skip
    raise InputError(f'{path}: no true motion can be read ({reason(error)})') from error
  if clock.ndim != 1 or motion.shape != (len(clock), MOTION) or not (np.diff(clock) > 0).all():
    raise InputError(
      f'{path}: times {clock.shape} and motion {motion.shape}; increasing times (t,) and motion '
      f'(t, {MOTION}) are needed'
    )
  if timeless:  # the frames have numbers only, and the motion is one row per frame
    index = np.where(times < len(clock), times, -1).astype(int)
  else:
    index = nearest(times, _from_first(clock))
  if (index < 0).mean() > LOST:
    notes.append(f'{path}: has no motion for {(index < 0).sum()} of {len(index)} frames')
  truth, names = _at(index, motion), list(parameters.MOTION)
  return {
    group: tuple({n: x[:, names.index(n)] for n in trusted(group)} for x in (truth, read))
    for group in GROUPS
  }


def truth_file(pair: Pair) -> pathlib.Path:
  """Returns the path of the true motion of a rendered reference; the file may not exist."""
  return pair.reference.with_name(f'{name_of(pair.reference)}.npz')


def _from_first(times: np.ndarray) -> np.ndarray:
  return times - times[:1]


def _at(index: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Returns values[index] as float64, NaN where the index is -1."""
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
  """Notes clocks that disagree, which would shift the signals against each other.

  Args:
    cut: whether only the beginning of the reference is used, so that the clip may be longer.
  """
  # Tolerates a difference of one frame at the end, which shifts nothing.
  (reference_s, reference_rows), (generated_s, generated_rows) = (
    (np.ptp(times), len(times)) for times in (known, generated)
  )
  frame = max(reference_s / max(reference_rows - 1, 1), generated_s / max(generated_rows - 1, 1))
  shorter = reference_s - generated_s > frame + TICK
  longer = generated_s - reference_s > frame + TICK
  if (index < 0).mean() > LOST:
    notes.append(f'{path}: no row at the time of {(index < 0).sum()} of {len(index)} frames')
  elif shorter or (longer and not (cut and generated_rows > reference_rows)):
    notes.append(
      f'{path}: lasts {generated_s:.2f} s, and its reference {reference_s:.2f} s; were both '
      'made at the same frame rate?'
    )
