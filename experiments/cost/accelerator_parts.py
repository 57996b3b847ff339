"""What `accelerator` measures: each function is a part, and emits its results as it goes.

Networks are the paper's, with random weights. Needs jax, flax, optax and numpy, nothing else of the
project's dependencies; imports are inside the parts, because the command itself starts no device.
"""

import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping

ROOT = pathlib.Path(__file__).resolve().parents[2]
MARK = 'RESULT '
# ms on one H100, from operations over 798 TFLOP/s and bytes over 3.0 TB/s (both measured on such a
# card): re-enactment per frame by (precision, batch), training step of 8 triplets.
FLOORS_MS = {
  'reenact bf16 batch 8': 0.414,
  'reenact bf16 batch 1': 0.485,
  'reenact tf32 batch 8': 0.83,
  'train_step bf16 8 triplets': 52.0,
}
# ms on 2 CPU cores at a matrix product's 270 GFLOP/s.
CPU_FLOORS_MS = {'generator float32 batch 1': 550.0, 'encoder W only float32 batch 1': 540.0}
STEPS = 20  # of training: a fresh encoder once died in the second
ROLES = ('source', 'driving', 'other')


class Config(dict):
  """Attribute access to the nested dicts of configs/common.py, without ml_collections."""

  def __getattr__(self, name):
    value = self[name]
    return Config(value) if isinstance(value, dict) else value


def paper_config(precision: str, **model) -> Config:
  """Returns the paper's config at a precision, with fields of `model` replaced."""
  from configs import common

  config = common.paper()
  config['model']['half_dtype'] = 'bfloat16' if precision == 'bf16' else ''
  config['model'] |= model
  return Config(config)


def seconds(call, *, repeats: int) -> float:
  """Returns the median seconds of `call()`, which returns arrays.

  Two calls before compile it and warm up.
  """
  import jax

  jax.block_until_ready(call())
  jax.block_until_ready(call())
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(call())
    times.append(time.perf_counter() - start)
  return statistics.median(times)


def emit(name: str, value: float | None, unit: str, **more) -> None:
  """Prints a result: a readable line on stderr, and JSON behind MARK on stdout.

  `value` is None for a measurement that failed; `more` says how.
  """
  import jax

  floors = CPU_FLOORS_MS if jax.default_backend() == 'cpu' else FLOORS_MS
  note = f'  (floor {floors[name]} ms)' if name in floors else ''
  number = 'failed' if value is None else f'{value:.5g}'
  print(f'{name:44s} {number:>12} {unit}{note}', file=sys.stderr, flush=True)
  print(MARK + json.dumps({'name': name, 'value': value, 'unit': unit, **more}), flush=True)


def emit_memory(part: str) -> None:
  """Emits the peak memory of the device, or of the process where the device reports none."""
  import jax

  stats = jax.devices()[0].memory_stats() or {}
  if 'peak_bytes_in_use' in stats:
    emit(f'{part} peak device memory', stats['peak_bytes_in_use'] / 2**30, 'GiB')
  else:
    emit(f'{part} peak memory', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 'GiB')


def cases() -> list[tuple[str, int]]:
  """Returns the (precision, batch) pairs to time on this machine."""
  import jax

  if jax.default_backend() == 'cpu':
    return [('float32', 1)]
  return [(p, n) for p in ('float32', 'tf32', 'bf16') for n in (1, 8, 32)]


def set_precision(precision: str) -> None:
  """Sets the precision of float32 products; 'bf16' concerns the networks' own type only."""
  import jax

  name = {'float32': 'float32', 'tf32': 'tensorfloat32', 'bf16': 'tensorfloat32'}[precision]
  jax.config.update('jax_default_matmul_precision', name)


