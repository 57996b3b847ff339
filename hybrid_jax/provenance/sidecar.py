"""The sidecar of a result, `NAME.json` beside it: what it is, and what it was made of.

Plain JSON that anybody can write: it shows accidents and mix-ups. Forgery shows only in signed
content credentials, see `credentials`.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping

import av
import numpy as np
from PIL import Image, ImageSequence

from hybrid_jax.errors import InputError
from hybrid_jax.media import reason, replacing
from hybrid_jax.media.containers import open_clip

FORMAT = 'hybrid_jax provenance 1'
PICTURES = ('.png', '.gif')


@dataclasses.dataclass(frozen=True)
class Finding:
  """What a comparison found: `is_` in a word, `told` in a line for people."""

  is_: str
  told: str


def place(path: str | os.PathLike) -> pathlib.Path:
  """Where the sidecar of a file or of a folder of pictures is."""
  path = pathlib.Path(os.path.abspath(path)) if pathlib.Path(path).name in ('', '..') else path
  path = pathlib.Path(path)
  if not path.name:
    raise InputError(f'{path}: give a file or a folder of pictures')
  return path.with_name(f'{path.name}.json')


def sha256(path: str | os.PathLike) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def content(path: str | os.PathLike) -> str:
  """SHA-256 of what a file shows and sounds, whatever it is wrapped in; times are not in it.

  Of a clip the coded packets of its tracks, which a remux copies; of a picture its pixels.

  Raises:
    InputError: the file cannot be read.
  """
  path, sha = pathlib.Path(path), hashlib.sha256()
  if path.suffix.lower() in PICTURES:
    try:
      with Image.open(path, formats=('PNG', 'GIF')) as image:
        for frame in ImageSequence.Iterator(image):
          sha.update(np.asarray(frame.convert('RGBA')))
    except Exception as error:  # damaged bytes can provoke any error of Pillow's decoders
      raise InputError(f'{path}: cannot be read ({reason(error)})') from error
    return sha.hexdigest()
  with open_clip(path) as container:
    tracks = [s for s in container.streams if s.type in ('video', 'audio')]
    shas = {s.index: hashlib.sha256() for s in tracks}
    try:
      for packet in container.demux(tracks):
        if packet.size:
          shas[packet.stream_index].update(bytes(packet))
    except av.FFmpegError as error:
      raise InputError(f'{path}: breaks off ({reason(error)})') from error
    for track in sorted(tracks, key=lambda s: s.type != 'video'):
      sha.update(shas[track.index].digest())
  return sha.hexdigest()


def files(path: pathlib.Path) -> list[pathlib.Path]:
  """The file itself, or the files of a folder in order."""
  return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]


def digests(path: str | os.PathLike) -> dict[str, str]:
  """SHA-256 of each file of a result, by name."""
  return {file.name: sha256(file) for file in files(pathlib.Path(path))}


def write(path: str | os.PathLike, record: Mapping, **more) -> None:
  """Writes the sidecar of a finished result; `record` is what also lies within its container."""
  path = pathlib.Path(path)
  shown = [p for p in files(path) if p.suffix != '.csv']
  result = {
    'name': path.name,
    'sha256': digests(path),
    'content': {p.name: content(p) for p in shown},
    'bytes': {p.name: p.stat().st_size for p in shown},
  }
  text = json.dumps({'format': FORMAT, 'result': result, 'record': record, **more}, indent=1)
  with replacing(place(path)) as part:
    part.write_text(text + '\n')


def read(path: str | os.PathLike) -> dict | None:
  """A sidecar; None where there is no such file.

  Raises:
    InputError: it is none of ours, or damaged.
  """
  try:
    found = json.loads(pathlib.Path(path).read_bytes())
    if found['format'] != FORMAT:
      raise ValueError(f'its format is {found["format"]!r}')
    result = found['result']
    texts = [*result['sha256'].values(), *result['content'].values()]
    if not result['content'] or not all(isinstance(text, str) for text in texts):
      raise ValueError('it names no result')
    if not result['sha256'].keys() >= result['content'].keys() == result['bytes'].keys():
      raise ValueError('it names different files')
    if not all(isinstance(found['record'].get(of, {}), dict) for of in ('source', 'driving')):
      raise ValueError('its record names no files')
    return found | {'record': dict(found['record'])}
  except FileNotFoundError:
    return None
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise InputError(f'{path}: is no sidecar of a result, or damaged ({reason(error)})') from error


def compare(path: str | os.PathLike, written: Mapping) -> Finding:
  """A file or folder with what its sidecar says: 'intact', 'remuxed' or 'altered'."""
  path, result = pathlib.Path(path), written['result']
  expected, contents, sizes = result['sha256'], result['content'], result['bytes']
  found = digests(path)
  if not path.is_dir():  # whatever it is called now
    expected, contents, sizes = (
      {path.name: next(iter(of.values()))} for of in (expected, contents, sizes)
    )
  if found == expected:
    return Finding('intact', 'every byte is as it was written')
  for names, what in (
    (expected.keys() - found.keys(), 'missing'),
    (found.keys() - expected.keys(), 'not of the result'),
  ):
    if names:
      return Finding('altered', f'{what}: {_list(names)}')
  changed = {name for name in expected if expected[name] != found[name]}
  for file in files(path):
    if file.name not in changed:
      continue
    was = contents.get(file.name)
    try:
      same = was is not None and content(file) == was
    except InputError as error:
      return Finding('altered', str(error))
    if not same:
      more = f' in {_list(changed)}' if path.is_dir() else ''
      return Finding('altered', f'pictures or sound are not those that were written{more}')
    if file.stat().st_size == sizes[file.name]:  # as no other program would write it
      return Finding('altered', f'{file.name}: bytes around its pictures and sound were changed')
  return Finding(
    'remuxed',
    'the container was written anew: pictures and sound are the very ones, their times and all '
    'else in it are not vouched for',
  )


def _list(names) -> str:
  names = sorted(names)
  more = f' and {len(names) - 3} more' if len(names) > 3 else ''
  return ', '.join(names[:3]) + more
