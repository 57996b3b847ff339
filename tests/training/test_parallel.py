"""How the state is split over devices, and checkpoints that move between numbers of devices."""

import os
import pathlib
import signal
import sys

import cluster
import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from small import a_state

from hybrid_jax.errors import InputError
from hybrid_jax.training import checkpoint, loop, parallel, triplets

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
  ('shape', 'devices', 'axis'),
  [
    ((3, 3, 64, 128), 4, 3),
    ((3, 3, 128, 64), 4, 2),
    ((64, 64), 2, 1),  # of equal axes the last
    ((66, 64), 4, 1),  # 66 is larger, but 4 does not divide it
    ((2048,), 8, 0),
    ((3, 3, 66, 33), 4, None),
    ((64,), 4, None),  # small
    ((), 2, None),
  ],
)
def test_the_largest_axis_that_the_devices_divide_is_split(shape, devices, axis):
  expected = PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, 'data')
  assert parallel.partition(shape, devices) == expected


def test_two_devices_hold_half_of_a_large_array():
  tree = {'a': jnp.zeros((64, 64)), 'b': jnp.zeros(64)}
  shapes = parallel.sharded(tree, parallel.make_mesh(2))
  assert parallel.bytes_per_device(shapes) == 4 * (64 * 64 // 2 + 64)
  placed = jax.device_put(tree, parallel.of(shapes))
  assert parallel.bytes_per_device(placed) == parallel.bytes_per_device(shapes)


def test_auto_asks_the_cluster(monkeypatch):
  calls = []
  monkeypatch.setattr(jax.distributed, 'initialize', lambda *args: calls.append(args))
  parallel.join('auto', None, None)
  parallel.join('host:1234', 2, 1)
  parallel.join('', None, None)
  assert calls == [(), ('host:1234', 2, 1)]


def test_a_cluster_that_is_none_is_named_in_one_line(monkeypatch):
  def refuse():
    raise ValueError('coordinator_address should be defined.\nMore.')

  monkeypatch.setattr(jax.distributed, 'initialize', refuse)
  with pytest.raises(InputError, match='^--coordinator=auto: coordinator_address') as raised:
    parallel.join('auto', None, None)
  assert len(str(raised.value).splitlines()) == 1
  for arguments in (('host:1234', None, None), ('host:1234', 2, 2), ('', 2, 0)):
    with pytest.raises(InputError, match='--coordinator=HOST:PORT'):
      parallel.join(*arguments)


def test_of_several_processes_the_signal_is_left_to_jax(monkeypatch):
  before = signal.getsignal(signal.SIGTERM)
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(
    'jax.experimental.multihost_utils.reached_preemption_sync_point', lambda step: step == 3
  )
  with loop.stop_on_signal() as stopped:
    assert signal.getsignal(signal.SIGTERM) is before
    assert [stopped(step) for step in (1, 2, 3)] == ['', '', 'SIGTERM']
  monkeypatch.setattr(jax, 'process_count', lambda: 1)
  with loop.stop_on_signal() as stopped:
    assert stopped(1) == ''
    signal.raise_signal(signal.SIGINT)
    assert stopped(2) == 'SIGINT'


LOOP = """
import time, jax, numpy as np
from hybrid_jax.training import loop, parallel

parallel.join('auto', None, None)
mesh = parallel.make_mesh()
total = jax.jit(lambda x: x.sum(), out_shardings=parallel.shardings(mesh)[1])
with loop.stop_on_signal() as stopped:
  for step in range(1, 600):
    assert total(parallel.put_batch(np.ones(2, np.float32), mesh)) == 4
    if step == 2:
      print('ready', flush=True)
    if name := stopped(step):
      print(name, step, flush=True)
      break
    time.sleep(0.05 * (1 + jax.process_index()))
"""


def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step():
  first, second = cluster.start(os.getpid(), [sys.executable, '-c', LOOP], cwd=ROOT)
  while (line := second.stdout.readline()) and line.strip() != 'ready':
    pass
  second.send_signal(signal.SIGTERM)
  outputs = [process.communicate(timeout=300)[0].splitlines()[-1] for process in (first, second)]
  assert first.returncode == second.returncode == 0
  assert outputs[0] == outputs[1] and outputs[0].startswith('SIGTERM ')


def an_iterator():
  return triplets.Batches(grain.MapDataset.range(9), workers=0)


def test_a_state_saved_on_four_devices_is_restored_on_one_two_and_four(tmp_path):
  state = a_state(0)
  numbers = lambda s: jax.device_get(s.replace(key=jax.random.key_data(s.key)))  # noqa: E731
  split = jax.device_put(state, parallel.of(parallel.sharded(state, parallel.make_mesh(4))))
  kernel = split.encoder['params']['kernel']
  assert kernel.addressable_shards[0].data.shape == (3, 3, 16, 8)
  with checkpoint.manager(str(tmp_path)) as checkpoints:
    checkpoint.save(checkpoints, split, an_iterator())
    checkpoints.wait_until_finished()
    for devices in (1, 2, 4):
      shapes = parallel.sharded(jax.eval_shape(lambda: a_state(0)), parallel.make_mesh(devices))
      restored = checkpoint.restore(checkpoints, shapes, an_iterator())
      jax.tree.map(np.testing.assert_array_equal, numbers(restored), numbers(state))
      assert restored.encoder['params']['kernel'].sharding.shard_shape((3, 3, 16, 32))[3] == (
        32 // devices
      )
  # As `reenact` reads it: whole, on one device, which a process of `jobs` chooses.
  with jax.default_device(jax.devices()[2]):
    _, encoder = checkpoint.restore_encoder(str(tmp_path), jax.eval_shape(lambda: state.encoder))
  assert {x.devices().pop() for x in jax.tree.leaves(encoder)} == {jax.devices()[2]}
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(encoder), numbers(state).encoder)
