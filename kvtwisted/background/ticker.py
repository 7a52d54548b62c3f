"""A periodic task as a Service: a LoopingCall that outlives errors, changes pace at once, and is awaited on stop."""

from __future__ import annotations

from typing import Any, Callable

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.errors import KvError

_log = Logger(namespace="kvtwisted.background")


class Ticker(Service):
    """Calls `work` every `interval` seconds. Reactor thread.

    `work` may return a Deferred; the next call waits for it. A failure is logged and the next call comes all the same,
    since one error must not end the loop for good. `stopService` waits for a call that is under way.
    """

    def __init__(
        self,
        name: str,
        clock: IReactorTime,
        interval: Callable[[], float] | float,
        work: Callable[[], Deferred[Any] | None],
        *,
        at_once: bool = False,
    ) -> None:
        """`interval` is asked anew for each turn, unless it is always the same.

        With `at_once` the first call comes at the start instead of one interval after it.
        """
        self.setName(name)
        self._interval = interval if callable(interval) else lambda: interval
        self._work = work
        self._at_once = at_once
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock
        self._ended: Deferred[Any] = succeed(None)
        self._busy = False
        # Why the last call failed; logged once.
        self._condition: str | None = None

    def startService(self) -> None:
        """Start the loop."""
        super().startService()
        self._start(now=self._at_once)

    def stopService(self) -> Deferred[Any]:
        """Stop the loop; fires when no call is under way any more."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        return self._ended

    def retune(self) -> None:
        """Take up a changed interval: now if the loop is waiting, else when the call under way has finished."""
        interval = self._interval()
        if not self._loop.running or self._loop.interval == interval:
            return
        if self._busy:
            self._loop.interval = interval
        else:
            self._loop.stop()
            self._start(now=False)

    def _start(self, *, now: bool) -> None:
        self._ended = self._loop.start(self._interval(), now=now)

    def _tick(self) -> Deferred[Any]:
        self._busy = True
        return maybeDeferred(self._work).addCallbacks(self._worked, self._failed).addBoth(self._done)

    def _worked(self, result: Any) -> None:
        self._condition = None

    def _failed(self, failure: Failure) -> None:
        if failure.check(KvError, OSError):  # a condition that comes and goes, and no bug
            condition = failure.getErrorMessage()
            if condition != self._condition:
                _log.warn("{task} goes on at its next turn: {error}", task=self.name, error=condition)
            self._condition = condition
            return
        _log.failure("{task} failed; it goes on at its next turn", failure=failure, task=self.name)

    def _done(self, result: Any) -> None:
        self._busy = False
