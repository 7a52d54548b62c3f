"""Scans that cannot outlive their database.

A live iterator of rocksdict keeps the folder's lock after `close`; one of lbry-rocksdb, used or freed after `close`,
ends the process with a segmentation fault. So the binding's iterator is owned by a `Scan` alone, every engine keeps its
scans in a `Scans`, and `Scans.end` takes the iterators away before the database is closed.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from functools import partial
from typing import Callable

from ....core.errors import KvError
from .pieces import FairLock
from .translate import EngineClosed, translated

Pair = tuple[bytes, bytes]


class Scan(Iterator[Pair]):
    """Pairs of one range in key order. Use it from one thread at a time; `close` it, exhaust it, or drop it."""

    __slots__ = ("__weakref__", "_advance", "_path", "_upper_bound")

    def __init__(self, advance: Callable[[], Pair], upper_bound: bytes | None, path: str) -> None:
        """Own the iterator behind `advance`, which gives the next pair or raises StopIteration.

        `upper_bound` lives as long as the iterator: the bindings give RocksDB its address, not a copy.
        `advance` must not leave frames that hold the iterator in the traceback of what it raises.
        """
        self._advance = advance
        self._upper_bound = upper_bound
        self._path = path

    def __next__(self) -> Pair:
        """The next pair. Raises StorageError (Corruption for a damaged file), or Unavailable once the engine closed."""
        try:
            return self._advance()
        except StopIteration:
            self.close()
            raise
        except KvError:
            raise
        except Exception as error:
            raise translated(error, self._path) from None

    def close(self) -> None:
        """Release the view; the scan is over. Harmless when it already is."""
        self._replace(_over)

    def end(self, error: type[Exception]) -> None:
        """Release the view because the engine closes: unless the scan was over, its next pair is `error`, translated.

        Another thread may be in the midst of a pair. So the bound stays, which its iterator may still look at.
        """
        if self._advance is not _over:
            self._advance = partial(_raise, error)

    def _replace(self, advance: Callable[[], Pair]) -> None:
        self._advance = advance
        self._upper_bound = None


class Scans:
    """The scans of one engine that are still in somebody's hands."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._live: weakref.WeakSet[Scan] = weakref.WeakSet()
        #: Of those who read over many deleted keys; see Note [Scans over deleted keys].
        self.turns = FairLock()
        #: Times that all scans have been ended, and what the last time was for: a scan that is at it for long looks.
        self.ended = 0
        self.why: type[Exception] = EngineClosed

    def start(self, advance: Callable[[], Pair], upper_bound: bytes | None = None) -> Scan:
        """A scan over `advance` (see `Scan`), which `end` ends if nobody has dropped it."""
        scan = Scan(advance, upper_bound, self._path)
        self._live.add(scan)
        return scan

    def end(self, error: type[Exception] = EngineClosed) -> None:
        """End every live scan, so that nothing of the database is held once those in use have got their pair."""
        self.why = error
        self.ended += 1
        for scan in self._all():
            scan.end(error)

    def _all(self) -> list[Scan]:
        while True:
            try:
                return list(self._live)
            except RuntimeError:
                """One was begun meanwhile."""


def _over() -> Pair:
    raise StopIteration


def _raise(error: type[Exception]) -> Pair:
    raise error
