"""Downloads of public files, from a server on this machine that errs in the ways servers do."""

import dataclasses
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from hybrid_jax.errors import InputError
from hybrid_jax.weights import fetch, public

DATA = np.random.default_rng(0).bytes(10_500)
SHA = hashlib.sha256(DATA).hexdigest()
PAGE = b'\n<!DOCTYPE html><html>Please sign in</html>'


class Handler(http.server.BaseHTTPRequestHandler):
  """Serves DATA; the path says how it errs, `server.seen` collects (path, Range)."""

  protocol_version = 'HTTP/1.1'

  def log_message(self, *arguments):
    pass

  def do_GET(self):
    name, wanted = self.path[1:], self.headers.get('Range', '')
    first = not any(path == self.path for path, _ in self.server.seen)
    self.server.seen.append((self.path, wanted))
    if name in ('404', '403') or (name == 'busy' and first):
      return self.answer(503 if name == 'busy' else int(name), b'no')
    if name in ('login', 'disguised'):
      kind = 'text/html; charset=utf-8' if name == 'login' else 'application/octet-stream'
      return self.answer(200, PAGE, {'Content-Type': kind})
    start = int(wanted[6:-1]) if wanted and name != 'without_ranges' else 0
    if start >= len(DATA):
      return self.answer(416, b'')
    status, extra = 200, {}
    if start:
      status, extra = 206, {'Content-Range': f'bytes {start}-{len(DATA) - 1}/{len(DATA)}'}
    if name == 'other_bytes':
      extra = {'Content-Range': f'bytes 7-{len(DATA) - 1}/{len(DATA)}'}
    cut = {'cut': 3_000, 'without_ranges': 3_000 if first else None, 'dead': 0}.get(name)
    if name == 'dead' and start == 0:
      cut = 2_500
    return self.answer(status, DATA[start:], extra, cut)

  def answer(self, status, body, headers=None, cut=None):
    self.send_response(status)
    for key, value in {'Content-Length': str(len(body)), **(headers or {})}.items():
      self.send_header(key, value)
    self.end_headers()
    self.wfile.write(body[:cut])
    self.close_connection = cut is not None


@pytest.fixture(scope='module')
def server():
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
    server.handle_error = lambda *arguments: None  # clients that close early are part of the tests
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def got(server, tmp_path, monkeypatch):
  """Fetches `name` of the server; returns (new, Ranges that were asked for)."""
  server.seen = []
  monkeypatch.setattr(fetch, 'BLOCK', 1_000)

  def call(name, path='weights/x.pth', **changed):
    fields = {'digest': SHA, 'size': len(DATA)} | changed
    url = f'http://127.0.0.1:{server.server_port}/{name}'
    file = public.PublicFile('x.pth', 'a network', 'https://owner/page', 'MIT', url=url, **fields)
    new = fetch.fetch(file, str(tmp_path / path), call.progress, wait=0)
    return new, [ranges for _, ranges in server.seen]

  call.progress = fetch.silent
  return call


def test_a_file_arrives_whole_and_is_not_fetched_again(got, tmp_path):
  shown = []

  def progress(items, description, total):
    shown.append((description, total, len(items)))
    return items

  got.progress = progress
  assert got('good') == (True, [''])
  assert (tmp_path / 'weights/x.pth').read_bytes() == DATA
  assert os.listdir(tmp_path / 'weights') == ['x.pth']
  assert shown == [('x.pth', 11, 11)]
  assert got('good') == (False, [''])  # no second request
  assert got('good', 'y.pth', digest=SHA[:8], size=0)[0]


def test_a_cut_connection_is_gone_on_with(got, tmp_path):
  new, ranges = got('cut')
  assert new and ranges == ['', 'bytes=3000-', 'bytes=6000-', 'bytes=9000-']
  assert (tmp_path / 'weights/x.pth').read_bytes() == DATA
  assert got('without_ranges', 'y.pth') == (True, [*ranges, '', 'bytes=3000-'])
  assert got('busy', 'z.pth')[0]


