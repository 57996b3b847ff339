"""Live video: reads cameras, network streams and pipes, and writes streams and pipes.

Addresses are FFmpeg's (`udp://...`, `rtmp://...`, `rtsp://...`); '-' is standard input or output.
Files are read by `video.read_frames`, with the same frames as everywhere else.
"""

import contextlib
import dataclasses
import os
import pathlib
import stat
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer, OutputContainer

from hybrid_jax.media import MediaError, reason, video
from hybrid_jax.media.clock import timed_frames
from hybrid_jax.media.containers import video_stream
from hybrid_jax.media.pixels import Upright

# What an address may open. Without `file`, a playlist from the network could read local files.
_PROTOCOLS = 'udp,rtp,rtsp,srtp,tcp,tls,http,https,httpproxy,crypto,rtmp,rtmps,rtmpt,srt,unix'
# Less than FFmpeg's 5 s and 5 MB: nothing is shown while it looks at the beginning of a stream. Its
# `nobuffer` would lose that beginning, and with it the first key frame. UDP packets that came
# before reading began are lost without an error. FFmpeg ignores options of other protocols.
_PROBING = {
  'analyzeduration': '1000000',
  'probesize': '500000',
  'fpsprobesize': '0',
  'overrun_nonfatal': '1',
}
KEY_FRAMES = 2.0  # s between key frames of a stream, at which a viewer may join
TICK = Fraction(1, 90000)  # s, of MPEG; streams are written in it


class WrongAddress(MediaError):
  """An address that cannot be opened later either: of an unknown protocol, or misspelled."""


@dataclasses.dataclass(frozen=True)
class LiveFrame:
  """A frame that was decoded, and not converted yet.

  read: converts it -> (h, w, 3) uint8. It is dear, and a frame that comes too late is not read.
  time: seconds on the clock of the source.
  """

  read: Callable[[], np.ndarray]
  time: Fraction


@dataclasses.dataclass(frozen=True)
class Source:
  """Where frames come from.

  Attributes:
    name: as given, '-' is standard input.
    kind: 'file', 'pipe', 'camera' or 'stream'.
    format: FFmpeg's input format; '' is recognised.
    options: FFmpeg's options of it.
  """

  name: str
  kind: str
  format: str = ''
  options: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def returns(self) -> bool:
    """Whether it can be opened again after it broke off."""
    return self.kind in ('camera', 'stream')

  @property
  def shown(self) -> str:
    """The name without the user and the password of an address."""
    scheme, found, rest = self.name.partition('://')
    host, slash, path = rest.partition('/')
    return scheme + found + host.rpartition('@')[2] + slash + path.partition('?')[0]

  def check(self, timeout: float) -> None:
    """Raises MediaError for a file or a device that cannot be read; see `frames`.

    Addresses and pipes are left alone: some senders accept one reader, once.
    """
    if self.kind == 'file':
      video.probe(self.name)
    elif self.kind == 'camera':
      self._open(timeout).close()

  def frames(self, timeout: float) -> Iterator[LiveFrame]:
    """Yields the frames; a stream that changes its size gives frames of that size from then on.

    Args:
      timeout: seconds after which a network that sends nothing is given up.

    Raises:
      MediaError: it cannot be opened, has no video, or breaks off.
    """
    if self.kind == 'file':
      for frame in video.read_frames(self.name):
        yield LiveFrame(lambda rgb=frame.rgb: rgb, frame.time)
      return
    try:
      with self._open(timeout) as container:
        stream = video_stream(container, self.shown)
        # The cores are the networks': a live frame is decoded in a small part of its time.
        stream.codec_context.thread_count = 1
        upright, size = None, None
        for frame, time in timed_frames(container, stream, lossy=True):
          if size != (frame.width, frame.height):
            upright, size = Upright(frame, stream), (frame.width, frame.height)
          yield LiveFrame(lambda convert=upright, frame=frame: convert(frame), time)
    except (av.FFmpegError, OSError) as error:
      raise MediaError(f'{self.shown}: breaks off ({_reason(error)})') from error

  def _open(self, timeout: float) -> InputContainer:
    address, options = self.name, dict(_PROBING)
    if self.kind == 'pipe':
      address = 'pipe:0' if self.name == '-' else f'file:{self.name}'
      options['protocol_whitelist'] = 'pipe,file'
    elif self.kind == 'stream':
      options['protocol_whitelist'] = _PROTOCOLS
    options.update(self.options)
    try:
      return av.open(address, format=self.format or None, options=options, timeout=timeout)
    except (av.FFmpegError, OSError, ValueError) as error:
      wrong = isinstance(error, av.error.ProtocolNotFoundError | ValueError)
      raise (WrongAddress if wrong else MediaError)(
        f'{self.shown}: cannot be opened ({_reason(error)}); check the address or the device, or '
        'give its --input-format'
      ) from error


