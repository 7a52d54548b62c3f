"""How much work may be under way: bounded before it is queued, counted until the thread that does it has finished.

Note [A share for each principal]: without shares a client with many calls under way would get all others refused. So
each principal has a share that is less than the whole, and there is always room for the next one.
"""

from __future__ import annotations

import math
import sys
import threading

from ..core.counting import Counter
from ..core.errors import Overloaded, Unavailable
from .shares import three_quarters


class Admission:
    """Counts the requests in flight and their bytes, with a capacity for each. Safe from any thread.

    A request with more bytes than that is let in when no other request has any.
    """

    _requests_limit = "limits.max_in_flight is"
    _bytes_limit = "limits.max_bytes_in_flight is"

    def __init__(self, capacity: int, max_bytes: float = math.inf, *, share: int = 0) -> None:
        """`share` is the capacity for one principal, who may have as large a part of the bytes; 0: three quarters."""
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._share = min(capacity, share or three_quarters(capacity))
        self._lock = threading.Lock()
        #: Requests that have entered and not yet left, and what they have.
        self.in_flight = self.bytes = 0
        self._closed = False
        #: Counts requests that were given up before they entered, because their time ran out. For shares too.
        self.overdue = Counter()
        #: Requests refused at a capacity, or at a share's. Approximate when several threads refuse.
        self.refused = 0

    def share(self, reserve: int = 0) -> Share:
        """For one principal: its requests count here too. Up to `reserve` more than the capacity are let in."""
        return Share(self, self._share, self._max_bytes * self._share / self._capacity, reserve)

    def enter(self, size: int = 0) -> None:
        """Count in one request of `size` bytes. Raises Overloaded at a capacity and Unavailable after `close`."""
        with self._lock:
            if self.in_flight >= self._capacity or self._closed or self.bytes + size > self._max_bytes:
                self._look(size)
            self.in_flight += 1
            self.bytes += size

    def enter_all(self, requests: int, size: int) -> bool:
        """`enter` so many requests, of `size` bytes together, if there is room for all; else none. Returns which."""
        with self._lock:
            if self._closed or self.in_flight + requests > self._capacity or self.bytes + size > self._max_bytes:
                return False
            self.in_flight += requests
            self.bytes += size
        return True

    def grow(self, size: int) -> None:
        """A request that has entered turns out to have `size` bytes more. Raises Overloaded where they do not fit.

        They leave with the request. As in `enter`, any size fits if no other request has bytes.
        """
        with self._lock:
            self._look_again(size)
            self.bytes += size

    def check(self, size: int = 0) -> None:
        """Raise what `enter` would. Enough for a request that ends before anything else can begin."""
        if self.in_flight >= self._capacity or self._closed or self.bytes + size > self._max_bytes:
            self._look(size)

    def leave(self, requests: int = 1, size: int = 0) -> None:
        """Count requests out, and their bytes; for each `enter` that returned there must be one."""
        with self._lock:
            self.in_flight -= requests
            self.bytes -= size

    def close(self) -> None:
        """Refuse every later `enter`; what is in flight goes on."""
        with self._lock:
            self._closed = True

    def _look(self, size: int) -> None:
        """Raise if a request of `size` bytes cannot be let in."""
        if self._closed:
            raise Unavailable("the server is stopping")
        if self.in_flight >= self._capacity:
            self._refuse(f"too many requests: {self._requests_limit} {self._capacity}; try again")
        if size and self.bytes and self.bytes + size > self._max_bytes:
            self._refuse(f"too many bytes in requests: {self._bytes_limit} {self._max_bytes:.0f}; try again")

    def _look_again(self, size: int) -> None:
        if self.in_flight > 1 and self.bytes + size > self._max_bytes:
            self._refuse(f"too many bytes in requests: {self._bytes_limit} {self._max_bytes:.0f}; try again")

    def _refuse(self, reason: str) -> None:
        self.refused += 1
        raise Overloaded(reason)


#: What is under way beside the requests, with limits of its own.
UNLIMITED = Admission(sys.maxsize)


class Share(Admission):
    """What one principal may have of the whole; see Note [A share for each principal]. All have one lock."""

    _requests_limit = "limits.max_in_flight_per_principal is"
    _bytes_limit = "of limits.max_bytes_in_flight each principal may have"

    def __init__(self, whole: Admission, capacity: int, max_bytes: float, reserve: int) -> None:
        super().__init__(capacity, max_bytes)
        # Of requests of the whole that are let in beyond its capacities.
        self._reserve = reserve
        self._whole = whole
        self._lock = whole._lock
        self.overdue = whole.overdue

    def enter(self, size: int = 0) -> None:
        """See `Admission.enter`."""
        whole = self._whole
        with self._lock:
            if self.in_flight >= self._capacity or self.bytes + size > self._max_bytes:
                self._look(size)
            if whole.in_flight >= whole._capacity or whole._closed or whole.bytes + size > whole._max_bytes:
                self._look_at_whole(size)
            self.in_flight += 1
            self.bytes += size
            whole.in_flight += 1
            whole.bytes += size

    def enter_all(self, requests: int, size: int) -> bool:
        """See `Admission.enter_all`."""
        whole = self._whole
        with self._lock:
            if (
                self.in_flight + requests > self._capacity
                or self.bytes + size > self._max_bytes
                or whole._closed
                or whole.in_flight + requests > whole._capacity
                or whole.bytes + size > whole._max_bytes
            ):
                return False
            self.in_flight += requests
            self.bytes += size
            whole.in_flight += requests
            whole.bytes += size
        return True

    def grow(self, size: int) -> None:
        """See `Admission.grow`."""
        whole = self._whole
        with self._lock:
            self._look_again(size)
            whole._look_again(size)
            self.bytes += size
            whole.bytes += size

    def check(self, size: int = 0) -> None:
        """See `Admission.check`."""
        if self.in_flight >= self._capacity or self.bytes + size > self._max_bytes:
            self._look(size)
        whole = self._whole
        if whole.in_flight >= whole._capacity or whole._closed or whole.bytes + size > whole._max_bytes:
            self._look_at_whole(size)

    def _look_at_whole(self, size: int) -> None:
        whole = self._whole
        if whole._closed or whole.in_flight >= whole._capacity + self._reserve or self.in_flight >= self._reserve:
            whole._look(size)

    def leave(self, requests: int = 1, size: int = 0) -> None:
        """See `Admission.leave`."""
        whole = self._whole
        with self._lock:
            self.in_flight -= requests
            self.bytes -= size
            whole.in_flight -= requests
            whole.bytes -= size

    def _refuse(self, reason: str) -> None:
        self._whole._refuse(reason)
