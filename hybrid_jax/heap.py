"""Keeps the memory of a long run where it was after the first frames."""

import ctypes
import platform

_M_ARENA_MAX = -8  # of glibc's malloc.h


def share() -> None:
  """One heap for all threads, where the C library is glibc and would give most of them their own.

  A frame is decoded, computed and encoded on different threads: room that it leaves in the heap of
  one is of no use to the others, and the process grows for thousands of frames until each heap has
  held every size. To be called before the threads start.
  """
  if platform.libc_ver()[0] == 'glibc':
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
