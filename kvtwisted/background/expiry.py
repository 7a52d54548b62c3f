"""The expiry sweep as a periodic task: slices of deletions in a pool thread until nothing expired is left.

With it goes the scrub of the expiry index, as far as one is due."""

from __future__ import annotations

from typing import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..core.errors import StorageError, Unavailable
from ..core.expiry import Sweeper
from ..core.scrub import Scrub
from ..core.store import Store
from ..metrics import Metrics

SLICE = 1000
#: Slices in one turn, so that a turn of the loop always ends; the next one comes after the interval.
TURN = 100
#: Of a wall clock that is so far behind, it is taken that it was set back.
FAR_AHEAD_MS = 1000

_log = Logger(namespace="kvtwisted.expiry")


class ExpiryTask:
    """`work` for a Ticker: deletes what has expired."""

    def __init__(
        self,
        sweeper: Sweeper,
        scrub: Scrub,
        store: Store,
        metrics: Metrics,
        defer: Callable[[Callable[[], int]], Deferred[int]],
    ) -> None:
        """`defer` runs a function in a pool thread."""
        self._sweeper = sweeper
        self._scrub = scrub
        self._store = store
        self._metrics = metrics
        self._defer = defer
        self._failing = False

    def run(self) -> Deferred[None]:
        """One turn. Reactor thread; fires when the pool thread has finished."""
        return self._defer(self._sweep).addCallback(self._report)

    def _sweep(self) -> int:
        try:
            deleted = self._delete()
            self._scrub.turn()
        except (StorageError, Unavailable) as error:
            # Once, not at every turn: a full disk may last.
            if not self._failing:
                _log.warn("expired keys cannot be deleted for now: {error}", error=error)
            self._failing = True
            return 0
        self._failing = False
        return deleted

    def _delete(self) -> int:
        deleted = 0
        for _ in range(TURN):
            swept = self._sweeper.sweep(SLICE)
            deleted += len(swept.deleted)
            self._metrics.expired(len(swept.deleted))
            if not swept.more:
                break
        if deleted or self._sweeper.pending() or self._store.upkeep.clock_ahead_ms() > FAR_AHEAD_MS:
            # Keys with a deadline exist, or the wall clock is behind, and the next one may get a deadline by this one:
            # a later run must not go back before what this one has seen.
            self._store.upkeep.mark_clock()
        return deleted

    def _report(self, deleted: int) -> None:
        if deleted:
            _log.debug("{deleted} expired keys deleted", deleted=deleted)
