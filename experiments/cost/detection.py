"""Measures how often a face is found in its right place, and how often one is found where none is.

  python -m experiments.cost.detection FACES --face_detector=FILE --label=after

FACES has the folders portraits, driving and hostile. Each portrait, and some frames of each clip,
is placed in a frame of 1280x960 with a face of six heights, and the frame is turned four times.
The reference is the face that YuNet finds in the untouched picture; pictures in which MediaPipe
finds it elsewhere are left out, if `--second_detector` is given.

Without a face are: the photographs without one, frames of the test pattern, parts of the portraits
and frames away from every head, and drawn leaves; each is turned four times as well.
The result holds only rates. Every call adds its detector under `--label` to the file.
"""

import argparse
import itertools
import json
import pathlib
import time
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from tqdm import tqdm

from experiments import script
from hybrid_jax.media import align, stills, video
from hybrid_jax.media.faces import Face, FaceDetector
from hybrid_jax.media.landmarkers import Landmarker, open_landmarker

FRAME = (1280, 960)  # (h, w) px
SIZES = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)  # height of the face's box over that of the frame
TURNS = (0, 90, 180, 270)  # degrees, anticlockwise
# A right crop: centre within a fifth of the reference's side, side within a third, 20 degrees.
CENTRE, SIDE, ROLL = 0.2, 1 / 3, 20
CROWD = 'src_09_group_meeting.jpeg'  # several faces: the reference may be any of those found


def frames_of(path: pathlib.Path, count: int) -> list[np.ndarray]:
  """Returns `count` frames (h, w, 3) uint8 spread over a clip."""
  frames = [frame.rgb for frame in video.read_frames(path)]
  return [frames[round(k)] for k in np.linspace(0, len(frames) - 1, count + 2)[1:-1]]


def pictures(folder: pathlib.Path, count: int) -> Iterator[tuple[str, np.ndarray]]:
  """Yields (name, picture) of all portraits and of `count` frames of each clip."""
  for path in sorted((folder / 'portraits').iterdir()):
    yield path.name, stills.read_image(path)
  for path in sorted((folder / 'driving').iterdir()):
    yield from ((path.name, rgb) for rgb in frames_of(path, count))


def is_right(face: Face, wanted: np.ndarray) -> bool:
  """Whether the crop of `face` is that of the landmarks `wanted` (5, 2)."""
  (cx, cy, ax, ay), (wx, wy, bx, by) = align.ffhq(face.landmarks), align.ffhq(wanted)
  side, other = 2 * np.hypot(ax, ay), 2 * np.hypot(bx, by)
  roll = np.degrees(np.arctan2(ax * by - ay * bx, ax * bx + ay * by))
  near = np.hypot(cx - wx, cy - wy) < CENTRE * other
  return bool(near and abs(np.log(side / other)) < np.log1p(SIDE) and abs(roll) < ROLL)


