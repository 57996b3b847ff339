"""Semantic edits of the re-enacted person (eq. 4): directions in W+ and channels of StyleSpace.

An edit is written NAME=STRENGTH, several with commas: `age=+2,smile=-1`. A strength that varies is
a curve of points with linear interpolation: `age=0@0s,3@4s`. NAME is one of

  NAME                 one of `NAMES`, for the bundled model; or a file NAME.pt, .npy or .npz in
                       the folder of directions: an InterFaceGAN vector, of W (d,) or one for each
                       row of W+ (l, d)
  FILE:K[:A-B]         component K of GANSpace's FILE.pt in that folder, on W+ rows A to B: the
                       strength is the person's coordinate after the edit, in standard deviations
  sefa:K[:A-B]         SeFa: of the directions that change the styles of rows A to B most, the K-th
  style:LAYER:CHANNEL  one channel of StyleSpace (Wu et al. 2021), LAYER as `latents.style_layers`

K, rows, layers and channels count from 0.
"""

import dataclasses
import hashlib
import pathlib
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.method.hybrid import Directions
from hybrid_jax.models import latents
from hybrid_jax.reenactment.model import Model
from hybrid_jax.weights import shipped, torch_file

SUFFIXES = ('.pt', '.npy', '.npz')
# Directions of the bundled model: a strength of 1 adds 1 to the parameter of this name (see
# `world.parameters`). Fitted and measured by experiments/world/directions.py.
NAMES = ('glasses', 'beard', 'age', 'skin', 'hair_dark', 'hair_length')


@dataclasses.dataclass(frozen=True)
class Curve:
  """A strength over time: `values` at `times` (s), linear between them, constant beyond."""

  times: tuple[float, ...]
  values: tuple[float, ...]

  def __call__(self, seconds: np.ndarray) -> np.ndarray:
    """Returns the strength (n,) at times (n,)."""
    return np.interp(seconds, self.times, self.values)


@dataclasses.dataclass(frozen=True, eq=False)
class Edit:
  """What one unit of strength adds: a direction in W+, or 1 in a StyleSpace channel.

  Attributes:
    name: as written, for messages.
    curve: the strength over time.
    direction: (l, d) in W+; None for a StyleSpace edit.
    channel: (layer, channel) of StyleSpace; None for a W+ edit.
    gauge: (a (d,), b), where w a - b is the strength that a person w (d,) has already; None if
      the strength is added to the person.
  """

  name: str
  curve: Curve
  direction: np.ndarray | None = None
  channel: tuple[int, int] | None = None
  gauge: tuple[np.ndarray, float] | None = None

  def strength(self, seconds: np.ndarray, W_S: np.ndarray) -> np.ndarray:
    """Returns the strength to add, (n,) at times (n,), for a person W_S (l, d)."""
    # GANSpace's published edits state the coordinate to reach: the person's own is subtracted. It
    # is that of the first W+ row, also where the edit is limited to other rows, as in e4e's public
    # editing code, with which the strengths in use were found.
    already = W_S[0] @ self.gauge[0] - self.gauge[1] if self.gauge else 0.0
    return self.curve(seconds) - already


def parse(text: str) -> list[tuple[str, Curve]]:
  """Returns (name, curve) of each edit in `text`.

  Raises:
    InputError: a part that cannot be parsed, with the syntax.
  """
  # Commas separate both edits and points of a curve: a part without a name continues the curve of
  # the edit before it.
  points: list[tuple[str, list[tuple[float | None, float]]]] = []
  for piece in filter(None, (part.strip() for part in text.split(','))):
    # From the right: a folder may hold a direction whose file name has a "=".
    name, equals, value = piece.rpartition('=')
    match = re.fullmatch(r'([+-]?[\d.]+(?:e[+-]?\d+)?)(?:@([\d.]+)s?)?', value or piece, re.I)
    if not match or (equals and not name) or (not equals and not points):
      raise InputError(f'--edit: {piece!r} is not NAME=STRENGTH or NAME=STRENGTH@SECONDSs')
    try:
      # The pattern admits 1.2.3, which float refuses, and 1e400, which it reads as infinity.
      at = None if match[2] is None else float(match[2])
      point = at, float(match[1])
      if not np.isfinite([value for value in point if value is not None]).all():
        raise ValueError
    except ValueError as error:
      raise InputError(f'--edit: {piece!r} has a number that cannot be parsed') from error
    if equals:
      points.append((name, [point]))
    else:
      points[-1][1].append(point)
  if not points:
    raise InputError('--edit: empty; write NAME=STRENGTH, e.g. age=+2')
  return [(name, _curve(name, own)) for name, own in points]


