"""Sidecars and content credentials: what is verified, and what each kind of change is called."""

import json
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image
from reenacting import run

from hybrid_jax import environment
from hybrid_jax.errors import InputError
from hybrid_jax.provenance import credentials, record, sidecar
from hybrid_jax.provenance.verification import VERDICTS, verify
from hybrid_jax.reenactment.options import Options
from hybrid_jax.verify import EXIT_CODES

pytest.importorskip('c2pa', reason='content credentials need the extra c2pa')


@pytest.fixture(scope='module')
def signed(model, inputs, tmp_path_factory):
  """A signed MP4 with its sidecar."""
  path = tmp_path_factory.mktemp('signed') / 'a.mp4'
  run(model, inputs, path, certificate='test')
  return path


@pytest.fixture
def copy(signed, tmp_path):
  """The same in a folder of its own."""
  for path in (signed, sidecar.place(signed)):
    (tmp_path / path.name).write_bytes(path.read_bytes())
  return tmp_path / signed.name


def remux(path, target):
  """Copies every packet into another file."""
  with av.open(str(path)) as source, av.open(str(target), 'w') as sink:
    stream = sink.add_stream_from_template(source.streams.video[0])
    for packet in source.demux(video=0):
      if packet.dts is not None:
        packet.stream = stream
        sink.mux(packet)


def flip(path, at):
  data = bytearray(path.read_bytes())
  data[at] ^= 1
  path.write_bytes(data)


def test_a_signed_output_verifies(signed, inputs):
  found = verify(str(signed))
  assert found.verdict == 'verified'
  lines = found.lines()
  assert lines[0].startswith('sidecar      intact: ')
  assert 'NOT TRUSTED' in lines[1] and 'no timestamp authority' in lines[1]
  assert environment.sha256(inputs[0]) in lines[4] and environment.sha256(inputs[1]) in lines[5]
  record = json.loads(sidecar.place(signed).read_text())['record']
  with av.open(str(signed)) as container:
    assert json.loads(container.metadata['comment']) == record
  assert str(signed.parent) not in json.dumps(record)  # no folders of this machine


def test_each_flipped_byte_is_an_alteration(copy):
  whole, broken = copy.read_bytes(), 0
  places = [*range(40, 4000, 131), *np.linspace(4000, len(whole) - 1, 12).astype(int).tolist()]
  for at in places:
    copy.write_bytes(whole)
    flip(copy, at)
    found = verify(str(copy))
    assert found.verdict == 'altered', (at, found)
    broken += found.credentials.status in ('broken', 'unreadable')
  assert broken >= len(places) - 8  # the padding of a signature is not signed


def test_a_remux_strips_the_credentials(copy):
  for name in ('b.mp4', 'b.mkv'):
    remux(copy, copy.with_name(name))
    found = verify(str(copy.with_name(name)), str(sidecar.place(copy)))
    assert found.verdict == 'remuxed' and found.credentials.status == 'none', found


def test_without_its_sidecar(copy):
  sidecar.place(copy).unlink()
  found = verify(str(copy))
  assert found.verdict == 'no sidecar' and 'credentials are valid' in found.reason
  remux(copy, copy.with_name('b.mp4'))
  found = verify(str(copy.with_name('b.mp4')))
  assert found.verdict == 'no sidecar' and 'nothing vouches' in found.reason


def test_a_sidecar_that_contradicts_the_credentials(copy):
  place = sidecar.place(copy)
  written = json.loads(place.read_text())
  written['record']['source']['name'] = 'somebody.png'
  place.write_text(json.dumps(written))
  found = verify(str(copy))
  assert found.verdict == 'altered' and 'contradict each other' in found.reason


@pytest.mark.parametrize('field', ['format', 'result', 'record'])
def test_a_damaged_sidecar(copy, field):
  place = sidecar.place(copy)
  written = json.loads(place.read_text())
  for other in ({**written, field: 'x'}, {k: v for k, v in written.items() if k != field}, []):
    place.write_text(json.dumps(other))
    with pytest.raises(InputError, match='is not a sidecar'):
      verify(str(copy))
  for of in ('x', None):
    place.write_text(json.dumps(written | {'record': {'source': of}}))
    with pytest.raises(InputError, match='is not a sidecar'):
      verify(str(copy))
  written['result']['bytes'] = {}
  place.write_text(json.dumps(written))
  with pytest.raises(InputError, match='different files'):
    verify(str(copy))


def test_what_is_no_result(tmp_path):
  (tmp_path / 'text.mp4').write_text('no video')
  assert verify(str(tmp_path / 'text.mp4')).verdict == 'no sidecar'
  with pytest.raises(InputError, match='give a file'):
    verify('/')
  assert verify(f'{tmp_path}/.').verdict == 'no sidecar'


