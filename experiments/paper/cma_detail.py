"""Does tuning recover detail that is finer than the encoder's input?

  python -m experiments.paper.cma_detail --squeeze=DIR \\
      --output experiments/results/cma_detail.json

The bundled 64 px generator is grown to 256 px without changing what it draws (experiments/world/
growth.py), so that its two upper blocks are untrained; the bundled encoder still sees 64 px.
Sources are rendered people at 256 px with lines of 2 px painted on forehead and cheeks, half a
pixel of the encoder's input. (A checkerboard of 2 px was not learnt: the filter that follows the
doubling to 128 px removes its frequency, and later layers would have to make it anew.) CMA and PTI
compare at the generator's 256 px or at the encoder's 64 px, from the same start and for the same
number of steps. LPIPS, in the loss as in the figures, is SqueezeNet's, from squeezenet1_1.npz in
--squeeze: the bundled perceptual network was trained at 64 px, and tuning by it at 256 px turned a
face yellow.

Of the reconstruction G(W_S, F_S), inside of the face, with `fine` what a picture of 256 px loses in
one of 64 px:

  fine_energy       mean square of `fine`, as a share of the source's
  fine_correlation  of `fine` with that of the source
  lpips             at 256 px
  lpips_pooled      the same at 64 px
  reenacted_energy  `fine_energy` of R = G(W_S, F_D) for frames of the driver that were not in the
                    pool, in the whole picture: the motion has no painted truth

and a picture: source, G(W_S, F_S) before and after each tuning, and R likewise.
"""

import argparse
import functools
import json
import pathlib

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from experiments import script
from experiments.world import growth, warm_start
from experiments.world.squeeze import squeeze_lpips
from hybrid_jax import cli
from hybrid_jax.media import composite, stills
from hybrid_jax.method import cma, networks
from hybrid_jax.models import latents
from hybrid_jax.models.ops import adaptive_avg_pool, from_uint8, to_uint8
from hybrid_jax.reenactment import tuning
from hybrid_jax.reenactment.model import Model
from hybrid_jax.weights import shipped
from hybrid_jax.world import clips, people

SIZE = 256
FIRST = 600_000  # of the people: other experiments use the numbers below
POOL, HELD_OUT = 8, 4  # frames of the driver
INK, WIDTH = (20, 40, 110), 2  # of the painted lines: RGB, px


def grown(resolution: int = SIZE) -> Model:
  """Returns the bundled model with its generator grown to `resolution` and the same pictures.

  Its perceptual network is SqueezeNet's LPIPS.
  """
  config = ConfigDict(shipped.config())
  before, more = shipped.CHANNELS, resolution.bit_length() - config.model.resolution.bit_length()
  config.model.resolution = resolution
  *split, fine = config.model.identity_split
  config.model.identity_split = (*split, fine + 2 * more)
  config.model.lpips_net, config.model.lpips_widths = 'squeeze', ()
  nets, key = networks.build(config.model), jax.random.key(0)
  after, G = nets.hybrid.generator.channels, shipped.generator()
  # Stored maps of noise for the new layers, whose strength starts at zero.
  noise = [n[0] for n in latents.random_noise(key, 1, after)[len(G['noise_const']) :]]
  G['params'] = growth.grow(G['params'], before, after, key)
  G['noise_const'] = (*G['noise_const'], *noise)
  E = warm_start.warm_start(nets, key, 'encoder_64')
  return Model(config, nets, E, G, nets.hybrid.encoder.num_ws, 'grown')


def painted(image: np.ndarray, face: np.ndarray) -> np.ndarray:
  """Returns a picture (h, w, 3) uint8 with lines of 2 px painted on its face (h, w) uint8."""
  inside, canvas = np.argwhere(face > 127), image.copy()
  (top, left), size = inside.min(0), np.ptp(inside, axis=0)

  def line(a: tuple[float, float], b: tuple[float, float]) -> None:  # shares of the face: x, y
    ends = ((int(left + x * size[1]), int(top + y * size[0])) for x, y in (a, b))
    cv2.line(canvas, *ends, INK, WIDTH)

  for k in range(3):
    line((0.3, 0.12 + 0.06 * k), (0.7, 0.12 + 0.06 * k))
    for outer, inner in ((0.12, 0.32), (0.88, 0.68)):
      line((outer, 0.58 + 0.08 * k), (inner, 0.6 + 0.05 * k))
  return np.where(face[..., None] > 127, canvas, image).astype(np.uint8)


