"""The best that the bundled generator can show: fed the true parameters, or fitted to the image.

Images are (n, 64, 64, 3) in [-1, 1]. Errors of re-enactment are compared with these limits.
"""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from hybrid_jax.evaluation import blendshapes, rendered
from hybrid_jax.evaluation.judges import TRUSTED_MOTION
from hybrid_jax.models import latents
from hybrid_jax.models.ops import from_uint8, to_uint8
from hybrid_jax.models.stylegan2 import Generator
from hybrid_jax.weights import shipped
from hybrid_jax.world import latent, parameters

EXPRESSION = [name for name in parameters.MOTION if name not in blendshapes.POSE]
ROWS = latents.num_ws(shipped.CHANNELS)  # of W+
STEPS = 400  # of a fit


# --- The generator -------------------------------------------------------------------------------


def net() -> Generator:
  """Returns the network of the bundled generator."""
  return Generator(
    shipped.CHANNELS,
    w_dim=shipped.GENERATOR['w_dim'],
    mapping_layers=shipped.GENERATOR['mapping_layers'],
    polyphase_from=0,
  )


def true_w(frozen: dict, identity, motion, scene) -> jax.Array:
  """Returns w (n, d) of the true parameters."""
  z = latent.z(identity, motion, scene, shipped.GENERATOR['w_dim'])
  return net().apply({'params': frozen['params']}, z, method='map')


def draw(frozen: dict, w: jax.Array) -> jax.Array:
  """Returns the images of w (n, d), not clipped."""
  variables = {'params': frozen['params']}
  styles = net().apply(variables, jnp.repeat(w[:, None], ROWS, 1), method='to_style_space')
  return net().apply(variables, styles, method='synthesize')


def fit(frozen: dict, w: jax.Array, real: jax.Array, *, offsets: bool) -> jax.Array:
  """Fits W+, and with `offsets` StyleSpace, to each image by its L1; returns the fitted images.

  Starts from w (n, d).
  """
  generator, variables = net(), {'params': frozen['params']}
  w_plus = jnp.repeat(w[:, None], ROWS, 1)
  styles = jax.eval_shape(lambda x: generator.apply(variables, x, method='to_style_space'), w_plus)
  free = {'w_plus': w_plus}
  if offsets:
    free['s'] = tuple(jnp.zeros(s.shape) for s in styles)

  def images(free):
    style = generator.apply(variables, free['w_plus'], method='to_style_space')
    if offsets:
      style = tuple(a + b for a, b in zip(style, free['s'], strict=True))
    return generator.apply(variables, style, method='synthesize')

  # A sum over images, so that the gradient of one does not depend on the size of the batch.
  loss = lambda free: jnp.abs(images(free) - real).mean((1, 2, 3)).sum()  # noqa: E731
  optimizer = optax.adam(optax.cosine_decay_schedule(0.02, STEPS, 0.05))

  @jax.jit
  def step(free, opt):
    updates, opt = optimizer.update(jax.grad(loss)(free), opt)
    return optax.apply_updates(free, updates), opt

  opt = optimizer.init(free)
  for _ in tqdm(range(STEPS), desc=f'W+{" and S" if offsets else ""}', mininterval=10):
    free, opt = step(free, opt)
  return jnp.clip(images(free), -1, 1)


# --- Errors of expression ------------------------------------------------------------------------


def expression_error(judge: rendered.Judges, image: jax.Array, test: dict) -> float:
  """Returns the mean over trusted channels of |reading - truth| / deviation of the truth."""
  errors = judge.motion_errors(np.asarray(image), test['motion'])
  return float(np.mean([error for name, error in errors.items() if name in EXPRESSION]))


def mediapipe_readings(
  landmarker: blendshapes.Landmarker, image: np.ndarray
) -> list[dict[str, float] | None]:
  """Returns MediaPipe's motion of each frame (n, 64, 64, 3) uint8, None where it finds no face."""
  # At 64 px it misses most faces.
  enlarged = (cv2.resize(x, (256, 256), interpolation=cv2.INTER_CUBIC) for x in np.asarray(image))
  return [landmarker(x) for x in enlarged]


def mediapipe_errors(landmarker, image, truth: list, trusted: list[str], spread: dict) -> dict:
  """Returns the error of expression by MediaPipe and the share of faces that it finds.

  `truth` is its reading of the true frames. Where it finds a face there and none in `image`, the
  error is that of the mean reading.
  """
  mean = {n: np.mean([r[n] for r in truth if r]) for n in trusted}
  errors, found = [], 0
  for read, true in zip(mediapipe_readings(landmarker, image), truth, strict=True):
    if true is None:
      continue
    found += read is not None
    errors.append([abs((read or mean)[n] - true[n]) / spread[n] for n in trusted])
  return {'expression_error_mediapipe': float(np.mean(errors)), 'found': found / len(errors)}


def measure(
  test: dict, train_mean: np.ndarray, landmarker: str, untrusted: list[str], count: int
) -> tuple[dict, list[np.ndarray]]:
  """Measures every limit on `count` test frames.

  Args:
    test: fields of the frames of the test split, see `frame_shards`.
    train_mean: mean image of training, (64, 64, 3) in [0, 255].
    landmarker: MediaPipe's face_landmarker.task, or ''.
    untrusted: channels that MediaPipe reads badly in rendered heads.
    count: number of frames.

  Returns:
    The figures by limit, and a sheet: 16 images (uint8) of the truth and of each limit.
  """
  frozen = shipped.generator()
  part = {name: x[::3][:count] for name, x in test.items()}  # three frames show one person
  real = from_uint8(part['image'].astype(np.float32))
  w = true_w(frozen, part['identity'], part['motion'], part['scene'])
  images = {
    'truth': real,
    'mean_image': jnp.broadcast_to(from_uint8(train_mean), real.shape),
    'true_parameters': jnp.clip(jax.jit(lambda w: draw(frozen, w))(w), -1, 1),
    'optimised_w_plus': fit(frozen, w, real, offsets=False),
    'optimised_w_plus_and_s': fit(frozen, w, real, offsets=True),
  }
  trusted = [n for n in EXPRESSION if n in TRUSTED_MOTION]
  result = {'frames': len(real), 'px': 64, 'trusted': trusted}
  inside, outside = rendered.Judges(), None
  if landmarker:
    outside = blendshapes.Landmarker(landmarker)
    names = [n for n in EXPRESSION if n not in untrusted]
    truth = mediapipe_readings(outside, part['image'])
    spread = {n: np.std([r[n] for r in truth if r]) for n in names}
    result |= {'trusted_mediapipe': names, 'mediapipe_found_in_truth': sum(map(bool, truth))}
  for name, image in images.items():
    result[name] = {
      'l1': float(jnp.abs(image - real).mean()),
      'expression_error': expression_error(inside, image, part),
    }
    if outside is not None:
      result[name] |= mediapipe_errors(outside, to_uint8(image), truth, names, spread)
  return result, [np.asarray(to_uint8(image))[:16] for image in images.values()]
