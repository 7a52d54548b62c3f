"""The clock that expiry goes by: wall time that never runs backwards, not even across a crash.

Note [A clock that never runs backwards]: deadlines are absolute wall-clock milliseconds, because they must mean the
same after a restart. Wall clocks are stepped, though, and a step backwards would revive keys that were already gone. So
the time is the larger of the wall clock and of the last time seen plus what has really passed since (the monotonic
clock). Across a restart the mark in the database stands in for the last time seen.

Note [An expired key stays expired]: a client that was told that a key has expired must never see it again, even if the
server restarts with a wall clock that is behind. So the mark must have reached every deadline that was reported as
passed. Code that finds a key expired calls `tell` before it says so. `tell` writes the present time as the mark unless
the mark has reached the deadline already. That covers all keys that have expired by then, so that most calls only
compare two numbers. The mark is as durable as a write acknowledged at that moment. It is never ahead of time: a server
that is killed again and again does not run ahead.
"""

from __future__ import annotations

import select
import threading
import time
from contextlib import suppress
from typing import Callable

from .errors import KvError


def pause(seconds: float) -> None:
    """Block this thread for that many seconds, also when the wall clock is changed.

    Not by `time.sleep`: under libfaketime 0.9.10, which tests set the clock with, it raises OSError.
    """
    select.select((), (), (), seconds)


def _nowhere(mark_ms: int) -> None:
    """Write no mark: for a clock without a database that outlives it."""


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
        """From now on never return a time before `mark_ms` (the mark of an earlier run)."""
        with self._lock:
            self._ahead_ns = max(self._ahead_ns, mark_ms * 1_000_000 - self._monotonic_ns())

    # The mark. See Note [An expired key stays expired].

    def mark_with(self, write: Callable[[int], None]) -> None:
        """`write` is how marks are written from now on; it raises KvError, and what it returned from must last."""
        with self._marking:
            self._write, self._marked_ms = write, 0

    def is_marked(self, deadline_ms: int) -> bool:
        """Whether it is certain that no later run goes back before that time. Never blocks."""
        return deadline_ms <= self._marked_ms

    def mark(self, deadline_ms: int) -> None:
        """Return once it is certain that no later run goes back before that time, which has passed. Blocks. Raises
        KvError."""
        if deadline_ms <= self._marked_ms:
            return
        with self._marking:
            if deadline_ms > self._marked_ms:
                now = self.now_ms()
                self._write(now)
                self._marked_ms = now

    def tell(self, deadline_ms: int) -> None:
        """The same before a client reads that this deadline has passed. Raises nothing.

        While writes fail or are stalled no mark can be written; reads go on without one.
        """
        with suppress(KvError):
            self.mark(deadline_ms)
