"""Semantic edits of the re-enacted person (eq. 4): directions in W+ and channels of StyleSpace.

An edit is written NAME=STRENGTH, several with commas: `age=+2,smile=-1`. A strength that changes is
a curve of points, straight between them: `age=0@0s,3@4s`. NAME is one of

  NAME                 a file NAME.pt, .npy or .npz in the folder of directions: InterFaceGAN's
                       vectors, of W (d,) or by row of W+ (l, d)
  ganspace:K[:A-B]     component K of ganspace.pt there, on W+ rows A to B: strength in standard
                       deviations, as GANSpace applies it
  sefa:K[:A-B]         SeFa: the K-th direction that changes the styles of rows A to B most
  style:LAYER:CHANNEL  one channel of StyleSpace (Wu et al. 2021), LAYER as `latents.style_layers`
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from hybrid_jax import latents
from hybrid_jax.errors import InputError
from hybrid_jax.weights import torch_file

SUFFIXES = ('.pt', '.npy', '.npz')


@dataclasses.dataclass(frozen=True)
class Curve:
  """A strength over time: `values` at `times` (seconds), straight between, level beyond."""

  times: tuple[float, ...]
  values: tuple[float, ...]

  def __call__(self, seconds: np.ndarray) -> np.ndarray:
    return np.interp(seconds, self.times, self.values)


@dataclasses.dataclass(frozen=True)
class Edit:
  """What a unit of strength adds: `direction` (l, d) to W+, or 1 to a `channel` (layer, channel).

  `origin` is the strength at which nothing changes: GANSpace's says where the person is now.
  """

  name: str
  curve: Curve
  direction: np.ndarray | None = None
  channel: tuple[int, int] | None = None
  origin: float = 0.0

  def strength(self, seconds: np.ndarray) -> np.ndarray:
    return self.curve(seconds) - self.origin


def parse(text: str) -> list[tuple[str, Curve]]:
  """(name, curve) of each edit in `text`.

  Raises:
    InputError: what cannot be read, and how it is written.
  """
  points: list[tuple[str, list[tuple[float | None, float]]]] = []
  for piece in filter(None, (part.strip() for part in text.split(','))):
    name, equals, value = piece.rpartition('=')
    match = re.fullmatch(r'([+-]?[\d.]+(?:e[+-]?\d+)?)(?:@([\d.]+)s?)?', value or piece, re.I)
    if not match or (equals and not name) or (not equals and not points):
      raise InputError(f'--edit: {piece!r} is not NAME=STRENGTH or NAME=STRENGTH@SECONDSs')
    try:
      at = None if match[2] is None else float(match[2])
      point = at, float(match[1])
    except ValueError as error:
      raise InputError(f'--edit: {piece!r} has a number that cannot be read') from error
    if equals:
      points.append((name, [point]))
    else:
      points[-1][1].append(point)
  if not points:
    raise InputError('--edit: empty; write NAME=STRENGTH, e.g. age=+2')
  return [(name, _curve(name, own)) for name, own in points]


def _curve(name: str, points: list[tuple[float | None, float]]) -> Curve:
  if len(points) == 1:
    return Curve((points[0][0] or 0.0,), (points[0][1],))
  times = [at for at, _ in points]
  if None in times or any(a >= b for a, b in zip(times, times[1:], strict=False)):
    raise InputError(f'--edit: {name}: the points of a curve need rising times, 0@0s,3@4s')
  return Curve(tuple(times), tuple(value for _, value in points))


def resolve(
  text: str, folder: str, G: Mapping, channels: Sequence[int], W_S: np.ndarray
) -> list[Edit]:
  """The edits of `text`, for a generator of these channels and a source W_S (l, d).

  Raises:
    InputError: a direction is unknown, or is of another generator.
  """
  return [
    _resolve(name, curve, pathlib.Path(folder), G, channels, np.asarray(W_S))
    for name, curve in parse(text)
  ]


def _resolve(
  name: str,
  curve: Curve,
  folder: pathlib.Path,
  G: Mapping,
  channels: Sequence[int],
  W_S: np.ndarray,
) -> Edit:
  rows, width = W_S.shape
  method, _, rest = name.partition(':')
  if method == 'style':
    return Edit(name, curve, channel=_channel(name, rest, channels))
  if method in ('ganspace', 'sefa'):
    match = re.fullmatch(r'(\d+)(?::(\d+)-(\d+))?', rest)
    if not match:
      raise InputError(f'--edit: {name}: write {method}:NUMBER or {method}:NUMBER:FIRST-LAST')
    k, first, last = int(match[1]), int(match[2] or 0), int(match[3] or rows - 1)
    if not first <= last < rows:
      raise InputError(f'--edit: {name}: rows of this model are 0 to {rows - 1}')
    here = (np.arange(rows) >= first) & (np.arange(rows) <= last)
    if method == 'sefa':
      step, origin = _pick(name, sefa(G, channels, np.flatnonzero(here)), k), 0.0
    else:
      step, origin = _ganspace(name, folder / 'ganspace.pt', k, W_S)
    return Edit(name, curve, direction=here[:, None] * step, origin=origin)
  direction = read_direction(name, folder)
  if direction.shape[-1] != width or len(direction) not in (1, rows):
    raise InputError(
      f'--edit: {name}: a direction {direction.shape} does not fit W+ of ({rows}, {width})'
    )
  return Edit(name, curve, direction=np.broadcast_to(direction, (rows, width)))


def read_direction(name: str, folder: pathlib.Path) -> np.ndarray:
  """(1, d) or (l, d) from a file of the folder.

  Raises:
    InputError: no such file (those that are there are named), or no direction in it.
  """
  known = sorted(p for p in folder.glob('*') if p.suffix in SUFFIXES)
  found = [path for path in known if path.stem == name]
  if not found:
    names = ', '.join(path.stem for path in known) or 'none'
    raise InputError(f'--edit: no direction {name!r} in {folder}; there are: {names}')
  path = found[0]
  try:
    content = torch_file.load(path) if path.suffix == '.pt' else np.load(path, allow_pickle=False)
    if isinstance(content, np.lib.npyio.NpzFile):
      content = content['direction']
  except (OSError, ValueError, KeyError, EOFError) as error:
    raise InputError(f'{path}: no direction can be read from it ({error})') from error
  if not isinstance(content, np.ndarray) or content.dtype.kind != 'f' or not content.ndim:
    raise InputError(f'{path}: holds no array of real numbers')
  content = np.array(content, np.float32)
  if not np.isfinite(content).all():
    raise InputError(f'{path}: holds values that are not finite')
  return content.reshape(-1, content.shape[-1])


def _pick(name: str, directions: np.ndarray, k: int) -> np.ndarray:
  if k >= len(directions):
    raise InputError(f'--edit: {name}: there are {len(directions)}, counted from 0')
  return directions[k]


def _ganspace(name: str, path: pathlib.Path, k: int, W_S: np.ndarray) -> tuple[np.ndarray, float]:
  """(component K times its deviation, the source's place on it in deviations).

  Raises:
    InputError: no file, another kind of file, or of another generator.
  """
  if not path.is_file():
    raise InputError(f'{path}: no such file; GANSpace components (comp, mean, std) are read there')
  content = torch_file.load(path)
  try:
    comp, mean, std = (np.asarray(content[key], np.float32) for key in ('comp', 'mean', 'std'))
    comp, mean, std = comp.reshape(std.size, -1), mean.reshape(-1), std.reshape(-1)
  except (KeyError, TypeError, ValueError, IndexError) as error:
    raise InputError(f'{path}: not a file of GANSpace with comp, mean and std') from error
  if comp.shape[1] != W_S.shape[1] or mean.size != W_S.shape[1]:
    raise InputError(f'{path}: components of {comp.shape[1]} do not fit W+ of {W_S.shape[1]}')
  step = _pick(name, comp, k)
  return step * std[k], float((W_S[0] - mean) @ step / std[k])


def sefa(G: Mapping, channels: Sequence[int], rows: np.ndarray) -> np.ndarray:
  """Closed-form directions (d, d), the strongest first (Shen and Zhou 2021), unit length.

  Eigenvectors of A^T A, A the affine layers of the convolutions that the W+ `rows` feed, each
  style's weights scaled to unit length.
  """
  table = latents.style_layers(channels)
  kernels = [
    np.asarray(G['params'][f'affines_{i}']['kernel'], np.float64)
    for i, layer in enumerate(table)
    if layer.w_row in rows and layer.kind != 'to_rgb'
  ]
  if not kernels:
    raise InputError('--edit: sefa: these rows feed no convolution')
  A = np.concatenate(kernels, axis=1)  # d s
  A = A / np.linalg.norm(A, axis=0)
  _, vectors = np.linalg.eigh(A @ A.T)
  return vectors.T[::-1].astype(np.float32)


def _channel(name: str, rest: str, channels: Sequence[int]) -> tuple[int, int]:
  table = latents.style_layers(channels)
  match = re.fullmatch(r'(\d+):(\d+)', rest)
  if not match:
    raise InputError(f'--edit: {name}: write style:LAYER:CHANNEL')
  layer, channel = int(match[1]), int(match[2])
  if layer >= len(table) or channel >= table[layer].width:
    widths = f', layer {layer} has {table[layer].width} channels' if layer < len(table) else ''
    raise InputError(f'--edit: {name}: layers are 0 to {len(table) - 1}{widths}')
  return layer, channel


def dW_edit(edits: Sequence[Edit], seconds: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """What eq. 4 adds to w_id, (n, l, d), at times (n,)."""
  total = np.zeros((len(seconds), *shape), np.float32)
  for edit in edits:
    if edit.direction is not None:
      total += edit.strength(seconds)[:, None, None].astype(np.float32) * edit.direction
  return total  # Eq. (4): W_S + dW_edit


def style_edit(
  edits: Sequence[Edit], seconds: np.ndarray, channels: Sequence[int]
) -> tuple[np.ndarray, ...]:
  """What edits of single channels add to the style space, one (n, s) for each layer."""
  offsets = tuple(
    np.zeros((len(seconds), layer.width), np.float32) for layer in latents.style_layers(channels)
  )
  for edit in edits:
    if edit.channel is not None:
      layer, channel = edit.channel
      offsets[layer][:, channel] += edit.strength(seconds)
  return offsets
