"""Measures how large and how high heads are in the crops of each framing, against FFHQ's.

  python -m experiments.paper.framing FACES --face_detector=FILE

FACES has the folders portraits and driving. The reference in each frame is FFHQ's alignment for
the landmarks of that frame. `side` is the side of the crop over FFHQ's; `eyes` the height of the
middle of the eyes below the top of the crop, over its side, and `eyes_ffhq` that of FFHQ's crop;
`roll` and `shift` (over FFHQ's side) are what a crop leaves in the picture that FFHQ's removes.

Framings are those of re-enactment, which searches every frame; `training` is `clip` as packing and
folders cut it, from every fifth frame. `before` are the squares of earlier versions, of 1.8 boxes
(training, re-enactment) and 1.6 boxes (tables) around all places of the face. `boxes` are YuNet's
in sides of FFHQ's square. The result holds numbers only.
"""

import pathlib
import sys
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from experiments import script
from hybrid_jax.media import align, clips, faces, framing, stills, tracking, video
from hybrid_jax.reenactment.inputs import crop_picture
from hybrid_jax.reenactment.options import CropOptions

FOLDERS = ('portraits', 'driving')
BEFORE = {'before, 1.8 boxes': 1.8, 'before, 1.6 boxes': 1.6}
WITHIN = 0.03  # of FFHQ's side and eye height, the mean of `clip` over all files


def tracks(
  folder: pathlib.Path, detector: str
) -> Iterator[tuple[str, pathlib.Path, tracking.Track]]:
  """Yields kind, path and track of each file; a portrait is a track of one frame."""
  for path in sorted((folder / 'portraits').iterdir()):
    picture = crop_picture(stills.read_image(path), path.name, CropOptions(detector))
    yield 'portraits', path, picture.track
  found = faces.FaceDetector(detector)
  for path in sorted((folder / 'driving').iterdir()):
    yield 'driving', path, tracking.track(path, found, tracking.chooser('largest'))


def boxed(track: tracking.Track, scale: float) -> np.ndarray:
  """Returns the squares (t, 4) of earlier versions, one for each shot."""
  result = np.empty((len(track), 4))
  for first, end in zip(track.cuts, (*track.cuts[1:], len(track)), strict=True):
    seen = track.boxes[first:end][~track.missing[first:end]]
    if len(seen):
      result[first:end] = align.upright(faces.square_box(faces.union(seen), scale, track.size))
  return result


def in_training(path: pathlib.Path, track: tracking.Track, detector: str) -> np.ndarray:
  """Returns the squares (t, 4) of `clip` from the frames that training searches."""
  if len(track) == 1:
    return tracking.squares(track, 'clip', 0)
  shown = ((frame.rgb, float(frame.time)) for frame in video.read_frames(path))
  return clips.head_squares(shown, faces.FaceDetector(detector), 'clip')


def geometry(squares: np.ndarray, points: np.ndarray) -> dict[str, float]:
  """Returns the means over frames of squares (t, 4) for landmarks (t, 5, 2)."""
  reference = align.ffhq(points)
  side, wanted = (2 * np.hypot(*s[:, 2:].T) for s in (squares, reference))
  turn = [np.arctan2(s[:, 3], s[:, 2]) for s in (squares, reference)]
  shift = np.hypot(*(squares[:, :2] - reference[:, :2]).T) / wanted
  return {
    'side': float((side / wanted).mean()),
    'eyes': float(_eye_height(squares, points).mean()),
    'eyes_ffhq': float(_eye_height(reference, points).mean()),
    'roll': float(np.degrees(np.abs(np.angle(np.exp(1j * (turn[1] - turn[0]))))).mean()),
    'shift': float(shift.mean()),
  }


def _eye_height(squares: np.ndarray, points: np.ndarray) -> np.ndarray:
  middle, (ax, ay) = points[:, :2].mean(1) - squares[:, :2], squares[:, 2:].T
  # The y axis of a square is (-ay, ax); its length is half of the side.
  return 0.5 + 0.5 * (ax * middle[:, 1] - ay * middle[:, 0]) / (ax**2 + ay**2)


def box_geometry(track: tracking.Track) -> list[float]:
  """Returns centre below the square's, width and height of the boxes, in sides of FFHQ's square."""
  boxes, reference = track.boxes[~track.missing], align.ffhq(track.points[~track.missing])
  half = reference[:, 2:]
  side, (ax, ay) = 2 * np.hypot(*half.T), half.T
  x, y = (boxes[:, :2] + boxes[:, 2:] / 2 - reference[:, :2]).T
  down = (ax * y - ay * x) * 2 / side**2
  return [float(np.mean(v)) for v in (down, boxes[:, 2] / side, boxes[:, 3] / side)]


def summary(rows: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
  """Returns for each framing the means over files, and their largest deviation of the side."""
  found = {}
  for kind in rows[0]:
    values = {name: [row[kind][name] for row in rows] for name in rows[0][kind]}
    found[kind] = {name: float(np.mean(v)) for name, v in values.items()}
    found[kind]['eyes_over_ffhq'] = found[kind]['eyes'] / found[kind]['eyes_ffhq']
    found[kind]['side_least'], found[kind]['side_most'] = min(values['side']), max(values['side'])
  return found


def measure(path: pathlib.Path, track: tracking.Track, detector: str) -> dict[str, dict]:
  """Returns the geometry of each framing of a file."""
  seen = ~track.missing
  cut = {name: boxed(track, scale) for name, scale in BEFORE.items()}
  cut |= {kind: tracking.squares(track, kind, framing.SMOOTHING) for kind in framing.KINDS}
  cut['clip, in training'] = in_training(path, track, detector)
  return {name: geometry(squares[seen], track.points[seen]) for name, squares in cut.items()}


def main() -> None:
  """Measures all files and writes the result."""
  parser = script.parser(__doc__)
  parser.add_argument('faces', type=pathlib.Path, help='folder with portraits and driving')
  parser.add_argument('--face_detector', required=True, help='YuNet .onnx')
  parser.add_argument('--output', type=pathlib.Path, default=script.RESULTS / 'framing.json')
  args = parser.parse_args()
  result, boxes = {'measured': script.record()}, []
  files: dict[str, dict] = {folder: {} for folder in FOLDERS}
  total = sum(len(list((args.faces / folder).iterdir())) for folder in FOLDERS)
  for folder, path, track in tqdm(tracks(args.faces, args.face_detector), total=total):
    files[folder][path.name] = measure(path, track, args.face_detector)
    boxes.append(box_geometry(track))
  for folder, rows in {'all': {**files['portraits'], **files['driving']}, **files}.items():
    result[folder] = summary(list(rows.values()))
  result['boxes'] = dict(zip(('down', 'width', 'height'), np.mean(boxes, 0).tolist(), strict=True))
  script.write_json(args.output, result | {'files': files}, allow_nan=False)
  for name, row in result['all'].items():
    print(f'{name:20}' + ''.join(f'{key} {value:.3f}  ' for key, value in row.items()))
  for name in ('side', 'eyes_over_ffhq'):
    if abs(result['all']['clip'][name] - 1) > WITHIN:
      sys.exit(f'error: {name} of clip is not within {WITHIN:.0%} of FFHQ')


if __name__ == '__main__':
  main()
