"""Writes what the README's section "Train at 1024 px" starts from: weight files and videos.

  python -m experiments.cost.rehearsal_inputs FOLDER --face_detector=FILE [--small]

Weight files have the names, shapes, types and containers of the public ones, and calibrated random
numbers: the networks give values of ordinary size, as fresh ones do. Videos are of rendered people,
named and annotated as CelebV-HQ and HDTF are. PyTorch is not needed.
"""

import argparse
import json
import pathlib
import re
import shutil
from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import common
from experiments.cost.convert_full_size import Writer, keys
from hybrid_jax.media import stills
from hybrid_jax.method import networks
from hybrid_jax.weights import export, key_maps, torch_writer
from hybrid_jax.world import films, people
from hybrid_jax.world.clips import Renderer, vectors
from hybrid_jax.world.parameters import MOTION, pack
from tests.helpers.torch_files import legacy

Shapes = Mapping[str, Iterable[int]]
# Of the videos: side in px, frames a second, seconds. An uncut video is wider than high.
FULL, SMALL = (512, 25, 2), (256, 8, 1)
WIDE = 16 / 9
DRIVING_FRAMES = 8
CELEBV = ('rehearsal-A', 'rehearsal-B', 'rehearsal-C', 'rehearsal-D')  # video ids; D is uncut
HDTF = {'RD': ('Radio1', 'Radio2'), 'WDA': ('RenderedOne0',), 'WRA': ('RenderedTwo0',)}
SOURCE, DRIVER = 20, 21  # numbers of people of the split 'test' who are in none of these videos


# --- Weight files --------------------------------------------------------------------------------


def fan_in(shape: tuple[int, ...]) -> int:
  """Number of inputs of each output of a kernel (o, i, ...)."""
  return int(np.prod(shape[1:]))


def he(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
  """Keeps the size of activations in a network of rectifiers."""
  return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / fan_in(shape)))


def normal(scale: float) -> Callable:
  """Normal numbers of this standard deviation."""
  return lambda shape, rng: rng.standard_normal(shape, np.float32) * np.float32(scale)


def constant(value: float) -> Callable:
  """One number everywhere."""
  return lambda shape, rng: np.full(shape, value, np.float32)


