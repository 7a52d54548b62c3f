"""Gives memory back to the system after floods of connections and large requests.

Note [Memory of closed connections]: a connection's memory is freed when it ends. It does not wait for Python's cyclic
collector, since `connectionLost` breaks the cycles; only Klein's cycles stay, with requests that hold nothing large
(see `KvRequest`). A full collection would stop the process for 50 ms, 90 with a full hot cache, whatever there is to
collect. Freed memory then stays with the C library: glibc by itself gives memory back only at the end of its heaps.
After 3,000 unfinished TLS handshakes it kept 150 MB. `malloc_trim` gives that back (man 3 malloc_trim). It is called
when many connections have ended; several times in a row after memory has grown much, since it cannot be seen when the
cause is over; and otherwise once a minute. A few connections may hold much memory for long: so while memory is far
above the least seen, the end of one connection is reason enough. Memory that is not given back then is in use, so each
such time in a row doubles the wait for the next.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import Any, Callable

from twisted.internet.defer import Deferred

#: Seconds between two looks.
INTERVAL = 1.0
#: Connections that must have ended since memory was last given back.
MANY_ENDED = 256
#: Growth of memory, in bytes, after which it is given back; how often; and looks between two of these times.
MUCH_MORE, TIMES, PAUSE = 16 << 20, 10, 3
#: Bytes above the least memory seen from which the end of a single connection is a reason.
FAR_MORE = 64 << 20
#: Looks between two times without a reason.
SELDOM = 60
#: Looks in a row, at most, that put it off because many connections were still ending.
_PUT_OFF = 10
#: Of malloc.h; and bytes from which a block is the system's own, and which the end of a heap may keep.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _KEPT_BYTES = -1, -3, 4 << 20
#: Ends between two looks, and bytes that have come in, that put it off.
_STILL_ENDING, _STILL_GROWING = 100, 1 << 20


def resident_bytes() -> int:
    """Memory of this process; 0 where the system has no /proc. Any thread, some 20 microseconds."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def keep_little_memory() -> None:
    """Have the C library keep little of what was freed, in each thread. For the whole process, once, at the start.

    By itself glibc raises both limits with the largest block that was ever freed (man 3 mallopt), and malloc_trim does
    not reach the end of a thread's heap: each thread that has once had a message of 20 MiB may keep twice as much.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def give_back_memory() -> None:
    """Let the C library return free memory to the system. Any thread; Python's lock is not held meanwhile.

    Takes some 25 ms for 250 MB, and less than one when there is little. Nobody waited more than 5 ms for an answer
    while it gave back 165 MB. Other C libraries than glibc have no such function; then nothing is done.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class MemoryTask:
    """`work` for a Ticker. See Note [Memory of closed connections]."""

    def __init__(
        self,
        ended: Callable[[], int],
        defer: Callable[[Callable[[], None]], Deferred[Any]],
        *,
        give_back: Callable[[], None] = give_back_memory,
        resident: Callable[[], int] = resident_bytes,
    ) -> None:
        """`ended`: connections that have ended since the start; `defer` runs a function in a pool thread."""
        self._ended = ended
        self._defer = defer
        self._give_back = give_back
        self._resident = resident
        # Of connections: as it was when memory was given back, and at the last look.
        self._given_back_at = self._seen = 0
        self._put_off = 0
        # Of memory: what there was before it was much more, and at the last look; how often it is still to be given
        # back for that, and how many looks ago it was given back.
        self._level = self._had = self._resident()
        self._times = self._looks = 0
        # The least there was, and looks to wait for the next time when there is far more.
        self._least, self._pause = self._level, PAUSE

    def run(self) -> Deferred[Any] | None:
        """One look. Reactor thread; what it returns fires when the memory is given back."""
        self._looks += 1
        is_due = self._many_ended()
        # Each has to look each time.
        is_due = self._is_much_more() or is_due
        if self._is_far_more() or is_due:
            self._given_back_at = self._seen
            self._put_off = self._looks = 0
            return self._defer(self._give_back)
        return None

    def _many_ended(self) -> bool:
        ended = self._ended()
        still_ending, self._seen = ended - self._seen >= _STILL_ENDING, ended
        if ended - self._given_back_at < MANY_ENDED:
            return False
        if still_ending and self._put_off < _PUT_OFF:
            self._put_off += 1
            return False
        return True

    def _is_much_more(self) -> bool:
        has = self._resident()
        still_growing, self._had = has - self._had >= _STILL_GROWING, has
        self._level = min(self._level, has)
        if has - self._level >= MUCH_MORE:
            self._level, self._times, self._pause = has, TIMES, PAUSE
        if still_growing or self._looks < (PAUSE if self._times else SELDOM):
            return False
        self._times = max(self._times - 1, 0)
        return True

    def _is_far_more(self) -> bool:
        """Whether a connection has ended while memory is far above the least seen. After `_is_much_more`."""
        self._least = min(self._least, self._had)
        if self._had - self._least < FAR_MORE:
            self._pause = PAUSE
            return False
        if self._seen == self._given_back_at or self._looks < self._pause:
            return False
        self._pause = min(2 * self._pause, SELDOM)
        return True
