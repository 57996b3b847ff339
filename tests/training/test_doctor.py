"""Preflight checks and the doctor: files present, missing, damaged or of another model."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from parity import GOLDEN
from small import small_config

from configs import common
from hybrid_jax.media import containers
from hybrid_jax.method import networks
from hybrid_jax.training import estimate, preflight
from hybrid_jax.training.preflight import weight_files
from hybrid_jax.weights import convert, export, public, shipped

ROOT = pathlib.Path(__file__).resolve().parents[2]


def examined(config) -> dict[str, preflight.Check]:
  """The checks by name, without compiling."""
  checks = list(preflight.examine(config, compile_step=False))
  assert all('\n' not in str(check) and len(str(check)) < 2000 for check in checks)
  named = {check.name: check for check in checks}
  assert len(named) == len(checks)
  return named


def weights_of(config) -> dict[str, preflight.Check]:
  """Those of the weights alone."""
  return {c.name: c for c in weight_files.check_weights(config, networks.build(config.model))}


def statuses(config) -> dict[str, str]:
  return {name: check.status for name, check in examined(config).items()}


def command(*options, **variables) -> tuple[int, list[str]]:
  result = subprocess.run(
    [sys.executable, '-m', 'hybrid_jax.doctor', *options],
    cwd=ROOT,
    env=os.environ | variables,
    capture_output=True,
    text=True,
  )
  assert 'Traceback' not in result.stderr, result.stderr
  return result.returncode, (result.stdout or result.stderr).splitlines()


def test_a_step_is_compiled_and_weighed():
  """The one that other tests compile too."""
  config = small_config()
  config.data.rendered_people = 4
  checks = {check.name: check for check in preflight.examine(config)}
  assert checks['step'].status == 'ok' and 'GFLOP a step' in checks['step'].message
  assert checks['memory'].status == 'ok' and 'GiB of a device' in checks['memory'].message
  assert 'at least' not in checks['memory'].message


def test_the_command_says_yes_to_the_tiny_model(tmp_path):
  options = ('--config=configs/pretrain.py:tiny', '--config.data.rendered_people=4')
  code, lines = command(*options, '--no-compile', f'--workdir={tmp_path / "run"}')
  assert code == 0, lines
  statuses = {line[9:].partition(':')[0]: line.split()[0] for line in lines[:-1]}
  assert statuses == {
    'config': 'ok', 'weights': 'warning', 'data': 'ok', 'workdir': 'ok', 'devices': 'ok',
    'codecs': 'ok', 'memory': 'ok',
  }  # fmt: skip
  assert lines[-1] == '7 checks: 6 ok, 1 warning, 0 missing, 0 wrong: training can start'


def test_the_command_names_the_missing_files_of_the_paper_and_says_no():
  config = ROOT / 'configs' / 'pretrain.py'
  code, lines = command(f'--config={config}', '--no-compile', '--config.data.batch_size=8')
  assert code == 1
  missing = [line for line in lines if line.startswith('missing')]
  assert len(missing) == 5  # four weight files and the clips
  for kind in ('e4e', 'arcface', 'alexnet', 'lpips'):
    file = public.FILES[kind]
    (line,) = [m for m in missing if f'{file.name} of {file.origin}' in m]
    assert line.endswith(f'; terms: {file.terms}')
    assert f'`python -m hybrid_jax.download --file={kind}' in line
  assert 'set one of config.data.videos=DIR' in missing[-1]
  assert ', 5 missing, ' in lines[-1] and lines[-1].endswith(': training cannot start')


@pytest.mark.parametrize(
  ('options', 'says'),
  [
    (['--config=nowhere.py'], 'No such file'),
    (['--config=configs/pretrain.py', '--config.modl=3'], 'no such config field'),
    ([], 'must have a value'),
  ],
)
def test_options_that_cannot_be_read(options, says):
  code, lines = command(*options)
  assert code == 1 and len(lines) == 1 and lines[0].startswith('error: ') and says in lines[0]


def test_shipped_networks_are_found_with_their_hashes(tmp_path, monkeypatch):
  config = ConfigDict(common.heads())
  checks = examined(config)
  assert {check.status for check in checks.values()} == {'ok'}
  for name in ('generator_64', 'perceptual', 'identity'):
    data = (shipped.FOLDER / f'{name}.npz').read_bytes()
    assert hashlib.sha256(data).hexdigest() in checks[f'weights.{name}'].message

  config.model.w_dim = 64
  assert weights_of(config)['agreement'].status == 'wrong'
  config.weights.arcface = 'arcface.pth'
  assert 'are shipped and the others are not' in weights_of(config)['weights'].message
  config = ConfigDict(common.heads())
  monkeypatch.setattr(shipped, 'FOLDER', tmp_path)
  assert weights_of(config)['weights.identity'].status == 'missing'


def test_an_unusable_config_ends_the_checks():
  config = small_config()
  config.model.w_dim = 0
  (check,) = preflight.examine(config)
  assert check.status == 'wrong' and 'config.model.w_dim=0 must be' in check.message


# --- Weight files --------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def e4e_file(tmp_path_factory):
  """A file of random numbers for the model of `files`."""
  nets = networks.build(small_config().model)
  rng = np.random.default_rng(0)

  def drawn(function):
    shapes = jax.eval_shape(function, jax.random.key(0))
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)

  encoder = drawn(lambda key: networks.init_encoder(nets, key))
  generator = drawn(lambda key: networks.random_frozen(nets, key)['generator'])
  path = tmp_path_factory.mktemp('e4e') / 'e4e.pt'
  export.write(str(path), export.e4e(nets, encoder, generator, rows=8))
  return path


@pytest.fixture
def files(e4e_file):
  """A config whose weights are all files that fit."""
  config = small_config()
  config.model.update(arcface_size=112, arcface_units=(3, 4, 14, 3))
  config.data.rendered_people = 4
  lpips = str(GOLDEN / 'lpips_alex_reduced.pt')  # backbone and linear layers in one file
  config.weights.update(
    e4e=str(e4e_file),
    lpips_backbone=lpips,
    lpips_linear=lpips,
    arcface=str(GOLDEN / 'arcface_reduced.pt'),
  )
  return config


def test_files_that_fit(files):
  checks = examined(files)
  assert {check.status for check in checks.values()} == {'ok'}
  assert checks['agreement'].message.endswith('32 px, 8 rows of W+, frames of 32 px')
  for field, kind in (('arcface', 'arcface'), ('e4e', 'e4e'), ('lpips_backbone', 'alexnet')):
    data = pathlib.Path(files.weights[field]).read_bytes()
    message = checks[f'weights.{field}'].message
    assert f'{len(data) / 1e6:.1f} MB, SHA-256 {hashlib.sha256(data).hexdigest()}' in message
    assert message.endswith(f'; {kind}; terms: {public.FILES[kind].terms}')


def test_a_converted_folder_is_known_by_its_manifest(files, tmp_path):
  source = files.weights.arcface
  manifest = convert.convert(source, str(tmp_path / 'arcface'))
  files.weights.arcface = str(tmp_path / 'arcface')
  check = weights_of(files)['weights.arcface']
  assert check.status == 'ok' and manifest['source']['sha256'] in check.message
  (tmp_path / 'arcface' / 'manifest.json').write_text('{')
  assert weights_of(files)['weights.arcface'].status == 'wrong'


def test_parts_that_do_not_agree_with_the_config(files):
  files.model.update(frame_size=64, w_dim=32, arcface_embedding=32, resolution=64)
  files.model.identity_split = (3, 4, 3)
  checks = weights_of(files)
  assert checks['weights.e4e'].status == 'ok' and checks['agreement'].status == 'wrong'
  for says in (
    'generator has resolution 32, the config 64',
    'generator has w_dim 16, the config 32',
    'encoder has frame_size 32, the config 64',
    'encoder has identity_split [2, 3, 3], the config [3, 4, 3]',
    'arcface has embedding 64, the config 32',
  ):
    assert says in checks['agreement'].message
  assert 'memory' not in examined(files)  # no step to compile


@pytest.mark.parametrize(
  ('field', 'left'),
  [('e4e', 0.5), ('e4e', -20), ('arcface', 0), ('arcface', 100), ('arcface', 0.5)],
)
def test_a_truncated_file(files, tmp_path, field, left):
  data = pathlib.Path(files.weights[field]).read_bytes()
  path = tmp_path / 'cut.pt'
  path.write_bytes(data[: int(left * len(data)) if left == 0.5 else left])
  files.weights[field] = str(path)
  checks = weights_of(files)
  assert checks[f'weights.{field}'].status == 'wrong'
  assert str(path) in checks[f'weights.{field}'].message
  assert checks['agreement'].status == 'ok'  # of the others
  assert hashlib.sha256(path.read_bytes()).hexdigest() in checks[f'weights.{field}'].message


def test_files_of_another_kind_or_under_a_wrong_name(files, tmp_path):
  files.weights.arcface, files.weights.lpips_linear = files.weights.e4e, str(tmp_path)
  named = tmp_path / public.FILES['alexnet'].name
  shutil.copy(files.weights.lpips_backbone, named)
  files.weights.lpips_backbone = str(named)
  checks = weights_of(files)
  assert 'of kind e4e, which has no arcface' in checks['weights.arcface'].message
  assert 'not the file of that name' in checks['weights.lpips_backbone'].message
  assert checks['weights.lpips_linear'].status == 'missing'
  assert checks['weights.arcface'].status == checks['weights.lpips_backbone'].status == 'wrong'


# --- The rest ------------------------------------------------------------------------------------


def test_data_and_start(tmp_path):
  config = small_config()
  config.data.videos = str(tmp_path)
  config.data.face_detector = 'nowhere.onnx'
  config.train.init_from = str(tmp_path / 'encoder.npz')
  checks = examined(config)
  assert checks['data'].status == 'missing' and 'no video in it' in checks['data'].message
  assert public.FILES['yunet'].origin in checks['data.face_detector'].message
  assert '--file=yunet=nowhere.onnx`' in checks['data.face_detector'].message
  assert checks['train.init_from'].status == 'missing'

  (tmp_path / 'a').mkdir()
  for name in ('a/1.mp4', 'a/2.mp4', 'b.mov', 'encoder.npz', 'detector.onnx'):
    (tmp_path / name).write_bytes(b'none')
  config.data.face_detector = str(tmp_path / 'detector.onnx')
  checks = examined(config)
  assert checks['data'].message.startswith(f'{tmp_path}: 3 videos of 2 people')
  assert checks['data.face_detector'].status == 'wrong'
  assert checks['train.init_from'].status == 'wrong'
  config.train.init_from = str(tmp_path)
  assert 'no checkpoint in it' in examined(config)['train.init_from'].message

  config.data.packed = str(tmp_path)
  assert 'set one of config.data' in examined(config)['data'].message


def test_a_machine_that_lacks_something(monkeypatch):
  config = small_config()
  config.data.batch_size = jax.device_count() + 1
  assert statuses(config)['devices'] == 'wrong'
  config.data.batch_size = jax.device_count()
  for has, status in ((1, 'wrong'), (None, 'warning'), (1 << 50, 'ok')):
    monkeypatch.setattr(estimate, 'available', lambda has=has: has)
    assert statuses(config)['memory'] == status, has
  monkeypatch.setitem(containers.CODECS, 'h264', 'no such encoder')
  check = examined(config)['codecs']
  assert check.status == 'missing' and check.message.startswith('h264;')