def test_a_later_call_goes_on_where_the_last_one_ended(got, tmp_path):
  part = tmp_path / 'weights/x.pth.part'
  with pytest.raises(InputError, match='connection failed .*goes on after 2000 bytes'):
    got('dead')
  assert part.read_bytes() == DATA[:2_000] and not (tmp_path / 'weights/x.pth').exists()
  new, ranges = got('good')
  assert new and ranges[-1] == 'bytes=2000-'
  # Stopped between the last byte and the name.
  part.write_bytes(DATA)
  os.remove(tmp_path / 'weights/x.pth')
  assert got('good')[1][-1] == f'bytes={len(DATA)}-'
  # Without a hash nothing shows that the rest is of the same file.
  part.write_bytes(b'older')
  os.remove(tmp_path / 'weights/x.pth')
  assert got('good', digest='', size=0)[1][-1] == ''
  assert (tmp_path / 'weights/x.pth').read_bytes() == DATA


@pytest.mark.parametrize(
  ('name', 'changed', 'says'),
  [
    ('good', {'digest': 'ab12'}, f'SHA-256 {SHA} instead of ab12: not x.pth'),
    ('good', {'size': 99}, f'{len(DATA)} bytes instead of 99'),
    ('login', {}, 'a web page instead of x.pth'),
    ('disguised', {'digest': '', 'size': 0}, 'a web page instead of x.pth'),
    ('404', {}, 'HTTP 404 Not Found; it may have moved: see https://owner/page'),
    ('403', {}, 'HTTP 403 Forbidden'),
  ],
)
def test_what_is_not_the_file_is_one_line_and_leaves_nothing(got, tmp_path, name, changed, says):
  with pytest.raises(InputError) as caught:
    got(name, **changed)
  text = str(caught.value)
  assert says in text and 'https://owner/page' in text and '\n' not in text
  assert os.listdir(tmp_path / 'weights') == []


def test_a_part_of_another_file_is_dropped(got, tmp_path):
  (tmp_path / 'weights').mkdir()
  part = tmp_path / 'weights/x.pth.part'
  part.write_bytes(b'other bytes')
  with pytest.raises(InputError, match='nothing was kept'):
    got('good')
  assert not part.exists() and got('good')[0]
  (tmp_path / 'y.part').write_bytes(DATA[:10])
  with pytest.raises(InputError, match='other bytes than those that were asked for'):
    got('other_bytes', 'y')


def test_a_server_that_is_not_there(tmp_path):
  file = public.PublicFile(
    'x', 'a network', 'https://owner/page', 'MIT', url='http://127.0.0.1:9/x'
  )
  with pytest.raises(InputError, match='the connection failed .*https://owner/page') as caught:
    fetch.fetch(file, str(tmp_path / 'x'), wait=0)
  assert '\n' not in str(caught.value) and os.listdir(tmp_path) == []


def test_other_files_at_the_path_are_left_alone(got, tmp_path):
  for name, content, says in [('x.pth', b'damaged', 'move it away'), ('mine', PAGE, 'a web page')]:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
      got('good', name)
    assert (tmp_path / name).read_bytes() == content
  # Of the user's own name: perhaps another version, which the networks' readers judge.
  (tmp_path / 'mine').write_bytes(b'another version')
  assert got('good', 'mine') == (False, [])
  with pytest.raises(InputError, match='a folder'):
    got('good', '.')


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full: not Linux')
def test_a_full_disk(got, tmp_path, monkeypatch):
  (tmp_path / 'x.part').symlink_to('/dev/full')
  with pytest.raises(InputError, match='the disk is full; make room'):
    got('good', 'x')
  assert not (tmp_path / 'x').exists()
  usage = types.SimpleNamespace(free=100)
  monkeypatch.setattr(fetch.shutil, 'disk_usage', lambda folder: usage)
  with pytest.raises(InputError, match=f'{len(DATA)} bytes to come, 100 are free'):
    got('good', 'y')
  assert not (tmp_path / 'y.part').exists()


# --- Google Drive --------------------------------------------------------------------------------


@pytest.fixture
def drive(tmp_path, monkeypatch):
  """Fetches a file of Google Drive through a gdown whose `download` is given."""
  file = public.PublicFile('x.pt', 'a network', 'https://owner/page', 'MIT')
  file = dataclasses.replace(file, url='https://drive.google.com/file/d/1aB-_9', digest=SHA)

  def call(download):
    class DownloadError(Exception):
      pass

    errors = types.SimpleNamespace(DownloadError=DownloadError)
    gdown = types.SimpleNamespace(exceptions=errors, download=lambda **o: download(errors, **o))
    monkeypatch.setitem(sys.modules, 'gdown', gdown if download else None)
    return fetch.fetch(file, str(tmp_path / 'x.pt'))

  return call


