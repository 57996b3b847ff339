"""Measures the conversion of a full-size file of each public format: time, memory, and one image.

  python -m experiments.cost.convert_full_size --folder=full \
      --output=experiments/results/convert.json

The files have the names and shapes of the public ones (tests/golden/keys) and random numbers, in
the containers that their authors wrote: zip .pt, legacy .pth, NVlabs' .pkl of modules, a module
saved whole. They take at most 2.5 GB in FOLDER and are removed one by one. Peak memory is that of
the whole command; the peak for a file of 2 KB is given beside it. PyTorch is not needed.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import zipfile

import numpy as np

from hybrid_jax import environment
from tests.helpers.torch_files import asm, binary, call, legacy, module, storage, tensor

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULE = 'experiments.cost.convert_full_size'
RNG = np.random.default_rng(0)
# Draws an image of a converted generator, in a command of its own.
DRAW = """
import sys, time, jax, numpy as np
from hybrid_jax.models.stylegan2 import Generator
from hybrid_jax.weights import folders
manifest, tree = folders.read(sys.argv[1], 'generator')
facts, G = manifest['parts']['generator'], tree['generator']
module = Generator(tuple(facts['channels']), facts['w_dim'], facts['mapping_layers'])
noise = tuple(x[None] for x in G['noise_const'])
z = np.random.default_rng(0).normal(size=(1, facts['w_dim'])).astype(np.float32)
image = np.asarray(jax.jit(module.apply)({'params': G['params']}, z, noise))
assert image.shape == (1, 1024, 1024, 3) and np.isfinite(image).all(), image.shape
print(image.std())
"""


# --- Files in the public formats -----------------------------------------------------------------


def keys(name: str) -> dict:
  """Names and shapes of the tensors of a public file."""
  return json.loads((ROOT / 'tests' / 'golden' / 'keys' / f'{name}.json').read_text())


def numbers(shape) -> np.ndarray:
  """Random float32 of this shape."""
  return RNG.standard_normal(shape, np.float32)


class Writer:
  """Opcodes for tensors of random numbers, whose shapes are collected to be written after them."""

  def __init__(self):
    self.shapes = []

  def tensor(self, shape) -> bytes:
    key = str(len(self.shapes))
    self.shapes.append(tuple(shape))
    stride = np.cumprod([1, *shape[:0:-1]])[::-1] if len(shape) else ()
    size = int(np.prod(shape))
    return tensor(size, 0, tuple(shape), tuple(map(int, stride)), key=key)

  def state(self, shapes: dict) -> dict:
    return {k: self.tensor(s) for k, s in shapes.items()}

  def write_zip(self, path: pathlib.Path, tree) -> None:
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr('archive/data.pkl', b'\x80\x02' + asm(tree) + b'.')
      for i, shape in enumerate(self.shapes):
        archive.writestr(f'archive/data/{i}', numbers(shape).tobytes())


def e4e(path: pathlib.Path) -> None:
  file, writer = keys('e4e_1024'), Writer()
  opts = dict.fromkeys(file['opts_option_names']) | {'encoder_type': 'Encoder4Editing'}
  state = writer.state(file['keys'])
  average = writer.tensor(file['latent_avg'])
  writer.write_zip(path, {'state_dict': state, 'latent_avg': average, 'opts': opts})


def rosinality(path: pathlib.Path) -> None:
  file, writer = keys('rosinality_generator_1024'), Writer()
  tree = {'g_ema': writer.state(file['keys']), 'latent_avg': writer.tensor(file['latent_avg'])}
  writer.write_zip(path, tree)


def arcface(path: pathlib.Path) -> None:
  writer = Writer()
  writer.write_zip(path, writer.state(keys('arcface_ir_se50')['keys']))


def backbone(path: pathlib.Path, net: str) -> None:
  """torchvision's files are in the legacy format."""
  writer = Writer()
  tree = writer.state(keys('lpips_vgg16_alexnet')[net])
  path.write_bytes(legacy(tree, *map(numbers, writer.shapes)))


def inception(path: pathlib.Path) -> None:
  writer = Writer()
  writer.write_zip(path, writer.state(keys('fid_inception_v3')['keys']))


def i3d(path: pathlib.Path, layout: str) -> None:
  """Files of 2018, in the legacy format."""
  writer = Writer()
  tree = writer.state(keys('i3d_kinetics400')[layout])
  path.write_bytes(legacy(tree, *map(numbers, writer.shapes)))


