"""From measured clips to the numbers of a table, with intervals, notes and the protocol."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hybrid_jax import environment
from hybrid_jax.evaluation import frechet, images, motions
from hybrid_jax.evaluation.detectors import SIDE
from hybrid_jax.evaluation.measure import Evaluation, Measured
from hybrid_jax.evaluation.openface import CONFIDENT
from hybrid_jax.evaluation.pairing import Pair
from hybrid_jax.evaluation.squares import MOUTH_SIDE
from hybrid_jax.media import sequences


@dataclasses.dataclass(frozen=True)
class Metric:
  """A metric of the table.

  Attributes:
    label: in words. unit: '' if it has none. more: whether more is better.
    advised: samples of each set that its distance should have at least; 0 for other metrics.
  """

  label: str
  unit: str
  more: bool
  advised: int = 0


# Numbers of different networks never share a name: a judge's distance is not an FID.
# FID's authors advise 10,000 images or more; FVD is usually computed from 2,048 clips.
METRICS = {
  'l1': Metric('L1', '0 to 255', False),
  'identity_loss': Metric('identity loss', '1 - cosine', False),
  'identity_similarity': Metric('identity similarity', 'cosine', True),
  'lpips': Metric('LPIPS', '', False),
  'psnr': Metric('PSNR', 'dB', True),
  'ssim': Metric('SSIM', '', True),
  'fid': Metric('FID', '', False, 10_000),
  'fvd': Metric('FVD', '', False, 2048),
  'mouth_fvd': Metric('FVD, mouth', '', False, 2048),
  'au_correlation': Metric('action units', 'correlation', True),
  'gaze_correlation': Metric('gaze', 'correlation', True),
  'pose_correlation': Metric('pose', 'correlation', True),
  'blendshape_correlation_mediapipe': Metric('blendshapes, MediaPipe', 'correlation', True),
  'gaze_correlation_mediapipe': Metric('iris gaze, MediaPipe', 'correlation', True),
  'pose_correlation_mediapipe': Metric('head transform, MediaPipe', 'correlation', True),
  'identity_similarity_judge': Metric('identity similarity, judge', 'cosine', True),
  'fid_judge': Metric('Fréchet distance of frames, judges', '', False, 1380),
  'fvd_judge': Metric('Fréchet distance of clips, judge', '', False, 200),
  'mouth_fvd_judge': Metric('Fréchet distance of mouths, judge', '', False, 60),
  'expression_correlation_truth': Metric('expression, judge to truth', 'correlation', True),
  'gaze_correlation_truth': Metric('gaze, judge to truth', 'correlation', True),
  'pose_correlation_truth': Metric('pose, judge to truth', 'correlation', True),
}
ALWAYS = 'l1 identity_loss identity_similarity lpips psnr ssim fid fvd mouth_fvd'.split()
PIXELS = ('l1', 'psnr', 'ssim', 'lpips')
CORRELATIONS = [name for name, metric in METRICS.items() if metric.unit == 'correlation']
MEDIAPIPE, TRUTH = (
  [name for name in CORRELATIONS if name.endswith(end)] for end in ('_mediapipe', '_truth')
)
OPENFACE = [name for name in CORRELATIONS if name not in (*MEDIAPIPE, *TRUTH)]
REFERENCE_IS = {True: 'the ground truth', False: 'the driving clip'}
INFINITE = 'infinite: every frame equals its reference'
GIVE_TASK = 'give --face-detector=face_landmarker.task'


def summary(clips: Sequence[Measured], name: str) -> dict | None:
  """Returns mean over clips, deviation, 95 % interval and number of clips of a metric.

  The bootstrap of the interval draws the clips of a person together. One clip has no deviation, and
  one person no interval. None if no clip has the metric.
  """
  known = [clip for clip in clips if name in clip.values]
  if not known:
    return None
  # Only PSNR can be infinite: where every frame equals its reference.
  used = [clip for clip in known if np.isfinite(clip.values[name])]
  if not used:
    return {'mean': None, 'note': INFINITE, 'clips': len(known)}
  values, people = zip(*((clip.values[name], clip.pair.person) for clip in used), strict=True)
  # Clips of one person are not independent: drawn alone they would narrow the interval.
  mean, low, high = images.bootstrap(np.array(values), np.array(people))
  row = {'mean': mean, 'deviation': float(np.std(values, ddof=1)) if len(values) > 1 else None}
  if len(set(people)) > 1:
    row |= {'low': low, 'high': high}
  row['clips'] = len(known)
  if len(set(people)) < len(used):
    row['people'] = len(set(people))
  if len(used) < len(known):
    row['note'] = f'{len(known) - len(used)} clips left out, in which every frame is equal'
  return row


def distances(evaluation: Evaluation, clips: Sequence[Measured]) -> dict[str, dict]:
  """Returns the Fréchet distances by metric, with notes on few or repeated samples."""
  # Few samples bias the distance upwards, so it cannot be compared with those of other sizes.
  found, distinct = {}, len({clip.pair.reference for clip in clips})
  for name, (reference, generated) in evaluation.sets.items():
    samples, advised = min(reference.count, generated.count), METRICS[name].advised
    if samples < 2:
      found[name] = {'mean': None, 'note': f'{samples} samples have no covariance'}
      continue
    found[name] = {'mean': frechet.distance(reference, generated), 'samples': samples}
    notes = []
    if samples < advised:
      notes.append(f'biased: {samples} samples, at least {advised} are advised')
    if distinct < len(clips):  # a repeated reference narrows the set that is compared with
      notes.append(f'{distinct} different references for {len(clips)} clips')
    if notes:
      found[name]['note'] = '; '.join(notes)
  return found


def not_available(evaluation: Evaluation, found: Mapping) -> dict[str, str]:
  """Returns by metric why it was not computed; `found` are the metrics that were.

  Metrics of the judges are listed only if the judges are in use. Later reasons overwrite earlier
  ones, from the general to the specific.
  """
  reasons = dict(evaluation.networks.missing)
  if not evaluation.protocol.answers:
    reasons |= dict.fromkeys(PIXELS, 'no ground truth: the reference is the driving clip')
  if evaluation.detector is None and 'mouth_fvd' not in reasons:
    reasons['mouth_fvd'] = 'no landmarks: give --face-detector'
  reasons |= dict.fromkeys(OPENFACE, 'no channel moves, or no file can be used')
  if not evaluation.openface:
    reasons |= dict.fromkeys(OPENFACE, 'no files of OpenFace 2.0: give --openface')
  reasons |= dict.fromkeys(MEDIAPIPE, 'no channel moves, or no face was found')
  if evaluation.detector is None:
    reasons |= dict.fromkeys(MEDIAPIPE, f'no detector: {GIVE_TASK}')
  elif not evaluation.detector.groups:
    reasons |= dict.fromkeys(MEDIAPIPE, f'YuNet reads no motion: {GIVE_TASK}')
  wanted = [*ALWAYS, *OPENFACE, *MEDIAPIPE]
  if evaluation.networks.judges:
    reasons |= dict.fromkeys(TRUTH, 'no NAME.npz beside a reference can be used, or nothing moves')
    wanted += TRUTH
  return {
    name: reasons.get(name, 'no clip has enough to measure it')
    for name in wanted
    if name not in found
  }


def protocol(evaluation: Evaluation, clips: Sequence[Measured], seconds: float) -> dict[str, Any]:
  """Returns everything that the numbers depend on, how long they took, and on what machine.

  Args:
    seconds: duration of the whole evaluation.
  """
  # Every entry can change a number; even the resize kernel changes FID (Parmar et al. 2022).
  options, frames = evaluation.protocol, sum(clip.frames for clip in clips)
  people = {clip.pair.person for clip in clips}
  return {
    'resolution': options.size,
    'resize': 'OpenCV: INTER_AREA where both sides shrink, else INTER_CUBIC; to a square',
    'resize_for_fid_and_fvd': 'bilinear, half-pixel centres, no antialiasing, to 299 and 224 px',
    'colour': '8 bit RGB in full range; L1 on 0 to 255, PSNR and SSIM with peak 255',
    'psnr': 'of frames that differ from their reference; a note gives the number of the others',
    'ssim': 'Gaussian window of 11 px, sigma 1.5',
    'arcface': 'rows 35 to 222 and columns 32 to 219 of 256, pooled to the size of the network',
    'detector_sees': f'the original frames, enlarged to {SIDE} px where they are smaller',
    'openface': f'rows with success and a confidence of {CONFIDENT} or more, of one face',
    'mouth': f'a square of {MOUTH_SIDE} distances between the eyes, fixed for a clip of FVD',
    'frechet': 'squared distance of Gaussians in float64, covariance over n - 1; of the generated '
    f'frames, or clips, to those of {REFERENCE_IS[options.answers]}',
    'correlation': 'Pearson, per channel over time, if at least half of the moments were read; '
    'mean over channels that move, then over clips',
    'sampling': f'the first {options.frames} frames of each reference; of the generated clip the '
    'frame nearest in time, both clocks from their first frame; by number if a clip has no times',
    'reference_is': REFERENCE_IS[options.answers],
    'identity': 'to the source if one is given, otherwise to the reference frame',
    'clip_length': options.clip_length,
    'clips_of_fvd': 'consecutive frames of the reference; where one is left out, a new clip begins',
    'mean': 'over the frames of a clip, then over clips; 95 % interval: bootstrap over people, '
    f'whose clips are drawn together: {len(people)}',
    'frames': frames,
    'clips': len(clips),
    'weights': evaluation.networks.files,
    'detector': evaluation.detector_file,
    'data': _hashes(evaluation, [clip.pair for clip in clips]),
    'speed': {
      'frames_per_second': frames / seconds,
      'hours_for_37500_frames': 37_500 * seconds / frames / 3600,  # Table 1: 75 clips of 500
    },
    **environment.record(),
  }


def _hashes(evaluation: Evaluation, pairs: Sequence[Pair]) -> dict[str, dict[str, str]]:
  """Returns SHA-256 by name of every file that was measured, by role."""

  def openface_files(side: int, name: Callable[[Pair], str]) -> set[pathlib.Path]:
    files = evaluation.openface[side] if evaluation.openface else {}
    return {files[name(pair)] for pair in pairs if name(pair) in files}

  # Only files that were read: others beside them do not change a number.
  truth = map(motions.truth_file, pairs if evaluation.networks.judges else ())
  paths = {
    'reference': {pair.reference for pair in pairs},
    'generated': {pair.generated for pair in pairs},
    'source': {pair.source for pair in pairs if pair.source},
    'openface_of_reference': openface_files(0, lambda pair: sequences.name_of(pair.reference)),
    'openface_of_generated': openface_files(1, lambda pair: pair.name),
    'true_motion': {path for path in truth if path.is_file()},
  }
  return {
    role: {path.name: sequences.digest(path) for path in sorted(files)}
    for role, files in paths.items()
  }


def channels(clips: Sequence[Measured]) -> dict[str, dict[str, dict]]:
  """Returns by metric and channel its mean correlation, and in how many clips it could be measured.

  A channel that stands still on either side has no correlation.
  """
  read: dict = {}
  for clip in clips:
    for metric, values in clip.channels.items():
      for channel, r in values.items():
        read.setdefault(metric, {}).setdefault(channel, []).append(r)
  return {
    metric: {name: {'mean': float(np.mean(r)), 'clips': len(r)} for name, r in of.items()}
    for metric, of in read.items()
  }


def finite(value: float) -> float | None:
  """Returns `value`, or None if it is infinite, which JSON cannot express."""
  return float(value) if np.isfinite(value) else None


def result(
  evaluation: Evaluation, clips: Sequence[Measured], problems: Sequence[str], seconds: float
) -> dict[str, Any]:
  """Returns the contents of result.json; `seconds` is how long the evaluation took."""
  # JSON has no infinity; where PSNR is null, the clip's notes say why.
  equal = [f'psnr {INFINITE}']
  found = {name: value for name in METRICS if (value := summary(clips, name))}
  if 'lpips' in found:  # values of different networks are not comparable
    notes = found['lpips'].get('note'), f'over {evaluation.networks.lpips_net}'
    found['lpips']['note'] = '; '.join(filter(None, notes))
  found |= distances(evaluation, clips)
  # In the order of the table, whatever was measured first.
  found = {name: found[name] for name in METRICS if name in found}
  return {
    'metrics': found,
    'channels': channels(clips),
    'not_available': not_available(evaluation, found),
    'problems': list(problems),
    'clips': [
      {
        'name': clip.pair.name,
        'frames': clip.frames,
        'notes': clip.notes + equal * int(np.isinf(clip.values.get('psnr', 0))),
        **{name: finite(value) for name, value in clip.values.items()},
      }
      for clip in clips
    ],
    'protocol': protocol(evaluation, clips, seconds),
  }
