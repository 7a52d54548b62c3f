"""Limits the threads that scans of one principal have at once, so that others find one free.

A scan keeps a thread for as long as it reads, and Python's lock for most of that. So scans of one principal have only a
part of the pool; further ones wait for a slot, outside of the pool, and hold up nobody else.
`limits.max_in_flight_per_principal` bounds how many may wait.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


class Slots:
    """Slots in use by owner. Reactor thread."""

    def __init__(self, most: int) -> None:
        """`most` is how many of one owner run at once."""
        self._most = most
        self._running: dict[object, int] = {}
        self._waiting: dict[object, deque[Callable[[], None]]] = {}

    @property
    def waiting(self) -> int:
        """Those that wait for a slot."""
        return sum(map(len, self._waiting.values()))

    def run(self, owner: object, start: Callable[[], Deferred[T]]) -> Deferred[T]:
        """What `start` gives, which is called when `owner` has a slot, in the order in which they come."""
        if self._running.get(owner, 0) < self._most:
            return self._begin(owner, start)
        promised: Deferred[T] = Deferred()
        self._waiting.setdefault(owner, deque()).append(lambda: self._fulfil(owner, start, promised))
        return promised

    def _begin(self, owner: object, start: Callable[[], Deferred[T]]) -> Deferred[T]:
        self._running[owner] = self._running.get(owner, 0) + 1
        # Counted when the thread has finished: who cancels what he waits for has not ended that.
        started = start()
        told: Deferred[T] = Deferred()
        started.addBoth(self._ended, owner, told)
        return told

    def _fulfil(self, owner: object, start: Callable[[], Deferred[T]], promised: Deferred[T]) -> None:
        # One that nobody waits for any more has entered the admission, and leaves it in the thread.
        self._begin(owner, start).addBoth(lambda result: None if promised.called else promised.callback(result))

    def _ended(self, result: Any, owner: object, told: Deferred[Any]) -> None:
        left = self._running[owner] - 1
        if left:
            self._running[owner] = left
        else:
            del self._running[owner]
        waiting = self._waiting.get(owner)
        if waiting:
            following = waiting.popleft()
            if not waiting:
                del self._waiting[owner]
            following()
        if not told.called:
            told.callback(result)
