"""Measures re-enactment of rendered people against ground truth, which is one more render.

Pairs are people of the test split, and no judge is part of a loss.
"""

import functools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from hybrid_jax.evaluation import images, judges
from hybrid_jax.evaluation.blendshapes import POSE
from hybrid_jax.models.batching import run_in_batches
from hybrid_jax.models.ops import from_uint8
from hybrid_jax.weights import shipped
from hybrid_jax.world import clips, parameters, people

Progress = Callable[[Iterable, str, int | None], Iterable]
SIZE, BATCH = judges.SIZE, 48
TEST_PEOPLE = 700


def pairs(
  seed: int,
  count: int,
  frames: int,
  cross: bool,
  *,
  size: int = SIZE,
  progress: Progress = lambda items, *_: items,
) -> dict[str, np.ndarray]:
  """Renders `frames` moments of each of `count` sources of the test split, with ground truth.

  Args:
    cross: whether the driver is another person; otherwise it is the source's own clip.
    size: s, of the frames in px; the judges need 64.
    progress: passes people on while it shows how far the rendering is.

  Returns:
    'source', 'driving', 'truth' (n, s, s, 3) uint8; 'face', the face mask of the truth, (n, s, s)
    uint8; 'identity' (n, 47), 'motion' (n, 16), 'scene' (n, 13) of the truth; 'person' (n,).
    n is `count * frames`, the frames of a source one after another.
  """
  rng, draw = np.random.default_rng(seed), clips.Renderer(size)
  # Sources and drivers are drawn together, so that no person is both.
  # Persons are numbers; no network has seen those from SPLITS['test'] on.
  chosen = people.SPLITS['test'] + rng.choice(TEST_PEOPLE, 2 * count, replace=False)
  rows = []
  for k in progress(range(count), 'rendering ground truth', count):
    a, b = int(chosen[k]), int(chosen[count + k])
    # The first moment is the source's own; the others are what the method has to produce.
    times = rng.uniform(0, people.CLIP_SECONDS, frames + 1).astype(np.float32)
    identity, motion, scene = clips.vectors(a, 0, times)
    other, other_motion, other_scene = clips.vectors(b, 0, times)
    source = draw(identity, motion[0], scene)[0]
    for j in range(1, frames + 1):
      # Ground truth across identities: the source's identity and scene with the driver's motion.
      wanted = other_motion[j] if cross else motion[j]
      truth, masks, _ = draw(identity, wanted, scene)
      driving = draw(other, wanted, other_scene)[0] if cross else truth
      rows.append(
        {
          'person': a, 'source': source, 'driving': driving, 'truth': truth,
          'face': masks[..., 3], 'identity': identity, 'motion': wanted, 'scene': scene,
        }
      )  # fmt: skip
  return {name: np.stack([row[name] for row in rows]) for name in rows[0]}  # n ...


def in_batches(function: Callable, *arrays: np.ndarray) -> np.ndarray:
  """Computes function(*arrays) in batches of `BATCH` rows, converted to float32."""
  as_float = lambda *rows: function(*(x.astype(np.float32) for x in rows))  # noqa: E731
  return run_in_batches(as_float, *arrays, size=BATCH)


def spread() -> np.ndarray:
  """Returns the standard deviation (16,) of each motion parameter over the training people."""
  motion = jax.vmap(lambda n: people.moment(n, 0)[1])(jnp.arange(2000))
  return np.asarray(motion.std(0))


class Judges:
  """The two judges of the rendered world, compiled, for images (n, 64, 64, 3) in [-1, 1]."""

  def __init__(self):
    motion, identity = judges.motion(), judges.identity()
    trees = shipped.load('judge_motion'), shipped.load('judge_identity')
    self._read = jax.jit(lambda x: motion.apply(trees[0], x))
    self._embed = jax.jit(lambda x: judges.unit(identity.apply(trees[1], x)))

  def read(self, image: np.ndarray) -> np.ndarray:
    """Returns motion parameters (n, 16)."""
    return in_batches(self._read, image)

  def embed(self, image: np.ndarray) -> np.ndarray:
    """Returns embeddings (n, d) of length 1."""
    return in_batches(self._embed, image)

  @functools.cached_property
  def _spread(self) -> np.ndarray:
    return spread()

  def motion_errors(self, image: np.ndarray, motion: np.ndarray) -> dict[str, np.ndarray]:
    """Returns by trusted channel |reading - truth| in standard deviations of the truth, (n,)."""
    error = np.abs(self.read(image) - motion) / self._spread
    names = list(parameters.MOTION)
    return {name: error[:, names.index(name)] for name in judges.TRUSTED_MOTION}


def scale(judge: Judges, data: dict[str, np.ndarray], cross: bool) -> dict[str, np.ndarray]:
  """Returns what identity scores of `data` need: 'source', its embeddings, and the scale's ends.

  The ends are mean similarities to the source: 'genuine' of the ground truth, 'impostor' of another
  person.
  """
  source, driving, truth = (
    judge.embed(from_uint8(data[n].astype(np.float32))) for n in ('source', 'driving', 'truth')
  )
  # In the same-person protocol the driver is the source, so the next source is the impostor.
  if not cross:
    driving = np.roll(source, int((data['person'] == data['person'][0]).sum()), 0)
  return {
    'source': source,
    'genuine': (truth * source).sum(-1).mean(),
    'impostor': (driving * source).sum(-1).mean(),
  }


def measure(
  judge: Judges, method: np.ndarray, data: dict[str, np.ndarray], ends: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Returns metrics (n,) of a method's frames (n, 64, 64, 3) in [-1, 1].

  Args:
    method: frames of the first n moments of `data`. data: of `pairs`. ends: of `scale`.

  Returns:
    l1, l1_face, ssim; identity_score (0 another person, 1 the same person); expression_error and
    pose_error, means over trusted channels in standard deviations of the truth; error_CHANNEL.
  """
  # A generator may leave [-1, 1]; a file could not.
  truth = from_uint8(data['truth'].astype(np.float32))
  method = np.clip(method, -1, 1)
  face = data['face'].astype(np.float32) / 255
  # Unit embeddings, so that the sum of products is the cosine.
  similarity = (judge.embed(method) * ends['source'][: len(method)]).sum(-1)
  errors = judge.motion_errors(method, data['motion'])
  mean = lambda pose: np.mean([e for n, e in errors.items() if (n in POSE) == pose], 0)  # noqa: E731
  return {
    'l1': np.asarray(images.l1(method, truth)),
    'l1_face': np.asarray(images.l1(method, truth, face)),
    'ssim': in_batches(images.ssim, method, truth),
    'identity_score': np.asarray(
      images.identity_score(similarity, ends['genuine'], ends['impostor'])
    ),
    'expression_error': mean(False),
    'pose_error': mean(True),
    **{f'error_{name}': error for name, error in errors.items()},
  }
