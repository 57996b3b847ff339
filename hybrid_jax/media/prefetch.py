"""Reads ahead: computes the items of an iterator in a thread while earlier ones are used."""

import queue
import threading
from collections.abc import Iterable, Iterator


def prefetch(items: Iterable, depth: int) -> Iterator:
  """Yields `items`, which a thread computes at most `depth` ahead.

  An error in the thread is raised where the items are used. Closing the iterator ends the thread.
  """
  waiting, stop, end = queue.Queue(depth), threading.Event(), object()

  def put(entry) -> bool:
    # With a timeout, because a consumer that stopped early never empties a full queue.
    while not stop.is_set():
      try:
        waiting.put(entry, timeout=0.1)
        return True
      except queue.Full:
        pass
    return False

  def work():
    try:
      for item in items:
        if not put((item, None)):
          return
      put((end, None))
    except BaseException as error:  # raised again where the items are used
      put((end, error))

  # A daemon, so that an interpreter that exits does not wait for the rest of the items.
  thread = threading.Thread(target=work, daemon=True)
  thread.start()
  try:
    while (entry := waiting.get())[0] is not end:
      yield entry[0]
    if entry[1] is not None:
      raise entry[1]
  finally:
    # Reached when the consumer stops early too: closing a generator raises in its `yield`.
    stop.set()
    thread.join()