def test_unsigned_files_have_the_sidecar_alone(model, inputs, tmp_path, capsys):
  path = tmp_path / 'a.mkv'
  run(model, inputs, path, codec='ffv1', certificate='test')
  assert 'credentials are not put into FFV1' in capsys.readouterr().out
  found = verify(str(path))
  assert found.verdict == 'verified' and found.credentials.status == 'none'
  remux(path, tmp_path / 'b.mkv')
  assert verify(str(tmp_path / 'b.mkv'), str(sidecar.place(path))).verdict == 'remuxed'
  whole = path.read_bytes()
  for at in (len(whole) // 2, whole.index(b'synthetic video')):  # its pictures; its comment
    path.write_bytes(whole)
    flip(path, at)
    assert verify(str(path)).verdict == 'altered'


def test_a_folder_of_pictures(model, inputs, tmp_path):
  folder = tmp_path / 'out'
  run(model, inputs, folder, certificate='test')
  assert verify(str(folder)).verdict == 'verified'
  picture = folder / '000003.png'
  assert credentials.check(picture)[0].status == 'untrusted'
  whole = picture.read_bytes()
  flip(picture, len(whole) // 2)
  assert verify(str(folder)).verdict == 'altered'
  picture.write_bytes(whole)
  with Image.open(picture) as image:
    image.save(picture)
  assert verify(str(folder)).verdict == 'remuxed'
  picture.unlink()
  found = verify(str(folder))
  assert found.verdict == 'altered' and 'missing: 000003.png' in found.sidecar.message


@pytest.mark.parametrize('suffix', ['.mov', '.gif', '.png'])
def test_every_kind_that_is_signed(signed, tmp_path, suffix):
  path, record = tmp_path / f'a{suffix}', {'made': 'a test', 'number': 1}
  if suffix == '.mov':
    remux(signed, path)
  else:
    Image.fromarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3)).save(path)
  assert credentials.check(path)[0].status == 'none'
  credentials.sign(path, credentials.test_signer(), record, title='a', composite=True)
  found, read = credentials.check(path)
  assert found.status == 'untrusted' and read == record
  flip(path, path.stat().st_size - 40)
  assert credentials.check(path)[0].status == 'broken'


def test_a_certificate_of_ones_own_and_trust(signed, tmp_path):
  signer = credentials.test_signer()
  (tmp_path / 'chain.pem').write_bytes(signer.chain)
  (tmp_path / 'key.pem').write_bytes(signer.key)
  opened = credentials.load_signer(str(tmp_path / 'chain.pem'), str(tmp_path / 'key.pem'))
  assert opened == signer
  root = b'-----BEGIN' + signer.chain.split(b'-----BEGIN')[2]
  (tmp_path / 'root.pem').write_bytes(root)
  assert credentials.check(signed, str(tmp_path / 'root.pem'))[0].status == 'trusted'
  (tmp_path / 'garbage.pem').write_text('no certificate')
  with pytest.raises(InputError, match='garbage.pem: no PEM certificates'):
    credentials.check(signed, str(tmp_path / 'garbage.pem'))
  credentials.test_signer.cache_clear()
  (tmp_path / 'other.pem').write_bytes(credentials.test_signer().key)
  (tmp_path / 'text.pem').write_text('no certificate')
  for certificate, key, message in (
    ('chain.pem', '', 'needs --key'),
    ('', 'key.pem', 'needs --certificate'),
    ('chain.pem', 'other.pem', 'is not the key'),
    ('gone.pem', 'key.pem', 'gone.pem: cannot be read'),
    ('text.pem', 'key.pem', 'is not a PEM certificate'),
    ('chain.pem', 'text.pem', 'is not a PEM key'),
  ):
    with pytest.raises(InputError, match=message):
      credentials.load_signer(*(name and str(tmp_path / name) for name in (certificate, key)))


def test_the_command(copy):
  command = [sys.executable, '-m', 'hybrid_jax.verify']
  call = lambda *args: subprocess.run([*command, *args], capture_output=True, text=True)  # noqa: E731
  process = call(str(copy))
  assert process.returncode == 0 and 'VERIFIED' in process.stdout
  sidecar.place(copy).write_text('{}')
  process = call(str(copy))
  assert (
    process.returncode == 1
    and process.stderr.startswith('error: ')
    and process.stderr.count('\n') == 1
  )
  assert set(EXIT_CODES) == set(VERDICTS)
  assert len(set(EXIT_CODES.values())) == len(EXIT_CODES) and 1 not in EXIT_CODES.values()


def test_the_record_names_no_folder():
  """Every option that holds a path is left out of the record."""
  paths = {'source', 'driving', 'output', 'workdir', 'face_detector', 'save_crops', 'key'}
  assert paths <= record.PRIVATE and record.PRIVATE - {'directions'} <= {
    *Options.__dataclass_fields__
  }
  files = {of: (f'/home/me/{of}.mp4', '0' * 64) for of in ('source', 'driving')}
  options = {name: f'/home/me/{name}' for name in record.PRIVATE} | {'crf': 16}
  text = json.dumps(record.record(files, {'encoder': '1' * 64}, {}, options))
  assert '/home' not in text and 'source.mp4' in text and '"crf": 16' in text


def test_the_keys_of_a_record(signed):
  """Files that were written before must stay verifiable, and other programs read these keys."""
  written = json.loads(sidecar.place(signed).read_text())
  assert list(written) == ['format', 'result', 'record', 'credentials', 'written', 'figures']
  assert written['credentials'] == 'within the file'
  record = written['record']
  assert list(record) == [
    'made', 'hybrid_jax', 'source', 'driving', 'weights', 'config_sha256', 'options', 'versions'
  ]  # fmt: skip
  assert set(record['weights']) == {'encoder_sha256', 'generator_sha256'}
  assert set(record['source']) == {'name', 'sha256'}
  assert set(record['versions']) == {
    'python', 'jax', 'flax', 'numpy', 'av', 'opencv-python-headless', 'c2pa-python'
  }  # fmt: skip