def test_google_drive_goes_through_gdown(drive, tmp_path):
  def refused(errors, **options):
    raise errors.DownloadError('Cannot retrieve\n the link')

  def arrives(data):
    def download(errors, id, output, resume, **options):
      assert id == '1aB-_9' and resume
      with open(output, 'wb') as stream:
        stream.write(data)

    return download

  with pytest.raises(InputError, match=r'pip install -e .\.\[download\]'):
    drive(None)
  with pytest.raises(InputError, match='Cannot retrieve the link; download it in a browser'):
    drive(refused)
  with pytest.raises(InputError, match='a web page instead of x.pt'):
    drive(arrives(PAGE))
  assert os.listdir(tmp_path) == []
  assert drive(arrives(DATA)) and os.listdir(tmp_path) == ['x.pt']


# --- The table and the command -------------------------------------------------------------------


def test_every_download_has_an_address_and_restricted_terms_are_known():
  for file in public.DOWNLOADS.values():
    assert file.url.startswith('https://') and file.origin.startswith('https://')
    assert set(file.digest) <= set('0123456789abcdef')
  restricted = {name for name, file in public.DOWNLOADS.items() if file.is_restricted}
  assert restricted == {'e4e', 'psp', 'rosinality', 'nvlabs', 'arcface', 'ganspace'}


def test_paths_of_a_config():
  config = ConfigDict(common.paper())
  config.data.face_detector = 'a.task'
  config.model.lpips_net = 'vgg'
  config.weights.arcface = 'b.pth'
  assert public.paths_of(config) == {
    'e4e': 'weights/e4e_ffhq_encode.pt',
    'vgg16': 'weights/alexnet-owt-7be5be79.pth',
    'lpips_vgg': 'weights/lpips_alex.pth',
    'arcface': 'b.pth',
    'mediapipe': 'a.task',
  }
  assert public.paths_of(ConfigDict(common.heads())) == {}
  assert public.command({'lpips_vgg': '', 'yunet': 'a b'}) == (
    "python -m hybrid_jax.download --file=lpips_vgg=weights/vgg.pth '--file=yunet=a b'"
  )


def command(*options, cwd):
  result = subprocess.run(
    [sys.executable, '-m', 'hybrid_jax.download', *options],
    cwd=cwd,
    capture_output=True,
    text=True,
    env=os.environ | {'PYTHONPATH': os.getcwd()},
    timeout=120,
  )
  assert 'Traceback' not in result.stderr, result.stderr
  return result.returncode, result.stdout.splitlines(), result.stderr.splitlines()


def test_the_command_shows_terms_before_anything_is_fetched(tmp_path):
  config = f'--config={os.getcwd()}/configs/pretrain.py'
  code, lines, errors = command(config, cwd=tmp_path)
  assert code == 1 and len(lines) == 4 and os.listdir(tmp_path) == []
  for name in ('e4e', 'arcface', 'alexnet', 'lpips_alex'):
    file = public.DOWNLOADS[name]
    assert len([line for line in lines if file.url in line and f'; terms: {file.terms} (' in line])
  assert errors == [
    'error: arcface, e4e: for non-commercial use only; read the terms at the addresses above, and '
    'add --accept-terms if you accept them'
  ]


@pytest.mark.parametrize('file', ['nothing=x', 'yunet='])
def test_the_command_names_what_it_can_fetch(file, tmp_path):
  code, _, errors = command(f'--file={file}', cwd=tmp_path)
  assert code == 1 and len(errors) == 1
  assert errors[0].startswith(f'error: --file={file}: KIND=PATH, KIND one of e4e, ')


def test_one_bad_file_does_not_keep_the_others_back(tmp_path):
  (tmp_path / 'alex.pth').write_bytes(b'of another network')
  (tmp_path / 'good').write_bytes(DATA)
  code, lines, errors = command('--file=lpips_alex=alex.pth', '--file=mediapipe=good', cwd=tmp_path)
  assert code == 1 and lines[-1] == 'good: is there'
  assert 'move it away' in errors[0] and errors[1] == 'error: 1 of 2 files were not downloaded'
