"""Tuned models: cached by content, complete or absent, exported, refused for other generators."""

import csv
import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import safetensors.numpy
from reenacting import pixels, run
from small import SIZE

from hybrid_jax import export
from hybrid_jax.errors import InputError
from hybrid_jax.media import composite, stills
from hybrid_jax.method import cma
from hybrid_jax.provenance import sidecar
from hybrid_jax.reenactment import model as inference
from hybrid_jax.reenactment import motion_file, tuning
from hybrid_jax.reenactment import run as reenactment
from hybrid_jax.reenactment.options import Options
from hybrid_jax.weights import key_maps, torch_file

OPTIONS = cma.Options(steps=3)  # as the command is given, so that they share a program


def frames(seed, n=4):
  return np.random.default_rng(seed).integers(0, 255, (n, SIZE, SIZE, 3), np.uint8)


@pytest.fixture(scope='module')
def adjuster(model):
  return tuning.Adjuster(model, OPTIONS)


@pytest.fixture(scope='module')
def kept(adjuster, tmp_path_factory):
  """(folder, tuned model, message) of one adjustment."""
  folder = tmp_path_factory.mktemp('deltas')
  return folder, *adjuster.adjust(frames(0)[0], frames(1), folder)


def delta_in(folder):
  (path,) = folder.glob('*.safetensors')
  return path


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def test_an_adjustment_is_kept_with_its_curve_and_pictures(model, kept):
  folder, tuned, message = kept
  path = delta_in(folder)
  assert str(path) in message and '3 steps' in message
  rows = list(csv.DictReader(path.with_suffix('.csv').open()))
  assert [row['step'] for row in rows] == ['1', '2', '3']
  assert [bool(row['identity_similarity']) for row in rows] == [False, False, True]
  assert 0 < float(rows[2]['perceptual_distance']) and float(rows[2]['identity_similarity']) < 1
  sheet = stills.read_image(path.with_suffix('.png'))
  cells = sheet[26:, -7 * 160 :].reshape(3, 160, 7, 160, 3).swapaxes(1, 2)
  np.testing.assert_array_equal(cells[0, 0], composite.fit(frames(0)[0], (160, 160)))
  assert (cells[1, 1:] != cells[2, 1:]).any() and (cells[1:, 0] == 255).all()
  changed = cma.flat(tuned.G['params'], OPTIONS.tuned)
  assert any((changed[k] != x).any() for k, x in cma.flat(model.G['params'], OPTIONS.tuned).items())


def test_the_same_job_is_read_and_gives_the_same_generator(model, adjuster, kept, monkeypatch):
  folder, tuned, _ = kept
  monkeypatch.setattr(cma.Tuner, 'tune', None)  # nothing is computed
  again, message = adjuster.adjust(frames(0)[0], frames(1), folder)
  assert 'earlier run' in message
  same(again.G, tuned.G)
  assert again.fast is model.fast


def test_anything_else_is_another_job(model, adjuster):
  keys = {adjuster.key(frames(0)[0], frames(1)), adjuster.key(frames(2)[0], frames(1))}
  keys |= {adjuster.key(frames(0)[0], frames(1, 5)), adjuster.key(frames(0)[0], frames(3))}
  other = tuning.Adjuster(model, cma.Options(steps=4))
  keys.add(other.key(frames(0)[0], frames(1)))
  G = model.G | {'w_avg': model.G['w_avg'] + 1}
  moved = tuning.Adjuster(model.with_generator(G, ''), OPTIONS)
  keys.add(moved.key(frames(0)[0], frames(1)))
  assert len(keys) == 6
  assert adjuster.key(frames(0)[0], frames(1)) in keys


