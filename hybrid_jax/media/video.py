"""Reads and writes video through PyAV (H.264, VP9, FFV1), one frame in memory at a time.

Frames are (h, w, 3) uint8 RGB, times `Fraction` seconds from the presentation time stamps. Times
are never computed from frame numbers, so that variable frame rates are kept. Wide colour and high
dynamic range are converted to BT.709, see `colour`.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.video.reformatter import ColorRange

from hybrid_jax.media import MediaError, reason, replacing, stills
from hybrid_jax.media.clock import key_frame_before, timed_frames
from hybrid_jax.media.containers import (
  audio_stream,
  codec_name,
  is_cut_short,
  open_clip,
  video_stream,
)
from hybrid_jax.media.pixels import Upright, to_rgb0, to_yuv
from hybrid_jax.media.sound import Sound

# Names of clips; the content decides what a file is (`is_clip`). Without .gif: it has no sound, and
# times in whole hundredths of a second only.
SUFFIXES = (
  '.mp4', '.m4v', '.mov', '.mkv', '.webm', '.avi', '.mpg', '.mpeg', '.vob', '.ts', '.mts', '.m2ts',
  '.wmv', '.asf', '.flv', '.3gp', '.3g2', '.ogv', '.mxf',
)  # fmt: skip

_BT709 = 1  # FFmpeg's number of BT.709 among matrices, primaries and transfer functions alike


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
  """A frame of a clip.

  rgb: (h, w, 3) uint8.
  time: from which it is shown, seconds.
  number: place in the clip, where frames before it may be missing; None where the clip is complete.
  """

  # None for a frame that the caller does not need, and for one of an array that is not finite, see
  # `sequences.read`.
  rgb: np.ndarray
  time: Fraction
  number: int | None = None


@dataclasses.dataclass(frozen=True)
class ClipInfo:
  """Properties of a clip, from its header and first frame.

  height, width: of the frames that `read_frames` yields, px.
  time_base: tick of the time stamps, seconds; `VideoWriter` with the same tick keeps them exactly.
  frames: number of frames; None if the container does not state it.
  duration: seconds; None likewise.
  rate: average frames per second; None likewise.
  audio: codec of the default audio track, or None.
  """

  height: int
  width: int
  time_base: Fraction
  frames: int | None
  duration: Fraction | None
  rate: Fraction | None
  audio: str | None


def is_clip(path: str | os.PathLike) -> bool:
  """Returns whether a file is a clip, by its content; a GIF counts as a picture.

  The name decides for a file of neither kind, so that its reader gives the reason.
  """
  if stills.is_picture(path):
    return False
  if pathlib.Path(path).suffix.lower() in SUFFIXES:
    return True
  try:
    probe(path)
    return True
  except MediaError:
    return False


def probe(path: str | os.PathLike) -> ClipInfo:
  """Reads the header and the first frame. Raises MediaError as `read_frames` does."""
  if stills.is_heif(path):
    height, width, _ = stills.read_image(path).shape
    return ClipInfo(height, width, Fraction(1, 25), 1, None, None, None)
  with open_clip(path) as container:
    stream = video_stream(container, path)
    try:
      first = next(container.decode(stream), None)
    except av.FFmpegError as error:
      raise MediaError(f'{path}: no frame can be decoded ({reason(error)}); replace it') from error
    if first is None:
      raise MediaError(f'{path}: has no frames; replace it')
    height, width = Upright(first, stream).size
    # A stream of Matroska and WebM has no duration; the container states one for all tracks.
    duration = None
    if stream.duration:
      duration = stream.duration * stream.time_base
    elif container.duration:
      duration = Fraction(container.duration, av.time_base)
    audio = audio_stream(container)
    return ClipInfo(
      height=height,
      width=width,
      time_base=stream.time_base,
      frames=stream.frames or None,
      duration=duration,
      rate=stream.average_rate or None,
      audio=audio and codec_name(audio),
    )


def read_frames(
  path: str | os.PathLike,
  *,
  start: float = 0,
  threads: int = 0,
  needed: Callable[[], bool] | None = None,
) -> Iterator[Frame]:
  """Decodes the first video track, one frame in memory at a time.

  Frames are upright (the display matrix is applied), have square pixels (the width is resized), are
  converted with the matrix and range of the stream, are composited over white where transparent,
  and have the size of the first one. Times strictly increase: a frame whose time stamp is missing
  or repeated follows the one before at the average rate.

  Args:
    start: seconds; earlier frames are left out, and are not decoded before the last key frame. 0
      leaves none out.
    threads: of the decoder; 0 takes one for each core.
    needed: asked before each frame is converted, which often takes longer than decoding it; a frame
      that is not needed has None for its pixels.

  Raises:
    MediaError: on the first `next`, if the file cannot be opened or has no video; after the frames
      that could be decoded, if the file breaks off midway. The message has their number.
  """
  # FFmpeg shows one tile of the many that a phone's picture is made of.
  if stills.is_heif(path):
    yield Frame(stills.read_image(path), Fraction(0))
    return
  count = 0
  with open_clip(path) as container:
    stream = video_stream(container, path)
    stream.codec_context.thread_count = threads
    upright = None
    try:
      if start > 0:
        upright = _seek(container, stream, path, start)
      for decoded, time in timed_frames(container, stream):
        # Size and display matrix come with the first frame; a stream that changes its size is
        # scaled to it.
        upright = upright or Upright(decoded, stream)
        # A clip may begin before 0, if its sound does not.
        if start <= 0 or float(time) >= start:
          yield Frame(None if needed and not needed() else upright(decoded), time)
          count += 1
      broken = 'the rest is missing' if is_cut_short(container, stream, path) else ''
    except av.FFmpegError as error:
      broken = reason(error)
  # Raised after the last frame: callers may keep what was decoded so far (`tracking.track`).
  if broken:
    raise MediaError(f'{path}: breaks off after {count} frames ({broken}); repair or replace it')
  if upright is None:
    raise MediaError(f'{path}: has no frames; replace it')


def _seek(
  container: InputContainer, stream: av.VideoStream, path: str | os.PathLike, start: float
) -> Upright | None:
  """Moves to a key frame before `start` where there is one; returns the converter of the file."""
  # Another instance looks for it: a container that was moved does not always find back.
  with open_clip(path) as other:
    stamp = key_frame_before(other, video_stream(other, path), start)
  if stamp is None:
    return None
  upright = Upright(next(container.decode(stream)), stream)
  container.seek(stamp, stream=stream)
  return upright


def open_target(path: str | os.PathLike, time_base: Fraction) -> OutputContainer:
  """Opens a file for writing that keeps times in `time_base` as exactly as its format can."""
  # MP4 stores the start of a track in this unit, by default milliseconds.
  unit = {'movie_timescale': str(time_base.denominator)}
  mp4 = pathlib.Path(path).suffix.lower() in ('.mp4', '.m4v', '.mov')
  return av.open(f'file:{path}', 'w', options=unit if mp4 else {})


class VideoWriter:
  """H.264 writer: a context manager that writes frames at the given times; also VP9 and FFV1.

  H.264 and VP9 are yuv420p in limited range, converted with and tagged as BT.709 at every size;
  FFV1 keeps every RGB value. MP4 and MOV round times to multiples of `time_base`; Matroska and WebM
  round to milliseconds and start at the earliest packet, sound included. The last frame is shown as
  long as the one before it. `path` appears when the `with` block succeeds; on an exception the
  partial file is removed and an existing `path` is not changed.

  Args:
    path: file to write; its suffix chooses the container.
    height, width: of the frames, px; both even, except for FFV1.
    time_base: tick of the time stamps, seconds; `probe(source).time_base` keeps those of `source`.
    crf: constant rate factor, 0 (lossless) to 51; at 18 the loss is hardly visible.
    codec: 'ffv1', or an FFmpeg encoder with the option `crf`.
    audio_from: file whose default audio track is copied packet by packet, or transcoded if the
      container does not accept it. Its times are those since `clock.start_of` this file.

  Attributes:
    audio_note: one line if the audio was not copied, or chosen among several; '' otherwise.

  Raises:
    MediaError: odd size, unknown codec or container, a frame of another size or type, times that
      do not increase or are negative, no frame at all, a folder that cannot be written.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    height: int,
    width: int,
    *,
    time_base: Fraction = Fraction(1, 90000),
    crf: float = 18,
    codec: str = 'libx264',
    audio_from: str | os.PathLike | None = None,
  ):
    self._lossless = codec == 'ffv1'
    # 4:2:0 halves both sides of the chroma planes.
    if not self._lossless and (height % 2 or width % 2 or min(height, width) < 2):
      raise MediaError(f'{path}: {width}x{height} cannot be written; width and height must be even')
    self.path, self.height, self.width = os.fspath(path), height, width
    self.time_base, self.crf, self.codec, self.audio_from = time_base, crf, codec, audio_from
    self._last = self._sound = None

  @property
  def audio_note(self) -> str:
    """The note of `Sound`, '' without sound."""
    return self._sound.note if self._sound else ''

  def __enter__(self) -> 'VideoWriter':
    # A generator as context manager keeps opening, failing and closing in one function.
    self._session = self._write_file()
    self._session.__enter__()
    return self

  def __exit__(self, *error) -> bool | None:
    try:
      return self._session.__exit__(*error)
    finally:
      # Frees the encoder, tens of megabytes, although the writer itself may live on.
      self._session = self._container = self._stream = None

  @contextlib.contextmanager
  def _write_file(self) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
      # Entered first and so left last: the file is closed before it gets its name.
      target = self._target(stack)
      with self._errors_named():
        self._container = stack.enter_context(target())
        self._stream = self._video_track()
      if self.audio_from is not None:
        source = stack.enter_context(open_clip(self.audio_from))
        with self._errors_named():
          self._sound = Sound(self._container, source, self.audio_from)
      with self._errors_named():
        # Writes the header; otherwise its errors appear only with the encoder's first packet.
        self._container.start_encoding()
        if self._sound:
          self._sound.start()
      yield
      if self._last is None:
        raise MediaError(f'{self.path}: no frame to write; check the source')
      with self._errors_named():
        # Drains the encoder: x264 holds frames back to look ahead and for B frames.
        self._mux(self._stream.encode(None))
        if self._sound:
          self._sound.write()
        self._container.close()

  def _target(self, stack: contextlib.ExitStack) -> Callable[[], OutputContainer]:
    """Returns what opens the target; leaving `stack` completes or removes it."""
    part = stack.enter_context(replacing(self.path))
    return lambda: open_target(part, self.time_base)

  def _encoder_options(self) -> dict[str, str]:
    return {} if self._lossless else {'crf': str(self.crf)}

  @contextlib.contextmanager
  def _errors_named(self) -> Iterator[None]:
    """Converts the errors of FFmpeg in the block to a MediaError that names the target."""
    try:
      yield
    # PyAV reports an unknown codec or container as ValueError.
    except (av.FFmpegError, ValueError) as error:
      raise MediaError(f'{self.path}: cannot be written ({reason(error)})') from error

  def _video_track(self) -> av.VideoStream:
    # x264 allots bits by the nominal rate, which otherwise would be one frame per tick. The time
    # stamps do not depend on it.
    stream = self._container.add_stream(self.codec, rate=30, options=self._encoder_options())
    stream.width, stream.height = self.width, self.height
    # FFV1 takes 8-bit RGB in this layout; the fourth byte is ignored.
    stream.pix_fmt = 'bgr0' if self._lossless else 'yuv420p'
    stream.time_base = stream.codec_context.time_base = self.time_base
    context = stream.codec_context
    if not self._lossless:
      # Without tags a player guesses the matrix by the size, and small videos change colour.
      context.colorspace = context.color_primaries = context.color_trc = _BT709
      context.color_range = ColorRange.MPEG
    return stream

  def _mux(self, packets: Sequence[av.Packet]) -> None:
    for packet in packets:
      # Affects the last frame only, which otherwise is shown for the nominal interval.
      packet.duration = self._interval
      self._container.mux(packet)

  def write(self, rgb: np.ndarray, time: Fraction) -> None:
    """Appends a frame (height, width, 3) uint8 that is shown from `time`, seconds."""
    if rgb.dtype != np.uint8 or rgb.shape != (self.height, self.width, 3):
      wanted = (self.height, self.width, 3)
      raise MediaError(f'{self.path}: frames are uint8 {wanted}, not {rgb.dtype} {rgb.shape}')
    # A Fraction is exact; the quotient of floats can round to the neighbouring tick.
    pts = round(Fraction(time) / self.time_base)
    if pts < 0 or (self._last is not None and pts <= self._last):
      raise MediaError(f'{self.path}: a frame at {float(time):.6f} s is not after the one before')
    frame = to_rgb0(rgb) if self._lossless else to_yuv(rgb)
    frame.pts, frame.time_base = pts, self.time_base
    # Duration of the packets that the encoder returns now, of which the last one counts.
    self._interval = pts - (self._last or 0)
    with self._errors_named():
      self._mux(self._stream.encode(frame))
      if self._sound:
        self._sound.write(until=time)
    self._last = pts