def _curve(name: str, points: list[tuple[float | None, float]]) -> Curve:
  if len(points) == 1 and points[0][0] is None:
    return Curve((0.0,), (points[0][1],))
  if len(points) == 1:
    raise InputError(
      f'--edit: {name}: a curve needs two points; write {name}={points[0][1]:g} for a constant '
      f'strength, or add a first point, {name}=0@0s,{points[0][1]:g}@{points[0][0]:g}s'
    )
  times = [at for at, _ in points]
  if None in times or any(a >= b for a, b in zip(times, times[1:], strict=False)):
    raise InputError(f'--edit: {name}: the points of a curve need rising times, 0@0s,3@4s')
  return Curve(tuple(times), tuple(value for _, value in points))


def resolve(text: str, folder: str, model: Model) -> list[Edit]:
  """Returns the edits of `text`; [] for ''.

  Args:
    text: see `parse`.
    folder: of files of directions; '' takes those of the bundled model, which fit no other
      generator.

  Raises:
    InputError: the syntax is wrong, a direction is unknown, or does not fit the generator.
  """
  if not text.strip():
    return []
  if folder and not pathlib.Path(folder).is_dir():
    raise InputError(f'--directions={folder}: no such folder')
  return [_resolve(name, curve, folder, model) for name, curve in parse(text)]


def _resolve(name: str, curve: Curve, folder: str, model: Model) -> Edit:
  generator = model.networks.hybrid.generator
  rows, width = latents.num_ws(generator.channels), generator.w_dim
  method, colon, rest = name.partition(':')
  if method == 'style':
    return Edit(name, curve, channel=_channel(name, rest, generator.channels))
  if colon:
    match = re.fullmatch(r'(\d+)(?::(\d+)-(\d+))?', rest)
    if not match:
      raise InputError(f'--edit: {name}: write {method}:NUMBER or {method}:NUMBER:FIRST-LAST')
    k, first, last = int(match[1]), int(match[2] or 0), int(match[3] or rows - 1)
    if not first <= last < rows:
      raise InputError(f'--edit: {name}: rows of this model are 0 to {rows - 1}')
    # Zero outside of the rows, so that every direction has the shape of W+ and all edits are one
    # product in the compiled program.
    here = (np.arange(rows) >= first) & (np.arange(rows) <= last)
    if method == 'sefa':
      step, gauge = _pick(name, sefa(model.G, generator.channels, np.flatnonzero(here)), k), None
    elif not folder:
      raise InputError(f'--edit: {name}: give --directions=FOLDER with the file {method}.pt in it')
    else:
      step, gauge = _ganspace(name, pathlib.Path(folder) / f'{method}.pt', k, width)
    return Edit(name, curve, direction=here[:, None] * step, gauge=gauge)
  direction = read_direction(name, pathlib.Path(folder)) if folder else _shipped(name, model)
  if direction.shape[-1] != width or len(direction) not in (1, rows):
    raise InputError(
      f'--edit: {name}: a direction {direction.shape} does not fit W+ of ({rows}, {width})'
    )
  return Edit(name, curve, direction=np.broadcast_to(direction, (rows, width)))