def blur(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
  """StyleGAN2's [1, 3, 3, 1] along both axes, for upsampling by two."""
  tap = np.array([1, 3, 3, 1], np.float32) / 4
  return np.outer(tap, tap)


# The first pattern that a name matches decides. StyleGAN2's layers, and the last ones of e4e's
# heads, scale their weights when they run: fresh ones are N(0, 1) over the layer's learning rate.
RULES = (
  (r'num_batches_tracked$', lambda shape, rng: np.zeros(shape, np.int64)),
  (r'running_var$|modulation\.bias$|norm$', constant(1)),
  (r'running_mean$|bias$', constant(0)),
  (r'prelu$', constant(0.25)),
  (r'kernel$', blur),
  (r'decoder\.style\.\d+\.weight$', normal(100)),  # of the mapping, at a rate of 0.01
  (r'noise\.weight$|styles\.\d+\.linear\.weight$', normal(0.1)),
  (r'^decoder\.|^latent_avg$', normal(1)),
  (r'^lin\d', lambda shape, rng: rng.uniform(0, 0.2, shape).astype(np.float32)),
  # The last convolution of a residual block: 24 blocks must not add up.
  (r'res_layer\.3\.weight$', lambda shape, rng: he(shape, rng) / 2),
  (r'weight$', he),
)


def role(name: str, shapes: Shapes) -> str:
  """The name for `RULES`: a vector called `weight` becomes `.norm` or `.prelu`, by its module."""
  stem, _, leaf = name.rpartition('.')
  if leaf != 'weight' or len(shapes[name]) != 1 or stem.endswith('noise'):
    return name
  return f'{stem}.norm' if f'{stem}.running_var' in shapes else f'{stem}.prelu'


def calibrated(shapes: Shapes, seed: int) -> dict[str, np.ndarray]:
  """Random numbers of these shapes, by the rules for their names."""
  rng, state = np.random.default_rng(seed), {}
  for name, shape in shapes.items():
    draw = next(draw for pattern, draw in RULES if re.search(pattern, role(name, shapes)))
    state[name] = draw(tuple(shape), rng)
  return state


def public_shapes() -> dict[str, Shapes]:
  """Names and shapes of the tensors of the public files."""
  perceptual = keys('lpips_vgg16_alexnet')
  return {
    'e4e': keys('e4e_1024')['keys'] | {'latent_avg': keys('e4e_1024')['latent_avg']},
    'arcface': keys('arcface_ir_se50')['keys'],
    'alexnet': perceptual['alexnet'],
    'lpips': perceptual['lpips_v0.1_alex'],
  }


def small() -> dict:
  """The config of a test: `tiny` with fewer layers, for the same videos."""
  config = common.tiny()
  return common.merged(
    config, {'model': {'encoder_units': (1, 1, 1, 1), 'arcface_units': (1, 1, 1, 1)}}
  )


def shapes_of(model: ConfigDict) -> dict[str, Shapes]:
  """Names and shapes of files in the same formats, for networks of other sizes."""
  nets = networks.build(model)
  trees = jax.eval_shape(
    lambda key: (networks.random_frozen(nets, key), networks.init_encoder(nets, key)),
    jax.random.key(0),
  )
  frozen, encoder = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), trees)
  e4e = export.e4e(nets, encoder, frozen['generator'], nets.hybrid.encoder.num_ws)
  state = {k: x for k, x in e4e['state_dict'].items() if not k.startswith('deformation.')}
  names = key_maps.arcface(model.arcface_units, model.arcface_widths, model.arcface_size)
  arcface = key_maps.invert(frozen['arcface'], names, kind='arcface')
  lpips = key_maps.invert(frozen['lpips'], key_maps.lpips('alex'), kind='lpips')
  return {
    kind: {name: x.shape for name, x in tensors.items()}
    for kind, tensors in {
      'e4e': state | {'latent_avg': e4e['latent_avg']},
      'arcface': arcface,
      'alexnet': {k: x for k, x in lpips.items() if not k.startswith('lin')},
      'lpips': {k: x for k, x in lpips.items() if k.startswith('lin')},
    }.items()
  }


def write_weights(folder: pathlib.Path, shapes: Mapping[str, Shapes]) -> None:
  """Writes the four files under the names that configs/common.py has for them.

  AlexNet is called alexnet.pth: doctor compares the hash in the public name with the file's.
  """
  folder.mkdir(parents=True, exist_ok=True)
  state = calibrated(shapes['e4e'], 0)
  options = dict.fromkeys(keys('e4e_1024')['opts_option_names'])
  torch_writer.save(
    folder / 'e4e_ffhq_encode.pt',
    {
      'latent_avg': state.pop('latent_avg'),
      'state_dict': state,
      'opts': options | {'encoder_type': 'Encoder4Editing'},
    },
  )
  torch_writer.save(folder / 'model_ir_se50.pth', calibrated(shapes['arcface'], 1))
  for kind, name in (('alexnet', 'alexnet.pth'), ('lpips', 'lpips_alex.pth')):
    arrays = calibrated(shapes[kind], 2).values()
    # In the format before PyTorch 1.6, as both are published.
    (folder / name).write_bytes(legacy(Writer().state(shapes[kind]), *arrays))


# --- Videos --------------------------------------------------------------------------------------


def film(path: pathlib.Path, renderer: Renderer, person: int, times: np.ndarray, fps: int) -> None:
  """Writes a square clip of a person of the split 'test'."""
  clip = renderer.clip(people.SPLITS['test'] + person, 0, times)
  films.write_film(path, clip.frames, clip.motion, fps)


