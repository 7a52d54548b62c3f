"""How a scan makes its way over deleted keys: a piece of the key space at a time.

Note [Scans over deleted keys]: a deleted key stays in RocksDB, as a tombstone, until compaction takes it. A seek reads
over all that lie before the next living key: a million in 100 ms and more, in one call, which rocksdict makes with
Python's lock in its hand. So RocksDB is told to give up after SKIPS of them. It does not say then how far it came. What
is left of the range is therefore taken in pieces with an end of their own: one that RocksDB gives up is made a quarter
as long, and one that it finishes moves the beginning on, and the next is twice as long. So pieces soon have some
hundred tombstones each. Those who read such pieces take turns, so that others wait for one piece at most; and between
two pieces a scan sees to its time, and to a database that is to be closed.

An end is a new iterator's, and rocksdict's iterators do not read from its snapshots (0.3.29 sets the snapshot on
options that it then does not use). So each piece has a view of its own, and whoever needs one view of all is told where
it changed: see Note [A page from several views].
"""

from __future__ import annotations

import threading
from collections import deque
from typing import cast

#: Deleted keys that RocksDB reads over in one call: some 0.1 ms of work.
SKIPS = 1000
#: Bytes that tell any two keys apart: those of the longest key, and of the deadline before it in the expiry index.
_DIGITS = 1024 + 8 + 1


class Pieces:
    """The pieces of one range of keys. One thread at a time.

    `low` is where the present piece begins, and every key of the range before it has been read. `high` is where it
    ends, None where the range has no end. `limited` says whether RocksDB may give up on it.
    """

    __slots__ = ("_end", "_end_number", "_width", "high", "last", "limited", "low", "whole")

    def __init__(self, start: bytes, end: bytes | None) -> None:
        self.low = start
        self.high = self._end = end
        # Where the range ends, and how long the present piece is, once there is more than one.
        self._end_number = self._width = 0
        #: Whether the range ends with this piece, and whether it is the first, of the whole range.
        self.last = self.whole = True
        self.limited = True

    def passed(self) -> None:
        """The piece has been read to its end, and was not the last."""
        self.low = cast(bytes, self.high)
        self._reach(self._width * 2)

    def given_up(self, low: bytes) -> None:
        """RocksDB has given up on it, having read all keys before `low`."""
        self.low = low
        if self.whole:
            self._end_number = _number(self._end) if self._end is not None else 256**_DIGITS
        self.whole = False
        if self.last:
            self._width = self._end_number - _number(low)
        # A piece that cannot be any shorter holds few keys: those that differ in nothing but NULs at their end.
        self.limited = self._width > 1
        self._reach(self._width // 4)

    def _reach(self, width: int) -> None:
        self._width = max(width, 1)
        end = _number(self.low) + self._width
        self.last = end >= self._end_number
        self.high = self._end if self.last else end.to_bytes(_DIGITS, "big").rstrip(b"\0")


class FairLock:
    """A lock that those who wait for it get in the order in which they came. A `with` block; any thread, not nested."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    def __enter__(self) -> None:
        """Wait for one's turn."""
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()

    def __exit__(self, *exception: object) -> None:
        """It is the next one's turn."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


def _number(key: bytes) -> int:
    """Where a key lies among all, as the digits of a number."""
    return int.from_bytes(key[:_DIGITS].ljust(_DIGITS, b"\0"), "big")
