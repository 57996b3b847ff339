"""Clips in and out, through PyAV: streaming, colour-exact and on the clock of the file.

Frames are (h, w, 3) uint8 RGB, times `Fraction` seconds from the presentation time stamps. Variable
frame rates stay variable: nothing here counts frames to know the time. High dynamic range is not
tone-mapped.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import ColorRange

from hybrid_jax.media import MediaError, reason, replacing
from hybrid_jax.media.containers import codec_name, is_cut_short, open_clip, video_stream
from hybrid_jax.media.pixels import Upright, to_rgb0, to_yuv
from hybrid_jax.media.sound import Sound

_BT709 = 1  # its number among matrices, primaries and transfer functions alike


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
  """`rgb` (h, w, 3) uint8, shown from `time` (seconds) on.

  `number` is its place where frames may be missing between it and the one before; None: none are.
  """

  rgb: np.ndarray
  time: Fraction
  number: int | None = None


@dataclasses.dataclass(frozen=True)
class ClipInfo:
  """What a clip says of itself; `height` and `width` are those of the frames `read_frames` gives.

  time_base: the tick of its time stamps, in seconds; hand it to `VideoWriter` to keep them exactly.
  frames, duration (seconds), rate (average, per second): None where the container does not say.
  audio: codec of the first audio track, or None.
  """

  height: int
  width: int
  time_base: Fraction
  frames: int | None
  duration: Fraction | None
  rate: Fraction | None
  audio: str | None


def probe(path: str | os.PathLike) -> ClipInfo:
  """Reads the header and the first frame. Raises MediaError as `read_frames` does."""
  with open_clip(path) as container:
    stream = video_stream(container, path)
    try:
      first = next(container.decode(stream), None)
    except av.FFmpegError as error:
      raise MediaError(f'{path}: no frame can be decoded ({reason(error)}); replace it') from error
    if first is None:
      raise MediaError(f'{path}: has no frames; replace it')
    height, width = Upright(first, stream).size
    duration = None
    if stream.duration:
      duration = stream.duration * stream.time_base
    elif container.duration:
      duration = Fraction(container.duration, av.time_base)
    audio = next(iter(container.streams.audio), None)
    return ClipInfo(
      height=height,
      width=width,
      time_base=stream.time_base,
      frames=stream.frames or None,
      duration=duration,
      rate=stream.average_rate or None,
      audio=audio and codec_name(audio),
    )


def read_frames(path: str | os.PathLike) -> Iterator[Frame]:
  """Decodes the first video track, one frame in memory at a time.

  Frames are upright (the display matrix is obeyed), have square pixels (the width is resized), are
  converted with the matrix and range of the stream, lie over white where they are transparent, and
  keep the size of the first one. Times strictly increase; where a time stamp is missing or
  repeated, the frame follows the one before at the average rate.

  Raises:
    MediaError: on the first `next`, if the file cannot be opened or has no video; after the frames
      that could be decoded, if the file breaks off midway. The line says how many there were.
  """
  count, time = 0, None
  with open_clip(path) as container:
    stream = video_stream(container, path)
    interval = 1 / (stream.average_rate or Fraction(25))
    try:
      # Frame threading stays off: on damage it loses the frames that are still in its pipeline.
      for decoded in container.decode(stream):
        if count == 0:
          upright = Upright(decoded, stream)
        stamp = None if decoded.pts is None else decoded.pts * decoded.time_base
        if stamp is None or (time is not None and stamp <= time):
          stamp = Fraction(0) if time is None else time + interval
        time = stamp
        yield Frame(upright(decoded), time)
        count += 1
      broken = 'the rest is missing' if is_cut_short(container, stream, path) else ''
    except av.FFmpegError as error:
      broken = reason(error)
  if broken:
    raise MediaError(f'{path}: breaks off after {count} frames ({broken}); repair or replace it')
  if not count:
    raise MediaError(f'{path}: has no frames; replace it')


def open_target(path: str | os.PathLike, time_base: Fraction) -> av.container.OutputContainer:
  """Opens a file to write, such that it keeps times in `time_base` as well as its kind can."""
  # MP4 stores the start of a track in this unit, by default milliseconds.
  unit = {'movie_timescale': str(time_base.denominator)}
  mp4 = pathlib.Path(path).suffix.lower() in ('.mp4', '.m4v', '.mov')
  return av.open(f'file:{path}', 'w', options=unit if mp4 else {})


class VideoWriter:
  """Writes a clip whose frames appear at exactly the times given; use it in a `with`.

  H.264 by default, yuv420p in limited range, converted with and tagged as BT.709 at every size; or
  FFV1, which keeps every RGB value.
  MP4 and MOV keep the times exactly where they are multiples of `time_base` (otherwise the nearest
  tick is taken); Matroska and WebM round to milliseconds and begin with the earliest packet, sound
  included. The last frame is shown as long as the one before it. `path` appears on a clean exit of
  the `with`; on an exception nothing is left and an existing `path` stays as it was.

  Args:
    path: the file to write; its suffix chooses the container.
    height, width: of the frames; both even, but for FFV1.
    time_base: the tick, in seconds; `probe(source).time_base` keeps the times of `source`.
    crf: constant rate factor, 0 (lossless) to 51; 18 looks unchanged.
    codec: 'ffv1', or an FFmpeg encoder that knows `crf`.
    audio_from: file whose first audio track is copied whole, packet by packet, on its own clock, or
      transcoded where the container does not take it.

  Attributes:
    audio_note: what became of the audio other than a copy, one line; empty where nothing is amiss.

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
    if not self._lossless and (height % 2 or width % 2 or min(height, width) < 2):
      raise MediaError(f'{path}: {width}x{height} cannot be written; width and height must be even')
    self.path, self.height, self.width = pathlib.Path(path), height, width
    self.time_base, self.crf, self.codec, self.audio_from = time_base, crf, codec, audio_from
    self._last = self._sound = None

  @property
  def audio_note(self) -> str:
    return self._sound.note if self._sound else ''

  def __enter__(self) -> 'VideoWriter':
    self._session = self._write_file()
    self._session.__enter__()
    return self

  def __exit__(self, *error) -> bool | None:
    try:
      return self._session.__exit__(*error)
    finally:
      self._session = self._container = self._stream = None  # frees the encoder, tens of megabytes

  @contextlib.contextmanager
  def _write_file(self) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
      part = stack.enter_context(replacing(self.path))
      with self._blamed():
        self._container = stack.enter_context(open_target(part, self.time_base))
        self._stream = self._video_track()
      if self.audio_from is not None:
        source = stack.enter_context(open_clip(self.audio_from))
        with self._blamed():
          self._sound = Sound(self._container, source, self.audio_from)
      with self._blamed():
        self._container.start_encoding()  # or errors would wait for the encoder's first packet
        if self._sound:
          self._sound.start()
      yield
      if self._last is None:
        raise MediaError(f'{self.path}: no frame to write; check the source')
      with self._blamed():
        self._mux(self._stream.encode(None))
        if self._sound:
          self._sound.write()
        self._container.close()

  @contextlib.contextmanager
  def _blamed(self) -> Iterator[None]:
    """Turns what FFmpeg raises in the block into a MediaError on the target."""
    try:
      yield
    except (av.FFmpegError, ValueError) as error:
      raise MediaError(f'{self.path}: cannot be written ({reason(error)})') from error

  def _video_track(self) -> av.VideoStream:
    # x264 plans its bits by the nominal rate, which would otherwise be one frame a tick.
    options = {} if self._lossless else {'crf': str(self.crf)}
    stream = self._container.add_stream(self.codec, rate=30, options=options)
    stream.width, stream.height = self.width, self.height
    stream.pix_fmt = 'bgr0' if self._lossless else 'yuv420p'
    stream.time_base = stream.codec_context.time_base = self.time_base
    context = stream.codec_context
    if not self._lossless:
      context.colorspace = context.color_primaries = context.color_trc = _BT709
      context.color_range = ColorRange.MPEG
    return stream

  def _mux(self, packets: Sequence[av.Packet]):
    for packet in packets:
      # Counts for the last frame only: without it, that is shown for the nominal interval.
      packet.duration = self._interval
      self._container.mux(packet)

  def write(self, rgb: np.ndarray, time: Fraction):
    """Appends a frame, (height, width, 3) uint8, shown from `time` (seconds) on."""
    if rgb.dtype != np.uint8 or rgb.shape != (self.height, self.width, 3):
      wanted = (self.height, self.width, 3)
      raise MediaError(f'{self.path}: frames are uint8 {wanted}, not {rgb.dtype} {rgb.shape}')
    pts = round(Fraction(time) / self.time_base)
    if pts < 0 or (self._last is not None and pts <= self._last):
      raise MediaError(f'{self.path}: a frame at {float(time):.6f} s is not after the one before')
    frame = to_rgb0(rgb) if self._lossless else to_yuv(rgb)
    frame.pts, frame.time_base = pts, self.time_base
    self._interval = pts - (self._last or 0)
    with self._blamed():
      self._mux(self._stream.encode(frame))
      if self._sound:
        self._sound.write(until=time)
    self._last = pts