def nested(shape) -> bytes:
  """A tensor inside a plain pickle: its storage is a legacy stream."""
  data = numbers(shape)
  source = call('torch.storage._load_from_bytes', binary(legacy(storage(data.size), data)))
  stride = tuple(s // 4 for s in data.strides)
  rebuild = 'torch._utils._rebuild_tensor_v2'
  return call(rebuild, source, 0, tuple(shape), stride, False, {})


def modules(shapes: dict, make, class_name: str) -> bytes:
  """The module tree whose state_dict() has these names; `make` gives the opcodes of a tensor."""
  own = {k: make(s) for k, s in shapes.items() if '.' not in k}
  below = {k.split('.')[0]: None for k in shapes if '.' in k}
  for child in below:
    inner = {k[len(child) + 1 :]: s for k, s in shapes.items() if k.startswith(f'{child}.')}
    below[child] = modules(inner, make, 'Part')
  state = {'_parameters': own, '_buffers': {}, '_modules': below, '_init_kwargs': {}}
  return module(state, class_name=class_name)


def nvlabs(path: pathlib.Path) -> None:
  shapes = keys('nvlabs_ada_G_ema_1024')['keys'] | {'mapping.w_avg': (512,)}
  networks = (('G', shapes), ('D', keys('nvlabs_ada_D_1024')['keys']), ('G_ema', shapes))
  with open(path, 'wb') as file:  # one network at a time
    file.write(b'\x80\x04}(')
    for name, each in networks:
      file.write(asm(name) + modules(each, nested, 'Generator'))
    file.write(asm('augment_pipe') + b'Nu.')


def pti(path: pathlib.Path) -> None:
  writer = Writer()
  shapes = keys('nvlabs_ada_G_ema_1024')['keys'] | {'mapping.w_avg': (512,)}
  writer.write_zip(path, modules(shapes, writer.tensor, 'Generator'))


def safetensors(path: pathlib.Path) -> None:
  from hybrid_jax.weights import files

  file = keys('rosinality_generator_1024')
  tensors = {f'g_ema.{key}': numbers(shape) for key, shape in file['keys'].items()}
  files.write_safetensors(path, tensors | {'latent_avg': numbers(file['latent_avg'])})


FILES = {
  'model_ir_se50.pth': arcface,
  'stylegan2-ffhq-config-f.pt': rosinality,
  'stylegan2-ffhq-config-f.safetensors': safetensors,
  'ffhq.pkl': nvlabs,
  'model_pti.pt': pti,
  'alexnet.pth': lambda path: backbone(path, 'alexnet'),
  'vgg16.pth': lambda path: backbone(path, 'vgg16'),
  'pt_inception-2015-12-05.pth': inception,
  'rgb_imagenet.pt': lambda path: i3d(path, 'pytorch_i3d'),
  'model_rgb.pth': lambda path: i3d(path, 'kinetics_i3d_pytorch'),
  'e4e_ffhq_encode.pt': e4e,
}


# --- Measuring -----------------------------------------------------------------------------------


def measured(*command: str) -> tuple[float, float]:
  """(seconds, peak resident MB) of a Python command; raises where it fails."""
  start = time.perf_counter()
  variables = os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
  child = subprocess.Popen([sys.executable, *command], env=variables)
  _, status, usage = os.wait4(child.pid, 0)
  child.returncode = os.waitstatus_to_exitcode(status)
  if child.returncode:
    raise SystemExit(f'{" ".join(command)}: exit {child.returncode}')
  return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--folder', type=pathlib.Path, required=True)
  parser.add_argument('--output', type=pathlib.Path, required=True)
  parser.add_argument('--files', nargs='*', default=list(FILES), choices=list(FILES))
  parser.add_argument('--make', type=pathlib.Path, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.make:
    return FILES[options.make.name](options.make)
  options.folder.mkdir(parents=True, exist_ok=True)
  small, out = options.folder / 'small.npy', options.folder / 'converted'
  shutil.rmtree(out, ignore_errors=True)
  np.save(small, np.ones((1, 512), np.float32))
  base_s, base = measured('-m', 'hybrid_jax.convert', str(small), '--output', str(out))
  results = {
    'load_average_at_start': os.getloadavg()[0],
    'of_a_2_KB_file': {'seconds': round(base_s, 1), 'peak_MB': round(base)},
    'files': {},
  }
  for name in options.files:
    path = options.folder / name
    # In a process of its own: the peak of a child begins with the size of its parent, which must
    # therefore stay small and load JAX only after the last measurement.
    measured('-m', MODULE, f'--make={path}', f'--folder={path.parent}', '--output=-')
    shutil.rmtree(out, ignore_errors=True)
    seconds, peak = measured('-m', 'hybrid_jax.convert', str(path), '--output', str(out))
    size = path.stat().st_size / 2**20
    manifest = json.loads((out / 'manifest.json').read_text())
    results['files'][name] = {
      'kind': manifest['kind'],
      'MB': round(size),
      'seconds': round(seconds, 1),
      'peak_MB': round(peak),
      'peak_over_size': round(peak / size, 2),
      'peak_less_that_of_2_KB_over_size': round((peak - base) / size, 2),
      'keys': manifest['keys'],
    }
    if name == 'stylegan2-ffhq-config-f.pt':
      draw_s, draw_peak = measured('-c', DRAW, str(out))
      results['image_at_1024_px'] = {'seconds': round(draw_s, 1), 'peak_MB': round(draw_peak)}
    print(name, json.dumps(results['files'][name]), flush=True)
    path.unlink()
  shutil.rmtree(out, ignore_errors=True)
  small.unlink()
  options.output.write_text(json.dumps(environment.record() | results, indent=2) + '\n')


if __name__ == '__main__':
  main()