def golden() -> None:
  """Small golden vectors in full float32: the largest error relative to each array's maximum."""
  import jax
  import numpy as np

  from hybrid_jax.models.perceptual import LPIPS, ArcFace
  from hybrid_jax.models.stylegan2 import Generator, LatentDiscriminator
  from hybrid_jax.weights import discriminator_key_maps, key_maps, torch_file

  set_precision('float32')
  folder = ROOT / 'tests' / 'golden'

  def vectors(stem):
    return np.load(folder / f'{stem}.npz')

  def nhwc(x):
    return np.moveaxis(x, 1, -1)

  def picture(x):
    return nhwc(x).astype(np.float32) / 127.5 - 1

  def check(name, actual, expected, bound=1e-5):
    err = float(np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max())
    emit(f'golden {name}', err, 'relative error', bound=bound, ok=err < bound)

  file, v = torch_file.load(folder / 'generator64.pt'), vectors('generator64_vectors')
  tree, channels = key_maps.generator(file['g_ema'], file['latent_avg'])
  for polyphase_from in (0, 512):
    model = Generator(channels, w_dim=64, polyphase_from=polyphase_from)

    @jax.jit
    def image(params, w_plus, noise, model=model):
      s = model.apply({'params': params}, w_plus, method='to_style_space')
      return model.apply({'params': params}, s, noise, method='synthesize')

    lowering = 'transposed' if polyphase_from else 'polyphase'
    actual = image(tree['params'], v['wplus'], tree['noise_const'])
    check(f'generator {lowering}', actual, nhwc(v['image']))

  v = vectors('lpips_alex_reduced_vectors')
  state = torch_file.load(folder / 'lpips_alex_reduced.pt')
  params = key_maps.convert(state, key_maps.lpips('alex'), kind='alex')
  distance = jax.jit(LPIPS('alex', (8, 24, 48, 32, 32)).apply)
  check('lpips', distance(params, picture(v['x0_u8']), picture(v['x1_u8'])), v['dist'].reshape(-1))

  v = vectors('arcface_reduced_vectors')
  units, widths = (3, 4, 14, 3), (8, 16, 32, 64)
  state = torch_file.load(folder / 'arcface_reduced.pt')
  params = key_maps.convert(state, key_maps.arcface(units, widths), kind='arcface')
  model = ArcFace(112, 64, widths, units, reduction=4)
  check('arcface', jax.jit(model.apply)(params, picture(v['y256_u8'])), v['embedding_face256'])

  v = vectors('latent_discriminator_vectors')
  state = torch_file.load(folder / 'latent_discriminator.pt')
  params = key_maps.convert(state, discriminator_key_maps.latent(), kind='critic')
  check('critic', jax.jit(LatentDiscriminator(64).apply)(params, v['real_w']), v['real_pred'])


def random_model(precision: str):
  """Returns (networks, frozen, encoder) of the paper's sizes, drawn at random."""
  import jax

  from hybrid_jax.method import networks

  config = paper_config(precision)
  nets = networks.build(config.model)
  frozen = jax.jit(lambda key: networks.random_frozen(nets, key))(jax.random.key(0))
  encoder = jax.jit(lambda key: networks.init_encoder(nets, key))(jax.random.key(1))
  return nets, frozen, encoder


def generator() -> None:
  """W+ to a 1024 px image."""
  import jax

  for precision, n in cases():
    set_precision(precision)
    nets, frozen, _ = random_model(precision)
    W = jax.random.normal(jax.random.key(2), (n, 18, 512))
    render = jax.jit(lambda G, W, nets=nets: nets.hybrid.reenact(G, W, None))
    value = seconds(lambda: render(frozen['generator'], W), repeats=5)  # noqa: B023
    emit(f'generator {precision} batch {n}', value / n * 1e3, 'ms per image')
  emit_memory('generator')


def encoder() -> None:
  """256 px frames to latents: e4e's part alone (W), the driving part alone (F), and both."""
  import jax

  for precision, n in cases():
    set_precision(precision)
    nets, frozen, E = random_model(precision)
    hybrid, G = nets.hybrid, frozen['generator']
    frames = jax.random.uniform(jax.random.key(2), (n, 256, 256, 3), minval=-1)
    calls = {
      'W only': jax.jit(hybrid.identity),
      'F only': jax.jit(lambda E, G, x, hybrid=hybrid: hybrid.deformation(E, x)),
      'W and F': jax.jit(hybrid.encode),
    }
    for name, call in calls.items():
      value = seconds(lambda: call(E, G, frames), repeats=5)  # noqa: B023
      emit(f'encoder {name} {precision} batch {n}', value / n * 1e3, 'ms per frame')
  emit_memory('encoder')


