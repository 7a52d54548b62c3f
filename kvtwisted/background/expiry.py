"""The expiry sweep as a periodic task: slices of deletions in a pool thread until nothing expired is left.

With it goes the scrub of the expiry index, as far as one is due.

Note [The sweep is never urgent]: readers do not see expired keys, so the sweep may take its time, and requests must not
wait for it. A slice holds Python's lock, and the writer's, for about a millisecond. After each slice the sweep rests
for as long as it has worked: it uses half of a core at most, even when hundreds of thousands of keys expire at once.
"""

from __future__ import annotations

import time
from typing import Callable

from twisted.logger import Logger

from ..backends.local.maintenance.expiry import Sweeper
from ..backends.local.maintenance.scrub import Scrub
from ..backends.local.store import Store
from ..core.clock import pause
from ..core.errors import StorageError, Unavailable
from ..observability.metrics import Metrics

#: Keys deleted at once.
SLICE = 100
#: Seconds after which a turn ends, so that a stop does not wait; with an interval of a second the next comes at once.
TURN_SECONDS = 0.9
#: A wall clock that is so far behind was probably set back.
FAR_AHEAD_MS = 1000

_log = Logger(namespace="kvtwisted.expiry")


class Pace:
    """Rests for the thread that made it: after each piece of work for as long as that took on the processor."""

    def __init__(
        self, worked: Callable[[], float] = time.thread_time, sleep: Callable[[float], object] = pause
    ) -> None:
        """`worked` gives the thread's processor time in seconds."""
        self._worked = worked
        self._sleep = sleep
        self._rested_at = worked()

    def rest(self) -> None:
        """A piece is done. Blocks."""
        self._sleep(max(0.0, self._worked() - self._rested_at))
        self._rested_at = self._worked()


class ExpiryTask:
    """`work` for a Ticker, in a pool thread: deletes what has expired."""

    def __init__(
        self,
        sweeper: Sweeper,
        scrub: Scrub,
        store: Store,
        metrics: Metrics,
        *,
        seconds: Callable[[], float] = time.monotonic,
        make_pace: Callable[[], Pace] = Pace,
    ) -> None:
        """`seconds` is a monotonic time; see `Pace`."""
        self._sweeper = sweeper
        self._scrub = scrub
        self._store = store
        self._metrics = metrics
        self._seconds = seconds
        self._make_pace = make_pace
        self._failing = False

    def run(self) -> None:
        """One turn. Blocks."""
        pace = self._make_pace()
        try:
            deleted = self._delete(pace)
            self._scrub.turn(pace.rest)
        except (StorageError, Unavailable) as error:
            # Once, not at every turn: a full disk may last.
            if not self._failing:
                _log.warn("expired keys cannot be deleted for now: {error}", error=error)
            self._failing = True
            return
        self._failing = False
        if deleted:
            _log.debug("{deleted} expired keys deleted", deleted=deleted)

    def _delete(self, pace: Pace) -> int:
        deleted, until, more = 0, self._seconds() + TURN_SECONDS, True
        while more and self._seconds() < until:
            swept = self._sweeper.sweep(SLICE)
            deleted += len(swept.deleted)
            self._metrics.expired(len(swept.deleted))
            more = swept.more
            pace.rest()
        if deleted or self._sweeper.pending() or self._store.metadata.clock.ahead_ms() > FAR_AHEAD_MS:
            # Keys with a deadline exist, or the wall clock is behind, and the next one may get a deadline by this one:
            # a later run must not go back before what this one has seen.
            self._store.metadata.mark_clock()
        return deleted
