"""Counts: bytes that are held, by whom and in all, and what any thread may count without a lock."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

_Holder = TypeVar("_Holder")


class ByteAccount:
    """Bytes held for many, under a limit that may change at any time. Not thread-safe.

    Unfinished requests and unsent answers of both transports are accounted for here. What happens when there are too
    many is the transports' own affair: HTTP refuses bodies, gRPC lets calls wait, both cut off clients that do
    not read.
    """

    __slots__ = ("bytes", "limit")

    def __init__(self, limit: int) -> None:
        """`limit` bytes may be held in all. Nothing here enforces it: some must be held whatever there is."""
        self.limit = limit
        #: Bytes held now, by all together.
        self.bytes = 0

    @property
    def room(self) -> int:
        """Bytes that may still be held."""
        return max(0, self.limit - self.bytes)

    def victims(self, candidates: Iterable[tuple[_Holder, Holding]], down_to: int) -> Iterator[_Holder]:
        """Those of the candidates, in their order, that must give up all they hold to leave `down_to` bytes or fewer.

        They may do so at once or later.
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
        """`since` is when it began, in seconds of the holder's clock, where the pace matters."""
        self.account = account
        self.since = since
        #: Bytes held now.
        self.bytes = 0

    def fits(self, size: int) -> bool:
        """Whether with `size` bytes more it would hold no more than is left for all others now."""
        return self.bytes + size <= self.account.room

    def add(self, size: int) -> None:
        """So many bytes more are held; fewer, if negative."""
        self.bytes += size
        self.account.bytes += size

    def become(self, size: int) -> None:
        """So many bytes are held now."""
        self.account.bytes += size - self.bytes
        self.bytes = size

    def free(self) -> None:
        """Nothing is held any more."""
        self.become(0)


class Counter:
    """Counts up from 0. `advance` adds one, in one call of C that no thread can divide.

    It returns a number that is larger by one than what it, or a reading of `value`, drew before: of use for sampling.
    """

    __slots__ = ("_draw", "_lock", "_read", "advance")

    def __init__(self) -> None:
        self._draw = self.advance = itertools.count(1).__next__
        self._lock = threading.Lock()
        # Numbers that readings drew.
        self._read = 0

    @property
    def value(self) -> int:
        """The count. A reading draws a number too, since nothing else tells where the numbers are, and discounts it."""
        with self._lock:
            self._read += 1
            return self._draw() - self._read