def render(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns a painted source, its face mask, and POOL + HELD_OUT frames of another person."""
  person, draw = people.SPLITS['test'] + FIRST + 2 * number, clips.Renderer(SIZE)
  identity, motion, scene = clips.vectors(person, 0, np.zeros(1))
  image, masks, _ = draw(identity, motion[0], scene)
  times = np.linspace(0, 10, POOL + HELD_OUT)
  identity, motion, scene = clips.vectors(person + 1, 0, times)
  frames = np.stack([draw(identity, m, scene)[0] for m in motion])
  return painted(image, masks[..., 3]), masks[..., 3], frames


def pooled(frames: np.ndarray, size: int) -> np.ndarray:
  """Returns frames (n, s, s, 3) uint8 averaged to `size` px."""
  return np.asarray(to_uint8(adaptive_avg_pool(from_uint8(frames.astype(np.float32)), size)))


def fine(image: np.ndarray, size: int) -> np.ndarray:
  """Returns what a float picture (h, w, 3) loses when it is averaged to `size` px."""
  small = adaptive_avg_pool(image[None], size)
  return np.asarray(image - jax.image.resize(small, (1, *image.shape), 'cubic')[0])


def measure(model: Model, lpips, source: np.ndarray, face: np.ndarray, W, F, F_D) -> dict:
  """Returns the figures of the module's docstring, and pictures {'S': ..., 'R': ...} uint8."""
  reenact = lambda F: jnp.clip(model.networks.hybrid.reenact(model.G, W, F), -1, 1)  # noqa: E731
  S, S_ = from_uint8(source.astype(np.float32)), reenact(F)[0]
  inside, size = face > 127, model.size
  a, b = (fine(x, size)[inside].ravel() for x in (S, S_))
  R = [reenact(jax.tree.map(lambda x, k=k: x[k : k + 1], F_D))[0] for k in range(HELD_OUT)]
  pools = [adaptive_avg_pool(x[None], size) for x in (S, S_)]
  return {
    'fine_energy': float(np.mean(b**2) / np.mean(a**2)),
    'fine_correlation': float(np.corrcoef(a, b)[0, 1]),
    'lpips': float(lpips(S[None], S_[None]).mean()),
    'lpips_pooled': float(lpips(*pools).mean()),
    'reenacted_energy': float(
      np.mean([np.mean(fine(x, size) ** 2) for x in R]) / np.mean(fine(S, size) ** 2)
    ),
  }, {'S': np.asarray(to_uint8(S_)), 'R': np.asarray(to_uint8(R[-1]))}


def tune(model: Model, frozen, options: cma.Options, source: np.ndarray, pool: np.ndarray) -> Model:
  """Returns the model tuned to uint8 crops, which are compared at their own size."""
  config = model.config.copy_and_resolve_references()
  config.model.polyphase_from = 0  # as `tuning.program`
  tuner = cma.Tuner(networks.build(config.model), options, model.rows)
  job = tuner.job(model.G, model.E, frozen, source, pool)
  *_, state = tuner.tune(job)
  return tuning.adjusted(model, cma.delta(model.G, state))


def person(
  model: Model, frozen: dict, number: int, base: cma.Options
) -> tuple[dict, list[dict[str, np.ndarray]]]:
  """Returns the figures of each tuning of one source, and a row of pictures."""
  source, face, frames = render(number)
  pool, held_out = frames[:POOL], frames[POOL:]
  hybrid, nets = model.networks.hybrid, model.networks
  encode = jax.jit(lambda x: hybrid.encode(model.E, model.G, from_uint8(x), model.rows))
  W, F = encode(pooled(source[None], model.size))
  _, F_D = encode(pooled(held_out, model.size))
  lpips = jax.jit(functools.partial(nets.lpips.apply, frozen['lpips']))
  figures, pictures = {}, [{'S': source, 'R': held_out[-1]}]
  figures['before'], shown = measure(model, lpips, source, face, W, F, F_D)
  pictures.append(shown)
  for method in ('pti', 'cma'):
    for size in (model.size, model.resolution):
      options = base if method == 'cma' else pti(base)
      drivers = pool if method == 'cma' else source[None]
      tuned = tune(model, frozen, options, pooled(source[None], size)[0], pooled(drivers, size))
      name = f'{method}_{size}'
      figures[name], shown = measure(tuned, lpips, source, face, W, F, F_D)
      pictures.append(shown)
      print(number, name, figures[name], flush=True)
  return figures, pictures


def pti(base: cma.Options) -> cma.Options:
  """Returns the same options for PTI, which takes no drivers."""
  return cma.Options(
    method='pti', pool=1, steps=base.steps, rate=base.rate, enough_lpips=base.enough_lpips
  )


def parse_args() -> argparse.Namespace:
  parser = script.parser(__doc__)
  add = parser.add_argument
  add('--output', type=pathlib.Path, required=True, help='.json file to write; a .png beside it')
  add('--squeeze', type=pathlib.Path, required=True, help='folder with squeezenet1_1.npz')
  add('--people', type=int, default=1, help='sources (%(default)s)')
  add('--steps', type=int, default=1000, help='of a tuning (%(default)s)')
  # Ten times PTI's: the upper blocks are untrained, and start from a toRGB of zero.
  add('--rate', type=float, default=3e-3, help='of Adam (%(default)s)')
  return parser.parse_args()


def main() -> None:
  args = parse_args()
  cli.use_compilation_cache()
  measured, model = script.record(), grown()
  frozen = {'lpips': squeeze_lpips(args.squeeze)}
  # The early stop is off: its threshold belongs to another perceptual network.
  base = cma.Options(steps=args.steps, rate=args.rate, pool=POOL, enough_lpips=0.0)
  results, rows = [], []
  for number in tqdm(range(args.people), 'people'):
    figures, pictures = person(model, frozen, number, base)
    results.append(figures)
    rows += [[shown[which] for shown in pictures] for which in 'SR']
  names = [f'{which} {k}' for k in range(args.people) for which in 'SR']
  titles = ['given', *results[0]]
  stills.write_image(args.output.with_suffix('.png'), composite.labelled(rows, names, titles, SIZE))
  mean = {
    name: {key: float(np.mean([of[name][key] for of in results])) for key in of_one}
    for name, of_one in results[0].items()
  }
  value = {'mean': mean, 'people': results, 'steps': args.steps, 'rate': args.rate}
  value |= {'first_person': people.SPLITS['test'] + FIRST}
  script.write_json(args.output, value | {'measured': measured})
  print(json.dumps(mean, indent=1))


if __name__ == '__main__':
  main()
