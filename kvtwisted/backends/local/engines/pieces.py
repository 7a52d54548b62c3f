"""How a scan makes its way over deleted keys: a piece of the key space at a time.

Note [Scans over deleted keys]: a deleted key stays in RocksDB, as a tombstone, until compaction takes it. A seek reads
over all that lie before the next living key: a million in 100 ms and more, in one call, which rocksdict makes with
Python's lock in its hand. So RocksDB is told to give up after SKIPS of them. It does not say then how far it came. So
the next living key is looked for in pieces of what is left of the range, with an end of their own: one that RocksDB
gives up is made a quarter as long, and after one that it finishes comes one twice as long. So pieces soon have some
hundred tombstones each. Those who read such pieces take turns, so that others wait for one piece at most; and between
two pieces a scan sees to its time, and to a database that is to be closed. Where the living key is, the scan goes on,
with the iterator that it has, which can be sought anew and keeps its view.

An end is a new iterator's, and rocksdict's iterators do not read from its snapshots (0.3.29 sets the snapshot on
options that it then does not use). So each piece has a view of its own. That nothing lives there in the scan's own view
is only known to who knows that nothing was written there since: so it is told of the pieces.
See Note [One view over deleted keys].

A scan in reverse goes through its pieces from the last one, but each is read forwards, for its last key: rocksdict
takes a lower bound for an upper one (0.3.29), so that an iterator can be bounded upwards only. A piece that has more
living keys than LIVING is as one that RocksDB gives up.
"""

from __future__ import annotations

import threading
from collections import deque

#: Deleted keys that RocksDB reads over in one call: some 0.1 ms of work.
SKIPS = 1000
#: Living keys that are read of a piece for the sake of its last one.
LIVING = 16
#: Bytes that tell any two keys apart: those of the longest key, and of the deadline before it in the expiry index.
_DIGITS = 1024 + 8 + 1
_AFTER_ALL = 256**_DIGITS


class Pieces:
    """The pieces of one range of keys, from `start` on and before `end` (None: no end). One thread at a time.

    The present piece has the keys from `low` on and before `high` (None: to the last). `limited` says whether it may be
    given up.
    """

    __slots__ = ("_end", "_reverse", "_start", "_width", "high", "last", "limited", "low")

    def __init__(self, start: bytes, end: bytes | None, *, reverse: bool = False) -> None:
        self.low = self._start = start
        self.high = self._end = end
        self._reverse = reverse
        # How long a piece is; 0 before the first.
        self._width = 0
        #: Whether the range ends with this piece.
        self.last = True
        self.limited = True

    @property
    def reached(self) -> bytes | None:
        """Where the present piece begins; of a scan in reverse, where it ends."""
        return self.high if self._reverse else self.low

    def begin(self, place: bytes | None) -> None:
        """There are more deleted keys than RocksDB reads over: from that place on, or before it in reverse."""
        if self._reverse:
            self.high = place
            width = _number(place, _AFTER_ALL) - _number(self._start)
        else:
            self.low = place or b""
            width = _number(self._end, _AFTER_ALL) - _number(self.low)
        self._reach(min(self._width, width) if self._width else width // 4)

    def passed(self) -> None:
        """The piece has been read to its end, and was not the last."""
        if self._reverse:
            self.high = self.low
        else:
            self.low = self.high or b""
        self._reach(self._width * 2)

    def given_up(self) -> None:
        """The piece is too long to be read."""
        self._reach(self._width // 4)

    def _reach(self, width: int) -> None:
        self._width = max(width, 1)
        # A piece that cannot be any shorter holds few keys: those that differ in nothing but NULs at their end.
        self.limited = self._width > 1
        if self._reverse:
            low = _number(self.high, _AFTER_ALL) - self._width
            self.last = low <= _number(self._start)
            self.low = self._start if self.last else _key(low)
        else:
            high = _number(self.low) + self._width
            self.last = high >= _number(self._end, _AFTER_ALL)
            self.high = self._end if self.last else _key(high)


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


def _number(key: bytes | None, none: int = 0) -> int:
    """Where a key lies among all, as the digits of a number."""
    return none if key is None else int.from_bytes(key[:_DIGITS].ljust(_DIGITS, b"\0"), "big")


def _key(number: int) -> bytes:
    return number.to_bytes(_DIGITS, "big").rstrip(b"\0")
