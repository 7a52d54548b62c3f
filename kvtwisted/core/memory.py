"""Giving memory back to the system.

Note [Freed is not given back]: once a block of a megabyte has been freed, glibc takes the next ones from its heap, and
keeps what is freed there beneath anything that is still used: after a burst of large answers the process stays as large
as it was. Telling glibc not to (M_MMAP_THRESHOLD) makes Sets of 1 MB take nearly twice the processor time, measured. So
it is told once, after a burst, to give back what is free.
"""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Give freed memory back to the system, where the C library knows how (glibc). Takes milliseconds; any thread."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
