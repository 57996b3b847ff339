"""Batches drawn by worker processes: those of one process, also where a run goes on."""

import numpy as np

from hybrid_jax.training import triplets


def clips(people=5, frames=3, size=16):
  rng = np.random.default_rng(0)
  drawn = rng.integers(0, 255, (people, frames, size, size, 3), dtype=np.uint8)
  return triplets.MemoryClips([triplets.Clip(str(k), str(k), x) for k, x in enumerate(drawn)])


def batches(workers, **options):
  return triplets.triplets(clips(), batch_size=2, seed=3, flip=True, workers=workers, **options)


def assert_alike(one, other, count):
  for _ in range(count):
    a, b = next(one), next(other)
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


def test_two_workers_give_the_batches_of_none_also_on_resume():
  alone, shared = batches(0), batches(2)
  assert_alike(alone, shared, 5)
  # A run of two workers goes on with none, and a run of none with two.
  state = shared.get_state()
  assert state == alone.get_state()
  resumed = batches(0)
  resumed.set_state(state)
  assert_alike(resumed, shared, 3)
  shared.set_state(state)
  assert_alike(alone, shared, 3)
  shared.close()


def test_processes_share_each_batch():
  whole, parts = batches(0), [batches(0, process=(k, 2)) for k in range(2)]
  for part in parts:
    part.set_state(b'{"next_index": 4}')
  whole.set_state(b'{"next_index": 4}')
  for _ in range(3):
    together = [next(part)['source'] for part in parts]
    np.testing.assert_array_equal(np.concatenate(together), next(whole)['source'])


def test_states_of_earlier_checkpoints_are_read():
  """Grain's own, indented."""
  one, other = batches(0), batches(0)
  for _ in range(3):
    next(one)
  other.set_state(b'{\n    "next_index": 3\n}')
  assert_alike(one, other, 2)
