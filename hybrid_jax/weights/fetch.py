"""Downloads public weight files from where their owners publish them.

A file is complete at its path or not there at all: bytes go to `PATH.part`, which is renamed after
its size and hash are right. What cannot be had is an `InputError` of one line.
"""

import dataclasses
import errno
import http
import math
import os
import pathlib
import re
import shutil
import time
from collections.abc import Iterator

import requests

from hybrid_jax import environment
from hybrid_jax.errors import InputError
from hybrid_jax.progress import Progress, silent
from hybrid_jax.weights.public import PublicFile

BLOCK = 2**20  # bytes of one step of the progress bar
ATTEMPTS = 5  # without a byte between them, each going on where the last one ended
WAIT = 1.0  # s before the next attempt, doubled each time
TIMEOUT = (20, 60)  # s to connect, and between two reads
_TRANSIENT = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
_BUSY = {429, 500, 502, 503, 504}
_DRIVE = re.compile(r'https://drive\.google\.com/file/d/([\w-]+)')


def fetch(file: PublicFile, path: str, progress: Progress = silent, wait: float = WAIT) -> bool:
  """Downloads a file to `path`; returns False if it is there already.

  Args:
    wait: seconds before the next attempt after a connection was cut.

  Raises:
    InputError: not to be had, not the owner's file, or no room for it. What has arrived of it stays
      in `path.part` for the next call, unless it is the wrong file.
  """
  if os.path.isdir(path):
    from hybrid_jax.weights import folders  # imports Orbax, which takes seconds

    if folders.is_converted(path):
      return False
    raise InputError(f'{path}: a folder; give the path of a file')
  if os.path.exists(path):
    # Under another name it may be a version of the user's own, as with face detectors.
    theirs = os.path.basename(path) == os.path.basename(file.name)
    if fault := _fault(file if theirs else dataclasses.replace(file, digest='', size=0), path):
      raise InputError(f'{path}: {fault}; move it away to download {file.name}')
    return False
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  part = f'{path}.part'
  try:
    if drive := _DRIVE.match(file.url):
      _from_drive(drive[1], file, part, progress)
    else:
      _over_http(file, part, progress, wait)
  except requests.RequestException as error:
    raise InputError(
      f'{file.url}: cannot be reached ({_line(error)}); see {file.origin}'
    ) from error
  except OSError as error:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
      raise
    raise InputError(f'{part}: the disk is full; make room and run the command again') from error
  if fault := _fault(file, part):
    os.remove(part)  # going on from it would give a wrong file again
    raise InputError(f'{file.url}: {fault}; nothing was kept: download it from {file.origin}')
  os.replace(part, path)
  return True


def _fault(file: PublicFile, path: str) -> str:
  """What is wrong with a file on disk; '' if nothing that its owner states or its bytes show is."""
  size = os.path.getsize(path)
  with open(path, 'rb') as stream:
    start = stream.read(256).lstrip().lower()
  # A login, a quota or a question instead of the file, which servers send with status 200.
  if start.startswith((b'<!doctype html', b'<html')):
    return f'a web page instead of {file.name}'
  if not size or (file.size and size != file.size):
    return f'{size} bytes instead of {file.size or "a file"}: not {file.name}'
  if file.digest and not (found := environment.sha256(path)).startswith(file.digest):
    return f'SHA-256 {found} instead of {file.digest}: not {file.name}'
  return ''


def _line(error: Exception) -> str:
  """The message of an error of others, in one line."""
  # requests wraps the error of urllib3, whose `reason` is what happened to the last attempt.
  cause = getattr(error.args[0], 'reason', error) if error.args else error
  return ' '.join(str(cause).split())[:200]


# --- HTTP ----------------------------------------------------------------------------------------


