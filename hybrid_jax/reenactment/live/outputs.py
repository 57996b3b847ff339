"""Where live pictures go: a window, a file or folder, an address or a pipe.

Each output has `write(picture, time)`, `keys()` (what was pressed since), `closed` (whether the
viewer has left) and `finish()`, which returns lines for the report.
"""

import contextlib
import itertools
import json
import os
import queue
import shutil
import threading
from fractions import Fraction
from typing import Any

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.media import MediaError, refuse_overwriting
from hybrid_jax.media.broadcast import StreamWriter, stream_format
from hybrid_jax.media.composite import even
from hybrid_jax.provenance import record as provenance
from hybrid_jax.reenactment import output as outputs
from hybrid_jax.reenactment.lock import only_run
from hybrid_jax.reenactment.options import Options

# Pictures of one segment of a file: what a machine that fails loses at most, a minute.
SEGMENT = 1500
WRITE_AHEAD = 25  # pictures that wait for the encoder of a file


class Window:
  """A window of the desktop; its title has the figures.

  Raises:
    InputError: there is no desktop.
  """

  def __init__(self, shape: tuple[int, int]):
    self._root = _desktop()
    import tkinter

    from PIL import ImageTk

    self._make, self._keys, self.closed = ImageTk.PhotoImage, '', False
    self._root.title('hybrid_jax.live')
    self._root.bind('<Key>', lambda event: self._press(event.char))
    self._root.bind('<Escape>', lambda event: self._press('q'))
    self._root.protocol('WM_DELETE_WINDOW', lambda: self._press('q'))
    # A result of 64 px is hard to see: whole multiples of it up to about 512 px.
    self._scale = max(1, 512 // max(shape))
    self._label = tkinter.Label(self._root, borderwidth=0)
    self._label.pack()

  def _press(self, key: str) -> None:
    self._keys += key

  def write(self, picture: np.ndarray, time: Fraction) -> None:
    """Shows a picture."""
    from PIL import Image

    del time
    large = np.repeat(np.repeat(picture, self._scale, 0), self._scale, 1)
    # Kept: Tk does not own the pictures that it shows.
    self._shown = self._make(Image.fromarray(large), master=self._root)
    self._label.configure(image=self._shown)
    self._root.update()

  def title(self, line: str) -> None:
    """Shows the figures."""
    self._root.title(line)

  def keys(self) -> str:
    """Returns the keys pressed since the last call."""
    self._root.update()
    keys, self._keys = self._keys, ''
    return keys

  def finish(self, figures: dict[str, Any]) -> list[str]:
    """Closes the window."""
    del figures
    self._root.destroy()
    return []


class Stream:
  """An address or a pipe; see `StreamWriter`."""

  def __init__(self, options: Options, shape: tuple[int, int], record: dict[str, Any]):
    height, width, _ = even(np.empty((*shape, 3), np.uint8)).shape
    self._stack, self.closed = contextlib.ExitStack(), False
    writer = StreamWriter(options.output, height, width, crf=options.crf, comment=record['made'])
    self._writer = self._stack.enter_context(writer)

  def write(self, picture: np.ndarray, time: Fraction) -> None:
    """Sends a picture."""
    try:
      self._writer.write(even(picture), time)
    except MediaError as error:
      # A viewer that leaves ends the session as the key does.
      if not isinstance(error.__cause__, BrokenPipeError):
        raise
      self.closed = True

  def keys(self) -> str:
    """None: a stream has no keyboard."""
    return ''

  def finish(self, figures: dict[str, Any]) -> list[str]:
    """Ends the stream."""
    del figures
    try:
      self._stack.close()
    except MediaError:
      if not self.closed:
        raise
    return []


class File:
  """A video file or a folder of PNG files, as `reenact` writes them, with their sidecar.

  A thread encodes. If the machine fails, finished segments stay in a folder beside the output.
  """

  def __init__(
    self, options: Options, shape: tuple[int, int], time_base: Fraction, record: dict[str, Any]
  ):
    self._options, self._shape, self._record, self.closed = options, shape, record, False
    self._sign = outputs.open_signer(options, record)
    self._target = outputs.open_target(options, time_base, json.dumps(record), self._sign)
    self._folder = outputs.parts_of(options.output)
    self._stack = contextlib.ExitStack()
    self._stack.enter_context(only_run(options.output))
    if self._folder.exists():
      self._stack.close()
      raise InputError(
        f'{self._folder}: parts of a run that was killed; move them away, or remove them'
      )
    self._folder.mkdir()
    self._waiting: queue.Queue = queue.Queue(WRITE_AHEAD)
    self._segments, self._error = 0, None
    # A daemon: a second Ctrl-C ends the process at once.
    self._thread = threading.Thread(target=self._work, name='encoder', daemon=True)
    self._thread.start()

  def _work(self) -> None:
    pictures = iter(self._waiting.get, None)
    try:
      while first := next(pictures, None):
        part = itertools.chain([first], itertools.islice(pictures, SEGMENT - 1))
        with self._target.segment(self._folder, self._segments, self._shape) as write:
          for picture, time in part:
            write(picture, time)
        self._segments += 1
    except BaseException as error:  # raised again by `write` and `finish`
      self._error = error

  def _put(self, item: Any) -> None:
    while True:
      if self._error:
        raise self._error
      with contextlib.suppress(queue.Full):
        # With a timeout: an encoder that failed empties nothing.
        return self._waiting.put(item, timeout=0.1)

  def write(self, picture: np.ndarray, time: Fraction) -> None:
    """Hands a picture to the encoder."""
    self._put((picture, time))

  def keys(self) -> str:
    """None: a file has no keyboard."""
    return ''

  def finish(self, figures: dict[str, Any]) -> list[str]:
    """Writes the file and its sidecar; nothing if there is no picture."""
    with self._stack:
      self._put(None)
      self._thread.join()
      if self._error:
        raise self._error
      if self._segments:
        note = self._target.finish(self._folder, self._segments)
        figures = figures | {'size': list(self._shape)}
        signed = self._sign is not None
        provenance.seal(self._options.output, self._record, figures, signed=signed)
      shutil.rmtree(self._folder)
    return [note] if self._segments and note else []


Output = Window | Stream | File


def _desktop() -> Any:
  """Returns the root of a window. Raises InputError without a desktop."""
  try:
    # Part of Python, but a package of its own in some distributions; as Pillow's part for it.
    import tkinter

    from PIL import ImageTk  # noqa: F401

    return tkinter.Tk()
  except Exception as error:  # ImportError or TclError: no Tk, no display
    line = ' '.join(str(error).split())[:120]
    raise InputError(
      f'--output=window: no window can be opened ({line}); give a file or an address'
    ) from error


def check(options: Options) -> None:
  """Raises InputError for an output that could not be written, before any work."""
  if options.output == 'window':
    _desktop().destroy()
    return
  if stream_format(options.output):
    return
  files = [name for name in (options.source, options.driving) if os.path.isfile(name)]
  refuse_overwriting([options.output], files)
  outputs.check_target(options)


def open_output(
  options: Options, shape: tuple[int, int], time_base: Fraction, record: dict[str, Any]
) -> Output:
  """Opens what `options.output` names, for pictures of a shape (h, w). Raises InputError."""
  if options.output == 'window':
    return Window(shape)
  if stream_format(options.output):
    return Stream(options, shape, record)
  return File(options, shape, time_base, record)
