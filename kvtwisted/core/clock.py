"""The clock that expiry goes by: wall time that never runs backwards.

Note [A clock that never runs backwards]: deadlines are absolute wall-clock milliseconds, because they must mean the
same after a restart. Wall clocks are stepped, though, and a step backwards would revive keys that were already gone. So
the time is the larger of the wall clock and of the last time seen plus what has really passed since (the monotonic
clock). Across a restart the mark written by the last sweep stands in for the last time seen.
"""

from __future__ import annotations

import threading
import time
from typing import Callable


class Clock:
    """Milliseconds since 1970 that never go back. Safe from any thread; costs well under a microsecond."""

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._lock = threading.Lock()
        self._ahead_ns = wall_ns() - monotonic_ns()

    def now_ms(self) -> int:
        """The time; at least every time returned before."""
        with self._lock:
            # The wall first: a pause between the two makes the difference too small, which `max` forgets, and never
            # too large, which it would keep for good.
            wall = self._wall_ns()
            monotonic = self._monotonic_ns()
            self._ahead_ns = max(self._ahead_ns, wall - monotonic)
            return (monotonic + self._ahead_ns) // 1_000_000

    def at_least(self, mark_ms: int) -> None:
        """Never again return a time before `mark_ms` (the mark of an earlier run)."""
        with self._lock:
            self._ahead_ns = max(self._ahead_ns, mark_ms * 1_000_000 - self._monotonic_ns())