def _shipped(name: str, model: Model) -> np.ndarray:
  # The directions were fitted in the bundled generator's W+; another generator of the same shape
  # would take them and show nothing of the name.
  if model.config.weights.e4e != 'shipped':
    raise InputError(f'--edit: {name}: give --directions=FOLDER with the file {name}.pt in it')
  if name not in NAMES:
    raise InputError(f'--edit: no direction {name!r}; there are: {", ".join(NAMES)}')
  return np.asarray(shipped.load('edits_64')[name])


def read_direction(name: str, folder: pathlib.Path) -> np.ndarray:
  """Returns (1, d) or (l, d) from a file of the folder.

  Raises:
    InputError: no such file (the message lists the others), or no direction in it.
  """
  known = sorted(p for p in folder.glob('*') if p.suffix.lower() in SUFFIXES)
  found = [path for path in known if path.stem == name]
  if not found:
    names = ', '.join(path.stem for path in known) or 'none'
    raise InputError(f'--edit: no direction {name!r} in {folder}; there are: {names}')
  path = found[0]
  # Neither reader runs code of the file: directions are downloaded from anywhere.
  try:
    content = (
      torch_file.load(path) if path.suffix.lower() == '.pt' else np.load(path, allow_pickle=False)
    )
    if isinstance(content, np.lib.npyio.NpzFile):
      content = content['direction']
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    raise InputError(f'{path}: cannot be read as a direction ({error})') from error
  if not isinstance(content, np.ndarray) or content.dtype.kind != 'f' or not content.size:
    raise InputError(f'{path}: is not an array of real numbers')
  content = np.atleast_1d(np.array(content, np.float32))
  if not np.isfinite(content).all():
    raise InputError(f'{path}: has values that are not finite')
  return content.reshape(-1, content.shape[-1])


def _pick(name: str, directions: np.ndarray, k: int) -> np.ndarray:
  if k >= len(directions):
    raise InputError(f'--edit: {name}: has {len(directions)} directions, counted from 0')
  return directions[k]


def _ganspace(
  name: str, path: pathlib.Path, k: int, width: int
) -> tuple[np.ndarray, tuple[np.ndarray, float]]:
  """Returns component K times its standard deviation (d,), and the gauge of `Edit`.

  Raises:
    InputError: the file is missing, of another kind, or of another generator.
  """
  if not path.is_file():
    raise InputError(
      f'--edit: {name}: no file {path}; it must hold GANSpace components (comp, mean, std)'
    )
  content = torch_file.load(path)
  # Public files differ in axes of length 1: (k, 1, d), (1, d) and (k,) all occur.
  try:
    comp, mean, std = (np.asarray(content[key], np.float32) for key in ('comp', 'mean', 'std'))
    comp, mean, std = comp.reshape(std.size, -1), mean.reshape(-1), std.reshape(-1)
  except (KeyError, TypeError, ValueError, IndexError) as error:
    raise InputError(f'{path}: not a GANSpace file with comp, mean and std') from error
  if comp.shape[1] != width or mean.size != width:
    raise InputError(f'{path}: components of {comp.shape[1]} do not fit W+ of {width}')
  step = _pick(name, comp, k)
  # Coordinate of w, in standard deviations: (w - mean) step / std = w a - b.
  return step * std[k], (step / std[k], float(mean @ step / std[k]))


def sefa(G: Mapping, channels: Sequence[int], rows: np.ndarray) -> np.ndarray:
  """Returns SeFa's closed-form directions (d, d), the strongest first (Shen and Zhou 2021).

  Unit eigenvectors of A A^T, where A (d, s) holds the affine layers of the convolutions that the W+
  `rows` feed, with each style's weights scaled to unit length.

  Raises:
    InputError: the rows feed no convolution.
  """
  table = latents.style_layers(channels)
  # Without the to-RGB layers, as in the authors' code. Float64: eigenvectors of close eigenvalues
  # would depend on the machine.
  kernels = [
    np.asarray(G['params'][f'affines_{i}']['kernel'], np.float64)
    for i, layer in enumerate(table)
    if layer.w_row in rows and layer.kind != 'to_rgb'
  ]
  if not kernels:
    raise InputError('--edit: sefa: these rows feed no convolution')
  A = np.concatenate(kernels, axis=1)  # d s
  A = A / np.linalg.norm(A, axis=0)
  # Kernels are (d, s) here and (s, d) in PyTorch, hence A A^T where the paper has A^T A; `eigh`
  # sorts upwards, the strongest direction is its last column. The sign of each is arbitrary.
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


