"""Video containers: opens them safely, finds tracks, and detects files that were cut short."""

import os

import av
from av.container import InputContainer

from hybrid_jax.media import MediaError, reason

# FFmpeg renders text files as terminal screens; it chooses these readers by the suffix alone.
_TEXT_FORMATS = {'tty', 'bin', 'xbin', 'adf', 'idf'}
_NO_MATRIX = (14, 15)  # FFmpeg's numbers of ICtCp and of Dolby Vision's variant
_SEGMENT = b'\x18\x53\x80\x67'  # ID of the Matroska element that holds all but the header


def open_clip(path: str | os.PathLike) -> InputContainer:
  """Opens a file for reading, its format recognised by the content.

  Raises:
    MediaError: the file is missing, empty, text, or not in a format that FFmpeg reads.
  """
  try:
    # FFmpeg's own message for an empty file is 'Invalid data'.
    if not os.path.getsize(path):
      raise MediaError(f'{path}: is empty (0 bytes); replace it')
    # Without the prefix FFmpeg takes a name with a colon for a protocol. Without the whitelist a
    # playlist could make it fetch from the network.
    container = av.open(
      f'file:{os.fspath(path)}',
      options={'protocol_whitelist': 'file'},
      metadata_errors='replace',  # titles that are not UTF-8 raise otherwise
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
  """Returns the first video track that can be decoded; raises MediaError without one.

  A track whose colours FFmpeg's scaler would show as green and violet is refused, too.
  """
  for stream in container.streams.video:
    # An attached picture is the cover of a song; a codec that FFmpeg lacks has no context.
    if stream.codec_context and not stream.disposition & stream.disposition.attached_pic:
      if stream.codec_context.colorspace in _NO_MATRIX:
        raise MediaError(f'{path}: has ICtCp colours (Dolby Vision); export it as HLG, PQ or SDR')
      return stream
  raise MediaError(f'{path}: has no video track that can be decoded; give a clip with pictures')


def audio_stream(container: InputContainer) -> av.AudioStream | None:
  """Returns the default audio track, or the first if none is marked as such; None without any.

  A track that FFmpeg can decode goes before one that it cannot: phones add spatial sound so.
  """
  rank = lambda s: (s.codec_context is not None, bool(s.disposition & s.disposition.default))  # noqa: E731
  return max(container.streams.audio, key=rank, default=None)  # the first of equals


def codec_name(stream: av.stream.Stream) -> str:
  """Returns the name of the codec, not of its decoder (`mp3`, not `mp3float`)."""
  return stream.codec_context.codec.canonical_name if stream.codec_context else 'unknown codec'


def is_cut_short(
  container: InputContainer, stream: av.VideoStream, path: str | os.PathLike
) -> bool:
  """Returns whether the index or header of a file states more bytes than the file has.

  FFmpeg reads a Matroska file that was cut short to its end without an error.
  """
  size = os.path.getsize(path)
  # The index of MP4 lists the place and size of each frame.
  if 'mp4' in container.format.name:
    return any(entry.pos + entry.size > size for entry in stream.index_entries)
  if 'matroska' in container.format.name:
    with open(path, 'rb') as file:
      # The header of a Matroska file is some dozens of bytes long.
      head = file.read(4096)
    if _SEGMENT not in head[:-8]:
      return False
    at = head.find(_SEGMENT) + len(_SEGMENT)
    # EBML's variable-length integer: the leading zeros of the first byte are the number of bytes
    # that follow, 7 bits of each byte count, and all ones is an unknown size (live recordings).
    length = 9 - head[at].bit_length()
    unknown = (1 << 7 * length) - 1
    stated = int.from_bytes(head[at : at + length], 'big') & unknown
    return stated != unknown and at + length + stated > size
  return False


CODECS = {'h264': 'libx264', 'ffv1': 'ffv1', 'png': 'png', 'aac': 'aac'}  # codec -> encoder


def lacking_codecs() -> list[str]:
  """Returns those of `CODECS` that this FFmpeg cannot read or write."""

  def has(name: str, mode: str) -> bool:
    try:
      return bool(av.codec.Codec(name, mode))
    except av.codec.codec.UnknownCodecError:
      return False

  return [name for name, encoder in CODECS.items() if not (has(name, 'r') and has(encoder, 'w'))]
