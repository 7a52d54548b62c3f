"""Counting: bytes held by each holder and in all, and a counter that threads share without a lock."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

_Holder = TypeVar("_Holder")


class ByteAccount:
    """Bytes held for many, under a limit that may change at any time. Not thread-safe.

    Both transports count the bytes of unfinished requests and unsent answers here. Each transport decides what happens
    when there are too many: HTTP refuses bodies, gRPC lets calls wait, both cut off clients that do not read.
    """

    __slots__ = ("bytes", "limit")

    def __init__(self, limit: int) -> None:
        """At most `limit` bytes should be held in all. Nothing here enforces it, since some bytes must be held in any
        case."""
        self.limit = limit
        #: Bytes held now, by all together.
        self.bytes = 0

    @property
    def room(self) -> int:
        """Bytes that may still be held."""
        return max(0, self.limit - self.bytes)

    def victims(self, candidates: Iterable[tuple[_Holder, Holding]], down_to: int) -> Iterator[_Holder]:
        """The candidates, in their order, that must give up all they hold until `down_to` bytes or fewer are left. They
        may give it up at once or later.
        """
        excess = self.bytes - down_to
        for holder, holding in candidates:
            if excess <= 0:
                return
            if holding.bytes:
                excess -= holding.bytes
                yield holder


class Holding:
    """One holder's part of an account."""

    __slots__ = ("account", "bytes", "since")

    def __init__(self, account: ByteAccount, since: float = 0.0) -> None:
        """`since` is when holding began, in seconds of the holder's clock; only where the pace matters."""
        self.account = account
        self.since = since
        #: Bytes held now.
        self.bytes = 0

    def fits(self, size: int) -> bool:
        """Whether it may take `size` bytes more: it must not hold more than is left for all others."""
        return self.bytes + size <= self.account.room

    def add(self, size: int) -> None:
        """Hold `size` bytes more, or fewer if it is negative."""
        self.bytes += size
        self.account.bytes += size

    def become(self, size: int) -> None:
        """Hold `size` bytes from now on."""
        self.account.bytes += size - self.bytes
        self.bytes = size

    def free(self) -> None:
        """Hold nothing from now on."""
        self.become(0)


class Counter:
    """Counts up from 0. `advance` adds one, atomically: it is one call of C. It returns consecutive numbers, of which
    each reading of `value` uses one up: good enough for sampling.
    """

    __slots__ = ("_draw", "_lock", "_read", "advance")

    def __init__(self) -> None:
        self._draw = self.advance = itertools.count(1).__next__
        self._lock = threading.Lock()
        # Numbers that readings drew.
        self._read = 0

    @property
    def value(self) -> int:
        """The count. A reading uses up a number too, since there is no other way to see where the numbers are, and
        subtracts it."""
        with self._lock:
            self._read += 1
            return self._draw() - self._read