def strengths(edits: Sequence[Edit], seconds: np.ndarray, W_S: np.ndarray) -> np.ndarray:
  """Returns the strengths (n, e) float32 of e edits at times (n,) for a person W_S (1, l, d)."""
  columns = [edit.strength(seconds, np.asarray(W_S)[0]) for edit in edits]
  return np.stack(columns, axis=1).astype(np.float32)


def stack(edits: Sequence[Edit], channels: Sequence[int], w_dim: int) -> Directions:
  """Returns what one unit of each edit adds, as arrays for the compiled program."""
  table = latents.style_layers(channels)
  W = np.zeros((len(edits), latents.num_ws(channels), w_dim), np.float32)
  s = tuple(np.zeros((len(edits), layer.width), np.float32) for layer in table)
  for k, edit in enumerate(edits):
    if edit.channel is None:
      W[k] = edit.direction
    else:
      layer, channel = edit.channel
      s[layer][k, channel] = 1
  return Directions(W, s)


def images(
  model: Model,
  W_S: jax.Array,
  F: Iterable[np.ndarray],
  batch: int,
  edits: Sequence[Edit],
  seconds: np.ndarray,
) -> Iterator[np.ndarray]:
  """Yields the images of the edited person, G(W_S + dW_edit, F_D) (eq. 4).

  Args:
    W_S: (1, l, d), the source's w_id.
    F: n rows s_f (d,).
    batch: rows per batch.
    seconds: (n,) time of each row.
  """
  if not edits:
    return model.images(W_S, F, batch)
  generator = model.networks.hybrid.generator
  # Strengths travel behind each row, as one array: batching and padding then need no second stream,
  # and a curve over time compiles no program of its own.
  rows = map(np.append, F, strengths(edits, seconds, W_S))
  return model.images(W_S, rows, batch, stack(edits, generator.channels, generator.w_dim))


def rows(
  model: Model,
  portrait: np.ndarray,
  driving: np.ndarray,
  names: Sequence[str],
  values: Sequence[float],
  folder: str,
) -> list[list[np.ndarray]]:
  """Returns a row of images (r, r, 3) uint8 for each named edit, one for each of `values`.

  Args:
    portrait, driving: crops (size, size, 3) uint8; the motion is that of `driving`.
    names: of edits, see the module.
    values: strengths.
    folder: see `resolve`.

  Raises:
    InputError: an edit is unknown.
  """
  # The strengths of a row are a curve over pretended times, so that one batch draws all of them.
  times = np.arange(len(values), dtype=np.float64)
  found = [edit for name in names for edit in resolve(f'{name}=0', folder, model)]
  W_S, (F_D,) = model.identity(portrait), model.deformations([driving], 1)
  curve = Curve(tuple(times), tuple(values))
  return [
    list(
      images(
        model,
        W_S,
        [F_D] * len(times),
        len(times),
        [dataclasses.replace(edit, curve=curve)],
        times,
      )
    )
    for edit in found
  ]


def digest(edits: Sequence[Edit]) -> str:
  """Returns the SHA-256 of the directions; '' for no edits.

  The curves are left out: they are part of the options.
  """
  # Names alone would not do: the file of a direction may be replaced by another of the same name,
  # and a resumed run would join pictures of both.
  sha = hashlib.sha256()
  for edit in edits:
    sha.update(repr((edit.name, edit.channel)).encode())
    if edit.direction is not None:
      sha.update(np.ascontiguousarray(edit.direction))
    if edit.gauge is not None:
      sha.update(repr((edit.gauge[0].tolist(), edit.gauge[1])).encode())
  return sha.hexdigest() if edits else ''
