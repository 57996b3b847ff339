"""Workdirs in an object store: a run that is killed goes on there as on a file system."""

import csv
import json
import sys
import time

import jax
import numpy as np
import pytest
import store
from etils import epath
from small import small_config

from hybrid_jax import media
from hybrid_jax.errors import InputError
from hybrid_jax.media import stills
from hybrid_jax.method import networks
from hybrid_jax.training import checkpoint, loop, triplets
from hybrid_jax.training.logs import Table, Trace


@pytest.fixture(scope='module')
def bucket():
  with store.emulator():
    yield epath.Path(store.BUCKET)


class Killed(Exception):
  pass


def killed_after(steps):
  """A `Progress` of a run that dies when it begins a later step, its last checkpoint written."""

  def progress(items, caption, total):
    for item in items:
      if item == steps and total == 3:
        time.sleep(2)
        raise Killed
      yield item

  return progress


def rows(path):
  table = list(csv.DictReader(path.read_text().splitlines()))
  return [{k: v for k, v in row.items() if 'per_second' not in k} for row in table]


def test_a_killed_run_goes_on_in_a_store(bucket, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'clu', None)  # TensorFlow's client would ask Google itself
  config = small_config(num_steps=3, checkpoint_steps=2, sample_steps=3, val_steps=3, val_batches=1)
  config.data.rendered_people = 4
  run = bucket / 'runs' / 'a'
  with pytest.raises(Killed):
    loop.train(config, str(run), progress=killed_after(2))
  assert [path.name for path in (run / 'checkpoints').iterdir()] == ['2']
  loop.train(config, str(run))
  loop.train(config, str(tmp_path))
  for name in ('metrics.csv', 'validation.csv'):
    assert rows(run / name) == rows(tmp_path / name)  # every digit
  best = json.loads((run / 'best.json').read_text())
  assert best == json.loads((tmp_path / 'best.json').read_text()) and best['step'] == 3
  for name in ('samples/0000003.png', 'versions.json', 'config.json'):
    assert (run / name).stat().length == (tmp_path / name).stat().st_size
  nets = networks.build(config.model)
  shapes = jax.eval_shape(lambda key: networks.init_encoder(nets, key), jax.random.key(0))
  for folder in (checkpoint.CHECKPOINTS, checkpoint.BEST):
    there, here = (checkpoint.restore_encoder(str(w), shapes, folder) for w in (run, tmp_path))
    jax.tree.map(np.testing.assert_array_equal, there, here)


def test_files_are_written_whole_or_not_at_all(bucket):
  path = bucket / 'files' / 'a.txt'
  with media.replacing(path) as part:
    part.write_text('one')
    assert not path.exists()
  with pytest.raises(Killed), media.replacing(path) as part:
    part.write_text('two')
    raise Killed
  assert path.read_text() == 'one'
  picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
  stills.write_image(bucket / 'files' / 'a.png', picture)
  assert (bucket / 'files' / 'a.png').read_bytes()[1:4] == b'PNG'


def test_a_table_grows_in_a_store_and_is_cut_back(bucket):
  path = bucket / 'table.csv'
  table = Table(path, 0)
  for step in (1, 2, 3):
    table.write(step, {'a': step / 2})
  assert path.read_text() == 'step,a\n1,0.5\n'  # the others wait for the next upload
  table.flush()
  assert path.read_text() == 'step,a\n1,0.5\n2,1\n3,1.5\n'
  table = Table(path, 2)
  table.write(3, {'a': 9.0})
  assert path.read_text() == 'step,a\n1,0.5\n2,1\n3,9\n'


def test_a_profile_is_brought_to_the_store(bucket):
  trace = Trace(f'{store.BUCKET}/traced')
  trace.start()
  jax.block_until_ready(jax.numpy.ones(3) + 1)
  trace.stop()
  found = [name for _, _, names in (bucket / 'traced' / 'profile').walk() for name in names]
  assert any(name.endswith('.xplane.pb') for name in found)


def test_stores_that_cannot_be_reached_are_reported_in_one_line(bucket, monkeypatch):
  def refuse(self):
    raise ConnectionError('no route to host')

  monkeypatch.setattr(type(bucket), 'exists', refuse)
  config = small_config().to_dict()
  for call in (
    lambda: checkpoint.check_config(f'{store.BUCKET}/run', config),
    lambda: triplets.PackedClips(f'{store.BUCKET}/packed', 'train'),
  ):
    with pytest.raises(InputError, match=r'^gs://bucket/.* cannot be reached \(no route to host\)'):
      call()
  with pytest.raises(InputError, match='videos are read from a file system'):
    triplets.find_videos(f'{store.BUCKET}/videos')