def test_jobs_run_through_one_compiled_program(model, adjuster, kept, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  other = dataclasses.replace(OPTIONS, driver_weight=0.3, rate=1e-3, enough_lpips=0.01)
  for seed, count, options in ((5, 3, OPTIONS), (7, 60, OPTIONS), (5, 3, other)):
    clip = frames(seed + 1, count)
    tuning.to_clip(
      model, options, frames(seed)[0], lambda chosen, clip=clip: clip[chosen], np.arange(count)
    )
  deltas = [safetensors.numpy.load_file(x) for x in tuning.cache_folder().glob('*.safetensors')]
  assert len(deltas) == 3
  assert len({x['const'].tobytes() for x in deltas}) == 3  # each with its own options
  assert tuning.Adjuster(model, other).tuner is adjuster.tuner
  assert adjuster.tuner.step._cache_size() == 1


@pytest.mark.parametrize(
  ('side', 'source', 'driver'),
  [(4000, 1024, 1024), (1024, 1024, 1024), (900, 1024, 512), (700, 512, 512), (90, 64, 64),
   (10, 32, 32)],
)  # fmt: skip
def test_a_small_crop_is_not_enlarged_to_the_generators_resolution(side, source, driver):
  model = SimpleNamespace(resolution=1024)
  assert tuning.compared_at(model, side, tuning.ENLARGED) == source
  assert tuning.compared_at(model, side) == driver


def test_inputs_are_cut_at_the_generators_resolution(monkeypatch):
  """Drivers at the size of the smallest of them; what the encoder sees is smaller."""
  seen = {}

  def to_clip(model, options, source, crops, found, progress, folder):
    seen.update(source=source.shape, drivers=[crop.shape for crop in crops(found.tolist())])
    return model, ''

  def clip(*sides):
    squares = np.array([[100, 100, side / 2, 0] for side in sides])
    cut = lambda size: np.zeros((size, size, 3), np.uint8)  # noqa: E731
    return SimpleNamespace(
      sides=2 * squares[:, 2], first_face=0, head=cut, crops=lambda k, size: [cut(size) for _ in k]
    )

  monkeypatch.setattr(tuning, 'to_clip', to_clip)
  inputs = SimpleNamespace(source=clip(800), driving=clip(20, 600, 300))
  options = Options(source='a', driving='b', output='c', cma='cma')
  missing = np.array([True, False, False])  # the small one has no face
  model = SimpleNamespace(resolution=512, size=128)
  reenactment.tune(model, options, inputs, missing, None)
  assert seen == {'source': (512, 512, 3), 'drivers': [(256, 256, 3)] * 2}


def test_a_cancelled_or_broken_run_changes_nothing(model, adjuster, tmp_path, monkeypatch):
  before = jax.device_get(model.G)
  real = cma.Tuner.tune

  def cancelled(self, job, chunk):
    yield next(real(self, job, 2))
    raise KeyboardInterrupt

  def broken(self, job, chunk):
    yield from real(self, job.replace(driver_weight=job.driver_weight * np.nan), chunk)

  def broken_at_last(self, job, chunk):
    (*_, state) = real(self, job, chunk)
    yield state.replace(params=jax.tree.map(lambda x: x * np.nan, state.params))

  for tune, error in (
    (cancelled, KeyboardInterrupt),
    (broken, FloatingPointError),
    (broken_at_last, FloatingPointError),
  ):
    with monkeypatch.context() as patch, pytest.raises(error):
      patch.setattr(cma.Tuner, 'tune', tune)
      adjuster.adjust(frames(0)[0], frames(1), tmp_path)
    assert not list(tmp_path.iterdir())
    same(model.G, before)


def test_the_command_reuses_its_adjustment_and_gives_identical_frames(
  model, inputs, tmp_path, monkeypatch, capsys
):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  given = {'codec': 'ffv1', 'cma': 'cma', 'cma_steps': 3}
  run(model, inputs, tmp_path / 'a.mkv', **given)
  assert capsys.readouterr().out.count('cma: 3 steps, loss') == 1
  run(model, inputs, tmp_path / 'b.mkv', **given)
  assert 'the generator of an earlier run' in capsys.readouterr().out
  np.testing.assert_array_equal(pixels(tmp_path / 'a.mkv'), pixels(tmp_path / 'b.mkv'))
  run(model, inputs, tmp_path / 'c.mkv', codec='ffv1')
  weights = [sidecar.read(f'{tmp_path}/{name}.mkv.json')['record']['weights'] for name in 'abc']
  assert weights[0] == weights[1] != weights[2] and 'adjusted_generator_sha256' in weights[0]
  assert (pixels(tmp_path / 'a.mkv') != pixels(tmp_path / 'c.mkv')).any()


def test_the_api_tunes_as_the_command_does(model, inputs, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  run(model, inputs, tmp_path / 'a.mkv', codec='ffv1', cma='cma', cma_steps=3)
  quiet = {'progress': None, 'batch_size': 4}
  tuned = model.tune(inputs[0], inputs[1], cma_steps=3, **quiet)
  frames_of_tuned = tuned.reenact(*inputs[:2], **quiet).frames
  np.testing.assert_array_equal(frames_of_tuned, pixels(tmp_path / 'a.mkv'))
  assert (frames_of_tuned != model.reenact(*inputs[:2], **quiet).frames).any()
  with pytest.raises(InputError, match='needs the driving clip'):
    model.tune(inputs[0])


def test_pti_needs_no_driving_clip(model, inputs, monkeypatch):
  seen = []

  def to_clip(model, options, head, crops, found, progress, folder):
    seen.append((options.method, head.shape, len(found)))
    return model, ''

  monkeypatch.setattr(tuning, 'to_clip', to_clip)
  model.tune(inputs[0], method='pti', progress=None)
  assert seen == [('pti', (SIZE, SIZE, 3), 0)]


def test_motion_without_frames_is_refused(model, inputs, tmp_path):
  rows = np.zeros((2, sum(model.widths)), np.float32)
  path = str(tmp_path / 'talk.safetensors')
  motion_file.write(
    path, [rows], np.arange(2), time_base='1/25', widths=model.widths, starts=[0],
    model=model.digest(), driving='',
  )  # fmt: skip
  with pytest.raises(InputError, match='--cma=pti'):
    run(model, inputs, tmp_path / 'a.mkv', driving=path, cma='cma')


def test_an_adjusted_generator_is_exported(model, kept, tmp_path, monkeypatch):
  folder, tuned, _ = kept
  monkeypatch.setattr(inference, 'load_model', lambda workdir: model)
  message = export.export('', str(tmp_path / 'g.pt'), 'generator', str(delta_in(folder)))
  assert 'small, adjusted' in message
  read = torch_file.load(tmp_path / 'g.pt')
  tree, _ = key_maps.generator(read['g_ema'], read['latent_avg'])
  same(tree['params'], tuned.G['params'])


def test_files_without_an_adjustment_of_this_model(model, kept, tmp_path):
  path = delta_in(kept[0])
  (tmp_path / 'cut.safetensors').write_bytes(path.read_bytes()[:100])
  safetensors.numpy.save_file({'x': np.ones(2)}, tmp_path / 'other.safetensors')
  for name, message in (
    ('none.safetensors', 'no such file'),
    ('cut.safetensors', 'damaged'),
    ('other.safetensors', 'not an adjustment'),
  ):
    with pytest.raises(InputError, match=message):
      tuning.with_delta(model, tmp_path / name)
  other = model.with_generator(model.G | {'w_avg': model.G['w_avg'] + 1}, 'another')
  with pytest.raises(InputError, match='made for another generator than that of another'):
    tuning.with_delta(other, path)
