"""A trained model at work: frames to deformation latents, latents to frames, in a steady stream."""

import collections
import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from hybrid_jax.errors import InputError
from hybrid_jax.method.hybrid import Directions
from hybrid_jax.method.networks import Networks, build, init_encoder
from hybrid_jax.models.batching import batched, pad
from hybrid_jax.models.ops import from_uint8, to_uint8
from hybrid_jax.training import checkpoint, steps
from hybrid_jax.weights import exported, load, shipped

IN_FLIGHT = 2  # batches that the device computes while the host decodes and encodes


class Programs:
  """The three compiled steps of one network, at its precision. Frames are uint8 (n, h, w, 3)."""

  def __init__(self, networks: Networks):
    hybrid = networks.hybrid
    edges = np.cumsum(hybrid.encoder.deformation_widths)

    @jax.jit
    def identity(E, G, image, rows):
      return hybrid.identity(E, G, from_uint8(image), rows)

    @jax.jit
    def deformation(E, frames):
      F = jnp.concatenate(hybrid.deformation(E, from_uint8(frames)), -1).astype(jnp.float32)
      return F, jnp.isfinite(F).all()  # Eq. 2

    @jax.jit
    def synthesis(G, W_S, F, edits=None):
      *F_D, strength = jnp.split(F, edges, axis=-1)
      dW, ds = edits.times(strength) if edits else (0.0, None)
      W = jnp.repeat(W_S, len(F), axis=0)
      R = hybrid.reenact(G, W, tuple(F_D), dW_edit=dW, ds_edit=ds)  # Eqs. 3 and 4
      return to_uint8(R), jnp.isfinite(R).all()

    self.identity, self.deformation, self.synthesis = identity, deformation, synthesis


