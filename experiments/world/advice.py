"""Measures the source advisor's scores against the true error of each source.

  python -m experiments.world.advice --output=experiments/results/advice.json

People of the test split offer several moments of a clip as sources. Each source is re-enacted with
the motion of another person; its error is against the true answer, which is one more render. For
each score the result has its rank correlation with the error over a person's sources, the error of
the source that it ranks first, and the gain over a random source.
"""

import pathlib

import numpy as np
from tqdm import tqdm

from experiments import script
from hybrid_jax.evaluation import rendered
from hybrid_jax.reenactment.advice import assess
from hybrid_jax.reenactment.model import Model, load_model
from hybrid_jax.world import clips, people

PEOPLE, SOURCES, FRAMES = 48, 10, 6


def levels(x: np.ndarray, y: np.ndarray) -> float:
  """Returns the mean absolute difference of two pictures in grey levels."""
  # uint8 differences would wrap.
  return float(np.abs(x.astype(np.float32) - y).mean())


def scores_of(model: Model, number: int, driver: int, rng) -> dict[str, np.ndarray]:
  """Returns each score, and the true 'error', of every source (SOURCES,), grey levels."""
  draw = clips.Renderer(rendered.SIZE)
  times = rng.uniform(0, people.CLIP_SECONDS, SOURCES).astype(np.float32)
  identity, motion, scene = clips.vectors(number, 0, times)
  other, moves, other_scene = clips.vectors(driver, 0, times[:FRAMES])
  truth = np.stack([draw(identity, m, scene)[0] for m in moves])
  driving = [draw(other, m, other_scene)[0] for m in moves]
  F = list(model.deformations(driving, FRAMES))
  rows, anchors = [], []
  for m in motion:
    source = draw(identity, m, scene)[0]
    advice = assess(model, None, 0, source)
    W_S = model.identity(source)
    reenacted = np.stack(list(model.images(W_S, F, FRAMES)))
    _, own, anchor = advice.pictures
    anchors.append(anchor.astype(np.float32))
    rows.append(
      {
        'reconstruction': advice.reconstruction,
        'anchor': advice.anchor,
        'score': advice.score,
        'anchor_to_reconstruction': levels(own, anchor),
        'deformation_length': float(np.linalg.norm(next(model.deformations([source], 1)))),
        'error': levels(reenacted, truth),
      }
    )
  middle = np.median(anchors, 0)
  for row, anchor in zip(rows, anchors, strict=True):
    row['anchor_to_median_anchor'] = levels(anchor, middle)
  return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def rank(x: np.ndarray) -> np.ndarray:
  """Returns the rank of each value, from 0."""
  return np.argsort(np.argsort(x))


def summary(measured: list[dict[str, np.ndarray]]) -> dict[str, dict]:
  """Returns the figures of each score, and the errors of any, the best and the worst source."""
  result: dict[str, dict] = {}
  for key in measured[0]:
    if key == 'error':
      continue
    correlations = [np.corrcoef(rank(row[key]), rank(row['error']))[0, 1] for row in measured]
    # A smaller score is better, so the first choice is the smallest.
    first = [row['error'][row[key].argmin()] for row in measured]
    gains = [row['error'].mean() - error for row, error in zip(measured, first, strict=True)]
    result[key] = {
      'rank_correlation': script.interval(correlations),
      'error_of_the_first': script.interval(first),
      'gain_over_any': script.interval(gains),
    }
  result['any'] = script.interval([row['error'].mean() for row in measured])
  result['best'] = script.interval([row['error'].min() for row in measured])
  result['worst'] = script.interval([row['error'].max() for row in measured])
  return result


def main() -> None:
  parser = script.parser(__doc__)
  parser.add_argument('--output', required=True, type=pathlib.Path, help='.json file to write')
  args = parser.parse_args()
  record = script.record()
  model, rng = load_model(''), np.random.default_rng(0)
  numbers = people.SPLITS['test'] + rng.choice(700, 2 * PEOPLE, replace=False)
  pairs = zip(numbers[:PEOPLE], numbers[PEOPLE:], strict=True)
  measured = [
    scores_of(model, int(a), int(b), rng) for a, b in tqdm(pairs, total=PEOPLE, unit='person')
  ]
  result = summary(measured)
  sizes = {'people': PEOPLE, 'sources': SOURCES, 'frames': FRAMES}
  script.write_json(args.output, result | sizes | {'measured': record})
  for key, row in result.items():
    if 'rank_correlation' in row:
      print(
        f'{key}: rank correlation {row["rank_correlation"]["mean"]:.2f}, error of the first '
        f'{row["error_of_the_first"]["mean"]:.2f}, gain {row["gain_over_any"]["mean"]:.2f}'
      )
  print(', '.join(f'{key} {result[key]["mean"]:.2f}' for key in ('any', 'best', 'worst')))


if __name__ == '__main__':
  main()