def _reason(error: Exception) -> str:
  # FFmpeg calls the end of a timeout 'Immediate exit requested'.
  return 'sends nothing' if isinstance(error, av.error.ExitError) else reason(error)


def open_source(name: str, format: str = '', options: Mapping[str, str] | None = None) -> Source:
  """Returns the source of a name: a file, '-', a named pipe, a device or an address.

  Raises:
    MediaError: there is no such thing.
  """
  options = options or {}
  if name == '-':
    return Source(name, 'pipe', format, options)
  if '://' in name:
    return Source(name, 'stream', format, options)
  if not os.path.exists(name):
    # A device of macOS or Windows has a name of its format only: avfoundation '0', dshow 'video=..'
    if format:
      return Source(name, 'camera', format, options)
    raise MediaError(f'{name}: no such file, device or address (an address has ://)')
  mode = os.stat(name).st_mode
  if stat.S_ISFIFO(mode):
    return Source(name, 'pipe', format, options)
  if stat.S_ISCHR(mode):
    return Source(name, 'camera', format or 'v4l2', options)
  if not stat.S_ISREG(mode):
    raise MediaError(f'{name}: is no clip, device, pipe or address')
  return Source(name, 'file')


# --- Writing -------------------------------------------------------------------------------------


def stream_format(target: str) -> str:
  """Returns FFmpeg's format for a target that is a stream or a pipe; '' for a file."""
  if '://' in target:
    scheme = target.partition('://')[0].lower()
    return {'rtmp': 'flv', 'rtmps': 'flv', 'rtsp': 'rtsp', 'rtp': 'rtp_mpegts'}.get(
      scheme, 'mpegts'
    )
  path = pathlib.Path(target)
  return 'mpegts' if target == '-' or path.is_fifo() else ''


class StreamWriter(video.VideoWriter):
  """Writes H.264 without delay to an address or a pipe: no look-ahead, no B frames.

  Args:
    target: an address, a named pipe, or '-' for standard output.
    height, width, crf: as of `VideoWriter`.
    comment: stored as the title's comment where the format has one.
    timeout: seconds after which a network that takes nothing is given up.

  Raises:
    MediaError: as `VideoWriter`; or no receiver accepts the stream.
  """

  def __init__(
    self,
    target: str,
    height: int,
    width: int,
    *,
    crf: float = 18,
    comment: str = '',
    timeout: float = 10.0,
  ):
    super().__init__(target, height, width, time_base=TICK, crf=crf)
    self._comment, self._timeout = comment, timeout

  def _target(self, stack: contextlib.ExitStack) -> Callable[[], OutputContainer]:
    return self._opened

  def _opened(self) -> OutputContainer:
    address = self.path
    if '://' not in address:
      address = 'pipe:1' if address == '-' else f'file:{address}'
    container = av.open(
      address,
      'w',
      format=stream_format(self.path),
      # Each packet is sent at once.
      options={'flush_packets': '1'},
      timeout=self._timeout,
    )
    if self._comment:
      container.metadata['comment'] = self._comment
    return container

  def _encoder_options(self) -> dict[str, str]:
    # In pictures of 30 a second, the nominal rate.
    key_frames = str(round(30 * KEY_FRAMES))
    return super()._encoder_options() | {
      'preset': 'veryfast',
      'tune': 'zerolatency',
      'g': key_frames,
    }
