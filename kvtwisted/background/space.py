"""The high-water mark as a periodic task: the disks are checked every second, and an eviction starts at once when
writes are refused."""

from __future__ import annotations

from typing import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..backends.local.maintenance.space import SpaceGuard
from ..core.errors import KvError

#: Seconds between two looks.
INTERVAL = 1.0
#: Seconds between two evictions of which the first found too little, at most; the pause doubles until then.
LONGEST_PAUSE = 60.0

_log = Logger(namespace="kvtwisted.space")


class SpaceTask:
    """`work` for a Ticker. While writes are refused for lack of space it runs the eviction, ahead of its next turn."""

    def __init__(
        self,
        guard: SpaceGuard,
        clock: IReactorTime,
        evict: Callable[[], Deferred[bool]],
        defer: Callable[[Callable[[], None]], Deferred[None]],
        look: Callable[[], None] | None = None,
    ) -> None:
        """`evict` is `EvictionTask.run`; `defer` runs a function in a pool thread; `look` is the guard's, or more."""
        self._guard = guard
        self._clock = clock
        self._evict = evict
        self._defer = defer
        self._look = look or guard.look
        self._evicting = False
        self._pause = 0.0
        self._not_before = 0.0

    def run(self) -> Deferred[None]:
        """One turn. Reactor thread; fires when the pool thread has looked. An eviction goes on beyond that."""
        return self._defer(self._look).addCallback(lambda _: self.relieve())

    def relieve(self) -> None:
        """Start an eviction if writes are refused, unless the last one was just now and found too little. Reactor
        thread; does not wait."""
        if not self._guard.wants_bytes:
            self._pause = self._not_before = 0.0
        elif not self._evicting and self._clock.seconds() >= self._not_before:
            self._evicting = True
            self._evict().addErrback(self._failed).addCallback(self._evicted)

    def _evicted(self, in_vain: bool) -> None:
        self._evicting = False
        self._pause = min(max(INTERVAL, 2 * self._pause), LONGEST_PAUSE) if in_vain else 0.0
        self._not_before = self._clock.seconds() + self._pause
        self.run().addErrback(self._failed)

    def _failed(self, failure: Failure) -> bool:
        if failure.check(KvError):  # a full disk has no room for a traceback in the log
            _log.warn("making room failed; it is tried again: {error}", error=failure.getErrorMessage())
        else:
            _log.failure("making room failed; it is tried again", failure=failure)
        return True
