"""Figure 5: is G(w_id, 0) the person in one neutral pose and expression, whatever the frame?

  python experiments/figure5_anchor.py --output=experiments/results/figure5_heads.json

Nothing in training asks for it directly; the paper shows it. Of rendered people that no network has
seen, frames in different motions are encoded and decoded without their deformation. Written are

- the variance of each motion channel over a person's anchors, relative to that over his frames, as
  the judge reads it: 0 where the anchor does not depend on the frame, 1 where it keeps the motion;
- how near a person's anchors are to each other in identity, by the judge: the mean cosine, beside
  that of the frames themselves and that of the anchors of different people;
- beside the .json file a .png: frames above, their anchors below, a person a pair of rows.
"""

import argparse
import itertools
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from absl import logging  # noqa: E402
from tqdm import tqdm  # noqa: E402

from hybrid_jax import compilation  # noqa: E402
from hybrid_jax.errors import InputError  # noqa: E402
from hybrid_jax.evaluation import heads, images, judges, results  # noqa: E402
from hybrid_jax.heads import clips, parameters, people  # noqa: E402
from hybrid_jax.inference import Model, load_model  # noqa: E402
from hybrid_jax.media import replacing, stills  # noqa: E402
from hybrid_jax.models.ops import from_uint8  # noqa: E402

SHOWN = 6  # people in the figure


def frames_of(person: int, count: int) -> np.ndarray:
  """(t, 64, 64, 3) uint8 of a person of the test split at moments all over a clip."""
  draw = heads.renderer(heads.SIZE)
  identity, motion, scene = clips.vectors(
    people.SPLITS['test'] + person, 0, clips.spread_times(count)
  )
  return np.stack([draw(identity, m, scene)[0] for m in motion])


def anchors(model: Model, frames: np.ndarray) -> np.ndarray:
  """(t, 64, 64, 3) uint8: each frame's identity without any deformation."""
  still = [np.zeros(sum(model.widths), np.float32)]
  return np.stack([next(model.images(model.identity(x), still, 1)) for x in frames])


def cosine(first: np.ndarray, second: np.ndarray, same: bool) -> float:
  """Mean cosine of unit rows (t, d), of each with the others of its set where it is the `same`."""
  products = first @ second.T
  return float(products[~np.eye(len(products), dtype=bool)].mean() if same else products.mean())


def summary(values: list[float]) -> dict[str, float]:
  return dict(zip(('mean', 'low', 'high'), images.bootstrap(np.array(values)), strict=True))


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--output', type=pathlib.Path, required=True, help='.json file to write')
  parser.add_argument('--workdir', default='', help='of the encoder (the shipped model)')
  parser.add_argument('--people', type=int, default=75, help='people (%(default)s)')
  parser.add_argument('--frames', type=int, default=10, help='frames of each (%(default)s)')
  args = parser.parse_args()
  compilation.use_cache()
  logging.set_verbosity(logging.ERROR)  # Orbax warns of what reading only means
  measured = results.versions() | {'command': 'python ' + ' '.join(sys.argv)}
  try:
    if args.people < 2 or args.frames < 2:
      raise InputError('--people and --frames: at least 2')
    model = load_model(args.workdir)
  except InputError as error:
    sys.exit(f'error: {error}')

  judge, sheet, variances, embeddings = heads.Judges(), [], [], []
  for person in tqdm(range(args.people), unit='person'):
    frames = frames_of(person, args.frames)
    both = frames, anchors(model, frames)
    sheet += both if person < SHOWN else ()
    both = [np.asarray(from_uint8(x.astype(np.float32))) for x in both]
    variances.append([judge.read(x).var(0) for x in both])
    embeddings.append([judge.embed(x) for x in both])

  of_frames, of_anchors = np.array(variances).mean(0)  # by channel
  names = list(parameters.MOTION)
  pairs = itertools.pairwise([e for _, e in embeddings])
  record = {
    'variance_ratio': {
      name: float(of_anchors[names.index(name)] / of_frames[names.index(name)])
      for name in judges.TRUSTED_MOTION
    },
    'identity_cosine': {
      'frames_of_a_person': summary([cosine(f, f, True) for f, _ in embeddings]),
      'anchors_of_a_person': summary([cosine(a, a, True) for _, a in embeddings]),
      'anchors_and_frames_of_a_person': summary([cosine(a, f, False) for f, a in embeddings]),
      'anchors_of_two_people': summary([cosine(a, b, False) for a, b in pairs]),
    },
    'people': args.people,
    'frames': args.frames,
    'model': pathlib.PurePath(args.workdir).name or model.name,
    'model_sha256': model.digest(),
    'measured': measured,
  }
  with replacing(args.output) as part:
    part.write_text(json.dumps(record, indent=1) + '\n')
  stills.write_image(args.output.with_suffix('.png'), stills.grid([list(row) for row in sheet]))
  for name, ratio in record['variance_ratio'].items():
    print(f'{name:14} variance over anchors / over frames {ratio:.3f}')
  for name, value in record['identity_cosine'].items():
    print(f'{name:32} {value["mean"]:.3f}  [{value["low"]:.3f}, {value["high"]:.3f}]')


if __name__ == '__main__':
  main()
