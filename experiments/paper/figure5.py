"""Figure 5: is G(w_id, 0) the person in one neutral pose and expression, whatever the frame?

  python -m experiments.paper.figure5 --output=experiments/results/figure5_heads.json

  python -m experiments.paper.figure5 --videos=hdtf/ --hdtf=METADATA --cropper=YUNET.onnx \\
      --face-detector=face_landmarker.task --arcface=... --workdir=runs/finetune --output=fig5.json

No loss asks for it directly; the paper shows it. Frames of rendered people of the test split, or of
--videos, in different motions are encoded and decoded without their deformation. The result has

- the variance of each motion channel over a person's anchors, relative to that over their frames,
  read by the judge of rendered heads or by MediaPipe: 0 where the anchor does not depend on the
  frame, 1 where it keeps the motion;
- the mean cosine between the identities of a person's anchors, by the judge or by ArcFace, beside
  that of the frames themselves and that of the anchors of different people;
- beside the .json file a .png: a pair of rows per person, frames above, their anchors below.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator

import numpy as np
from tqdm import tqdm

from experiments import script
from experiments.paper import inputs, tables
from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import detectors, judges, rendered
from hybrid_jax.evaluation.squares import resized
from hybrid_jax.media import stills
from hybrid_jax.models.ops import from_uint8
from hybrid_jax.reenactment.model import Model
from hybrid_jax.world import clips, parameters, people

SHOWN = 6  # people in the figure

Read = Callable[[np.ndarray], dict[str, np.ndarray]]


def frames_of(person: int, count: int) -> np.ndarray:
  """Returns (t, 64, 64, 3) uint8 of a person of the test split at moments all over a clip."""
  draw = clips.Renderer(rendered.SIZE)
  identity, motion, scene = clips.vectors(
    people.SPLITS['test'] + person, 0, clips.spread_times(count)
  )
  return np.stack([draw(identity, m, scene)[0] for m in motion])


def people_of(table: tables.Table) -> Iterator[np.ndarray]:
  """Yields frames (t, s, s, 3) of each person, at moments all over a clip."""
  count = table.args.moments
  if table.rendered:
    for person in tqdm(range(table.args.people), unit='person'):
      yield frames_of(person, count)
    return
  (whole,) = table.make('whole')
  seen: set[str] = set()
  for name, path, times in inputs.head_clips(table, whole):
    # Second clips of people come after the first ones of all.
    if table.people[name] in seen:
      return
    seen.add(table.people[name])
    chosen = np.unique(np.linspace(0, len(times) - 1, count).round().astype(int))
    if len(chosen) < 2:
      table.leave_out(f'{name}: {len(times)} frames are too few')
      continue
    yield np.stack([rgb for k, rgb in enumerate(inputs.frames_in(path)) if k in chosen])


def anchors(model: Model, frames: np.ndarray) -> np.ndarray:
  """Returns G(w_id, 0) of each frame (t, s, s, 3) uint8, in the size of the frames."""
  still, side = [np.zeros(sum(model.widths), np.float32)], frames.shape[1]
  drawn = (next(model.images(model.identity(resized(x, model.size)), still, 1)) for x in frames)
  return np.stack([resized(x, side) for x in drawn])


@contextlib.contextmanager
def readers(table: tables.Table) -> Iterator[tuple[Read | None, Callable | None]]:
  """Yields two functions of frames (t, s, s, 3) uint8, or None where a network is missing.

  The first returns motion (t,) by channel, NaN where no face is found, the second unit embeddings.
  """
  if table.rendered:
    judge, names = rendered.Judges(), list(parameters.MOTION)
    floats = lambda x: np.asarray(from_uint8(x.astype(np.float32)))  # noqa: E731

    def by_judge(x):
      readings = judge.read(floats(x))
      return {name: readings[:, names.index(name)] for name in judges.TRUSTED_MOTION}

    yield by_judge, lambda x: judge.embed(floats(x))
    return
  path = table.args.face_detector
  if path and not path.endswith('.task'):
    raise InputError(f'--face-detector={path}: motion is read by MediaPipe, face_landmarker.task')
  detector = detectors.open_detector(path)

  def by_mediapipe(x):
    readings = [detectors.look(detector, frame)[0] for frame in x]
    names = sorted({name for one in readings for name in one})
    return {name: np.array([one.get(name, np.nan) for one in readings]) for name in names}

  try:
    yield detector and by_mediapipe, table.nets.identity
  finally:
    if detector:
      detector.close()


def cosine(first: np.ndarray, second: np.ndarray, same: bool) -> float:
  """Returns the mean cosine of unit rows (t, d); of the `same` set without each with itself."""
  products = first @ second.T
  return float(products[~np.eye(len(products), dtype=bool)].mean() if same else products.mean())


def variance_ratio(readings: list[tuple[dict, dict]]) -> dict[str, float]:
  """Returns by channel the variance over anchors, by that over frames, both means over people."""
  found = {}
  for name in sorted({name for frames, _ in readings for name in frames}):
    # NaN where no face was found; a variance needs two readings.
    pairs = [
      (np.nanvar(a[name]), np.nanvar(f[name]))
      for f, a in readings
      if name in a and name in f and min(np.isfinite(x[name]).sum() for x in (f, a)) > 1
    ]
    of_anchors, of_frames = np.array(pairs).mean(0) if pairs else (0.0, 0.0)
    if of_frames > 0:
      found[name] = float(of_anchors / of_frames)
  return found


def similarities(embeddings: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, dict]:
  """Returns intervals of mean cosines, of the embeddings of each person's frames and anchors."""
  pairs = itertools.pairwise([anchors for _, anchors in embeddings])
  return {
    'frames_of_a_person': script.interval([cosine(f, f, True) for f, _ in embeddings]),
    'anchors_of_a_person': script.interval([cosine(a, a, True) for _, a in embeddings]),
    'anchors_and_frames_of_a_person': script.interval([cosine(a, f, False) for f, a in embeddings]),
    'anchors_of_two_people': script.interval([cosine(a, b, False) for a, b in pairs]),
  }


def fill(table: tables.Table) -> None:
  """Measures the anchors of every person; writes the result and the figure."""
  args, sheet, readings, embeddings, count = table.args, [], [], [], 0
  if args.people < 2 or args.moments < 2:
    raise InputError('--people and --moments: at least 2')
  with readers(table) as (read, embed):
    for frames in people_of(table):
      both, count = (frames, anchors(table.model, frames)), count + 1
      sheet += both if count <= SHOWN else ()
      readings += [tuple(map(read, both))] if read else []
      embeddings += [tuple(map(embed, both))] if embed else []
  if count < 2:
    raise InputError(f'{args.videos}: two videos with a face are needed')
  ratios = variance_ratio(readings)
  cosines = similarities(embeddings) if embeddings else {}
  record = {
    'variance_ratio': ratios if readings else 'not available: no detector',
    'identity_cosine': cosines or 'not available: no weights',
    'people': count,
    'frames': args.moments,
    **table.facts(),
  }
  script.write_json(args.output, record)
  stills.write_image(args.output.with_suffix('.png'), stills.grid([list(row) for row in sheet]))
  for name, ratio in ratios.items():
    print(f'{name:30} variance over anchors / over frames {ratio:.3f}')
  for name, value in cosines.items():
    print(f'{name:32} {value["mean"]:.3f}  [{value["low"]:.3f}, {value["high"]:.3f}]')


if __name__ == '__main__':
  options = tables.parser(__doc__)
  options.add_argument('--moments', type=int, default=10, help='frames of each (%(default)s)')
  tables.run('figure5', options.parse_args(), fill)
