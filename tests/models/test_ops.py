"""Operators against slow references written here: grouped convolution, zero insertion, loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import error

from hybrid_jax.method.encoder import upsample_aligned
from hybrid_jax.models import latents, ops
from hybrid_jax.models.perceptual import adaptive_avg_pool


def normal(seed, *shape):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def slow_up_conv(x, kernel):
  """Zero insertion, transposed convolution and FIR as nested loops over taps, in float64."""
  n, h, w, _ = x.shape
  t = np.zeros((n, 2 * h + 1, 2 * w + 1, kernel.shape[-1]))
  for a in range(3):
    for b in range(3):
      t[:, a : a + 2 * h : 2, b : b + 2 * w : 2] += x @ kernel[a, b]
  t = np.pad(t, ((0, 0), (1, 1), (1, 1), (0, 0)))
  fir = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16
  return sum(fir[a, b] * t[:, a : a + 2 * h, b : b + 2 * w] for a in range(4) for b in range(4))


@pytest.mark.parametrize('lowering', list(ops.UP_CONV))
def test_up_conv(lowering):
  x, kernel = normal(0, 2, 5, 7, 3), normal(1, 3, 3, 3, 4)
  assert error(ops.UP_CONV[lowering](x, kernel), slow_up_conv(x, kernel)) < 1e-6


def test_up_conv_weight_gradients_agree():
  x, kernel, seed = normal(0, 2, 6, 6, 3), normal(1, 3, 3, 3, 4), normal(2, 2, 12, 12, 4)
  first, *rest = (
    jax.grad(lambda k, up=up: jnp.sum(up(x, k) * seed))(kernel) for up in ops.UP_CONV.values()
  )
  for other in rest:
    assert error(first, other) < 1e-5


@pytest.mark.parametrize('up', [None, *ops.UP_CONV])
def test_modulated_conv_equals_the_per_sample_form(up):
  x, kernel, styles = normal(0, 3, 6, 6, 4), normal(1, 3, 3, 4, 5), normal(2, 3, 4)
  actual = ops.modulated_conv(x, kernel, styles, up=up)
  for i in range(3):
    own = kernel * styles[i][:, None]
    own = own / np.sqrt((own**2).sum((0, 1, 2)) + 1e-8)
    plain = ops.conv(x[i : i + 1], own) if up is None else slow_up_conv(x[i : i + 1], own)
    assert error(actual[i : i + 1], plain) < 3e-6


@pytest.mark.parametrize('sums', [False, True])
def test_to_rgb_equals_the_per_sample_form(sums):
  x, kernel, styles, seed = (
    normal(0, 3, 6, 5, 4),
    normal(1, 4, 3),
    normal(2, 3, 4),
    1 + np.arange(3),
  )

  def plain(x, kernel, styles):
    return jnp.stack([x[i] @ (styles[i][:, None] * kernel) for i in range(3)])

  to_rgb = functools.partial(ops.to_rgb, sums=sums)
  assert error(to_rgb(x, kernel, styles), plain(x, kernel, styles)) < 1e-6
  found, expected = (
    jax.grad(lambda *args, f=f: jnp.sum(jnp.square(f(*args)) * seed), (0, 1, 2))(x, kernel, styles)
    for f in (to_rgb, plain)
  )
  for a, b in zip(found, expected, strict=True):
    assert error(a, b) < 1e-5


def test_the_derivatives_of_the_leaky_relu_follow_from_its_result():
  def plain(x):
    return jnp.sqrt(2.0) * jax.nn.leaky_relu(x, 0.2)

  x, t = np.append(normal(0, 50), [0.0, 1e-30]).astype(np.float32), normal(1, 52)
  for f in (jax.jit, lambda f: f):
    assert error(f(ops.leaky_relu)(x), plain(x)) < 1e-7
  found, expected = (jax.jvp(f, (x,), (t,))[1] for f in (ops.leaky_relu, plain))
  assert error(found, expected) < 1e-7
  found, expected = (jax.vjp(f, x)[1](t)[0] for f in (ops.leaky_relu, plain))
  assert error(found, expected) < 1e-7
  assert jax.grad(lambda x: ops.leaky_relu(x))(jnp.bfloat16(-1)).dtype == jnp.bfloat16


def test_upsample_skip():
  x = normal(0, 2, 5, 6, 3)
  zeros = np.zeros((2, 10, 12, 3), np.float32)
  zeros[:, ::2, ::2] = x
  padded = np.pad(zeros, ((0, 0), (2, 1), (2, 1), (0, 0)))
  fir = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16
  slow = sum(fir[a, b] * padded[:, a : a + 10, b : b + 12] for a in range(4) for b in range(4))
  assert error(ops.upsample_skip(x), slow) < 1e-6


def test_upsample_aligned_keeps_corners_and_is_linear_between():
  x = normal(0, 1, 4, 4, 2)
  y = np.asarray(upsample_aligned(x))
  for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
    np.testing.assert_allclose(y[:, corner[0], corner[1]], x[:, corner[0], corner[1]], atol=1e-6)
  rows = np.linspace(0, 3, 8)
  np.testing.assert_allclose(y[0, :, 0, 0], np.interp(rows, range(4), x[0, :, 0, 0]), atol=1e-6)


@pytest.mark.parametrize(('size', 'out'), [(188, 112), (64, 16), (47, 48), (7, 3)])
def test_adaptive_pool_windows(size, out):
  x = normal(0, 1, size, size, 1)
  slow = np.zeros((1, out, out, 1))
  for i in range(out):
    for j in range(out):
      rows = slice(i * size // out, -(-(i + 1) * size // out))
      columns = slice(j * size // out, -(-(j + 1) * size // out))
      slow[0, i, j, 0] = x[0, rows, columns, 0].mean()
  assert error(adaptive_avg_pool(x, out), slow) < 1e-6


def test_style_table_of_the_paper_model():
  channels = latents.config_f_channels(1024)
  table = latents.style_layers(channels)
  convolutions = [layer for layer in table if layer.kind != 'to_rgb']
  assert (len(table), sum(layer.width for layer in table)) == (26, 9088)
  assert (len(convolutions), sum(layer.width for layer in convolutions)) == (17, 6048)
  assert latents.num_ws(channels) == 18 and table[-1].resolution == 1024
  first = latents.first_convolutions(10)
  assert first == (0, 2, 3, 5, 6, 8, 9, 11, 12, 14)
  assert [table[i].w_row for i in first] == list(range(10))
  assert [table[i].width for i in first] == [512] * 10
  assert latents.first_convolutions(17) == tuple(
    i for i, layer in enumerate(table) if layer.kind != 'to_rgb'
  )


@pytest.mark.parametrize(
  'size, k, stride, pad', [(9, 3, 1, 1), (8, 3, 2, 1), (9, 3, 2, 0), (8, 1, 2, 0)]
)
def test_convolutions_have_derivatives_forward_and_backward(size, k, stride, pad):
  """Also backward over backward, which R1 needs; a custom gradient would lose forward mode."""
  x, kernel, dx = normal(0, 2, size, size, 3), normal(1, k, k, 3, 4), normal(2, 2, size, size, 3)
  conv = lambda x: jnp.sin(ops.conv(x, kernel, stride=stride, padding=pad)).sum()  # noqa: E731
  gradient = jax.grad(conv)
  forward = jax.jvp(conv, (x,), (dx,))[1]
  assert float(forward) == pytest.approx(float(jnp.vdot(gradient(x), dx)), rel=1e-4)
  twice = jax.grad(lambda x: jnp.vdot(gradient(x), dx))(x)
  assert error(jax.jvp(gradient, (x,), (dx,))[1], twice) < 1e-4