def uncut(path: pathlib.Path, renderer: Renderer, person: int, times: np.ndarray, fps: int) -> None:
  """Writes a clip with the square in the middle of a wider picture."""
  clip = renderer.clip(people.SPLITS['test'] + person, 0, times)
  side = (round(renderer.size * WIDE) - renderer.size) // 4 * 2  # the width must be even
  wide = np.pad(clip.frames, ((0, 0), (0, 0), (side, side), (0, 0)), 'edge')
  films.write_film(path, wide, clip.motion, fps)


def write_celebv(root: pathlib.Path, renderer: Renderer, times: np.ndarray, fps: int) -> None:
  """Writes five clips of four videos, the last one uncut, and celebvhq_info.json."""
  videos, clips = root / 'CelebV-HQ' / 'videos', {}
  videos.mkdir(parents=True, exist_ok=True)
  edge = (1 - 1 / WIDE) / 2  # of the wide picture, left and right of the square
  names = [f'{CELEBV[0]}_0', *(f'{video}_0' for video in CELEBV[1:]), f'{CELEBV[0]}_1']
  for person, name in enumerate(names):
    video = name.rpartition('_')[0]
    if video == CELEBV[-1]:
      uncut(videos / f'{video}.mp4', renderer, person, times, fps)
    else:
      film(videos / f'{name}.mp4', renderer, person, times, fps)
    clips[name] = {
      'ytb_id': video,
      'duration': {'start_sec': 0.0, 'end_sec': float(len(times) / fps)},
      'bbox': {'top': 0.0, 'bottom': 1.0, 'left': edge, 'right': 1 - edge},
      'attributes': {'appearance': [0] * 40, 'action': [0] * 35, 'emotion': {}},
      'version': 'v0.1',
    }
  info = {'meta_info': {'appearance_mapping': [], 'action_mapping': []}, 'clips': clips}
  (root / 'celebvhq_info.json').write_text(json.dumps(info))


def write_hdtf(root: pathlib.Path, renderer: Renderer, times: np.ndarray, fps: int) -> None:
  """Writes four uncut videos of four people, and the tables of the three subsets."""
  videos, tables = root / 'HDTF' / 'videos', root / 'HDTF_dataset'
  for folder in (videos, tables):
    folder.mkdir(parents=True, exist_ok=True)
  person = 10
  for subset, names in HDTF.items():
    lines = [f'{name}.mp4 00:00-00:{len(times) // fps:02d}\n' for name in names]
    (tables / f'{subset}_annotion_time.txt').write_text(''.join(lines))
    lines = [f'{name}.mp4 {renderer.size}\n' for name in names]
    (tables / f'{subset}_resolution.txt').write_text(''.join(lines))
    for name in names:
      uncut(videos / f'{name}.mp4', renderer, person, times, fps)
      person += 1


def write_videos(root: pathlib.Path, size: int, fps: int, seconds: int) -> None:
  """Writes both sets, portraits/me.png and driving/clip.mp4."""
  renderer, times = Renderer(size), np.arange(fps * seconds) / fps
  write_celebv(root, renderer, times, fps)
  write_hdtf(root, renderer, times, fps)
  for folder in ('portraits', 'driving'):
    (root / folder).mkdir(exist_ok=True)
  identity, _, scene = vectors(people.SPLITS['test'] + SOURCE, 0, np.zeros(1))
  portrait, _, _ = renderer(identity, pack(MOTION, smile=0.1), scene)
  stills.write_image(root / 'portraits' / 'me.png', portrait)
  film(root / 'driving' / 'clip.mp4', renderer, DRIVER, times[:DRIVING_FRAMES], fps)


def main() -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('--face_detector', required=True, help='YuNet .onnx')
  parser.add_argument('--small', action='store_true', help='networks and videos of a test')
  options = parser.parse_args()
  shapes = shapes_of(ConfigDict(small()).model) if options.small else public_shapes()
  write_weights(options.folder / 'weights', shapes)
  shutil.copyfile(options.face_detector, options.folder / 'weights' / 'yunet.onnx')
  write_videos(options.folder, *(SMALL if options.small else FULL))


if __name__ == '__main__':
  main()