def _over_http(file: PublicFile, part: str, progress: Progress, wait: float) -> None:
  """Downloads to `part`, going on where the last attempt or the last call ended."""
  # Without a hash, nothing would show that the owner has changed the file between two calls.
  if not file.digest and os.path.exists(part):
    os.remove(part)
  failures = 0
  while True:
    before = _length(part)
    try:
      return _receive(file, part, progress)
    except _TRANSIENT as error:
      # Only attempts without progress count: a poor line may cut a large file many times.
      failures = 1 if _length(part) > before else failures + 1
      if failures >= ATTEMPTS:
        length = _length(part) if file.digest else 0
        rest = f', which goes on after {length} bytes' if length else ''
        raise InputError(
          f'{file.url}: the connection failed ({_line(error)}); run the command again{rest}, '
          f'or download {file.name} from {file.origin}'
        ) from error
    time.sleep(wait * 2 ** (failures - 1))


def _receive(file: PublicFile, part: str, progress: Progress) -> None:
  """One request, for the bytes that `part` lacks."""
  start = _length(part)
  # Compressed in transit, lengths and ranges would count other bytes than those of the file.
  headers = {'Accept-Encoding': 'identity'} | ({'Range': f'bytes={start}-'} if start else {})
  with requests.get(file.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
    status = response.status_code
    if status == 416:  # nothing is left to send: whole, or longer than the file, as its hash shows
      return
    if status in _BUSY:
      raise requests.ConnectionError(f'HTTP {status} {response.reason}')
    if status not in (200, 206):
      reason = response.reason or http.HTTPStatus(status).phrase
      raise InputError(f'{file.url}: HTTP {status} {reason}; it may have moved: see {file.origin}')
    if response.headers.get('Content-Type', '').startswith('text/html'):
      raise InputError(
        f'{file.url}: a web page instead of {file.name}; download it from {file.origin}'
      )
    if status == 200:
      start = 0  # a server without ranges sends the whole file
    elif not response.headers.get('Content-Range', '').startswith(f'bytes {start}-'):
      raise InputError(f'{file.url}: the server sends other bytes than those that were asked for')
    blocks = _Blocks(response)
    _check_room(file, part, start, blocks.bytes)
    total = math.ceil((start + blocks.bytes) / BLOCK) if blocks.bytes else None
    with open(part, 'r+b' if start else 'wb') as stream:
      stream.seek(start)
      for block in progress(blocks, os.path.basename(part.removesuffix('.part')), total):
        stream.write(block)


def _check_room(file: PublicFile, part: str, start: int, length: int) -> None:
  """Raises where the answer is not of the file's size, or does not fit on the disk."""
  if file.size and length and start + length != file.size:
    raise InputError(
      f'{file.url}: {start + length} bytes instead of {file.size}: not {file.name}; '
      f'download it from {file.origin}'
    )
  free = shutil.disk_usage(os.path.dirname(os.path.abspath(part))).free
  if length > free:
    raise InputError(f'{part}: the disk is full: {length} bytes to come, {free} are free')


class _Blocks:
  """The body of a response in blocks of `BLOCK` bytes; its length is their number."""

  def __init__(self, response: requests.Response):
    self._response = response
    self.bytes = int(response.headers.get('Content-Length', 0))  # 0: not stated

  def __len__(self) -> int:
    return math.ceil(self.bytes / BLOCK)

  def __iter__(self) -> Iterator[bytes]:
    return self._response.iter_content(BLOCK)


def _length(path: str) -> int:
  return os.path.getsize(path) if os.path.exists(path) else 0


# --- Google Drive --------------------------------------------------------------------------------


def _from_drive(identifier: str, file: PublicFile, part: str, progress: Progress) -> None:
  """Downloads a file of Google Drive, which asks a question before large files: gdown answers."""
  try:
    import gdown
  except ImportError as error:
    raise InputError(
      f"{file.name} is on Google Drive: pip install -e '.[download]', "
      f'or download it from {file.origin}'
    ) from error
  try:
    # gdown has its own bar and its own partial files, which it goes on from.
    gdown.download(
      id=identifier, output=part, quiet=progress is silent, resume=True, use_cookies=False,
      retries=ATTEMPTS - 1, timeout=TIMEOUT,
    )  # fmt: skip
  except gdown.exceptions.DownloadError as error:
    raise InputError(
      f'{file.url}: {_line(error)}; download it in a browser and put it to '
      f'{part.removesuffix(".part")}'
    ) from error