def reenact() -> None:
  """A driving frame to an 8-bit 1024 px image, w_id given: the device's share of `reenact`."""
  import jax
  import jax.numpy as jnp

  from hybrid_jax.models.ops import from_uint8, to_uint8

  for precision, n in cases():
    set_precision(precision)
    nets, frozen, E = random_model(precision)
    hybrid, G = nets.hybrid, frozen['generator']
    frames = jnp.zeros((n, 256, 256, 3), jnp.uint8)
    W = jnp.repeat(hybrid.identity(E, G, from_uint8(frames[:1])), n, axis=0)

    @jax.jit
    def call(E, G, W, frames, hybrid=hybrid):
      return to_uint8(hybrid.reenact(G, W, hybrid.deformation(E, from_uint8(frames))))

    value = seconds(lambda: call(E, G, W, frames), repeats=5)  # noqa: B023
    emit(f'reenact {precision} batch {n}', value / n * 1e3, 'ms per frame')
  emit_memory('reenact')


# --- The training step ---------------------------------------------------------------------------


def calibrated(module, variables: Mapping, images, **options) -> dict:
  """Returns the variables of a network with the running statistics of a batch of images.

  A network drawn at random has running mean 0 and variance 1, whatever its layers produce. Used in
  evaluation through the paper's 24 residual blocks, its values grow to 1e5 (the encoder in Eq.
  (10)) and its gradient to 1e10 (ArcFace in Eqs. (8), (9)), and the next step is NaN. Trained
  networks have statistics of their own data.

  Args:
    module: the network; it takes `train`.
    variables: {'params', 'batch_stats'}.
    images: (n, h, w, 3) in [-1, 1].
    options: of `module.apply`, such as the method.
  """
  import jax
  import jax.numpy as jnp

  from hybrid_jax.models.irse import BatchNorm

  # One pass in training mode moves the statistics towards the batch's by 1 - momentum: from zero
  # they become (1 - momentum) times the batch's, which is exact up to rounding.
  zero = jax.tree.map(jnp.zeros_like, variables['batch_stats'])
  start = {'params': variables['params'], 'batch_stats': zero}
  _, updates = module.apply(start, images, train=True, mutable=['batch_stats'], **options)
  stats = jax.tree.map(lambda x: x / (1 - BatchNorm.momentum), updates['batch_stats'])
  return {**variables, 'batch_stats': stats}


def random_start(nets, config: Config, key, batch: Mapping):
  """Returns (state, frozen) drawn at random, the encoder and ArcFace calibrated on a batch."""
  import jax
  import jax.numpy as jnp

  from hybrid_jax.method import networks
  from hybrid_jax.models.ops import from_uint8
  from hybrid_jax.training import steps

  key_state, key_frozen = jax.random.split(key)
  images = jnp.concatenate([from_uint8(batch[role]) for role in ROLES])
  state = steps.init_state(nets, config, key_state)
  encoder = calibrated(nets.hybrid.encoder, state.encoder, images, method='pyramid')
  frozen = networks.random_frozen(nets, key_frozen)
  arcface = calibrated(nets.arcface, frozen['arcface'], images)
  return state.replace(encoder=encoder), frozen | {'arcface': arcface}


def random_batch(n: int, size: int) -> dict:
  """Returns a batch of triplets of noise, uint8 (n, size, size, 3).

  Not of one colour: batch normalisation divides by a deviation of almost zero then.
  """
  import numpy as np

  rng = np.random.default_rng(0)
  return {role: rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8) for role in ROLES}


