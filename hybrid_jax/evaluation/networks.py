"""The networks behind the metrics, each from its own file and run on all devices.

Frames are (n, s, s, 3) uint8. A network without a file is not replaced by another; `missing` says
why its metric is not available. For the rendered world its judges measure what the networks of FID,
FVD and identity measure elsewhere, and their metrics have names of their own.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import images, judges
from hybrid_jax.evaluation.blendshapes import POSE
from hybrid_jax.media.sequences import digest
from hybrid_jax.models.batching import run_in_batches
from hybrid_jax.models.i3d import I3D, MIN_FRAMES, fvd_input
from hybrid_jax.models.inception import Inception, fid_input
from hybrid_jax.models.ops import from_uint8
from hybrid_jax.models.perceptual import LPIPS, ArcFace
from hybrid_jax.training import parallel
from hybrid_jax.weights import load, shapes, shipped
from hybrid_jax.world import parameters

Run = Callable[..., np.ndarray]

TRUSTED, MOUTH = (
  [list(parameters.MOTION).index(name) for name in names]
  for names in (judges.TRUSTED_MOTION, ('jaw_open', 'smile', 'mouth_shift'))
)


def everywhere(function: Callable, tree: Any, rows: int) -> Run:
  """Returns run(*arrays), which computes function(tree, *arrays) for arrays (n, ...) of any n.

  Args:
    tree: parameters, replicated on every device.
    rows: rows of a batch per device.
  """
  mesh = parallel.make_mesh()
  _, replicated = parallel.shardings(mesh)
  tree, step, rows = jax.device_put(tree, replicated), jax.jit(function), rows * mesh.size

  def run(*batch: np.ndarray) -> jax.Array:
    # Full float32 on every device, because accelerators round products and metrics must not differ.
    with jax.default_matmul_precision('highest'):
      return step(tree, *parallel.put_batch(batch, mesh))

  return functools.partial(run_in_batches, run, size=rows)


def closeness(_: Any, x: jax.Array, y: jax.Array) -> jax.Array:
  """Returns L1 on the scale of 0 to 255, PSNR in dB and SSIM of frames, (n, 3)."""
  # images.l1 is on a range of 2, the table on one of 255: a factor of 127.5.
  x, y = from_uint8(x), from_uint8(y)
  return jnp.stack((127.5 * images.l1(x, y), images.psnr(x, y), images.ssim(x, y)), -1)  # n 3


class Networks:
  """The networks, by the metric that they serve; None for one that is not available.

  Args:
    lpips: files or converted folders of the backbone and of the linear layers, or one of both.
    arcface, inception, i3d: a file or converted folder each; '' for none.
    rendered: whether to use the judges of the rendered world.
    rows: frames per device and step.

  Attributes:
    together: frames per step that keep all devices busy.
    closeness: (n, 3) of two sets of frames, see `closeness`. lpips: (n,) of two sets of frames.
    identity: unit embeddings (n, d) of frames. fid: features of frames.
    fvd: features of clips (n, t, s, s, 3).
    judges: (n, d + 16) of frames, unit embedding and motion.
    lpips_net: 'alex', 'vgg', 'squeeze' or ''.
    missing: by metric, why it is not available.
    files: by network, its file and SHA-256; of a converted folder that of its files.

  Raises:
    InputError: a file is missing, or of another kind.
  """

  def __init__(
    self,
    *,
    lpips: Sequence[str] = (),
    arcface: str = '',
    inception: str = '',
    i3d: str = '',
    rendered: bool = False,
    rows: int = 16,
  ):
    self.missing: dict[str, str] = {}
    self.files: dict[str, dict[str, str]] = {}
    self.rows, self.together, self.lpips_net = rows, rows * jax.device_count(), ''
    self.closeness = everywhere(closeness, {}, rows)
    self.lpips = self._lpips(lpips)
    self.identity = self._network(
      'arcface', arcface, ('identity_similarity', 'identity_loss'), _arcface
    )
    self.fid = self._network('inception', inception, ('fid',), _inception)
    self.fvd = self._network('i3d', i3d, ('fvd', 'mouth_fvd'), _i3d)
    self.judges = self._judges() if rendered else None

  def _lpips(self, paths: Sequence[str]) -> Run | None:
    if not paths:
      self.missing['lpips'] = 'no weights: give --lpips BACKBONE LINEAR'
      return None
    # A file may hold backbone, linear layers or both, so parts are merged and then checked.
    params: dict = {}
    facts: dict = {}
    for path in paths:
      tree, sizes = load.part(path, 'lpips')
      params, facts = params | tree['params'], facts | sizes
      self.files[f'lpips {len(self.files)}'] = file_facts(path)
    if 'net' not in facts or 'lin0' not in params:
      raise InputError(f'--lpips {" ".join(paths)}: needs a backbone and its linear layers')
    self.lpips_net = facts['net']
    net = LPIPS(facts['net'], facts['widths'])
    # Checks shapes now: a backbone and linear layers of different networks would fail much later.
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    expected = jax.eval_shape(net.init, jax.random.key(0), image, image)
    files = ' and '.join(map(str, paths))
    shapes.check({'params': params}, expected, files, model=f'LPIPS {facts["net"]}')
    function = lambda tree, x, y: net.apply(tree, from_uint8(x), from_uint8(y))  # noqa: E731
    return everywhere(function, {'params': params}, self.rows)

  def _network(
    self, part: str, path: str, metrics: Sequence[str], make: Callable[[Mapping], Callable]
  ) -> Run | None:
    if not path:
      self.missing |= {name: f'no weights: give --{part}' for name in metrics}
      return None
    tree, sizes = load.part(path, part)
    self.files[part] = file_facts(path)
    # A row of I3D is a whole clip, which takes as much memory as a batch of frames.
    return everywhere(make(sizes), tree, 1 if part == 'i3d' else self.rows)

  def _judges(self) -> Run:
    motion, identity = judges.motion(), judges.identity()
    names = 'judge_identity', 'judge_motion'
    trees = tuple(map(shipped.load, names))
    self.files |= {name: file_facts(shipped.FOLDER / f'{name}.npz') for name in names}

    def read(trees, x):
      x = from_uint8(x)
      # One array for both judges, since `everywhere` returns one.
      embedding = judges.unit(identity.apply(trees[0], x))
      return jnp.concatenate((embedding, motion.apply(trees[1], x)), -1)  # n (d + 16)

    return everywhere(read, trees, self.rows)


def file_facts(path: str | os.PathLike) -> dict[str, str]:
  """Returns name and SHA-256 of a file, or of the files of a converted folder."""
  return {'file': pathlib.Path(path).name, 'sha256': digest(pathlib.Path(path))}


def _arcface(sizes: Mapping) -> Callable:
  net = ArcFace(**sizes)
  return lambda tree, x: net.apply(tree, from_uint8(x))


# The networks of FID and FVD take [0, 1], and resize by kernels of their own.
def _inception(sizes: Mapping) -> Callable:
  net = Inception(**sizes)
  return lambda tree, x: net.apply(tree, fid_input(x / jnp.float32(255)))


def _i3d(sizes: Mapping) -> Callable:
  net = I3D(**sizes)
  return lambda tree, x: net.apply(tree, fvd_input(x / jnp.float32(255)))


def check_clip_length(frames: int) -> None:
  """Raises InputError for clips that are too short for FVD's network."""
  if frames < MIN_FRAMES:
    raise InputError(f'--clip-length={frames}: I3D takes {MIN_FRAMES} frames or more')


def motion_features(motion: np.ndarray) -> np.ndarray:
  """Returns features (1, 2 c) of readings (t, c): their mean, and their mean absolute change."""
  return np.concatenate((motion.mean(0), np.abs(np.diff(motion, axis=0)).mean(0)))[None]


def trusted(group: str) -> list[str]:
  """Returns the channels of 'pose', 'gaze' or 'expression' that the motion judge reads well."""
  kind = lambda n: 'pose' if n in POSE else 'gaze' if n.startswith('gaze') else 'expression'  # noqa: E731
  return [name for name in judges.TRUSTED_MOTION if kind(name) == group]
