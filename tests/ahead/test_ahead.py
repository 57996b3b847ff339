"""Programs for devices that are not here: reading of what a compiler says, and a TPU's compiler."""

import importlib.util
import json
import subprocess
import sys

import jax
import pytest

from hybrid_jax.ahead import costs, devices, programs
from hybrid_jax.errors import InputError
from hybrid_jax.models.ops import adaptive_avg_pool
from hybrid_jax.training import parallel

TPU = """
ENTRY %main {
  %fusion.12 = f32[8,64]{1,0} fusion(%a, %b), kind=kOutput, metadata={op_name="jit(draw)/generator/layers_3/conv"}, backend_config={"estimated_cycles":"300"}
  %copy.1 = f32[8,64]{1,0} copy(%a), metadata={op_name="jit(step)/transpose(jvp(Encoder))/body_2/conv"}, backend_config={"estimated_cycles":"100"}
  ROOT %fusion.13 = f32[8,64]{1,0} fusion(%a, %b), metadata={op_name="jit(draw)/generator/layers_3/conv"}, backend_config={"estimated_cycles":"50"}
}
"""  # noqa: E501
GPU = """
ENTRY %main (a: bf16[4,8], b: f32[8]) -> f32[4] {
  %a = bf16[4,8]{1,0} parameter(0)
  %b = f32[8]{0} parameter(1)
  %both = (bf16[4,8]{1,0}, f32[8]{0}) tuple(%a, %b)
  %loop_fusion = f32[4,8]{1,0} fusion(%a, %b), kind=kLoop, metadata={op_name="jit(f)/jit(main)/mul"}
  %both.1 = (f32[4]{0}, s8[33554432]{0}) custom-call(%loop_fusion), custom_call_target="x"
  ROOT %sum = f32[4]{0} get-tuple-element(%both.1), index=0
}
"""


@pytest.fixture(autouse=True)
def platforms():
  """Compiling for another device keeps JAX on the CPU, which later tests must not see."""
  before = jax.config.jax_platforms
  yield
  jax.config.update('jax_platforms', before)


def test_cycles_are_added_by_layer():
  operations = costs.cycles(TPU)
  assert [(o.cost, o.kind) for o in operations] == [(300, 'fusion'), (100, 'copy'), (50, 'fusion')]
  assert costs.by_layer(operations) == [
    ('generator/layers_3/conv', 350), ('Encoder/body_2/conv, backward', 100)
  ]  # fmt: skip


def test_a_kernel_moves_what_it_reads_and_writes():
  fused, called = costs.traffic(GPU)
  assert fused.cost == 4 * 8 * 2 + 8 * 4 + 4 * 8 * 4  # bf16 and float32 in, float32 out
  assert called.cost == 4 * 8 * 4 + 4 * 4  # without the memory it works in
  assert (fused.layer, called.layer) == ('mul', 'the compiler')


@pytest.mark.parametrize('name', ['v5e', 'v99:2x2', 'cpu', 'h200', ''])
def test_an_unknown_topology_is_refused(name):
  with pytest.raises(InputError, match='--topology='):
    devices.target(name)


@pytest.mark.parametrize(
  ('error', 'installed', 'text'),
  [
    ('INVALID_ARGUMENT: layout is not divisible', True, 'libtpu refuses it; take for example v5e:'),
    ('JAX TPU support not installed', False, r'in the extra \[tpu\]: pip install -e .\.\[tpu\]'),
    ('open /tmp/libtpu_lockfile', True, 'another process uses libtpu'),
  ],
)
def test_a_refused_topology_is_told_apart_from_a_missing_compiler(
  monkeypatch, error, installed, text
):
  def refuse(*_, **__):
    raise RuntimeError(error)

  monkeypatch.setattr(devices.os, 'environ', {})
  monkeypatch.setattr('jax.experimental.topologies.get_topology_desc', refuse)
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: installed or None)
  with pytest.raises(InputError, match=text) as raised:
    devices.target('v5e:3x7')
  assert ('pip install' in str(raised.value)) != installed
  if not installed:
    with pytest.raises(InputError, match=r'in the extra \[cuda\]: pip install -e .\.\[cuda\].$'):
      devices.target('h100')


def doctor(*options):
  command = [sys.executable, '-m', 'hybrid_jax.doctor', '--config=configs/pretrain.py:tiny']
  return subprocess.run([*command, *options], capture_output=True, text=True)


def test_a_device_that_cannot_be_compiled_for_is_named_in_one_line(tmp_path):
  run = doctor('--topology=v99:2x2')
  assert run.returncode == 1 and run.stderr.startswith('error: --topology=v99:2x2: give v4:')
  assert len(run.stderr.splitlines()) == 1
  run = doctor('--topology=v5e:1x1', f'--output={tmp_path}/none/x.json')
  assert run.returncode == 1 and 'no such folder' in run.stderr


@pytest.mark.skipif(
  not any(map(importlib.util.find_spec, devices.CUDA_PLUGINS)), reason='no CUDA plug-in of JAX'
)
@pytest.mark.parametrize(('size', 'out'), [(188, 112), (37, 12)])
def test_pooling_in_overlapping_windows_compiles_with_triton_products(size, out):
  """Of the crop that ArcFace sees; nothing is tuned, so that the compiler takes its first tiles."""
  mesh = devices.target('h100').mesh
  x = jax.ShapeDtypeStruct((24, size, size, 3), 'float32')
  x = programs.placed(x, parallel.shardings(mesh)[1])
  pool = jax.jit(jax.grad(lambda x: (adaptive_avg_pool(x, out) ** 2).sum()))
  pool.lower(x).compile(compiler_options={'xla_gpu_autotune_level': 0})


@pytest.mark.skipif(not importlib.util.find_spec('libtpu'), reason='libtpu is not installed')
def test_a_small_generator_fits_one_v5e(tmp_path):
  run = doctor('--topology=v5e:1x1', '--program=generator', f'--output={tmp_path}/x.json')
  assert run.returncode == 0, run.stderr
  found = json.loads((tmp_path / 'x.json').read_text())
  assert found['fits'] and found['unit'] == 'cycles' and found['devices'] == 1
  assert found['cost'] > 1e4 and 0 < found['arguments'] < found['memory']
  assert any('generator' in layer.lower() for layer, _ in found['top'])
