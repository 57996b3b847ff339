"""Sidecars and content credentials: what is verified, and what each kind of change is called."""

import json
import pathlib
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image
from reenacting import run

from hybrid_jax import verify
from hybrid_jax.errors import InputError
from hybrid_jax.provenance import credentials, sidecar
from hybrid_jax.reenactment.options import Options
from hybrid_jax.verify import CODES

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
  verdict, told = verify.verify(str(signed))
  assert verdict == 'verified'
  assert 'NOT TRUSTED' in told[1] and 'no timestamp authority' in told[1]
  assert sidecar.sha256(inputs[0]) in told[4] and sidecar.sha256(inputs[1]) in told[5]
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
    verdict, told = verify.verify(str(copy))
    assert verdict == 'altered', (at, told)
    broken += told[1].startswith(('credentials  broken', 'credentials  unreadable'))
  assert broken >= len(places) - 8  # the padding of a signature is not signed


def test_a_remux_strips_the_credentials(copy):
  for name in ('b.mp4', 'b.mkv'):
    remux(copy, copy.with_name(name))
    verdict, told = verify.verify(str(copy.with_name(name)), str(sidecar.place(copy)))
    assert verdict == 'remuxed' and told[1].startswith('credentials  none'), told


def test_without_its_sidecar(copy):
  sidecar.place(copy).unlink()
  verdict, told = verify.verify(str(copy))
  assert verdict == 'no sidecar' and 'credentials are valid' in told[2]
  remux(copy, copy.with_name('b.mp4'))
  verdict, told = verify.verify(str(copy.with_name('b.mp4')))
  assert verdict == 'no sidecar' and 'nothing vouches' in told[2]


def test_a_sidecar_that_tells_another_story(copy):
  place = sidecar.place(copy)
  written = json.loads(place.read_text())
  written['record']['source']['name'] = 'somebody.png'
  place.write_text(json.dumps(written))
  verdict, told = verify.verify(str(copy))
  assert verdict == 'altered' and 'different stories' in told[2]


@pytest.mark.parametrize('field', ['format', 'result', 'record'])
def test_a_damaged_sidecar(copy, field):
  place = sidecar.place(copy)
  written = json.loads(place.read_text())
  for other in ({**written, field: 'x'}, {k: v for k, v in written.items() if k != field}, []):
    place.write_text(json.dumps(other))
    with pytest.raises(InputError, match='is no sidecar of a result'):
      verify.verify(str(copy))
  for of in ('x', None):
    place.write_text(json.dumps(written | {'record': {'source': of}}))
    with pytest.raises(InputError, match='is no sidecar of a result'):
      verify.verify(str(copy))
  written['result']['bytes'] = {}
  place.write_text(json.dumps(written))
  with pytest.raises(InputError, match='different files'):
    verify.verify(str(copy))


def test_what_is_no_result(tmp_path):
  (tmp_path / 'text.mp4').write_text('no video')
  assert verify.verify(str(tmp_path / 'text.mp4'))[0] == 'no sidecar'
  with pytest.raises(InputError, match='give a file'):
    verify.verify('/')
  assert verify.verify(f'{tmp_path}/.')[0] == 'no sidecar'


