"""Devices to compile for: TPUs by libtpu, which needs no TPU, and an H100 by its description."""

import dataclasses
import importlib.util
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from hybrid_jax.errors import InputError

GiB = 2**30
H100 = 'h100'
# Memory (GiB) and clock (GHz) of a chip. Memory: Google's pages on each version. Clock: the peak of
# the same pages over the multiply-adds of the matrix units in a cycle.
TPUS = {'v4': (32, 1.05), 'v5e': (16, 1.5), 'v5p': (95, 1.75), 'v6e': (32, 1.75)}
# A topology of each that libtpu accepts.
EXAMPLES = {'v4': 'v4:2x2x1', 'v5e': 'v5e:1x1 or v5e:2x4', 'v5p': 'v5p:2x2x1', 'v6e': 'v6e:1x1'}
CUDA_PLUGINS = 'jax_cuda12_plugin', 'jax_cuda13_plugin'
BANDWIDTH = 3.35e12  # bytes a second of an H100 SXM, by NVIDIA's data sheet


@dataclasses.dataclass(frozen=True)
class Target:
  """A kind of device, and a mesh of them.

  Attributes:
    name: as the user gave it. mesh: with the axis 'data', as that of a run.
    memory: bytes of a device. clock: cycles a second, 0 on a GPU.
    options: of the compiler.
  """

  name: str
  mesh: Mesh
  memory: int
  clock: float
  options: Mapping[str, Any]


def target(name: str) -> Target:
  """Returns the devices of a topology: 'v5e:2x4' (TPU version and chips), or 'h100'.

  Call it before JAX is used for anything else: the CPU is chosen for all other computations.

  Raises:
    InputError: an unknown topology, or the compiler for it is not installed or in use.
  """
  version, colon, _ = name.partition(':')
  if name == H100:
    return _h100()
  if version not in TPUS or not colon:
    known = ', '.join(f'{version}:...' for version in TPUS)
    raise InputError(f"--topology={name}: give {known} (for example v5e:2x4) or '{H100}'")
  # Otherwise JAX would look for the TPU itself.
  jax.config.update('jax_platforms', 'cpu')
  memory, clock = TPUS[version]
  return Target(name, _mesh(_tpus(name)), memory * GiB, clock * 1e9, {})


def _tpus(name: str) -> list[Any]:
  from jax.experimental import topologies

  # What libtpu would ask of the machine that it runs on; JAX has set them to warnings by now.
  os.environ |= {
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-1',
  }
  try:
    return topologies.get_topology_desc(platform='tpu', topology_name=name).devices
  except (RuntimeError, ValueError) as error:  # of which JAX's own errors are kinds
    if 'lockfile' in str(error):
      reason = 'another process uses libtpu; wait until it has ended'
    elif importlib.util.find_spec('libtpu'):
      reason = f'libtpu refuses it; take for example {EXAMPLES[name.partition(":")[0]]} '
      reason += f'({_first_words(error)})'
    else:
      reason = "a TPU's compiler is in the extra [tpu]: pip install -e '.[tpu]'"
    raise InputError(f'--topology={name}: {reason}') from error


def _h100() -> Target:
  from jax.experimental import topologies

  jax.config.update('jax_platforms', 'cpu')
  # The plug-in asks for a driver otherwise.
  os.environ['JAX_SKIP_CUDA_CONSTRAINTS_CHECK'] = '1'
  description = pathlib.Path(__file__).with_name('h100.txtpb').read_text()
  try:
    devices = topologies.get_topology_desc(
      H100, 'cuda', target_config=description, topology='1x1x1'
    ).devices
  except (RuntimeError, ValueError) as error:
    if any(importlib.util.find_spec(name) for name in CUDA_PLUGINS):
      reason = f"JAX's CUDA plug-in refuses it ({_first_words(error)})"
    else:
      reason = "a GPU's compiler is in the extra [cuda]: pip install -e '.[cuda]'"
    raise InputError(f'--topology={H100}: {reason}') from error
  # Autotuning times kernels on the device.
  options = {'xla_gpu_autotune_level': 0, 'xla_gpu_enable_triton_gemm': False}
  return Target(H100, _mesh(devices), 80 * 10**9, 0.0, options)


def _first_words(error: Exception) -> str:
  return ' '.join(str(error).split())[:200]


def _mesh(devices: list[Any]) -> Mesh:
  return Mesh(np.array(devices), ('data',), axis_types=(AxisType.Auto,))
