"""Files around the tracks: opening them safely, finding tracks, seeing whether they are whole."""

import io
import os

import av
from av.container import InputContainer

from hybrid_jax.media import MediaError, reason

# FFmpeg draws text files as terminal screens, chosen by their suffix alone.
_TEXT_FORMATS = {'tty', 'bin', 'xbin', 'adf', 'idf'}
_SEGMENT = b'\x18\x53\x80\x67'  # Matroska's element around everything but the header


def open_clip(path: str | os.PathLike) -> InputContainer:
  """Opens a file to read, by its content; MediaError where there is nothing to play."""
  try:
    if not os.path.getsize(path):
      raise MediaError(f'{path}: is empty (0 bytes); replace it')
    # Without the prefix a colon in the name is a protocol; without the list a playlist may fetch.
    container = av.open(
      f'file:{os.fspath(path)}',
      options={'protocol_whitelist': 'file'},
      metadata_errors='replace',  # titles are not always in UTF-8
    )
  except (av.FFmpegError, OSError) as error:
    raise MediaError(
      f'{path}: cannot be opened ({reason(error)}); give an MP4, MOV, MKV, WebM or GIF file'
    ) from error
  if container.format.name in _TEXT_FORMATS:
    container.close()
    raise MediaError(f'{path}: is text, not a clip; give an MP4, MOV, MKV, WebM or GIF file')
  return container


def video_stream(container: InputContainer, path: str | os.PathLike) -> av.VideoStream:
  """The first video track; MediaError where there is none."""
  for stream in container.streams.video:
    # An attached picture is the cover of a song; a stream may be in a codec FFmpeg does not know.
    if stream.codec_context and not stream.disposition & stream.disposition.attached_pic:
      return stream
  raise MediaError(f'{path}: has no video track that can be decoded; give a clip with pictures')


def codec_name(stream: av.stream.Stream) -> str:
  """The codec, not its decoder (`mp3`, not `mp3float`)."""
  return stream.codec_context.codec.canonical_name if stream.codec_context else 'unknown codec'


def is_cut_short(
  container: InputContainer, stream: av.VideoStream, path: str | os.PathLike
) -> bool:
  """True where a file says it is longer than it is: FFmpeg ends a cut Matroska without an error."""
  size = os.path.getsize(path)
  if 'mp4' in container.format.name:
    return any(entry.pos + entry.size > size for entry in stream.index_entries)
  if 'matroska' in container.format.name:
    with open(path, 'rb') as file:
      head = file.read(4096)
    if _SEGMENT not in head[:-8]:
      return False
    at = head.find(_SEGMENT) + len(_SEGMENT)
    length = 9 - head[at].bit_length()  # The leading zeros of the first byte count the others.
    unknown = (1 << 7 * length) - 1
    stated = int.from_bytes(head[at : at + length], 'big') & unknown
    return stated != unknown and at + length + stated > size
  return False


def takes(format_name: str, track: av.AudioStream) -> bool:
  """Whether a container takes copied packets of a track: tried, since FFmpeg lists too many."""
  try:
    with av.open(io.BytesIO(), 'w', format=format_name) as trial:
      trial.add_stream_from_template(track)
      trial.start_encoding()
    return True
  except (av.FFmpegError, ValueError):
    return False


CODECS = {'h264': 'libx264', 'ffv1': 'ffv1', 'png': 'png', 'aac': 'aac'}  # and their encoders


def lacking_codecs() -> list[str]:
  """Those of `CODECS` that this FFmpeg cannot read or write."""

  def knows(name: str, mode: str) -> bool:
    try:
      return bool(av.codec.Codec(name, mode))
    except av.codec.codec.UnknownCodecError:
      return False

  return [
    name for name, encoder in CODECS.items() if not (knows(name, 'r') and knows(encoder, 'w'))
  ]
