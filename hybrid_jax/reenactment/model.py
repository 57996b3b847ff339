"""A trained model: frames to latents and latents to frames, streamed in batches of one size."""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from hybrid_jax.errors import InputError
from hybrid_jax.media import framing
from hybrid_jax.method.hybrid import Directions
from hybrid_jax.method.networks import Networks, build, init_encoder
from hybrid_jax.models.batching import batched, pad
from hybrid_jax.models.ops import from_uint8
from hybrid_jax.reenactment.programs import Programs
from hybrid_jax.weights import exported, load, shipped

# Batches that the device computes while the host decodes and encodes; each costs the memory of a
# batch of pictures on the device.
IN_FLIGHT = 2


@dataclasses.dataclass(eq=False)
class Model:
  """Encoder `E` and generator `G` of a config, ready to run.

  Attributes:
    config: the resolved training config.
    networks: modules of the config.
    E: encoder variables.
    G: generator tree {'params', 'noise_const', 'w_avg'}.
    rows: number of W+ rows that were trained (progressive training switches them on one by one).
    name: what messages call the model.
    memo: compiled programs and loss networks that belong to this model, by their user.
  """

  config: ConfigDict
  networks: Networks
  E: Mapping
  G: Mapping
  rows: Any
  name: str
  memo: dict = dataclasses.field(default_factory=dict, repr=False)

  def __post_init__(self):
    """Puts the weights on the device, once."""
    # Those of files are numpy arrays, which would be sent again with every batch: 1.6 GiB.
    self.E, self.G = jax.device_put((self.E, self.G))

  @functools.cached_property
  def fast(self) -> Programs:
    """The programs at the precision of the config."""
    return Programs(self.networks)

  @functools.cached_property
  def precise(self) -> Programs:
    """The programs in float32, for batches that overflow half precision."""
    config = self.config.copy_and_resolve_references()
    config.model.half_dtype = ''
    return Programs(build(config.model))

  def with_generator(self, G: Mapping, name: str) -> 'Model':
    """The same encoder with a generator of the same shapes; compiled programs are shared."""
    # `replace` drops cached properties: right for `digests`, which differ, but the same programs
    # would be compiled again.
    other = dataclasses.replace(self, G=G, name=name)
    other.fast, other.precise = self.fast, self.precise
    return other

  def prepare(self, batch: int, *, encode: bool = True, draw: bool = True) -> None:
    """Starts to compile the programs of batches of that size, in threads; a call waits for its own.

    Args:
      encode: whether driving frames will be encoded.
      draw: whether pictures will be drawn without edits.
    """
    if ('prepared', batch, encode, draw) in self.memo:
      return
    self.memo['prepared', batch, encode, draw] = True
    fast, size = self.fast, self.size

    def pixels(n: int) -> jax.ShapeDtypeStruct:
      return jax.ShapeDtypeStruct((n, size, size, 3), np.uint8)

    def source() -> None:
      W_S = fast.identity.compile(self.E, self.G, pixels(1), self.rows)
      F = jax.ShapeDtypeStruct((batch, sum(self.widths)), np.float32)
      if draw:
        fast.synthesis.compile(self.G, W_S, F, None)

    def driver() -> None:
      fast.deformation.compile(self.E, pixels(batch))

    def work(compile: Callable[[], None]) -> None:
      # The call of the program raises the same error, where it can be handled.
      with contextlib.suppress(Exception):
        compile()

    # Not daemons: an interpreter that ends while XLA compiles crashes.
    for each in (source, driver) if encode else (source,):
      threading.Thread(target=work, args=(each,), name='compiler').start()

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
    """Channels of each deformation layer; their sum is d."""
    return tuple(self.networks.hybrid.encoder.deformation_widths)

  @property
  def crop(self) -> str:
    """The kind of crop of its training frames, see `framing.KINDS`.

    Raises:
      InputError: an earlier version trained it on crops that are not made any more.
    """
    data = self.config.data
    # The rendered world centres and scales each frame as FFHQ does, and leaves the roll.
    if not (data.videos or data.packed):
      return 'ffhq'
    kind = framing.of_data(data) or data.get('framing', 'clip')
    if kind not in framing.KINDS:
      raise InputError(
        f'{self.name}: was trained on squares of {kind}, which this version does not cut; choose '
        f'another crop, {", ".join(framing.KINDS)}, give square crops without a face detector, or '
        'train again'
      )
    return kind

  def digest(self) -> str:
    """SHA-256 of the encoder; motion is only valid for the encoder that extracted it."""
    return self.digests['encoder']

  @functools.cached_property
  def digests(self) -> dict[str, str]:
    """SHA-256 of the weights in use."""
    return {'encoder': digest(self.E), 'generator': digest(self.G)}

  def identity(self, crop: np.ndarray) -> jax.Array:
    """(size, size, 3) uint8 -> w_id (1, l, d).

    Raises:
      InputError: an array of another shape or type.
    """
    check_frame(crop, self.size)
    # Once per source, in its own program: 60 % of the encoder's parameters are in the identity
    # heads, which driving frames do without.
    return self.fast.identity(self.E, self.G, crop[None], self.rows)

  def deformations(self, crops: Iterable[np.ndarray], batch: int) -> Iterator[np.ndarray]:
    """One s_f (d,) for each crop (size, size, 3) uint8; see `stream`.

    Raises:
      InputError: an array of another shape or type.
    """
    crops = (check_frame(crop, self.size) for crop in crops)
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
    """One result for each item, in order; memory does not grow with their number.

    `choose(programs)` gives the step, (n, ...) -> (results, finite). A batch that is not finite in
    half precision is computed again in float32.

    Raises:
      FloatingPointError: it is not finite in float32 either.
    """
    step, pending, done = choose(self.fast), collections.deque(), 0

    def collect():
      nonlocal done
      padded, count, (results, finite) = pending.popleft()
      # Per batch and not per frame, since it is one number to wait for; the batch is recomputed
      # whole, so that a resumed run, which has the same batches, repeats it bit for bit.
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
      # One batch size, one program: a shorter last batch would be compiled anew.
      padded = pad(chunk, batch)
      pending.append((padded, count, step(padded)))
      # The device goes on with the next batches while the host reads this one.
      pending[-1][2][0].copy_to_host_async()
      if len(pending) > IN_FLIGHT:
        yield from collect()
    while pending:
      yield from collect()

  def embedder(self) -> Callable[[np.ndarray], np.ndarray]:
    """A function (size, size, 3) uint8 crop -> unit embedding (d,) by the model's ArcFace.

    Raises:
      InputError: the model's ArcFace is random, or its file is missing.
    """
    if self.config.weights.arcface == 'random':
      raise InputError(
        f'{self.name}: has a random ArcFace; --face=like=PICTURE needs a trained one'
      )
    # Not in `memo`: a run needs it once, to choose the face, and its memory is free afterwards.
    frozen = load.load_losses(self.networks, self.config.weights, self.config.train.seed)
    embed = jax.jit(lambda x: self.networks.arcface.apply(frozen['arcface'], from_uint8(x)))
    return lambda crop: np.asarray(embed(crop[None])[0])

  def reenact(self, source: Any, driving: Any, **options: Any) -> Any:
    """The person of `source` with the motion of `driving`, as a `hybrid_jax.Video`.

    Args:
      source: a path, an array (h, w, 3) uint8, or what `hybrid_jax.crop` returned.
      driving: a path of a clip or of a motion file, or frames (t, h, w, 3) uint8.
      options: fields of `hybrid_jax.reenactment.options.Options`, such as edit='glasses=1',
        motion='relative', layout='pasted', face_detector=FILE; and driving_fps (25), the frame
        rate of an array.

    Raises:
      InputError: an input or an option that cannot be used.
    """
    from hybrid_jax.reenactment import api  # imported here, since it imports this module

    return api.reenact(self, source, driving, **options)

  def live(self, source: Any, **options: Any) -> Any:
    """A session that re-enacts frame by frame: `frame = session(frame)`, see `live.session`.

    Args:
      source: a path, an array (h, w, 3) uint8, or what `hybrid_jax.crop` returned.
      options: fields of `hybrid_jax.reenactment.live.options.Live` and those of `Options` that it
        shares, such as motion='relative', layout='pasted', face_detector=FILE, hold=1.0.

    Raises:
      InputError: an input or an option that cannot be used.
    """
    from hybrid_jax.reenactment.live import session

    return session.start(self, source, **options)

  def tune(self, source: Any, driving: Any = None, *, method: str = 'cma', **options: Any) -> Any:
    """The model with its generator tuned to a source and a driving clip (CMA, section 3.3; or PTI).

    Args:
      source, driving: as of `reenact`; PTI takes no driving clip.
      method: 'cma' or 'pti'.
      options: fields of `hybrid_jax.reenactment.options.Options`, such as cma_steps.

    Raises:
      InputError: an input or an option that cannot be used.
    """
    from hybrid_jax.reenactment import api

    return api.tune(self, source, driving, method=method, **options)