def test_unsigned_files_have_the_sidecar_alone(model, inputs, tmp_path, capsys):
  path = tmp_path / 'a.mkv'
  run(model, inputs, path, codec='ffv1', certificate='test')
  assert 'credentials are not put into FFV1' in capsys.readouterr().out
  verdict, told = verify.verify(str(path))
  assert verdict == 'verified' and told[1].startswith('credentials  none')
  remux(path, tmp_path / 'b.mkv')
  assert verify.verify(str(tmp_path / 'b.mkv'), str(sidecar.place(path)))[0] == 'remuxed'
  whole = path.read_bytes()
  for at in (len(whole) // 2, whole.index(b'synthetic video')):  # its pictures; its comment
    path.write_bytes(whole)
    flip(path, at)
    assert verify.verify(str(path))[0] == 'altered'


def test_a_folder_of_pictures(model, inputs, tmp_path):
  folder = tmp_path / 'out'
  run(model, inputs, folder, certificate='test')
  assert verify.verify(str(folder))[0] == 'verified'
  picture = folder / '000003.png'
  assert credentials.check(picture)[0].is_ == 'untrusted'
  whole = picture.read_bytes()
  flip(picture, len(whole) // 2)
  assert verify.verify(str(folder))[0] == 'altered'
  picture.write_bytes(whole)
  with Image.open(picture) as image:
    image.save(picture)
  assert verify.verify(str(folder))[0] == 'remuxed'
  picture.unlink()
  verdict, told = verify.verify(str(folder))
  assert verdict == 'altered' and 'missing: 000003.png' in told[0]


@pytest.mark.parametrize('suffix', ['.mov', '.gif', '.png'])
def test_every_kind_that_is_signed(signed, tmp_path, suffix):
  path, record = tmp_path / f'a{suffix}', {'made': 'a test', 'number': 1}
  if suffix == '.mov':
    remux(signed, path)
  else:
    Image.fromarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3)).save(path)
  assert credentials.check(path)[0].is_ == 'none'
  credentials.sign(path, credentials.test_signer(), record, title='a', composite=True)
  found, read = credentials.check(path)
  assert found.is_ == 'untrusted' and read == record
  flip(path, path.stat().st_size - 40)
  assert credentials.check(path)[0].is_ == 'broken'


def test_a_certificate_of_ones_own_and_trust(signed, tmp_path):
  signer = credentials.test_signer()
  (tmp_path / 'chain.pem').write_bytes(signer.chain)
  (tmp_path / 'key.pem').write_bytes(signer.key)
  opened = credentials.open_signer(str(tmp_path / 'chain.pem'), str(tmp_path / 'key.pem'))
  assert opened == signer
  root = b'-----BEGIN' + signer.chain.split(b'-----BEGIN')[2]
  (tmp_path / 'root.pem').write_bytes(root)
  assert credentials.check(signed, str(tmp_path / 'root.pem'))[0].is_ == 'trusted'
  (tmp_path / 'garbage.pem').write_text('no certificate')
  with pytest.raises(InputError, match='garbage.pem: no certificates'):
    credentials.check(signed, str(tmp_path / 'garbage.pem'))
  credentials.test_signer.cache_clear()
  (tmp_path / 'other.pem').write_bytes(credentials.test_signer().key)
  (tmp_path / 'text.pem').write_text('no certificate')
  for certificate, key, message in (
    ('chain.pem', '', 'needs --key'),
    ('', 'key.pem', 'needs --certificate'),
    ('chain.pem', 'other.pem', 'is not the key'),
    ('gone.pem', 'key.pem', 'gone.pem: cannot be read'),
    ('text.pem', 'key.pem', 'is no PEM certificate'),
    ('chain.pem', 'text.pem', 'is no PEM key'),
  ):
    with pytest.raises(InputError, match=message):
      credentials.open_signer(*(name and str(tmp_path / name) for name in (certificate, key)))


def test_the_command(copy):
  command = [sys.executable, '-m', 'hybrid_jax.verify']
  call = lambda *args: subprocess.run([*command, *args], capture_output=True, text=True)  # noqa: E731
  told = call(str(copy))
  assert told.returncode == 0 and 'VERIFIED' in told.stdout
  sidecar.place(copy).write_text('{}')
  told = call(str(copy))
  assert told.returncode == 1 and told.stderr.startswith('error: ') and told.stderr.count('\n') == 1
  assert len(set(CODES.values())) == len(CODES) and 1 not in CODES.values()


def test_no_folder_is_told(inputs):
  """Whatever option holds a path is left out of the record."""
  from hybrid_jax.provenance import record as provenance

  paths = {'source', 'driving', 'output', 'workdir', 'face_detector', 'save_crops', 'key'}
  assert paths <= provenance._PRIVATE and provenance._PRIVATE - {'directions'} <= {
    *Options.__dataclass_fields__
  }
  assert pathlib.Path(inputs[0]).name == provenance._file(inputs[0])['name']
