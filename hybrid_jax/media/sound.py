"""Copies the sound of one clip into another, packet by packet, or transcodes it."""

import contextlib
import io
import itertools
import os
import pathlib
import re
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer, OutputContainer

from hybrid_jax.media import MediaError, reason
from hybrid_jax.media.clock import start_of
from hybrid_jax.media.containers import audio_stream, codec_name, open_clip

# Encoder and sample rate for sound that the container does not accept, by suffix; else AAC. Both
# encoders accept 48 kHz; Opus does not accept 44.1 kHz.
_ENCODERS = {'.webm': ('libopus', 48_000)}
_AAC = ('aac', 48_000)
# Channels -> the layout that both encoders take. Other numbers are mixed down to stereo. Among
# them are no layouts with side speakers, which AC-3 has and Opus refuses.
_LAYOUTS = {1: 'mono', 2: 'stereo', 6: '5.1', 8: '7.1'}
_LEAD = 0.1  # s, longer than the lead of an encoder
_TRIED = 64  # packets of a trial, one to three seconds: encoders hold back the first ones


class Sound:
  """Writes one audio track of `source` into `target`, beside pictures that begin at 0.

  What the clip calls `clock.start_of` is 0 in the target; sound before it is left out.

  The track is the default one (`containers.audio_stream`). It is copied if a trial shows that the
  format of the target takes its packets, transcoded if not, and left out if that fails as well.

  Args:
    name: path of the source, for the trials and the notes.

  Attributes:
    note: one line if the track was left out, transcoded, chosen among several or broken off; ''.
  """

  def __init__(self, target: OutputContainer, source: InputContainer, name: str | os.PathLike):
    self._target, self._name, self._start = target, name, start_of(name)
    self._packets, self._packet = iter(()), None
    copies, self.note = _plan(name, pathlib.Path(target.name).suffix)
    if copies is not None:
      self._packets = _packets(target, audio_stream(source), copies)

  def start(self) -> None:
    """Reads the first packet; call it after the target has written its header."""
    self._packet = self._next()
    # Only where the clock is moved: on its own clock an encoder's lead is before 0, and belongs to
    # the sound. Matroska has no negative times, and would delay the pictures instead.
    first = self._packet and self._packet.pts * self._packet.time_base
    while self._start and self._packet and self._packet.pts < 0:
      self._packet = self._next()
    if self._start and first is not None and first < -_LEAD:
      lost = f'the first {float(-first):.2f} s of the sound, before the first frame, are left out'
      self.note = _joined(self.note, lost)

  def _next(self) -> av.Packet | None:
    try:
      packet = next(self._packets, None)
    except (av.FFmpegError, ValueError) as error:
      # Damaged sound does not spoil the pictures: the file ends without the rest of it.
      self.note = _joined(self.note, f'{self._name}: the audio breaks off ({reason(error)})')
      return None
    if packet and self._start:
      moved = round(self._start / packet.time_base)
      packet.pts, packet.dts = packet.pts - moved, packet.dts - moved
    return packet

  def write(self, until: Fraction | None = None) -> None:
    """Writes the packets up to a time of the target, seconds; None writes all that are left.

    Called alongside the frames, so that the muxer, which interleaves by time, need not buffer them.

    Raises:
      MediaError: the target refuses a packet.
    """
    while self._packet and (until is None or self._packet.dts * self._packet.time_base <= until):
      try:
        self._target.mux(self._packet)
      except (av.FFmpegError, ValueError) as error:
        raise MediaError(
          f'{self._name}: its sound cannot be written ({reason(error)}); leave it out (--no-audio)'
        ) from error
      self._packet = self._next()


def outlook(name: str | os.PathLike, target: str | os.PathLike) -> str:
  """Returns the note that `Sound` will give of a clip in a file named `target`; '' for a copy.

  Found by trials in memory, so that it is known before anything is rendered.
  """
  return _plan(name, pathlib.Path(target).suffix)[1]


def _plan(name: str | os.PathLike, suffix: str) -> tuple[bool | None, str]:
  """Returns whether a track is copied (True), transcoded (False) or left out (None), and a note."""
  with open_clip(name) as source:
    track = audio_stream(source)
    if track is None:
      return None, f'{name} has no audio track'
    codec, chosen = codec_name(track), _chosen(source, track)
    supported = track.codec_context is not None
  if not _obstacle(name, suffix, copies=True):
    return True, chosen
  if not supported:
    left_out = f'{name}: left out its audio, whose codec FFmpeg does not support'
    return None, _joined(chosen, left_out)
  if obstacle := _obstacle(name, suffix, copies=False):
    left_out = f'{name}: left out its audio, {codec}, which cannot be transcoded ({obstacle})'
    return None, _joined(chosen, left_out)
  encoder = _ENCODERS.get(suffix.lower(), _AAC)[0].removeprefix('lib')
  return False, _joined(chosen, f'sound transcoded from {codec} to {encoder}')


def _chosen(source: InputContainer, track: av.AudioStream) -> str:
  """Returns a line with the place and language of a track among several; '' for a single one."""
  tracks = source.streams.audio
  language = f', {track.language}' if track.language not in (None, 'und') else ''
  place = f'track {tracks.index(track) + 1}{language} of {len(tracks)} audio tracks'
  return f'sound: {place}' if len(tracks) > 1 else ''


