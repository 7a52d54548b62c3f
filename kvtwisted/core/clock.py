"""The clock that expiry goes by: wall time that never runs backwards, not even across a crash.

Note [A clock that never runs backwards]: deadlines are absolute wall-clock milliseconds, because they must mean the
same after a restart. Wall clocks are stepped, though, and a step backwards would revive keys that were already gone. So
the time is the larger of the wall clock and of the last time seen plus what has really passed since (the monotonic
clock). Across a restart the mark in the database stands in for the last time seen.

Note [An expired key stays expired]: the mark need not be the last time seen; it must not be before any deadline of
which somebody was told that it has passed, for who starts the server next may have a wall clock that is still behind.
So whoever finds a key expired calls `tell` before saying so. That writes the present time down if no mark has reached
the deadline yet: once for each key at most, and for all that have expired by then, so that most calls only compare two
numbers. The mark is as durable as a write acknowledged at that moment. It is never ahead of time: a server that is
killed again and again does not run ahead.
"""

from __future__ import annotations

import select
import threading
import time
from contextlib import suppress
from typing import Callable

from .errors import KvError


def pause(seconds: float) -> None:
    """Block this thread for so long, whatever is done to the wall clock.

    No `time.sleep`: libfaketime 0.9.10, with which that clock is set for tests, makes an OSError of it.
    """
    select.select((), (), (), seconds)


def _nowhere(mark_ms: int) -> None:
    """Writes no mark: there is no database, or none that outlives this clock."""


class Clock:
    """Milliseconds since 1970 that never go back. Safe from any thread; `now_ms` costs well under a microsecond."""

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._lock = threading.Lock()
        self._ahead_ns = wall_ns() - monotonic_ns()
        self._write: Callable[[int], None] = _nowhere
        self._marking = threading.Lock()
        self._marked_ms = 0

    def now_ms(self) -> int:
        """The time; at least every time returned before."""
        with self._lock:
            # The wall first: a pause between the two makes the difference too small, which `max` forgets, and never
            # too large, which it would keep for good.
            wall = self._wall_ns()
            monotonic = self._monotonic_ns()
            self._ahead_ns = max(self._ahead_ns, wall - monotonic)
            return (monotonic + self._ahead_ns) // 1_000_000

    def ahead_ms(self) -> int:
        """How far the time is ahead of the wall clock: more than 0 after that was set back."""
        return max(0, self.now_ms() - self._wall_ns() // 1_000_000)

    def at_least(self, mark_ms: int) -> None:
        """Never again return a time before `mark_ms` (the mark of an earlier run)."""
        with self._lock:
            self._ahead_ns = max(self._ahead_ns, mark_ms * 1_000_000 - self._monotonic_ns())

    # The mark. See Note [An expired key stays expired].

    def mark_with(self, write: Callable[[int], None]) -> None:
        """`write` is how marks are written from now on; it raises KvError, and what it returned from must last."""
        with self._marking:
            self._write, self._marked_ms = write, 0

    def is_marked(self, deadline_ms: int) -> bool:
        """Whether no later run will go back before that time. Never blocks."""
        return deadline_ms <= self._marked_ms

    def mark(self, deadline_ms: int) -> None:
        """Return once no later run will go back before that time, which has come. Blocks. Raises KvError."""
        if deadline_ms <= self._marked_ms:
            return
        with self._marking:
            if deadline_ms > self._marked_ms:
                now = self.now_ms()
                self._write(now)
                self._marked_ms = now

    def tell(self, deadline_ms: int) -> None:
        """The same for who is about to read that this deadline has passed. Raises nothing.

        While no mark can be written, since writes fail or are stalled, reads go on without.
        """
        with suppress(KvError):
            self.mark(deadline_ms)
