"""Keeps the memory of a long run where it was after the first frames."""

import ctypes
import platform

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's malloc.h
_libc = ctypes.CDLL(None) if platform.libc_ver()[0] == 'glibc' else None
LARGE = 2**16  # bytes: a frame of 256 px has 3 of them, a program of XLA's hundreds


def keep_steady() -> None:
  """Large blocks go back to the system when they are freed; all threads share the heap of the rest.

  To be called before threads start. A frame is decoded, computed and encoded on different threads,
  by libraries whose blocks of all sizes lie among small ones that stay: a heap grows for thousands
  of frames until each size finds a hole, and if every thread has its own, each of them does. Is for
  glibc, and does nothing with another C library.
  """
  if _libc:
    _libc.mallopt(_M_ARENA_MAX, 1)
    _libc.mallopt(_M_MMAP_THRESHOLD, LARGE)
