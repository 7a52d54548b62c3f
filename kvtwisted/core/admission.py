"""How much work may be under way: bounded before it is queued, counted until the thread that does it has finished."""

from __future__ import annotations

import threading

from .errors import Overloaded, Unavailable


class Admission:
    """A counter of requests in flight with a capacity. Safe from any thread."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._in_flight = 0
        self._closed = False
        #: Requests that were refused at capacity. Approximate: it is not counted under the lock.
        self.refused = 0

    @property
    def in_flight(self) -> int:
        """Requests that have entered and not yet left."""
        return self._in_flight

    def enter(self) -> None:
        """Count one request in. Raises Overloaded at capacity and Unavailable after `close`."""
        with self._lock:
            if self._closed or self._in_flight >= self._capacity:
                self.check()
            self._in_flight += 1

    def check(self) -> None:
        """Raise what `enter` would. Enough for a request that ends before anything else can begin."""
        if self._closed:
            raise Unavailable("the server is stopping")
        if self._in_flight >= self._capacity:
            self.refused += 1
            raise Overloaded(f"too many requests: limits.max_in_flight is {self._capacity}; try again")

    def leave(self, requests: int = 1) -> None:
        """Count requests out; each `enter` that returned must be counted out once."""
        with self._lock:
            self._in_flight -= requests

    def close(self) -> None:
        """Refuse every later `enter`; what is in flight goes on."""
        with self._lock:
            self._closed = True
