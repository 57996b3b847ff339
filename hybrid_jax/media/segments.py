"""Writes long outputs in segments, so that a killed render resumes after the last finished one.

A target writes numbered segments into a folder and joins them at the end without encoding again.
The content of a segment does not depend on whether the render was interrupted.
"""

import contextlib
import csv
import itertools
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.media import MediaError, reason, replacing, stills
from hybrid_jax.media.composite import even
from hybrid_jax.media.containers import open_clip
from hybrid_jax.media.sound import Sound
from hybrid_jax.media.video import VideoWriter, open_target


class VideoTarget:
  """One video file: H.264 or VP9 with a constant rate factor, or FFV1, with the sound of a clip.

  Odd sides are made even by repeating the edge, except for FFV1.

  Args:
    path, time_base, codec, crf, audio_from: as of `VideoWriter`. Sound that fails is left out.
    comment: stored in the container's metadata.
    sign: called with the complete file before it gets its name, e.g. to add credentials.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    time_base: Fraction,
    *,
    codec: str = 'libx264',
    crf: float = 18,
    audio_from: str | os.PathLike | None = None,
    comment: str = '',
    sign: Callable[[pathlib.Path], None] | None = None,
  ):
    self.path, self.time_base = pathlib.Path(path), time_base
    self.codec, self.crf, self.audio_from = codec, crf, audio_from
    self.comment, self.sign = comment, sign

  def _name(self, folder: pathlib.Path, k: int) -> pathlib.Path:
    return folder / f'{k:05d}.mp4'  # MP4 keeps times exactly, with each of the codecs

  def done(self, folder: pathlib.Path) -> int:
    """Returns how many segments are finished, counted from the first."""
    # A file exists only when finished (`replacing`), so that counting them suffices.
    return next(k for k in itertools.count() if not self._name(folder, k).is_file())

  @contextlib.contextmanager
  def segment(self, folder: pathlib.Path, k: int, shape: tuple[int, int]) -> Iterator:
    """Yields write(rgb (h, w, 3), time); the segment counts as finished if the block succeeds."""
    adapt = (lambda rgb: rgb) if self.codec == 'ffv1' else even
    # Of an empty picture, to learn the size after padding.
    height, width, _ = adapt(np.empty((*shape, 3), np.uint8)).shape
    with VideoWriter(
      self._name(folder, k),
      height,
      width,
      time_base=self.time_base,
      codec=self.codec,
      crf=self.crf,
    ) as writer:
      yield lambda rgb, time: writer.write(adapt(rgb), time)

  def finish(self, folder: pathlib.Path, count: int) -> str:
    """Joins the segments; returns a note if the sound was not copied, or ''."""
    names = [self._name(folder, k) for k in range(count)]
    try:
      return self._join(names, self.audio_from)
    except MediaError as error:
      if self.audio_from is None:
        raise
      # The pictures took hours and joining them takes seconds: if they alone can be written, it was
      # the sound.
      self._join(names, None)
      return f'{self.audio_from}: left out its audio, which failed: {error}'

  def _join(self, names: list[pathlib.Path], audio_from: str | os.PathLike | None) -> str:
    decoded, durations = _clock(names, self.time_base)
    try:
      with contextlib.ExitStack() as stack:
        part = stack.enter_context(replacing(self.path))
        target = stack.enter_context(open_target(part, self.time_base))
        target.metadata['comment'] = self.comment
        first = stack.enter_context(open_clip(names[0]))
        # Takes the codec's headers of the first segment; all segments have the same settings.
        stream = target.add_stream_from_template(first.streams.video[0])
        stream.time_base = self.time_base
        # Added only now: copied sound must not be cut at the borders of segments.
        sound = None
        if audio_from is not None:
          sound = Sound(target, stack.enter_context(open_clip(audio_from)), audio_from)
        target.start_encoding()
        if sound:
          sound.start()
        packets = itertools.chain.from_iterable(_packets(n, self.time_base) for n in names)
        for dts, packet in zip(decoded, packets, strict=True):
          packet.dts, packet.duration = int(dts), durations[packet.pts]
          packet.stream = stream
          time = packet.pts * self.time_base
          target.mux(packet)
          if sound:
            sound.write(until=time)
        if sound:
          sound.write()
        target.close()
        if self.sign:
          self.sign(part)
        return sound.note if sound else ''
    except (av.FFmpegError, ValueError) as error:
      # Raised by `replacing` or `Sound`, with a message of its own; InputError is a ValueError.
      if isinstance(error, InputError):
        raise
      raise MediaError(f'{self.path}: cannot be written ({reason(error)})') from error


def _clock(names: list[pathlib.Path], time_base: Fraction) -> tuple[np.ndarray, dict[int, int]]:
  """Returns the decoding times of the packets of all segments, and durations by presentation time.

  Each segment starts its own decoding clock. In the joined file decoding times must increase and
  must not exceed presentation times: with B frames a packet is decoded up to `early` places before
  it is shown, so that the decoding times are the presentation times `early` places before.
  """
  stamps = [np.array([p.pts for p in _packets(name, time_base)]) for name in names]
  early = max(int((np.arange(len(p)) - p.argsort().argsort()).max()) for p in stamps)
  shown = np.concatenate([np.sort(p) for p in stamps])
  steps = np.diff(shown)
  # The last frame is shown as long as the one before it, a single one for one tick.
  steps = np.append(steps, steps[-1] if len(steps) else 1)
  decoded = np.concatenate((shown[0] - steps[0] * np.arange(early, 0, -1), shown))
  return decoded[: len(shown)], dict(zip(shown.tolist(), steps.tolist(), strict=True))


def _packets(path: pathlib.Path, time_base: Fraction) -> Iterator[av.Packet]:
  """Yields the packets of a segment in decoding order, with `pts` in units of `time_base`."""
  with open_clip(path) as source:
    for packet in source.demux(video=0):
      if packet.pts is not None:
        # Exact for MP4 with the same tick; the container may have chosen a finer one.
        packet.pts = round(packet.pts * packet.time_base / time_base)
        packet.time_base = time_base
        yield packet


class PictureTarget:
  """A folder of PNG files, and `timestamps.csv`: file, seconds, and seconds as a fraction.

  An existing folder is replaced only if it holds such an output, or nothing.

  Args:
    path: the folder.
    comment: stored in each file.
    sign: called with each file before the folder gets its name, e.g. to add credentials.

  Raises:
    MediaError: `path` is a file or a folder of something else.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    *,
    comment: str = '',
    sign: Callable[[pathlib.Path], None] | None = None,
  ):
    self.path, self.comment, self.sign = pathlib.Path(path), comment, sign
    # Refused before any frame is rendered.
    if self.path.exists() and not (self.path.is_dir() and _holds_pictures(self.path)):
      raise MediaError(
        f'{self.path}: exists, and is not a folder of pictures of hybrid_jax; give a new name'
      )

  def done(self, folder: pathlib.Path) -> int:
    """Returns how many segments are finished, counted from the first."""
    if not (folder / 'pictures').is_dir() and not self.path.is_dir():
      return 0  # moved by an earlier run, and deleted since
    return next(k for k in itertools.count() if not (folder / f'{k:05d}.times').is_file())

  def _times(self, folder: pathlib.Path, count: int) -> list[str]:
    """Returns the time of each picture of the first `count` segments."""
    return [t for k in range(count) for t in (folder / f'{k:05d}.times').read_text().split()]

  @contextlib.contextmanager
  def segment(self, folder: pathlib.Path, k: int, shape: tuple[int, int]) -> Iterator:
    """Yields write(rgb (h, w, 3), time); the segment counts as finished if the block succeeds."""
    pictures, times = folder / 'pictures', []
    pictures.mkdir(exist_ok=True)
    # Numbers continue those of the segments before. Pictures of an unfinished segment are
    # overwritten, under the same names.
    first = len(self._times(folder, k))

    def write(rgb, time):
      stills.write_image(pictures / f'{first + len(times):06d}.png', rgb, self.comment)
      times.append(str(time))

    yield write
    # Written last: this file marks the segment as finished.
    with replacing(folder / f'{k:05d}.times') as part:
      part.write_text('\n'.join(times))

  def finish(self, folder: pathlib.Path, count: int) -> str:
    """Writes `timestamps.csv`, signs the pictures and moves their folder to its place."""
    if not (folder / 'pictures').is_dir():
      return ''  # moved by an earlier run, which was killed before it removed `folder`
    with (folder / 'pictures' / 'timestamps.csv').open('w', newline='') as file:
      table = csv.writer(file)
      table.writerow(('file', 'seconds', 'exact'))
      for number, exact in enumerate(self._times(folder, count)):
        table.writerow((f'{number:06d}.png', f'{float(Fraction(exact)):.6f}', exact))
    if self.sign:
      for picture in sorted((folder / 'pictures').glob('*.png')):
        self.sign(picture)
    # An existing folder cannot be replaced by a rename, so that it is first moved aside; killed in
    # between, the old pictures are still in `before`.
    before = folder / 'before'
    if self.path.exists():
      self.path.rename(before)
    (folder / 'pictures').rename(self.path)
    if before.exists():
      shutil.rmtree(before)
    return ''


def _holds_pictures(folder: pathlib.Path) -> bool:
  """Returns whether a folder is empty, or holds an output of `PictureTarget` and nothing else."""
  names = {path.name for path in folder.iterdir()}
  ours = all(re.fullmatch(r'\d{6,}\.png', name) for name in names - {'timestamps.csv'})
  return not names or (ours and 'timestamps.csv' in names)
