"""Workdirs in an object store: a run that is killed goes on there as on a file system."""

import csv
import sys
import time

import jax
import numpy as np
import outcomes
import pytest
import store
from etils import epath
from small import a_state, small_config, write_clip

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


def killed_after(steps, run):
  """A `Progress` of a run that dies when it begins a later step, its last checkpoint written."""
  written = run / 'checkpoints' / str(steps) / 'commit_success.txt'

  def progress(items, caption, total):
    for item in items:
      if item == steps and total == 3:
        for _ in range(600):  # it is written in the background
          if written.exists():
            break
          time.sleep(0.1)
        raise Killed
      yield item

  return progress


def rows(path):
  table = list(csv.DictReader(path.read_text().splitlines()))
  return [{k: v for k, v in row.items() if 'per_second' not in k} for row in table]


@pytest.mark.slow
def test_a_killed_run_goes_on_in_a_store(bucket, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'clu', None)  # TensorFlow's client would ask Google itself
  for seed in range(2):
    write_clip(tmp_path / f'person{seed}.mp4', seed)
  config = small_config(num_steps=3, checkpoint_steps=2, sample_steps=3)
  config.data.videos = str(tmp_path)
  run = bucket / 'runs' / 'a'
  with pytest.raises(Killed):
    loop.train(config, str(run), progress=killed_after(2, run))
  assert [path.name for path in (run / 'checkpoints').iterdir()] == ['2']
  loop.train(config, str(run))
  here = tmp_path / 'run'
  loop.train(config, str(here))
  assert rows(run / 'metrics.csv') == rows(here / 'metrics.csv')  # every digit
  for name in ('samples/0000003.png', 'versions.json', 'config.json'):
    assert (run / name).stat().length == (here / name).stat().st_size
  nets = networks.build(config.model)
  shapes = jax.eval_shape(lambda key: networks.init_encoder(nets, key), jax.random.key(0))
  there, here = (checkpoint.restore_encoder(str(workdir), shapes) for workdir in (run, here))
  jax.tree.map(np.testing.assert_array_equal, there, here)
  outcomes.write(steps=3, killed_after=2)


def test_the_best_encoder_is_kept_in_a_store(bucket):
  run, state = str(bucket / 'best'), a_state(0)
  for value, step in ((0.5, 3), (0.25, 6)):
    checkpoint.save_best(run, state.replace(step=jax.numpy.asarray(step)), value)
  assert checkpoint.read_best(run, 0) == (6, 0.25)
  shapes = jax.eval_shape(lambda: state.encoder)
  step, encoder = checkpoint.restore_encoder(run, shapes, checkpoint.BEST)
  assert step == 6
  jax.tree.map(np.testing.assert_array_equal, encoder, state.encoder)


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
