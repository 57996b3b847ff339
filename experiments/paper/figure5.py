"""Figure 5: is G(w_id, 0) the person in one neutral pose and expression, whatever the frame?

  python -m experiments.paper.figure5 --output=experiments/results/figure5_heads.json

  python -m experiments.paper.figure5 --videos=hdtf/ --hdtf=METADATA --cropper=YUNET.onnx \\
      --face-detector=face_landmarker.task --arcface=... --workdir=runs/finetune --output=fig5.json

Nothing in training asks for it directly; the paper shows it. Of rendered people that no network has
seen, or of --videos, frames in different motions are encoded and decoded without their deformation.
Written are

- the variance of each motion channel over a person's anchors, relative to that over his frames, as
  the judge of rendered heads reads it, or MediaPipe: 0 where the anchor does not depend on the
  frame, 1 where it keeps the motion;
- how near a person's anchors are to each other in identity, by the judge, or ArcFace: the mean
  cosine, beside that of the frames themselves and that of the anchors of different people;
- beside the .json file a .png: frames above, their anchors below, a person a pair of rows.
"""

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator

import numpy as np
from tqdm import tqdm

from experiments.paper import tables
from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import detectors, images, judges, rendered
from hybrid_jax.evaluation.squares import resized
from hybrid_jax.media import replacing, stills
from hybrid_jax.models.ops import from_uint8
from hybrid_jax.reenactment.model import Model
from hybrid_jax.world import clips, parameters, people

SHOWN = 6  # people in the figure

Read = Callable[[np.ndarray], dict[str, np.ndarray]]


def frames_of(person: int, count: int) -> np.ndarray:
  """(t, 64, 64, 3) uint8 of a person of the test split at moments all over a clip."""
  draw = rendered.renderer(rendered.SIZE)
  identity, motion, scene = clips.vectors(
    people.SPLITS['test'] + person, 0, clips.spread_times(count)
  )
  return np.stack([draw(identity, m, scene)[0] for m in motion])


def people_of(table: tables.Table) -> Iterator[np.ndarray]:
  """Frames (t, s, s, 3) of each person, at moments all over a clip."""
  count = table.args.moments
  if table.rendered:
    for person in tqdm(range(table.args.people), unit='person'):
      yield frames_of(person, count)
    return
  (whole,) = table.make('whole')
  seen: set[str] = set()
  for name, path, times in tables.head_clips(table, whole):
    if table.people[name] in seen:
      return  # everybody was there once
    seen.add(table.people[name])
    chosen = np.unique(np.linspace(0, len(times) - 1, count).round().astype(int))
    if len(chosen) < 2:
      table.leave_out(f'{name}: {len(times)} frames are too few')
      continue
    yield np.stack([rgb for k, rgb in enumerate(tables.frames_in(path)) if k in chosen])


def anchors(model: Model, frames: np.ndarray) -> np.ndarray:
  """Each frame's identity without any deformation, at the size of the frames (t, s, s, 3) uint8."""
  still, side = [np.zeros(sum(model.widths), np.float32)], frames.shape[1]
  made = (next(model.images(model.identity(resized(x, model.size)), still, 1)) for x in frames)
  return np.stack([resized(x, side) for x in made])


@contextlib.contextmanager
def readers(table: tables.Table) -> Iterator[tuple[Read | None, Callable | None]]:
  """(frames -> motion by channel, NaN where no face is found; frames -> unit embeddings)."""
  if table.rendered:
    judge, names = rendered.Judges(), list(parameters.MOTION)
    floats = lambda x: np.asarray(from_uint8(x.astype(np.float32)))  # noqa: E731

    def by_judge(x):
      said = judge.read(floats(x))
      return {name: said[:, names.index(name)] for name in judges.TRUSTED_MOTION}

    yield by_judge, lambda x: judge.embed(floats(x))
    return
  path = table.args.face_detector
  if path and not path.endswith('.task'):
    raise InputError(f'--face-detector={path}: motion is read by MediaPipe, face_landmarker.task')
  detector = detectors.open_detector(path)

  def by_mediapipe(x):
    said = [detectors.look(detector, frame)[0] for frame in x]
    names = sorted({name for one in said for name in one})
    return {name: np.array([one.get(name, np.nan) for one in said]) for name in names}

  try:
    yield detector and by_mediapipe, table.nets.identity
  finally:
    if detector:
      detector.close()


def cosine(first: np.ndarray, second: np.ndarray, same: bool) -> float:
  """Mean cosine of unit rows (t, d), of each with the others of its set where it is the `same`."""
  products = first @ second.T
  return float(products[~np.eye(len(products), dtype=bool)].mean() if same else products.mean())


def summary(values: list[float]) -> dict[str, float]:
  return dict(zip(('mean', 'low', 'high'), images.bootstrap(np.array(values)), strict=True))


def variance_ratio(readings: list[tuple[dict, dict]]) -> dict[str, float]:
  """By channel, variance over anchors by variance over frames, both means over people."""
  found = {}
  for name in sorted({name for frames, _ in readings for name in frames}):
    pairs = [
      (np.nanvar(a[name]), np.nanvar(f[name]))
      for f, a in readings
      if name in a and name in f and min(np.isfinite(x[name]).sum() for x in (f, a)) > 1
    ]
    of_anchors, of_frames = np.array(pairs).mean(0) if pairs else (0.0, 0.0)
    if of_frames > 0:
      found[name] = float(of_anchors / of_frames)
  return found


def fill(table: tables.Table) -> None:
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
  pairs = itertools.pairwise([e for _, e in embeddings])
  record = {
    'variance_ratio': ratios if readings else 'not available: no detector',
    'identity_cosine': 'not available: no weights',
    'people': count,
    'frames': args.moments,
    **table.facts(),
  }
  if embeddings:
    record['identity_cosine'] = {
      'frames_of_a_person': summary([cosine(f, f, True) for f, _ in embeddings]),
      'anchors_of_a_person': summary([cosine(a, a, True) for _, a in embeddings]),
      'anchors_and_frames_of_a_person': summary([cosine(a, f, False) for f, a in embeddings]),
      'anchors_of_two_people': summary([cosine(a, b, False) for a, b in pairs]),
    }
  with replacing(args.output) as part:
    part.write_text(json.dumps(record, indent=1) + '\n')
  stills.write_image(args.output.with_suffix('.png'), stills.grid([list(row) for row in sheet]))
  for name, ratio in ratios.items():
    print(f'{name:30} variance over anchors / over frames {ratio:.3f}')
  for name, value in record['identity_cosine'].items() if embeddings else ():
    print(f'{name:32} {value["mean"]:.3f}  [{value["low"]:.3f}, {value["high"]:.3f}]')


if __name__ == '__main__':
  options = tables.parser(__doc__)
  options.add_argument('--moments', type=int, default=10, help='frames of each (%(default)s)')
  tables.run('figure5', options.parse_args(), fill)