def check_frame(frame: np.ndarray, size: int) -> np.ndarray:
  """Returns the frame. Raises InputError unless it is an array (size, size, 3) uint8."""
  if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
    kind = getattr(frame, 'dtype', type(frame).__name__)
    raise InputError(f'a frame is {kind}; the model takes arrays ({size}, {size}, 3) of uint8')
  if frame.shape != (size, size, 3):
    raise InputError(f'a frame has shape {frame.shape}; the model takes ({size}, {size}, 3)')
  return frame


def digest(tree: Mapping) -> str:
  """Returns the SHA-256 of a tree of arrays and of their names."""
  # With the names: equal arrays in other places are another model.
  sha = hashlib.sha256()
  for key, x in jax.tree_util.tree_leaves_with_path(tree):
    sha.update(jax.tree_util.keystr(key).encode())
    sha.update(np.ascontiguousarray(x))
  return sha.hexdigest()


def load_model(workdir: str) -> Model:
  """Loads the newest encoder of a training workdir; '' loads the bundled model.

  A file of `hybrid_jax.export`, or a folder of `hybrid_jax.convert`, takes the place of a workdir.

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
  return _trained(workdir)


def _trained(workdir: str) -> Model:
  # Imported here: Orbax and Grain are a third of the imports of a command.
  from hybrid_jax.training import checkpoint, steps

  config = ConfigDict(checkpoint.read_config(workdir))
  networks = build(config.model)
  # Shapes only: the paper's encoder has 392 million parameters, which would be initialised just to
  # be overwritten.
  shapes = jax.eval_shape(lambda key: init_encoder(networks, key), jax.random.key(0))
  step, E = checkpoint.restore_encoder(workdir, shapes)
  G = load.load_generator(networks, config.weights, config.train.seed)
  # A run that was stopped early has trained fewer W+ rows; the others still equal the base w.
  rows = steps.active_rows(step, config.progressive, networks.hybrid.encoder.num_ws)
  return Model(config, networks, E, G, rows, f'{workdir}, step {step}')
