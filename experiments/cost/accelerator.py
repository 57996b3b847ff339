"""Parity and speed of the 1024 px model on whatever device JAX finds, with random weights.

  python -m experiments.cost.accelerator --output=experiments/results/h100.json
  python -m experiments.cost.accelerator --parts=golden,generator    # some parts only

Needs jax, flax, optax and numpy, nothing else of the project's dependencies (jax 0.10 or 0.11).
Each part runs in a process of its own, so that its peak memory is its own and one that does not fit
stops no other. On a CPU only what fits is run: float32, small batches, one triplet.
"""

import argparse
import datetime
import json
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


PARTS = ('golden', 'generator', 'encoder', 'reenact', 'train_step')
EXTRA_PARTS = ('compile_paper', 'suite')  # needs pytest and the other dependencies
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


class Config(dict):
  """Attribute access to the nested dicts of configs/common.py."""

  def __getattr__(self, name):
    value = self[name]
    return Config(value) if isinstance(value, dict) else value


def paper_config(precision: str, **model):
  from configs import common

  config = common.paper()
  config['model']['half_dtype'] = 'bfloat16' if precision == 'bf16' else ''
  config['model'] |= model
  return Config(config)


def seconds(call, *, repeats: int) -> float:
  """Median seconds of `call()`, which returns arrays, after two calls to compile and warm up."""
  import jax

  jax.block_until_ready(call())
  jax.block_until_ready(call())
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(call())
    times.append(time.perf_counter() - start)
  return statistics.median(times)


def emit(name: str, value: float, unit: str, **more) -> None:
  import jax

  floors = CPU_FLOORS_MS if jax.default_backend() == 'cpu' else FLOORS_MS
  note = f'  (floor {floors[name]} ms)' if name in floors else ''
  print(f'{name:44s} {value:12.5g} {unit}{note}', file=sys.stderr, flush=True)
  print(MARK + json.dumps({'name': name, 'value': value, 'unit': unit, **more}), flush=True)


def emit_memory(part: str) -> None:
  import jax

  stats = jax.devices()[0].memory_stats() or {}
  if 'peak_bytes_in_use' in stats:
    emit(f'{part} peak device memory', stats['peak_bytes_in_use'] / 2**30, 'GiB')
  else:
    emit(f'{part} peak memory', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 'GiB')


def cases() -> list[tuple[str, int]]:
  """(precision, batch) to time here."""
  import jax

  if jax.default_backend() == 'cpu':
    return [('float32', 1)]
  return [(p, n) for p in ('float32', 'tf32', 'bf16') for n in (1, 8, 32)]


def set_precision(precision: str) -> None:
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
  vectors = lambda stem: np.load(folder / f'{stem}.npz')  # noqa: E731
  nhwc = lambda x: np.moveaxis(x, 1, -1)  # noqa: E731
  picture = lambda x: nhwc(x).astype(np.float32) / 127.5 - 1  # noqa: E731

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


