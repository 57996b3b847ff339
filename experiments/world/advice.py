"""What the source advisor's figures are worth: against the true error of each source.

  python -m experiments.world.advice --output=experiments/results/advice.json

People of the test split offer several moments of a clip as sources; each is re-enacted with the
motion of another, and its error is known, since the true answer is one more render. Tells how well
each figure ranks the sources of a person, and what is gained by taking its first.
"""

import argparse
import json
import pathlib
import sys

import numpy as np
from tqdm import tqdm

from experiments.world import measure
from hybrid_jax import advise
from hybrid_jax.evaluation import images, rendered
from hybrid_jax.media import replacing
from hybrid_jax.reenactment.model import Model, load_model
from hybrid_jax.world import clips, people

PEOPLE, SOURCES, FRAMES = 48, 10, 6


def levels(x: np.ndarray, y: np.ndarray) -> float:
  return float(np.abs(x.astype(np.float32) - y).mean())


def person(model: Model, number: int, driver: int, rng) -> dict[str, np.ndarray]:
  """Each figure, and the true error, of every source (SOURCES,), grey levels."""
  draw = rendered.renderer(rendered.SIZE)
  times = rng.uniform(0, people.CLIP_SECONDS, SOURCES).astype(np.float32)
  identity, motion, scene = clips.vectors(number, 0, times)
  other, moves, other_scene = clips.vectors(driver, 0, times[:FRAMES])
  truth = np.stack([draw(identity, m, scene)[0] for m in moves])
  driving = [draw(other, m, other_scene)[0] for m in moves]
  F = list(model.deformations(driving, FRAMES))
  rows, anchors = [], []
  for m in motion:
    source = draw(identity, m, scene)[0]
    advice = advise.judge(model, None, 0, source)
    W_S = model.identity(source)
    made = np.stack(list(model.images(W_S, F, FRAMES)))
    _, own, anchor = advice.pictures
    anchors.append(anchor.astype(np.float32))
    rows.append(
      {
        'reconstruction': advice.reconstruction,
        'anchor': advice.anchor,
        'score': advice.score,
        'anchor_to_reconstruction': levels(own, anchor),
        'deformation_length': float(np.linalg.norm(next(model.deformations([source], 1)))),
        'error': levels(made, truth),
      }
    )
  middle = np.median(anchors, 0)
  for row, anchor in zip(rows, anchors, strict=True):
    row['anchor_to_median_anchor'] = levels(anchor, middle)
  return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def rank(x: np.ndarray) -> np.ndarray:
  return np.argsort(np.argsort(x))


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--output', required=True, type=pathlib.Path)
  args = parser.parse_args()
  made_with = measure.provenance('') | {
    'command': 'python ' + ' '.join(['experiments/world/advice.py', *sys.argv[1:]])
  }
  model, rng = load_model(''), np.random.default_rng(0)
  numbers = people.SPLITS['test'] + rng.choice(700, 2 * PEOPLE, replace=False)
  told = [
    person(model, int(a), int(b), rng)
    for a, b in tqdm(list(zip(numbers[:PEOPLE], numbers[PEOPLE:], strict=True)), unit='person')
  ]
  groups = np.arange(PEOPLE)

  def summary(values):
    return dict(
      zip(('mean', 'low', 'high'), images.bootstrap(np.array(values), groups), strict=True)
    )

  result = {}
  for key in told[0]:
    if key == 'error':
      continue
    result[key] = {
      'rank_correlation': summary(
        [np.corrcoef(rank(row[key]), rank(row['error']))[0, 1] for row in told]
      ),
      'error_of_the_first': summary([row['error'][row[key].argmin()] for row in told]),
      'gain_over_any': summary(
        [row['error'].mean() - row['error'][row[key].argmin()] for row in told]
      ),
    }
  result['any'] = summary([row['error'].mean() for row in told])
  result['best'] = summary([row['error'].min() for row in told])
  result['worst'] = summary([row['error'].max() for row in told])
  result |= {'people': PEOPLE, 'sources': SOURCES, 'frames': FRAMES, 'measured': made_with}
  with replacing(args.output) as part:
    part.write_text(json.dumps(result, indent=1) + '\n')
  for key, row in result.items():
    if isinstance(row, dict) and 'rank_correlation' in row:
      print(
        f'{key}: rank correlation {row["rank_correlation"]["mean"]:.2f}, error of the first '
        f'{row["error_of_the_first"]["mean"]:.2f}, gain {row["gain_over_any"]["mean"]:.2f}'
      )
  print(', '.join(f'{key} {result[key]["mean"]:.2f}' for key in ('any', 'best', 'worst')))


if __name__ == '__main__':
  main()