def _joined(*notes: str) -> str:
  return '; '.join(filter(None, notes))


class _Memory(io.BytesIO):
  """A file in memory whose name lets FFmpeg choose the format."""

  def __init__(self, name: str):
    super().__init__()
    self.name = name


def _obstacle(name: str | os.PathLike, suffix: str, *, copies: bool) -> str:
  """Returns why the first packets of a clip's sound cannot be written to a format; '' if they can.

  FFmpeg's own tables list codecs that the muxer then refuses, some of them only at the first packet
  or at the end, and a few that no reader finds in the file again.
  """
  memory = _Memory(f'trial{suffix}')
  try:
    with open_clip(name) as source, av.open(memory, 'w') as target:
      packets = _packets(target, audio_stream(source), copies)
      target.start_encoding()
      count = 0
      for packet in itertools.islice(_undamaged(packets) if copies else packets, _TRIED):
        target.mux(packet)
        count += 1
    with av.open(io.BytesIO(memory.getvalue())) as written:
      track = written.streams.audio[0]
      if count and track.codec_context and next(_frames(track), None) is None:
        return 'it is silent when read again'
    return ''
  # IndexError: no track was found in the file that was written.
  except (av.FFmpegError, ValueError, IndexError, NotImplementedError) as error:
    return reason(error)


def _undamaged(packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
  """Ends where the source breaks off, which is no fault of the target."""
  with contextlib.suppress(av.FFmpegError):
    yield from packets


def _packets(target: OutputContainer, track: av.AudioStream, copies: bool) -> Iterator[av.Packet]:
  """Adds a track to a target, and returns an iterator over its packets."""
  if copies:
    return _copied(track, target.add_stream_from_template(track))
  codec, rate = _ENCODERS.get(pathlib.Path(target.name).suffix.lower(), _AAC)
  layout = _LAYOUTS.get(track.codec_context.layout.nb_channels, 'stereo')
  return _transcoded(track, target.add_stream(codec, rate=rate, layout=layout))


def _copied(track: av.AudioStream, stream: av.AudioStream) -> Iterator[av.Packet]:
  for packet in track.container.demux(track):
    if packet.dts is not None:  # the empty packet that ends a track has none
      # Assigns the packet to the track of the target; PyAV rescales its times.
      packet.stream = stream
      packet.pts = packet.dts if packet.pts is None else packet.pts
      yield packet


def _transcoded(track: av.AudioStream, stream: av.AudioStream) -> Iterator[av.Packet]:
  context = stream.codec_context
  given = (context.format, context.layout, context.rate)
  # The encoder needs frames of its fixed size, also across a change of the source's format.
  framing = av.AudioResampler(*given, context.frame_size or 1024)
  end = None
  for frame in _converted(track, given):
    at = end if frame.pts is None else round(frame.pts * frame.time_base * context.rate)
    # Times in milliseconds (WMV, FLV) overlap and gape by parts of a frame; samples do not.
    frame.pts = at or 0 if end is None or at - end > context.rate / 10 else end
    frame.time_base, end = Fraction(1, context.rate), frame.pts + frame.samples
    for part in framing.resample(frame):
      yield from stream.encode(part)
  # Flushes the last, shorter frame, then the encoder.
  for part in framing.resample(None):
    yield from stream.encode(part)
  yield from stream.encode(None)


def _converted(track: av.AudioStream, given: tuple) -> Iterator[av.AudioFrame]:
  """Yields the frames of a track in another sample format, layout and rate."""
  resampler = before = None
  for frame in map(_with_layout, _frames(track)):
    kind = (frame.format.name, frame.layout.name, frame.sample_rate)
    # A resampler is bound to one kind of frames; broadcasts change from stereo to 5.1 and back.
    if kind != before:
      yield from resampler.resample(None) if resampler else ()
      resampler, before = av.AudioResampler(*given), kind
    yield from resampler.resample(frame)
  yield from resampler.resample(None) if resampler else ()


def _frames(track: av.AudioStream) -> Iterator[av.AudioFrame]:
  """Decodes a track. Damaged packets at its beginning, where broadcasts are cut, are skipped."""
  started = False
  for packet in track.container.demux(track):
    try:
      frames = packet.decode()
    except av.FFmpegError:
      if started:
        raise
      continue
    started = started or bool(frames)
    yield from frames


def _with_layout(frame: av.AudioFrame) -> av.AudioFrame:
  """Returns a frame whose channels have places.

  Some decoders (WMA, Speex) state their number alone, and FFmpeg does not mix such channels.
  """
  layout = _LAYOUTS.get(frame.layout.nb_channels, 'stereo')
  if not re.fullmatch(r'\d+ channels', frame.layout.name):
    return frame
  samples = frame.to_ndarray()
  if layout == 'stereo':  # of an unusual number the first two
    planar = frame.format.is_planar
    count = frame.layout.nb_channels
    samples = samples[:2] if planar else samples.reshape(-1, count)[:, :2].reshape(1, -1)
  placed = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), frame.format.name, layout)
  placed.sample_rate, placed.pts, placed.time_base = frame.sample_rate, frame.pts, frame.time_base
  return placed
