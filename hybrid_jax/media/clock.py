"""Presentation times of the frames of a clip, and which of them an output calls 0.

Times are exact `Fraction` seconds on the clock of the file. Broadcasts start theirs anywhere, and
recordings that were cut keep the one of the whole.
"""

import collections
import os
from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import InputContainer

from hybrid_jax.media import MediaError
from hybrid_jax.media.containers import audio_stream, open_clip, video_stream

# Sound that starts later is not at the beginning of a clock that starts at 0; an encoder's lead or
# a first packet of a lower rate are shorter.
_AT_ZERO = Fraction(1, 10)  # s
# Formats with an index of key frames. In others FFmpeg may land between two of them, from where the
# decoder shows grey pictures.
_INDEXED = {'mp4', 'matroska'}


def timed_frames(
  container: InputContainer, stream: av.VideoStream, *, lossy: bool = False
) -> Iterator[tuple[av.VideoFrame, Fraction]]:
  """Decodes a video track; yields frames and times, which strictly increase.

  A frame whose time stamp is missing or repeated follows the one before at the average rate.

  Args:
    lossy: leaves out packets that cannot be decoded, as a stream has where one joins it.
  """
  # 25 frames per second if the container states no rate; it affects missing stamps alone.
  interval = 1 / (stream.average_rate or Fraction(25))
  stamps = _by_decoding_order if container.format.name == 'avi' else _by_presentation
  stamps = _by_presentation_lossy if lossy else stamps
  time = None
  for frame, stamp in stamps(container, stream):
    # A repeated stamp would make the writer fail; raw H.264 has no stamps at all.
    if stamp is None or (time is not None and stamp <= time):
      stamp = Fraction(0) if time is None else time + interval
    time = stamp
    yield frame, time


def key_frame_before(container: InputContainer, stream: av.VideoStream, start: float) -> int | None:
  """Returns the stamp to seek to, so that all frames shown from `start` (seconds) on are decoded.

  It is None where only decoding from the first frame is safe: the container has no index of key
  frames, or none lies before `start`. The container is left somewhere in the file.
  """
  if not _INDEXED & set(container.format.name.split(',')):
    return None
  # An index of decoding times may lead to a key frame that is shown after `start`.
  for earlier in (0, 1, 5, 30):
    stamp = int((start - earlier) / stream.time_base)
    if stamp <= 0:
      return None
    container.seek(stamp, stream=stream)
    packet = next(container.demux(stream))
    shown = packet.is_keyframe and packet.pts is not None
    if shown and packet.pts * packet.time_base <= start:
      return stamp
  return None


def start_of(path: str | os.PathLike) -> Fraction:
  """Returns the time of a clip that an output calls 0, seconds.

  It is 0 if the clip has sound that begins at 0, so that a picture that begins later stays late; on
  any other clock it is the time of the first frame shown. A file of sound alone gives 0.

  Raises:
    MediaError: the file cannot be opened.
  """
  with open_clip(path) as container:
    sound = audio_stream(container)
    try:
      _, first = next(timed_frames(container, video_stream(container, path)))
    # Of a clip without frames its reader gives the reason.
    except (MediaError, av.FFmpegError, StopIteration):
      return Fraction(0)
    heard = sound and sound.start_time is not None and sound.start_time * sound.time_base
    at_zero = heard is not None and heard <= _AT_ZERO and heard > -1
    return Fraction(0) if first >= 0 and at_zero else first


def _by_presentation(
  container: InputContainer, stream: av.VideoStream
) -> Iterator[tuple[av.VideoFrame, Fraction | None]]:
  # Frame threading stays off: at a damaged packet it drops the frames still in its pipeline.
  for frame in container.decode(stream):
    yield frame, None if frame.pts is None else frame.pts * frame.time_base


def _by_presentation_lossy(
  container: InputContainer, stream: av.VideoStream
) -> Iterator[tuple[av.VideoFrame, Fraction | None]]:
  for packet in container.demux(stream):
    try:
      frames = packet.decode()
    except av.error.InvalidDataError:
      continue
    for frame in frames:
      yield frame, None if frame.pts is None else frame.pts * frame.time_base


def _by_decoding_order(
  container: InputContainer, stream: av.VideoStream
) -> Iterator[tuple[av.VideoFrame, Fraction | None]]:
  """Gives the k-th frame shown the k-th decoding time.

  AVI has decoding times only, and what FFmpeg makes of them as presentation times is in the order
  of decoding, which B-frames change.
  """
  waiting, started = collections.deque(), False
  for packet in container.demux(stream):
    if packet.dts is not None:
      waiting.append((packet.pts, packet.dts * packet.time_base))
    for frame in packet.decode():
      # A file that was cut begins with packets that refer to frames before it, and show nothing.
      while not started and waiting and waiting[0][0] != frame.pts:
        waiting.popleft()
      started = True
      yield frame, waiting.popleft()[1] if waiting else None
