"""Copies the sound of one clip into another, packet by packet, or transcodes it."""

import os
from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import InputContainer, OutputContainer

from hybrid_jax.media import reason
from hybrid_jax.media.containers import codec_name, takes

# Encoder and sample rate for sound that the container does not accept, by format; else AAC.
_INSTEAD = {'webm': ('libopus', 48_000)}
_AAC = ('aac', 48_000)


class Sound:
  """Writes the first audio track of `source` into `target`, with its own time stamps.

  Args:
    name: path of the source, for the note.

  Attributes:
    note: one line if the track was left out, transcoded or broken off; '' if it was copied.
  """

  def __init__(self, target: OutputContainer, source: InputContainer, name: str | os.PathLike):
    self._target, self._source, self._name = target, source, name
    self.note, self._packets = '', iter(())
    # Only the first: further tracks are languages and comments.
    track = next(iter(source.streams.audio), None)
    if track is None:
      self.note = f'{name} has no audio track'
    elif takes(target.format.name, track):
      self._packets = self._copied(track, target.add_stream_from_template(track))
    elif track.codec_context is None:
      self.note = f'{name}: left out its audio, whose codec FFmpeg does not support'
    else:
      # Both encoders accept 48 kHz; Opus does not accept 44.1 kHz.
      codec, rate = _INSTEAD.get(target.format.name, _AAC)
      layout = track.codec_context.layout.name
      stream = target.add_stream(codec, rate=rate, layout=layout)
      self._packets = self._transcoded(track, stream)
      self.note = f'sound transcoded from {codec_name(track)} to {codec.removeprefix("lib")}'
    self._packet = None

  def start(self) -> None:
    """Reads the first packet; call it after the target has written its header."""
    self._packet = self._next()

  def _next(self) -> av.Packet | None:
    try:
      return next(self._packets, None)
    except av.FFmpegError as error:
      # Damaged sound does not spoil the pictures: the file ends without the rest of it.
      self.note = f'{self._name}: the audio breaks off ({reason(error)})'
      return None

  def write(self, until: Fraction | None = None) -> None:
    """Writes the packets up to a time, seconds; None writes all that are left.

    Called alongside the frames, so that the muxer, which interleaves by time, need not buffer them.
    """
    while self._packet and (until is None or self._packet.dts * self._packet.time_base <= until):
      self._target.mux(self._packet)
      self._packet = self._next()

  def _copied(self, track: av.AudioStream, stream: av.AudioStream) -> Iterator[av.Packet]:
    for packet in self._source.demux(track):
      if packet.dts is not None:  # the empty packet that ends a track has none
        # Assigns the packet to the track of the target; PyAV rescales its times.
        packet.stream = stream
        yield packet

  def _transcoded(self, track: av.AudioStream, stream: av.AudioStream) -> Iterator[av.Packet]:
    context = stream.codec_context
    # The encoder needs its own sample format and frames of its fixed size.
    resampler = av.AudioResampler(
      context.format, context.layout, context.rate, context.frame_size or 1024
    )
    for frame in self._source.decode(track):
      for part in resampler.resample(frame):
        yield from stream.encode(part)
    # Flushes the last, shorter frame of the resampler, then the encoder.
    for part in resampler.resample(None):
      yield from stream.encode(part)
    yield from stream.encode(None)
