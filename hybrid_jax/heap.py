"""Keeps the memory of a long run where it was after the first frames.

The functions are for glibc, and do nothing with another C library.
"""

import ctypes
import platform

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's malloc.h
_libc = ctypes.CDLL(None) if platform.libc_ver()[0] == 'glibc' else None


def share() -> None:
  """One heap for all threads, which would otherwise have their own: to be called before they start.

  A frame is decoded, computed and encoded on different threads: room that it leaves in the heap of
  one is of no use to the others, and the process grows for thousands of frames until each heap has
  held every size.
  """
  if _libc:
    _libc.mallopt(_M_ARENA_MAX, 1)


def map_blocks() -> None:
  """Gives blocks of 64 kB and more back to the system whenever one is freed.

  Otherwise they lie among small ones that stay, and the heap grows by some kB a frame. It costs a
  page fault for every 4 kB of a new block: next to nothing where networks take seconds for a batch
  of frames, a third of the time where large pictures are pasted.
  """
  if _libc:
    _libc.mallopt(_M_MMAP_THRESHOLD, 2**16)


def give_back() -> None:
  """Gives free pages back to the system, also those between blocks that are in use.

  An encoder leaves some 50 MB of holes, which the next one does not fit into exactly.
  """
  if _libc:
    _libc.malloc_trim(0)
