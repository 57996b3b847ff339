"""StyleGAN2 against rosinality's and NVlabs' code, layer by layer, with both up-convolutions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import GOLDEN, error, nhwc

from hybrid_jax.method.hybrid import Hybrid
from hybrid_jax.models import latents
from hybrid_jax.models.stylegan2 import Generator
from hybrid_jax.weights import key_maps, torch_file

CHANNELS = (32, 32, 32, 32, 16)
FORWARD, GRADIENT = 1e-5, 1e-4  # the bounds of the vectors' README for a float32 port


@functools.cache
def rosinality():
  file = torch_file.load(GOLDEN / 'generator64.pt')
  return key_maps.generator(file['g_ema'], file['latent_avg'])


@functools.cache
def nvlabs():
  return key_maps.generator_nvlabs(torch_file.load(GOLDEN / 'nvlabs64.pt'))


@pytest.fixture(params=[0, 32, 512], ids=['polyphase', 'mixed', 'transposed'])
def model(request):
  return Generator(CHANNELS, w_dim=64, polyphase_from=request.param)


def image_of(model, tree, w_plus, noise='const', offsets=None, layers=(), **edit):
  """G(W, F), by the package's own eqs. 3 and 4."""
  hybrid = Hybrid(model, None, tuple(layers))
  maps = tree['noise_const'] if noise == 'const' else [0.0] * 9
  return hybrid.reenact(tree, w_plus, offsets and tuple(offsets), maps, **edit)


def test_channel_table_is_read_from_the_tensors():
  assert rosinality()[1] == nvlabs()[1] == CHANNELS


def test_mapping_and_truncation(golden):
  tree, _ = rosinality()
  v = golden('generator64_vectors')
  model = Generator(CHANNELS, w_dim=64)
  w = model.apply({'params': tree['params']}, v['z'], method='map')
  assert error(w, v['w']) < FORWARD
  w_trunc = latents.truncate(w, tree['w_avg'], 0.7)
  assert error(w_trunc, v['w_trunc']) < FORWARD
  w_plus = jnp.repeat(w_trunc[:, None], 10, axis=1)
  assert error(image_of(model, tree, w_plus), nhwc(v['image_from_z_trunc'])) < FORWARD


def test_style_space(golden):
  tree, _ = rosinality()
  v = golden('generator64_vectors')
  styles = Generator(CHANNELS, w_dim=64).apply(
    {'params': tree['params']}, v['wplus'], method='to_style_space'
  )
  for i, s in enumerate(styles):
    assert error(s, v[f's_{i:02d}']) < FORWARD, i


def test_images(model, golden):
  tree, _ = rosinality()
  v = golden('generator64_vectors')
  assert error(image_of(model, tree, v['wplus']), nhwc(v['image'])) < FORWARD
  silent = image_of(model, tree, v['wplus'], noise=None)
  assert error(silent, nhwc(v['image_zero_noise'])) < FORWARD
  w = v['w']
  mixed = jnp.concatenate((jnp.repeat(w[:1, None], 3, 1), jnp.repeat(w[1:, None], 7, 1)), axis=1)
  assert error(image_of(model, tree, mixed), nhwc(v['image_mix_inject3'])) < FORWARD


def test_both_readings_of_the_first_style_layers(model, golden):
  """The two readings have the same shapes at 1024 px: only these images tell them apart."""
  tree, _ = rosinality()
  v = golden('generator64_vectors')
  for layers, expected in (
    (range(10), 'image_soffset_first10'),
    (latents.first_convolutions(7), 'image_soffset_convonly_first7'),
  ):
    offsets = [v[f'soffset_{i:02d}'] for i in layers]
    image = image_of(model, tree, v['wplus'], offsets=offsets, layers=layers)
    assert error(image, nhwc(v[expected])) < FORWARD


def test_an_edit_moves_w_before_the_affines(golden):
  tree, _ = rosinality()
  v = golden('generator64_vectors')
  model = Generator(CHANNELS, w_dim=64)
  edited = image_of(model, tree, v['wplus'] - 0.5, dW_edit=0.5)
  assert error(edited, nhwc(v['image'])) < FORWARD