def time_steps(name: str, step, state, frozen, batch, repeats: int) -> None:
  """Times training steps, and emits the median without the first.

  Raises:
    FloatingPointError: a metric of a step is not finite; the result names all such metrics.
  """
  import jax
  import numpy as np

  times = []
  for k in range(repeats):
    start = time.perf_counter()
    state, metrics = step(state, frozen, batch)
    metrics = jax.device_get(metrics)  # waits for the step
    times.append(time.perf_counter() - start)
    bad = {key: str(value) for key, value in metrics.items() if not np.isfinite(value)}
    if bad:
      emit(name, None, 'ms', finite=False, step=k + 1, not_finite=bad)
      raise FloatingPointError(f'{name}: step {k + 1}: {", ".join(sorted(bad))} not finite')
  emit(name, statistics.median(times[1:]) * 1e3, 'ms', finite=True)


def train_step() -> None:
  """The whole pre-training step at 1024 px; on a CPU one triplet with recomputed large layers."""
  import jax

  from hybrid_jax.method import networks
  from hybrid_jax.training import parallel, steps

  cpu = jax.default_backend() == 'cpu'
  runs = [('float32', 1, 256)] if cpu else [('bf16', 8, 0), ('tf32', 8, 256)]
  mesh = parallel.make_mesh(1)
  _, replicated = parallel.shardings(mesh)
  for precision, n, remat_from in runs:
    set_precision(precision)
    config = paper_config(precision, remat_from=remat_from)
    nets = networks.build(config.model)
    batch = random_batch(n, config.model.frame_size)

    def init(key, batch, config=config, nets=nets):
      return random_start(nets, config, key, batch)

    key = jax.random.key(0)
    shapes = *jax.eval_shape(init, key, batch), batch
    start = time.perf_counter()
    step = parallel.jit_step(steps.make_step(nets, config, mesh), shapes[0], mesh)
    compiled = step.lower(*shapes).compile()
    name = f'train_step {precision} {n} triplet' + ('s' if n > 1 else '')
    emit(f'{name} compile', time.perf_counter() - start, 's')
    memory = compiled.memory_analysis()
    need = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    emit(f'{name} memory by the compiler', need / 2**30, 'GiB')
    if cpu and need > available_memory():
      print(f'{name}: does not fit in memory, not run', file=sys.stderr)
      continue
    batch = parallel.put_batch(batch, mesh)
    state, frozen = jax.jit(init, out_shardings=replicated)(key, batch)
    time_steps(name, compiled, state, frozen, batch, STEPS)
    del state, frozen, compiled  # before the next case takes the memory
  emit_memory('train_step')


def compile_paper() -> None:
  """The paper's own step, bfloat16 and 8 triplets, compiled ahead of time: no array is made."""
  import jax

  from hybrid_jax.method import networks
  from hybrid_jax.training import parallel, steps

  config = paper_config('bf16')
  nets = networks.build(config.model)
  batch = {role: jax.ShapeDtypeStruct((8, 256, 256, 3), 'uint8') for role in ROLES}
  state, frozen = jax.eval_shape(
    lambda key: (steps.init_state(nets, config, key), networks.random_frozen(nets, key)),
    jax.random.key(0),
  )
  start = time.perf_counter()
  mesh = parallel.make_mesh(1)
  step = parallel.jit_step(steps.make_step(nets, config, mesh), state, mesh)
  lowered = step.lower(state, frozen, batch)
  emit('paper step lowering', time.perf_counter() - start, 's')
  start = time.perf_counter()
  memory = lowered.compile().memory_analysis()
  emit('paper step compile', time.perf_counter() - start, 's')
  emit('paper step arguments', memory.argument_size_in_bytes / 2**30, 'GiB')
  emit('paper step temporaries', memory.temp_size_in_bytes / 2**30, 'GiB')


def suite() -> None:
  """The whole test suite, with the command of the README."""
  start = time.perf_counter()
  command = [sys.executable, '-m', 'pytest', '-q']
  subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=True)
  emit('test suite', time.perf_counter() - start, 's')


def available_memory() -> int:
  """Returns the bytes that can still be used, as Linux estimates them."""
  lines = pathlib.Path('/proc/meminfo').read_text().splitlines()
  return 1024 * next(int(line.split()[1]) for line in lines if line.startswith('MemAvailable'))


PARTS = {f.__name__: f for f in (golden, generator, encoder, reenact, train_step)}
EXTRA_PARTS = {f.__name__: f for f in (compile_paper, suite)}  # need the project's dependencies