def train_step() -> None:
  """The whole pre-training step at 1024 px; on a CPU one triplet with recomputed large layers."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from hybrid_jax.method import networks
  from hybrid_jax.training import parallel, steps

  cpu = jax.default_backend() == 'cpu'
  runs = [('float32', 1, 256)] if cpu else [('bf16', 8, 0), ('tf32', 8, 256)]
  mesh = parallel.make_mesh(1)
  for precision, n, remat_from in runs:
    set_precision(precision)
    config = paper_config(precision, remat_from=remat_from)
    nets = networks.build(config.model)
    _, replicated = parallel.shardings(mesh)
    batch = {
      role: np.zeros((n, 256, 256, 3), np.uint8) + 100 for role in ('source', 'driving', 'other')
    }
    init = lambda key: steps.init_state(nets, config, key)  # noqa: B023, E731
    random = lambda key: networks.random_frozen(nets, key)  # noqa: B023, E731
    shapes = (*(jax.eval_shape(f, jax.random.key(0)) for f in (init, random)), batch)
    start = time.perf_counter()
    step = parallel.jit_step(steps.make_step(nets, config), mesh)
    compiled = step.lower(*shapes).compile()
    name = f'train_step {precision} {n} triplet' + ('s' if n > 1 else '')
    emit(f'{name} compile', time.perf_counter() - start, 's')
    memory = compiled.memory_analysis()
    need = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    emit(f'{name} memory by the compiler', need / 2**30, 'GiB')
    if cpu and need > available_memory():
      print(f'{name}: does not fit in memory, not run', file=sys.stderr)
      continue
    state = jax.jit(init, out_shardings=replicated)(jax.random.key(0))
    frozen = jax.jit(random, out_shardings=replicated)(jax.random.key(1))
    times = []
    for _ in range(3 if cpu else 12):
      start = time.perf_counter()
      state, metrics = compiled(state, frozen, parallel.put_batch(batch, mesh))
      finite = bool(jnp.isfinite(metrics['total']))  # waits for the step
      times.append(time.perf_counter() - start)
    emit(name, statistics.median(times[1:]) * 1e3, 'ms', finite=finite)
    del state, frozen, compiled, metrics  # before the next case takes the memory
  emit_memory('train_step')


def compile_paper() -> None:
  """The paper's own step, bfloat16 and 8 triplets, compiled ahead of time: no array is made."""
  import jax

  from hybrid_jax.method import networks
  from hybrid_jax.training import parallel, steps

  config = paper_config('bf16')
  nets = networks.build(config.model)
  batch = {
    role: jax.ShapeDtypeStruct((8, 256, 256, 3), 'uint8') for role in ('source', 'driving', 'other')
  }
  state, frozen = jax.eval_shape(
    lambda key: (steps.init_state(nets, config, key), networks.random_frozen(nets, key)),
    jax.random.key(0),
  )
  start = time.perf_counter()
  step = parallel.jit_step(steps.make_step(nets, config), parallel.make_mesh(1))
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
  """Bytes that can still be used, as Linux estimates them."""
  lines = pathlib.Path('/proc/meminfo').read_text().splitlines()
  return 1024 * next(int(line.split()[1]) for line in lines if line.startswith('MemAvailable'))


def describe() -> dict:
  """Device, versions and commit of a result file; in a process of its own, for the GPU's memory."""
  code = (
    'import jax, json; d = jax.devices(); '
    'print(json.dumps([d[0].device_kind, len(d), jax.default_backend(), jax.__version__]))'
  )
  out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  kind, count, backend, version = json.loads(out.stdout.splitlines()[-1])
  git = ['git', '-C', str(ROOT), 'describe', '--always', '--dirty', '--abbrev=12']
  commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or 'unknown'
  return {
    'command': 'python ' + ' '.join(sys.argv),
    'commit': commit,
    'date': datetime.date.today().isoformat(),
    'device': f'{count} x {kind}' if backend != 'cpu' else f'CPU, {processor()}',
    'jax': version,
    'python': platform.python_version(),
  }


def processor() -> str:
  import os

  lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  name = next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), '')
  return f'{os.cpu_count()} cores, {name or platform.machine()}'


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--parts', default=','.join(PARTS), help=f'of {",".join(PARTS + EXTRA_PARTS)}'
  )
  parser.add_argument('--output', help='JSON file to write; parts already in it are replaced')
  parser.add_argument('--worker', action='store_true', help=argparse.SUPPRESS)
  args = parser.parse_args()
  parts = args.parts.split(',')
  unknown = sorted(set(parts) - {*PARTS, *EXTRA_PARTS})
  if unknown:
    parser.error(f'no part {unknown[0]}; there are {", ".join(PARTS + EXTRA_PARTS)}')
  if args.worker:
    globals()[parts[0]]()
    return

  about = describe()
  print(f'{about["device"]}, jax {about["jax"]}, commit {about["commit"]}', file=sys.stderr)
  results, failed = [], []
  for part in parts:
    command = [sys.executable, __file__, '--worker', f'--parts={part}']
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    lines = [line for line in run.stdout.splitlines() if line.startswith(MARK)]
    results += [{'part': part, **json.loads(line[len(MARK) :])} for line in lines]
    if run.returncode or any(r.get('ok') is False for r in results if r['part'] == part):
      failed.append(part)
  if args.output:
    path = pathlib.Path(args.output)
    old = json.loads(path.read_text())['results'] if path.exists() else []
    kept = [r for r in old if r['part'] not in parts]
    results = kept + [{**r, **about} for r in results]
    temporary = path.with_suffix('.tmp')
    temporary.write_text(json.dumps({'results': results}, indent=1) + '\n')
    temporary.rename(path)
  if failed:
    sys.exit(f'failed: {", ".join(failed)}')


if __name__ == '__main__':
  main()
