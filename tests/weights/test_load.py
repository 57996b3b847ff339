"""From weight files to the frozen tree: files in the public format, reduced widths."""

import jax
import numpy as np
import pytest
from conftest import GOLDEN, error, nhwc
from ml_collections import ConfigDict

from configs import common
from hybrid_jax import networks
from hybrid_jax.errors import InputError
from hybrid_jax.weights import load


@pytest.fixture
def config():
  config = ConfigDict(common.tiny())
  config.model.update(
    frame_size=256,
    encoder_units=(3, 4, 14, 3),
    arcface_size=112,
  )
  return config


@pytest.fixture
def paths(shared):
  lpips = str(GOLDEN / 'lpips_alex_reduced.pt')  # backbone and linear layers in one file
  return {
    'e4e': str(shared('reference/e4e_reduced.pt')),
    'lpips_backbone': lpips,
    'lpips_linear': lpips,
    'arcface': str(GOLDEN / 'arcface_reduced.pt'),
  }


def test_loaded_networks_give_the_reference_latents_and_image(config, paths, shared):
  nets = networks.build(config.model)
  frozen, E = load.load(nets, paths, seed=0)
  v = np.load(shared('reference/e4e_reduced_vectors.npz'))
  image = nhwc(v['x_u8']).astype(np.float32) / 127.5 - 1
  G = frozen['generator']
  W, F = jax.jit(nets.hybrid.encode)(E, G, image)
  assert error(W, v['wplus']) < 1e-5
  assert all(np.all(f == 0) for f in F)  # so that training starts at e4e's inversion
  for reenacted in (nets.hybrid.reenact(G, W, F), nets.hybrid.reenact(G, W, None)):
    assert error(reenacted, nhwc(v['image'])) < 1e-5
  v = np.load(GOLDEN / 'arcface_reduced_vectors.npz')
  face = nhwc(v['y256_u8']).astype(np.float32) / 127.5 - 1
  assert error(nets.arcface.apply(frozen['arcface'], face), v['embedding_face256']) < 1e-5


def test_a_file_of_another_size_or_kind_is_refused(config, paths):
  wide = config.copy_and_resolve_references()
  wide.model.channel_max = 64
  with pytest.raises(InputError, match='e4e_reduced.pt: its generator has channels'):
    load.load(networks.build(wide.model), paths, seed=0)
  nets = networks.build(config.model)
  with pytest.raises(InputError, match='not an e4e checkpoint'):
    load.load(nets, paths | {'e4e': paths['arcface']}, seed=0)
  with pytest.raises(InputError, match='ArcFace of .*generator64.pt'):
    load.load(nets, paths | {'arcface': str(GOLDEN / 'generator64.pt')}, seed=0)
  with pytest.raises(InputError, match='README.md'):
    load.load(nets, paths | {'lpips_backbone': str(GOLDEN / 'README.md')}, seed=0)


def test_missing_and_mixed_files_are_told_at_once(paths):
  with pytest.raises(InputError) as caught:
    load.check_files(paths | {'arcface': 'nowhere.pth', 'lpips_linear': ''})
  assert '2 weight files' in str(caught.value)
  assert "config.weights.arcface='nowhere.pth'" in str(caught.value)
  with pytest.raises(InputError, match='random'):
    load.check_files(paths | {'arcface': 'random'})
  assert load.check_files(paths)
