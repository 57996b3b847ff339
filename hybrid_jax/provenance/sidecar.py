"""The sidecar of a result, `NAME.json` beside it: its hashes, and the record of its making.

Plain JSON that anybody can write, so it reveals accidents and mix-ups. Only signed content
credentials reveal forgery, see `credentials`.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping

import av
import numpy as np
from PIL import Image, ImageSequence

from hybrid_jax.environment import sha256
from hybrid_jax.errors import InputError
from hybrid_jax.media import reason, replacing
from hybrid_jax.media.containers import open_clip

FORMAT = 'hybrid_jax provenance 1'
PICTURES = ('.png', '.gif')


@dataclasses.dataclass(frozen=True)
class Finding:
  """The outcome of a check: `status` is a word that code compares, `message` is for people."""

  status: str
  message: str


def place(path: str | os.PathLike) -> pathlib.Path:
  """Returns the path of the sidecar of a file or of a folder of pictures."""
  # '.' and 'folder/..' have a name only once they are resolved.
  path = pathlib.Path(os.path.abspath(path)) if pathlib.Path(path).name in ('', '..') else path
  path = pathlib.Path(path)
  if not path.name:
    raise InputError(f'{path}: give a file or a folder of pictures')
  return path.with_name(f'{path.name}.json')


def content(path: str | os.PathLike) -> str:
  """Returns the SHA-256 of pictures and sound, which does not depend on the container.

  Of a clip it covers the coded packets of its tracks, which a remux copies, but not their times; of
  a picture its pixels.

  Raises:
    InputError: the file cannot be read.
  """
  path, sha = pathlib.Path(path), hashlib.sha256()
  if path.suffix.lower() in PICTURES:
    try:
      with Image.open(path, formats=('PNG', 'GIF')) as image:
        for frame in ImageSequence.Iterator(image):
          sha.update(np.asarray(frame.convert('RGBA')))
    except Exception as error:  # Pillow's decoders raise errors of any type for damaged bytes
      raise InputError(f'{path}: cannot be read ({reason(error)})') from error
    return sha.hexdigest()
  with open_clip(path) as container:
    tracks = [s for s in container.streams if s.type in ('video', 'audio')]
    shas = {s.index: hashlib.sha256() for s in tracks}
    # One hash per track: another container may interleave the packets of its tracks differently.
    try:
      for packet in container.demux(tracks):
        if packet.size:
          shas[packet.stream_index].update(bytes(packet))
    except av.FFmpegError as error:
      raise InputError(f'{path}: cannot be read to its end ({reason(error)})') from error
    # Video first, because another container may list its tracks in another order.
    for track in sorted(tracks, key=lambda s: s.type != 'video'):
      sha.update(shas[track.index].digest())
  return sha.hexdigest()


def files(path: pathlib.Path) -> list[pathlib.Path]:
  """Returns the file itself, or the files of a folder in order."""
  return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]


def digests(path: str | os.PathLike) -> dict[str, str]:
  """Returns the SHA-256 of each file of a result, by name."""
  return {file.name: sha256(file) for file in files(pathlib.Path(path))}


def write(path: str | os.PathLike, record: Mapping, **more) -> None:
  """Writes the sidecar of a finished result.

  Args:
    record: see `record.record`; the result's container holds the same.
    more: further top-level entries.
  """
  path = pathlib.Path(path)
  # timestamps.csv of a folder of pictures has bytes to compare, but no pictures or sound.
  shown = [p for p in files(path) if p.suffix != '.csv']
  result = {
    'name': path.name,
    'sha256': digests(path),
    'content': {p.name: content(p) for p in shown},
    'bytes': {p.name: p.stat().st_size for p in shown},
  }
  text = json.dumps({'format': FORMAT, 'result': result, 'record': record, **more}, indent=1)
  # Written last and at once, so that a sidecar means a finished result.
  with replacing(place(path)) as part:
    part.write_text(text + '\n')


def read(path: str | os.PathLike) -> dict | None:
  """Reads a sidecar; returns None if there is no such file.

  Raises:
    InputError: the file is not a sidecar, or damaged.
  """
  try:
    found = json.loads(pathlib.Path(path).read_bytes())
    if found['format'] != FORMAT:
      raise ValueError(f'its format is {found["format"]!r}')
    result = found['result']
    # Everything that `compare` relies on is checked here, since anybody can edit the file.
    texts = [*result['sha256'].values(), *result['content'].values()]
    if not result['content'] or not all(isinstance(text, str) for text in texts):
      raise ValueError('it lists no files')
    if not result['sha256'].keys() >= result['content'].keys() == result['bytes'].keys():
      raise ValueError('its lists name different files')
    if not all(isinstance(found['record'].get(of, {}), dict) for of in ('source', 'driving')):
      raise ValueError('its record has no inputs')
    return found | {'record': dict(found['record'])}
  except FileNotFoundError:
    return None
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise InputError(f'{path}: is not a sidecar, or damaged ({reason(error)})') from error


def compare(path: str | os.PathLike, written: Mapping) -> Finding:
  """Compares a file or folder with its sidecar `written`: 'intact', 'remuxed' or 'altered'."""
  path, result = pathlib.Path(path), written['result']
  expected, contents, sizes = result['sha256'], result['content'], result['bytes']
  found = digests(path)
  # Bytes first: contents need decoding, and equal bytes have equal contents.
  if not path.is_dir():  # a file may have been renamed
    expected, contents, sizes = (
      {path.name: next(iter(values.values()))} for values in (expected, contents, sizes)
    )
  if found == expected:
    return Finding('intact', 'every byte is unchanged')
  if missing := expected.keys() - found.keys():
    return Finding('altered', f'missing: {_list(missing)}')
  if added := found.keys() - expected.keys():
    return Finding('altered', f'not part of the result: {_list(added)}')
  changed = {name for name in expected if expected[name] != found[name]}
  for file in files(path):
    if file.name not in changed:
      continue
    try:
      same = file.name in contents and content(file) == contents[file.name]
    except InputError as error:
      return Finding('altered', str(error))
    if not same:
      where = f' in {_list(changed)}' if path.is_dir() else ''
      return Finding('altered', f'pictures or sound differ from what was written{where}')
    # A program that writes the container anew does not arrive at the very same length.
    if file.stat().st_size == sizes[file.name]:
      return Finding('altered', f'{file.name}: bytes around its pictures and sound were changed')
  return Finding(
    'remuxed',
    'pictures and sound are unchanged in a container that was written anew; their times and all '
    'else in it are not vouched for',
  )


def _list(names: Iterable[str]) -> str:
  names = sorted(names)
  more = f' and {len(names) - 3} more' if len(names) > 3 else ''
  return ', '.join(names[:3]) + more