@dataclasses.dataclass(eq=False)
class Model:
  """Encoder `E` and generator `G` of a config, ready to run.

  rows: W+ rows that were trained. name: what to call it.
  """

  config: ConfigDict
  networks: Networks
  E: Mapping
  G: Mapping
  rows: Any
  name: str

  @functools.cached_property
  def fast(self) -> Programs:
    return Programs(self.networks)

  @functools.cached_property
  def precise(self) -> Programs:
    """In float32, for batches that half precision cannot hold."""
    config = self.config.copy_and_resolve_references()
    config.model.half_dtype = ''
    return Programs(build(config.model))

  def with_generator(self, G: Mapping, name: str) -> 'Model':
    """The same encoder with a generator of the same shapes; compiled programs are shared."""
    other = dataclasses.replace(self, G=G, name=name)
    other.fast, other.precise = self.fast, self.precise
    return other

  @property
  def size(self) -> int:
    """Side of the frames that the encoder sees, px."""
    return self.networks.frame_size

  @property
  def resolution(self) -> int:
    """Side of the frames that come out, px."""
    return self.config.model.resolution

  @property
  def widths(self) -> tuple[int, ...]:
    return tuple(self.networks.hybrid.encoder.deformation_widths)

  @property
  def crop(self) -> str:
    """How its training frames were cropped: see `tracking.squares`."""
    data = self.config.data
    return 'square' if data.videos or data.packed else 'ffhq'

  def digest(self) -> str:
    """SHA-256 of the encoder: motion of another one is another language."""
    return self.digests['encoder']

  @functools.cached_property
  def digests(self) -> dict[str, str]:
    """SHA-256 of the weights in use."""
    return {'encoder': digest(self.E), 'generator': digest(self.G)}

  def identity(self, crop: np.ndarray) -> jax.Array:
    """(size, size, 3) uint8 -> w_id (1, l, d)."""
    return self.fast.identity(self.E, self.G, crop[None], self.rows)

  def deformations(self, crops: Iterable[np.ndarray], batch: int) -> Iterator[np.ndarray]:
    """One s_f (d,) for each crop (size, size, 3) uint8; see `stream`."""
    return self.stream(lambda p: lambda x: p.deformation(self.E, x), crops, batch, 'motion')

  def images(
    self, W_S: jax.Array, F: Iterable[np.ndarray], batch: int, edits: Directions | None = None
  ) -> Iterator[np.ndarray]:
    """One image (resolution, resolution, 3) uint8 for each s_f (d,); see `stream`.

    With `edits`, each s_f is followed by the strengths of the edits, (d + e,).
    """
    return self.stream(lambda p: lambda x: p.synthesis(self.G, W_S, x, edits), F, batch, 'result')

  def stream(
    self, choose: Callable, items: Iterable[np.ndarray], batch: int, what: str
  ) -> Iterator[np.ndarray]:
    """One result for each item, in order, batches ahead of the host; memory does not grow.

    `choose(programs)` gives the step, (n, ...) -> (results, finite). A batch that is not finite in
    half precision is computed again in float32.

    Raises:
      FloatingPointError: it is not finite then either.
    """
    step, pending, done = choose(self.fast), collections.deque(), 0

    def collect():
      nonlocal done
      padded, count, (results, finite) = pending.popleft()
      if not finite and self.config.model.half_dtype:
        results, finite = choose(self.precise)(padded)
      if not finite:
        raise FloatingPointError(
          f'frames {done} to {done + count - 1} of the {what} are not finite'
        )
      done += count
      yield from np.asarray(results)[:count]

    for chunk in batched(items, batch):
      count = len(chunk)
      padded = pad(chunk, batch)
      pending.append((padded, count, step(padded)))
      pending[-1][2][0].copy_to_host_async()
      if len(pending) > IN_FLIGHT:
        yield from collect()
    while pending:
      yield from collect()

  def speed(self, W_S: jax.Array, batch: int) -> float:
    """Seconds that synthesis takes for a frame, from one batch after compilation."""
    F = np.zeros((batch, sum(self.widths)), np.float32)
    jax.block_until_ready(self.fast.synthesis(self.G, W_S, F))
    began = time.perf_counter()
    jax.block_until_ready(self.fast.synthesis(self.G, W_S, F))
    return (time.perf_counter() - began) / batch

  def embedder(self) -> Callable[[np.ndarray], np.ndarray]:
    """(size, size, 3) uint8 crop -> embedding (d,) of length 1, by the model's own ArcFace.

    Raises:
      InputError: the model has none that was trained, or its file is missing.
    """
    if self.config.weights.arcface == 'random':
      raise InputError(
        f'{self.name}: has a random ArcFace; --face=like=PICTURE needs a trained one'
      )
    frozen, _ = load.load(self.networks, self.config.weights, self.config.train.seed)
    embed = jax.jit(lambda x: self.networks.arcface.apply(frozen['arcface'], from_uint8(x)))
    return lambda crop: np.asarray(embed(crop[None])[0])


def digest(tree: Mapping) -> str:
  sha = hashlib.sha256()
  for key, x in jax.tree_util.tree_leaves_with_path(tree):
    sha.update(jax.tree_util.keystr(key).encode())
    sha.update(np.ascontiguousarray(x))
  return sha.hexdigest()


def load_model(workdir: str) -> Model:
  """The newest encoder of a training workdir; '' is the model that comes with the package.

  In place of a workdir may stand a model that `hybrid_jax.export` wrote, as the file or as the
  folder that `hybrid_jax.convert` made of it.

  Raises:
    InputError: nothing was trained there, or the installation lacks the encoder.
  """
  if not workdir:
    config = ConfigDict(shipped.config())
    E = shipped.load('encoder_64')
    networks = build(config.model)
    rows = networks.hybrid.encoder.num_ws
    return Model(config, networks, E, shipped.generator(), rows, 'shipped, of the rendered world')
  if load.is_there(workdir):
    config = ConfigDict(exported.read_config(workdir))
    networks = build(config.model)
    G, E = load.load_e4e(networks, workdir)
    return Model(config, networks, E, G, networks.hybrid.encoder.num_ws, workdir)
  config = ConfigDict(checkpoint.read_config(workdir))
  networks = build(config.model)
  shapes = jax.eval_shape(lambda key: init_encoder(networks, key), jax.random.key(0))
  step, E = checkpoint.restore_encoder(workdir, shapes)
  G = load.load_generator(networks, config.weights, config.train.seed)
  rows = steps.active_rows(step, config.progressive, networks.hybrid.encoder.num_ws)
  return Model(config, networks, E, G, rows, f'{workdir}, step {step}')
