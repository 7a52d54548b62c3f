"""Memory of many connections that have ended goes back to the system.

Note [Closed, and given back]: what a connection took is freed when it ends. Nothing of it waits for Python's cyclic
collector, since `connectionLost` breaks the cycles there are; a whole collection would stop the process for 50 ms and
more, whatever there is to collect. What was freed then stays with the C library: glibc gives memory back by itself only
at the end of its heap, and after 3,000 unfinished TLS handshakes it kept 150 MB. `malloc_trim` gives all of it back
(man 3 malloc_trim).
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Any, Callable

from twisted.internet.defer import Deferred

#: Seconds between two looks.
INTERVAL = 1.0
#: Connections that must have ended since memory was last given back.
MANY_ENDED = 256
#: Looks in a row that put it off, at most, since connections were still ending by the hundred.
_PUT_OFF = 10
#: Ends between two looks that put it off.
_STILL_ENDING = 100


def give_back_memory() -> None:
    """Let the C library return free memory to the system. Any thread; Python's lock is not held meanwhile.

    Takes some 25 ms for 250 MB, and less than one when there is little. Other C libraries than glibc have no such
    function; then nothing is done.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class MemoryTask:
    """`work` for a Ticker. See Note [Closed, and given back]."""

    def __init__(
        self,
        ended: Callable[[], int],
        defer: Callable[[Callable[[], None]], Deferred[Any]],
        give_back: Callable[[], None] = give_back_memory,
    ) -> None:
        """`ended`: connections that have ended since the start; `defer` runs a function in a pool thread."""
        self._ended = ended
        self._defer = defer
        self._give_back = give_back
        # As it was when memory was given back, and at the last look.
        self._given_back_at = self._seen = 0
        self._put_off = 0

    def run(self) -> Deferred[Any] | None:
        """One look. Reactor thread; what it returns fires when the memory is given back."""
        ended = self._ended()
        still_ending, self._seen = ended - self._seen >= _STILL_ENDING, ended
        if ended - self._given_back_at < MANY_ENDED:
            return None
        if still_ending and self._put_off < _PUT_OFF:
            self._put_off += 1
            return None
        self._given_back_at, self._put_off = ended, 0
        return self._defer(self._give_back)
