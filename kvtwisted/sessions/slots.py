"""Slots for what stays open: bounded in number, and no client has all. Any thread.

A stream that idles costs its client nothing, and would keep others out without end; see Note [A share for each
principal].
"""

from __future__ import annotations

import threading

from ..core.errors import Overloaded
from .shares import OF_OWNER, Shares, three_quarters


class Slots:
    """Those of one kind."""

    def __init__(self, what: str, limit: str, capacity: int, whose: str = "") -> None:
        """`what`, `limit` and `whose` are for sentences: "Watch streams", what sets their number, "address".

        `capacity` streams may be open; of one owner three quarters, but one at least.
        """
        self._what = what
        self._limit = limit
        self._capacity = capacity
        self._whose = whose
        self._share = three_quarters(capacity)
        self._lock = threading.Lock()
        self._counts = Shares()
        #: Streams that were refused, since the start.
        self.refused = 0

    @property
    def open(self) -> int:
        """Streams that are open."""
        return self._counts.open

    def enter(self, owner: str | None = None) -> None:
        """Count in one stream of `owner`; streams without an owner (None) have no share. Raises Overloaded, which names
        the limit."""
        with self._lock:
            reason = self._counts.enter(owner, self._capacity, self._share)
            if reason is not None:
                self.refused += 1
                share = f", of which each {self._whose} may have {self._share}" if reason == OF_OWNER else ""
                raise Overloaded(f"too many {self._what}: {self._limit} is {self._capacity}{share}; try again")

    def leave(self, owner: str | None = None) -> None:
        """Count it out; for each `enter` that returned there must be one."""
        with self._lock:
            self._counts.leave(owner)