def placed(
  rgb: np.ndarray, face: Face, share: float, background: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns a frame with the face in its middle, `share` of its height, and its landmarks."""
  h, w = FRAME
  x, y, face_w, face_h = face.box
  scale = share * h / face_h
  shift = np.array([w / 2, h / 2]) - scale * np.array([x + face_w / 2, y + face_h / 2])
  if scale < 1:  # `warpAffine` samples and would alias
    size = [max(1, round(side * scale)) for side in rgb.shape[1::-1]]
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
  else:
    small, matrix = rgb, np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
  frame = cv2.resize(background, (w, h), interpolation=cv2.INTER_AREA)
  cv2.warpAffine(
    small,
    matrix,
    (w, h),
    dst=frame,
    flags=cv2.INTER_CUBIC,
    borderMode=cv2.BORDER_TRANSPARENT,
  )
  return frame, face.landmarks * scale + shift


def turned(points: np.ndarray, turn: int) -> np.ndarray:
  """Moves points (k, 2) of a frame of size `FRAME` as `np.rot90(frame, turn / 90)` moves pixels."""
  (h, w), (x, y) = FRAME, points.T
  moved = {0: (x, y), 90: (y, w - x), 180: (w - x, h - y), 270: (h - y, x)}
  return np.stack(moved[turn], -1)


def leaves(count: int) -> Iterator[np.ndarray]:
  """Yields pictures of drawn leaves: ellipses with veins, dark spots, and shadow."""
  for seed in range(count):
    rng = np.random.default_rng(seed)
    picture = rng.integers(40, 200, 3).astype(np.uint8) * np.ones((960, 960, 1), np.uint8)
    for _ in range(rng.integers(1, 12)):
      centre = rng.integers(100, 860, 2).tolist()
      axes = rng.integers(40, 380, 2).tolist()
      colour, angle = rng.integers(20, 230, 3).tolist(), float(rng.uniform(0, 180))
      cv2.ellipse(picture, (centre, axes, angle), colour, -1)
      for _ in range(rng.integers(2, 9)):
        spot = (np.array(centre) + rng.normal(0, 0.2, 2) * axes).astype(int).tolist()
        cv2.ellipse(
          picture, (spot, [1 + a // 8 for a in axes], angle), [c // 2 for c in colour], -1
        )
    picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(1, 5)))
    yield np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)


def away(rgb: np.ndarray, found: Sequence[Face]) -> Iterator[np.ndarray]:
  """Yields the parts of a picture left, right, above and below of all heads."""
  heads = np.array([align.corners(align.ffhq(face.landmarks)) for face in found]).reshape(-1, 2)
  (left, top), (right, bottom) = heads.min(0).astype(int), heads.max(0).astype(int) + 1
  h, w = rgb.shape[:2]
  for part in (rgb[:, : max(0, left)], rgb[:, right:], rgb[: max(0, top)], rgb[bottom:]):
    if min(part.shape[:2]) >= 96:
      yield part


def faceless(folder: pathlib.Path, with_faces: Sequence, more: pathlib.Path | None) -> Iterator:
  """Yields (kind, picture without a face)."""
  for name in ('cat_face.jpg', 'no_face_photo.jpg'):
    yield 'photographs', stills.read_image(folder / 'hostile' / name)
  for path in sorted(more.iterdir()) if more else ():
    yield 'photographs', stills.read_image(path)
  for rgb in frames_of(folder / 'hostile' / 'no_face_testpattern.mp4', 3):
    yield 'test pattern', rgb
  for rgb, found in with_faces:
    yield from (('parts of pictures', part) for part in away(rgb, found))
  yield from (('drawn leaves', leaf) for leaf in leaves(30))


def find_rates(
  detector: Landmarker, references: Sequence[tuple[str, np.ndarray, Face]], background: np.ndarray
) -> dict[str, dict[str, dict[str, int]]]:
  """Returns counts of right, wrong and no faces for each size and turn."""
  rates = {}
  for share, turn in itertools.product(SIZES, TURNS):
    counts = {'right': 0, 'wrong': 0, 'none': 0}
    for name, rgb, face in references:
      frame, points = placed(rgb, face, share, background)
      found = detector.detect(np.ascontiguousarray(np.rot90(frame, turn // 90)))
      # The largest face is the one that a run takes.
      candidates = found if name == CROWD else found[:1]
      right = any(is_right(one, turned(points, turn)) for one in candidates)
      counts['right' if right else 'wrong' if found else 'none'] += 1
    rates.setdefault(f'{share:.0%}', {})[str(turn)] = counts
  return rates


def false_alarms(detector: Landmarker, nothing: Sequence) -> dict[str, dict[str, int]]:
  """Returns, for each kind of picture without a face, how many were searched and show a face."""
  counts = {}
  for kind, rgb in nothing:
    row = counts.setdefault(kind, {'searched': 0, 'false_alarms': 0})
    for turn in TURNS:
      row['searched'] += 1
      row['false_alarms'] += bool(detector.detect(np.ascontiguousarray(np.rot90(rgb, turn // 90))))
  return counts


def find_references(args: argparse.Namespace) -> tuple[list, list]:
  """Returns (name, picture, face) of each picture used, and (picture, faces) of all pictures."""
  yunet = FaceDetector(args.reference)
  second = open_landmarker(args.second_detector) if args.second_detector else None
  references, searched = [], []
  for name, rgb in pictures(args.faces, args.frames):
    found = yunet.detect(rgb)
    if not found:
      continue
    searched.append((rgb, found))
    others = second.detect(rgb) if second else found
    if any(is_right(face, found[0].landmarks) for face in others):
      references.append((name, rgb, found[0]))
  return references, searched


def main() -> None:
  parser = script.parser(__doc__)
  add = parser.add_argument
  add('faces', type=pathlib.Path, help='folder of portraits, clips and hostile files')
  add('--face_detector', required=True, help='YuNet .onnx or MediaPipe .task to measure')
  add('--reference', required=True, help='YuNet .onnx that finds the faces of the untouched files')
  add('--second_detector', default='', help='MediaPipe .task that must agree with the reference')
  add('--label', required=True, help='name of the row: detector and version')
  add('--frames', type=int, default=2, help='frames of each clip (%(default)s)')
  add('--faceless', type=pathlib.Path, help='folder of more pictures without a face')
  add('--output', type=pathlib.Path, default=script.RESULTS / 'detection.json', help='.json')
  args = parser.parse_args()
  record = script.record()
  references, searched = find_references(args)
  background = stills.read_image(args.faces / 'hostile' / 'no_face_photo.jpg')
  nothing = list(faceless(args.faces, searched, args.faceless))
  detector, began = open_landmarker(args.face_detector), time.perf_counter()
  rates = find_rates(detector, tqdm(references), background)
  row = {
    'pictures': len(references),
    'rates': rates,
    'without_a_face': false_alarms(detector, nothing),
    'seconds': round(time.perf_counter() - began, 1),
    'measured': record,
  }
  results = json.loads(args.output.read_text()) if args.output.is_file() else {}
  script.write_json(args.output, results | {args.label: row})
  for share, turns in rates.items():
    print(share, {turn: list(counts.values()) for turn, counts in turns.items()})
  print(row['without_a_face'], row['seconds'], 's')


if __name__ == '__main__':
  main()
