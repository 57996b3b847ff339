"""From measured clips to the numbers of a table, and what they are worth."""

import dataclasses
import datetime
import importlib.metadata
import pathlib
import platform
import subprocess
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from hybrid_jax import __version__
from hybrid_jax.evaluation import frechet, images
from hybrid_jax.evaluation.measure import Evaluation, Measured
from hybrid_jax.evaluation.squares import MOUTH_SIDE
from hybrid_jax.media import sequences


@dataclasses.dataclass(frozen=True)
class Metric:
  """`label` in words, `unit`, and whether more is better; `advised` samples of a set's distance."""

  label: str
  unit: str
  more: bool
  advised: int = 0


# FID's authors advise 10,000 images or more; FVD is customarily of 2,048 clips.
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
  'fid_judge': Metric('Fréchet distance of frames, judges', '', False, 1440),
  'fvd_judge': Metric('Fréchet distance of clips, judge', '', False, 320),
  'mouth_fvd_judge': Metric('Fréchet distance of mouths, judge', '', False, 60),
  'expression_correlation_truth': Metric('expression, judge to truth', 'correlation', True),
  'gaze_correlation_truth': Metric('gaze, judge to truth', 'correlation', True),
  'pose_correlation_truth': Metric('pose, judge to truth', 'correlation', True),
}
ALWAYS = 'l1 identity_loss identity_similarity lpips psnr ssim fid fvd mouth_fvd'.split()
OPENFACE = ('au_correlation', 'gaze_correlation', 'pose_correlation')
PIXELS = ('l1', 'psnr', 'ssim', 'lpips')
LIBRARIES = 'jax jaxlib flax numpy dm-pix av opencv-python-headless mediapipe'.split()
INFINITE = 'infinite: every frame equals its reference'


def summary(clips: Sequence[Measured], name: str) -> dict | None:
  """Mean over clips, deviation, 95 % interval and number of clips; None where none has it."""
  values = np.array([clip.values[name] for clip in clips if name in clip.values])
  if not len(values):
    return None
  finite = values[np.isfinite(values)]
  if not len(finite):
    return {'mean': None, 'note': INFINITE, 'clips': len(values)}
  mean, low, high = images.bootstrap(finite)
  found = {'mean': mean, 'deviation': float(finite.std(ddof=min(1, len(finite) - 1)))}
  found |= {'low': low, 'high': high, 'clips': len(values)}
  if len(finite) < len(values):
    found['note'] = f'{len(values) - len(finite)} clips left out, whose every frame is equal'
  return found


def distances(evaluation: Evaluation) -> dict[str, dict]:
  """The Fréchet distances of the sets, with a note where the samples are few."""
  found = {}
  for name, (reference, generated) in evaluation.sets.items():
    samples, advised = min(reference.count, generated.count), METRICS[name].advised
    if samples < 2:
      found[name] = {'mean': None, 'note': f'{samples} samples have no covariance'}
      continue
    found[name] = {'mean': frechet.distance(reference, generated), 'samples': samples}
    if samples < advised:
      found[name]['note'] = f'biased: {samples} samples, at least {advised} are advised'
  return found


def not_available(evaluation: Evaluation, found: Mapping) -> dict[str, str]:
  """Why a metric of the paper was not computed, by metric."""
  reasons = dict(evaluation.networks.missing)
  if not evaluation.protocol.answers:
    reasons |= dict.fromkeys(PIXELS, 'no true answer: the reference shows the driving clip')
  if evaluation.detector is None and 'mouth_fvd' not in reasons:
    reasons['mouth_fvd'] = 'no landmarks: give --face-detector'
  if not evaluation.openface:
    reasons |= dict.fromkeys(OPENFACE, 'no files of OpenFace 2.0: give --openface')
  wanted = [*ALWAYS, *OPENFACE]
  return {
    name: reasons.get(name, 'no clip has enough to measure it')
    for name in wanted
    if name not in found
  }


def protocol(evaluation: Evaluation, clips: Sequence[Measured], seconds: float) -> dict:
  """Everything that the numbers depend on."""
  how, frames = evaluation.protocol, sum(clip.frames for clip in clips)
  used = {
    side: {path.name: sequences.digest(path) for path in sorted(paths)}
    for side, paths in {
      'reference': {clip.pair.reference for clip in clips},
      'generated': {clip.pair.generated for clip in clips},
      'source': {clip.pair.source for clip in clips if clip.pair.source},
    }.items()
  }
  return {
    'resolution': how.size,
    'resize': 'OpenCV: INTER_AREA where it shrinks, INTER_CUBIC where it grows; to a square',
    'resize_for_fid_and_fvd': 'bilinear, half-pixel centres, no antialiasing, to 299 and 224 px',
    'colour': '8 bit RGB in full range; L1 on 0 to 255, PSNR and SSIM with peak 255',
    'ssim': 'Gaussian window of 11 px, sigma 1.5',
    'mouth': f'a square of {MOUTH_SIDE} distances between the eyes, fixed for a clip of FVD',
    'frechet': 'squared distance of Gaussians in float64, covariance over n - 1',
    'correlation': 'of Pearson by channel over time; mean over channels that move, then over clips',
    'sampling': f'the first {how.frames} frames of each reference; of the generated clip the frame '
    'nearest in time, both clocks from their first frame; by number where a clip has no times',
    'reference_is': 'the true answer' if how.answers else 'the driving clip',
    'clip_length': how.clip_length,
    'mean': 'over the frames of a clip, then over clips; 95 % interval: bootstrap over clips',
    'frames': frames,
    'clips': len(clips),
    'weights': evaluation.networks.files,
    'detector': evaluation.detector_file,
    'data': used,
    'speed': {
      'frames_per_second': frames / seconds,
      'hours_for_37500_frames': 37_500 * seconds / frames / 3600,
    },
    **versions(),
  }


def versions() -> dict:
  """Commit, library versions, device and date."""
  git = lambda *a: subprocess.run(  # noqa: E731
    ['git', *a], cwd=pathlib.Path(__file__).parent, capture_output=True, text=True
  ).stdout.strip()
  try:
    commit = git('rev-parse', '--short=12', 'HEAD') + ('+' if git('status', '--short') else '')
  except OSError:  # no git
    commit = ''
  found = {}
  for name in LIBRARIES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = None
  return {
    'commit': commit or None,
    'hybrid_jax': __version__,
    'libraries': found,
    'python': platform.python_version(),
    'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    'date': datetime.date.today().isoformat(),
  }


def finite(value: float) -> float | None:
  """JSON knows no infinity."""
  return float(value) if np.isfinite(value) else None


def result(
  evaluation: Evaluation, clips: Sequence[Measured], problems: Sequence[str], seconds: float
) -> dict:
  """All that a result file says; `seconds` is the time it took."""
  equal = [f'psnr {INFINITE}']
  found = {name: value for name in METRICS if (value := summary(clips, name))}
  if 'lpips' in found:  # numbers of different networks are not comparable
    found['lpips']['note'] = f'over {evaluation.networks.lpips_net}'
  found |= distances(evaluation)
  found = {name: found[name] for name in METRICS if name in found}
  return {
    'metrics': found,
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