def test_not_hybrid_deforms_w_plus():
  tree, _ = rosinality()
  hybrid = Hybrid(Generator(CHANNELS, w_dim=64), None, latents.first_convolutions(5), hybrid=False)
  W = jax.random.normal(jax.random.key(1), (1, 10, 64))
  F = tuple(jax.random.normal(jax.random.key(i), (1, 64)) for i in range(5))
  moved = W.at[:, :5].add(jnp.stack(F, axis=1))
  for a, b in zip(hybrid.combine(tree, W, F), hybrid.combine(tree, moved, None), strict=True):
    np.testing.assert_array_equal(a, b)


def test_half_precision_and_rematerialisation(golden):
  """bfloat16 from 16 px on stays near float32; recomputing layers changes nothing."""
  tree, _ = rosinality()
  v = golden('generator64_vectors')
  model = Generator(CHANNELS, w_dim=64)
  half = model.clone(half_dtype=jnp.bfloat16, half_from=16)
  assert 1e-5 < error(image_of(half, tree, v['wplus']), nhwc(v['image'])) < 0.03

  def loss(w_plus, model):
    return jnp.sum(image_of(model, tree, w_plus) * nhwc(v['loss_weights']))

  remat = model.clone(remat_from=16)
  grad = jax.jit(jax.grad(loss), static_argnums=1)(v['wplus'], remat)
  assert error(grad, v['grad_wplus']) < GRADIENT


def test_intermediate_features(model, golden):
  tree, _ = rosinality()
  v = golden('generator64_vectors')
  _, state = model.apply(
    {'params': tree['params']},
    model.apply({'params': tree['params']}, v['wplus'], method='to_style_space'),
    tree['noise_const'],
    method='synthesize',
    capture_intermediates=True,
  )
  calls = state['intermediates']
  table = latents.style_layers(CHANNELS)
  convolutions = [i for i, layer in enumerate(table) if layer.kind != 'to_rgb']
  names = ['conv1', *(f'convs.{i}' for i in range(8))]
  for i, name in zip(convolutions, names, strict=True):
    feature = np.asarray(calls[f'layers_{i}']['__call__'][0])
    assert error(feature.mean((1, 2)), v[f'feat_{name}_mean']) < FORWARD, name
    assert error(feature.std((1, 2)), v[f'feat_{name}_std']) < FORWARD, name
    if f'feat_{name}' in v:
      assert error(feature, nhwc(v[f'feat_{name}'])) < FORWARD, name


def test_gradients(model, golden):
  tree, _ = rosinality()
  v = golden('generator64_vectors')
  weights = nhwc(v['loss_weights'])

  def loss(params, w_plus, offsets):
    image = image_of(model, tree | {'params': params}, w_plus, offsets=offsets, layers=range(10))
    return jnp.sum(image * weights)

  zeros = [jnp.zeros_like(v[f'soffset_{i:02d}']) for i in range(10)]
  value, (params, w_plus) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(
    tree['params'], v['wplus'], zeros
  )
  assert error(value, v['loss']) < GRADIENT
  assert error(w_plus, v['grad_wplus']) < GRADIENT

  flip = lambda x: np.moveaxis(x[0], (2, 3, 1, 0), (0, 1, 2, 3))  # noqa: E731
  for ours, theirs in {
    ('layers_2', 'kernel'): flip(v['grad_convs.0.conv.weight']),
    ('layers_3', 'kernel'): flip(v['grad_convs.1.conv.weight']),
    ('affines_2', 'kernel'): v['grad_convs.0.conv.modulation.weight'].T,
    ('affines_2', 'bias'): v['grad_convs.0.conv.modulation.bias'],
    ('layers_3', 'bias'): v['grad_convs.1.activate.bias'],
    ('layers_3', 'noise_strength'): v['grad_convs.1.noise.weight'][0],
    ('layers_7', 'kernel'): flip(v['grad_to_rgbs.1.conv.weight']),
    ('layers_7', 'bias'): v['grad_to_rgbs.1.bias'].reshape(-1),
  }.items():
    assert error(params[ours[0]][ours[1]], theirs) < GRADIENT, ours
  assert error(params['const'], nhwc(v['grad_input.input'])[0]) < GRADIENT

  offsets = [v[f'soffset_{i:02d}'] for i in range(10)]
  grads = jax.jit(jax.grad(loss, argnums=2))(tree['params'], v['wplus'], offsets)
  for i, grad in enumerate(grads):
    assert error(grad, v[f'grad_soffset_{i:02d}']) < GRADIENT, i


