"""Bounds of what visitors may upload, checked before any frame is decoded."""

import dataclasses
import os

import av

from hybrid_jax.errors import InputError
from hybrid_jax.media import containers, reason, video

MOST_RATE = 60  # frames per second, on average over the clip
MOST_PIXELS = 1 << 24  # of a frame, 4096 x 4096


@dataclasses.dataclass(frozen=True)
class Limits:
  """The largest upload.

  Attributes:
    megabytes: of a file.
    seconds: of a clip.
  """

  megabytes: int = 200
  seconds: float = 60

  def check(self, path: str) -> None:
    """Raises InputError if a clip is too large or too long, or cannot be opened."""
    if os.path.getsize(path) > self.megabytes * 1_000_000:
      raise InputError(f'{path}: is larger than {self.megabytes} MB; shorten it')
    info = video.probe(path)
    if info.height * info.width > MOST_PIXELS:
      raise InputError(f'{path}: {info.width}x{info.height} px is too large; shrink it first')
    frames, seconds = extent(path)
    if seconds > self.seconds:
      raise InputError(
        f'{path}: lasts {seconds:.1f} s, and this page takes {self.seconds:g} s; cut it first '
        '(or start the page with --max-seconds)'
      )
    if frames > MOST_RATE * self.seconds:
      raise InputError(
        f'{path}: has {frames} frames, and this page takes {MOST_RATE * self.seconds:.0f}; lower '
        'its frame rate'
      )


def extent(path: str) -> tuple[int, float]:
  """Returns the number of frames and the duration (s) of a clip, without decoding it."""
  # A clip that a browser recorded states neither in its header, and other headers may be wrong.
  times, count = [], 0
  with containers.open_clip(path) as container:
    stream = containers.video_stream(container, path)
    try:
      for packet in container.demux(stream):
        if packet.size:
          count += 1
        if packet.pts is not None:
          times.append(float(packet.pts * packet.time_base))
    except av.FFmpegError as error:
      # What was read so far is what can be decoded; tracking reports the fault.
      if not count:
        raise InputError(f'{path}: cannot be read ({reason(error)}); replace it') from error
  return count, max(times) - min(times) if times else 0.0
