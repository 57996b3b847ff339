"""The measurements of each frame, and what the command writes of them."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from reenacting import run

from configs import common
from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import judges
from hybrid_jax.media import stills
from hybrid_jax.method import networks
from hybrid_jax.models.ops import from_uint8
from hybrid_jax.reenactment import motion, quality
from hybrid_jax.reenactment.model import Model
from hybrid_jax.weights import shipped


def rendered_world():
  """A model of the rendered world without weights; only its sizes are used."""
  config = ConfigDict(common.heads())
  return Model(config, networks.build(config.model), {}, {}, 0, 'shipped')


class Finder:
  """Finds a face in bright pictures, with their brightness as its score."""

  def detect(self, rgb):
    score = rgb.mean() / 255
    return [type('Face', (), {'score': score})()] if score > 0.3 else []


@pytest.fixture(scope='module')
def world():
  return rendered_world()


def pictures_of(count):
  noise = np.random.default_rng(0).integers(0, 255, (count, 4, 4, 3), np.uint8)
  levels = np.linspace(0.2, 1, count)[:, None, None, None]  # some too dark for `Finder`
  return (noise.repeat(16, 1).repeat(16, 2) * levels).astype(np.uint8)


def finish(watch, folder, rows):
  """Writes the table of one frame per row of the motion; returns the summary."""
  measured = watch.measured(np.arange(float(len(rows))), rows)
  measured.write(str(folder / 'a.mp4'), None)
  return measured.summary()


def test_identity_is_the_cosine_of_the_judge_whatever_the_batch(world, tmp_path):
  pictures = pictures_of(5)
  watch = quality.Watch(world, pictures[0], None, tmp_path / 'q.txt', 2)
  passed = list(watch.frames(iter(pictures), 0))
  np.testing.assert_array_equal(passed, pictures)
  figures = finish(watch, tmp_path, np.zeros(5, int))
  judge, tree = judges.identity(), shipped.load('judge_identity')
  embeddings = np.asarray(judges.unit(judge.apply(tree, from_uint8(jnp.asarray(pictures)))))
  wanted = embeddings @ embeddings[0]
  table = list(csv.DictReader((tmp_path / 'a.mp4.quality.csv').open()))
  np.testing.assert_allclose([float(row['identity']) for row in table], wanted, atol=1e-4)
  assert float(table[0]['identity']) == pytest.approx(1, abs=1e-4)
  assert figures['identity']['min_frame'] == int(wanted.argmin())
  assert figures['identity_by'] == 'judge of the rendered heads'
  assert {row['confidence'] for row in table} == {'not available'}


def test_a_resumed_run_measures_what_an_uninterrupted_one_does(world, tmp_path):
  pictures = pictures_of(6)
  tables = []
  for name, cuts in (('quiet', (6,)), ('killed', (4, 6))):
    for start, end in zip((0, *[c - 1 for c in cuts[:-1]]), cuts, strict=True):
      watch = quality.Watch(world, pictures[0], Finder(), tmp_path / name, 2)
      list(watch.frames(iter(pictures[start:end]), start))
    tables.append((tmp_path / name).read_text())
  assert tables[0] == tables[1] and len(tables[0].splitlines()) == 6
  scores = [float(line.split()[1]) for line in tables[0].splitlines()]
  brightness = pictures.mean((1, 2, 3)) / 255
  np.testing.assert_allclose(scores, np.where(brightness > 0.3, brightness, 0), atol=1e-6)


def test_jitter_is_that_of_the_summary(world, tmp_path):
  rows = np.random.default_rng(1).standard_normal((9, 4)).cumsum(0).astype(np.float32)
  watch, jitter = (
    quality.Watch(world, pictures_of(1)[0], None, tmp_path / 'q.txt', 2),
    motion.Jitter(),
  )
  np.testing.assert_array_equal(list(watch.motion(jitter(rows))), rows)
  (tmp_path / 'q.txt').write_text('nan nan 1\n' * 9)
  figures = finish(watch, tmp_path, np.arange(9))
  # Root mean squares over 7 turns and 8 steps, where the summary has sums.
  assert figures['jitter'] == pytest.approx(jitter.value * (8 / 7) ** 0.5, abs=1e-3)
  table = list(csv.DictReader((tmp_path / 'a.mp4.quality.csv').open()))
  steps = np.diff(rows, axis=0)
  usual = np.sqrt((steps**2).sum(1).mean())
  wanted = np.linalg.norm(np.diff(steps, axis=0), axis=1) / usual
  assert [row['jitter'] for row in table[:2]] == ['', '']
  np.testing.assert_allclose([float(row['jitter']) for row in table[2:]], wanted, rtol=1e-4)


def test_the_table_ends_at_the_frame_that_is_not_finite(world, tmp_path):
  def broken():
    yield from pictures_of(2)
    raise FloatingPointError('frames 2 to 2 of the result are not finite')

  watch = quality.Watch(world, pictures_of(1)[0], None, tmp_path / 'q.txt', 2)
  with pytest.raises(FloatingPointError):
    list(watch.frames(broken(), 0))
  figures = finish(watch, tmp_path, np.zeros(5, int))
  table = list(csv.DictReader((tmp_path / 'a.mp4.quality.csv').open()))
  assert [row['finite'] for row in table] == ['1', '1', '0'] and figures['finite'] is False


def test_the_command_writes_table_and_picture(model, inputs, tmp_path, capsys):
  """A model with a random ArcFace: identity is not available, and cannot be asked for."""
  run(model, inputs, tmp_path / 'a.mp4', quality=True)
  table = list(csv.DictReader((tmp_path / 'a.mp4.quality.csv').open()))
  assert len(table) == len(inputs[2]) and {row['identity'] for row in table} == {'not available'}
  assert [float(row['seconds']) for row in table] == pytest.approx(
    [float(t) for t in inputs[2]], abs=1e-6
  )
  assert stills.read_image(tmp_path / 'a.mp4.quality.png').std() > 5
  assert 'not available: the model has a random ArcFace' in capsys.readouterr().out
  figures = json.loads((tmp_path / 'a.mp4.json').read_text())['figures']
  assert figures['frames'] == len(table) and figures['identity'] is None
  with pytest.raises(InputError, match='--min-identity=0.5: identity is not available'):
    run(model, inputs, tmp_path / 'b.mp4', min_identity=0.5)


def test_a_frame_below_the_smallest_identity_wanted():
  figures = {'identity': {'mean': 0.9, 'min': 0.4, 'min_frame': 7}}
  assert quality.below(figures, 0.4, 'a.mp4') == quality.below(figures, None, 'a.mp4') == ''
  assert 'identity 0.400 in frame 7, below' in quality.below(figures, 0.41, 'a.mp4')