def test_mapping_gradients(golden):
  tree, _ = rosinality()
  v = golden('generator64_vectors')
  model = Generator(CHANNELS, w_dim=64)

  def loss(params):
    return jnp.sum(model.apply({'params': params}, v['z'], method='map') * v['loss_weights_w'])

  grads = jax.grad(loss)(tree['params'])['mapping']
  assert error(grads['dense_0']['kernel'], v['grad_mapping_style.1.weight'].T) < GRADIENT
  assert error(grads['dense_7']['bias'], v['grad_mapping_style.8.bias']) < GRADIENT


def test_nvlabs(model, golden):
  tree, _ = nvlabs()
  v = golden('nvlabs64_vectors')
  assert error(image_of(model, tree, v['ws']), nhwc(v['image_const'])) < FORWARD
  assert error(image_of(model, tree, v['ws'], noise=None), nhwc(v['image_none'])) < FORWARD
  clamped = model.clone(clamp=1.0)
  assert error(image_of(clamped, tree, v['ws']), nhwc(v['image_clamp1.0'])) < FORWARD
  styles = model.apply({'params': tree['params']}, v['ws'], method='to_style_space')
  names = [f'b{r}.{c}' for r in (4, 8, 16, 32, 64) for c in ('conv0', 'conv1', 'torgb')][1:]
  for s, name in zip(styles, names, strict=True):
    assert error(s, v[f'affine_{name}']) < FORWARD, name


def test_nvlabs_mapping_and_truncation(golden):
  tree, _ = nvlabs()
  v = golden('nvlabs64_vectors')
  model = Generator(CHANNELS, w_dim=64)
  w = model.apply({'params': tree['params']}, v['z'], method='map')
  ws = jnp.repeat(w[:, None], 10, axis=1)
  assert error(ws, v['ws_from_z']) < FORWARD
  assert error(latents.truncate(ws, tree['w_avg'], 0.7), v['ws_from_z_psi0.7']) < FORWARD
  cutoff = jnp.concatenate((latents.truncate(ws, tree['w_avg'], 0.5)[:, :4], ws[:, 4:]), axis=1)
  assert error(cutoff, v['ws_from_z_psi0.5_cutoff4']) < FORWARD
  assert error(image_of(model, tree, ws), nhwc(v['image_from_z'])) < FORWARD


def test_nvlabs_gradients(model, golden):
  tree, _ = nvlabs()
  v = golden('nvlabs64_vectors')

  def loss(params, ws):
    image = image_of(model, tree | {'params': params}, ws)
    return jnp.sum(image * nhwc(v['loss_weights']))

  params, ws = jax.jit(jax.grad(loss, argnums=(0, 1)))(tree['params'], v['ws'])
  assert error(ws, v['grad_ws']) < GRADIENT
  to_hwio = lambda x: np.moveaxis(x, (2, 3, 1, 0), (0, 1, 2, 3))  # noqa: E731
  for (layer, leaf), expected in {
    ('layers_2', 'kernel'): to_hwio(v['grad_synthesis.b8.conv0.weight']),
    ('affines_6', 'kernel'): v['grad_synthesis.b16.conv1.affine.weight'].T,
    ('layers_7', 'kernel'): to_hwio(v['grad_synthesis.b16.torgb.weight']),
    ('layers_8', 'noise_strength'): v['grad_synthesis.b32.conv0.noise_strength'],
  }.items():
    assert error(params[layer][leaf], expected) < GRADIENT, layer
