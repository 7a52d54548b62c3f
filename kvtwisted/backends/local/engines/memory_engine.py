"""An engine that keeps nothing: sorted lists in memory, for tests and trials."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence

from ....core.errors import Unavailable
from ....core.options import EngineOptions
from .engine import DATA, FAMILIES, FILES, Crossed, Keep, Mutation, everything, ignored
from .scans import Pair, Scan, Scans, next_pairs
from .shared import within


class _Table:
    """One family: its keys in order, and the values by key."""

    def __init__(self, keys: Sequence[bytes] = (), values: Mapping[bytes, bytes] = {}) -> None:
        self.keys: list[bytes] = list(keys)
        self.values: dict[bytes, bytes] = dict(values)

    def apply(self, key: bytes, value: bytes | None) -> None:
        if value is not None:
            if key not in self.values:
                insort(self.keys, key)
            self.values[key] = value
        elif key in self.values:
            del self.values[key]
            del self.keys[bisect_left(self.keys, key)]

    def cut(self, start: bytes, end: bytes | None) -> None:
        first = bisect_left(self.keys, start)
        last = len(self.keys) if end is None else bisect_left(self.keys, end)
        for key in self.keys[first:last]:
            del self.values[key]
        del self.keys[first:last]


class _View:
    """The pairs of one range of a table, which does not change."""

    def __init__(self, table: _Table, start: bytes, end: bytes | None, *, reverse: bool) -> None:
        self._table = table
        self._first = bisect_left(table.keys, start)
        self._last = len(table.keys) if end is None else bisect_left(table.keys, end)
        self._reverse = reverse
        self._pairs = self._iterate()

    def take(self, most: int) -> list[Pair]:
        return next_pairs(self._pairs, most)

    def seek(self, place: bytes) -> None:
        position = bisect_left(self._table.keys, place)
        if self._reverse:
            self._last = min(position, self._last)
        else:
            self._first = max(position, self._first)
        self._pairs = self._iterate()

    def _iterate(self) -> Iterator[Pair]:
        keys, values = self._table.keys, self._table.values
        positions = range(self._first, self._last)
        for position in reversed(positions) if self._reverse else positions:
            yield keys[position], values[keys[position]]


class MemoryEngine:
    """The engine Protocol over a lock. A write after a scan copies the tables, so that the scan keeps its view."""

    name = "memory"
    is_persistent = False
    writes_wait = False
    scans_wait = False
    version = "memory"

    def __init__(self, path: str, options: EngineOptions) -> None:
        """Start empty. `path` is not touched, and no option has an effect."""
        self._lock = threading.Lock()
        self._tables: dict[str, _Table] = {family: _Table() for family in FAMILIES}
        self._scanned = False
        self._scans = Scans(path)
        self._closed = False

    def get(self, key: bytes, family: str = DATA) -> bytes | None:
        """The value at `key`, or None."""
        with self._lock:
            return self._table(family).values.get(key)

    def peek(self, key: bytes) -> tuple[bool, bytes | None]:
        """The value at `key`, or None: memory always tells."""
        return True, self.get(key)

    def multi_get(self, keys: Sequence[bytes], budget: int, keep: Keep = everything) -> list[bytes | None]:
        """The DATA values at `keys`, from one view; ResponseTooLarge past `budget` bytes."""
        with self._lock:
            return within(budget, map(self._table(DATA).values.get, keys), keep)

    def scan(
        self, start: bytes, end: bytes | None, family: str = DATA, until: float = math.inf, crossed: Crossed = ignored,
        *, reverse: bool = False,
    ) -> Scan:  # fmt: skip
        """Pairs with start <= key < end, from the view of this call."""
        with self._lock:
            view = _View(self._table(family), start, end, reverse=reverse)
            self._scanned = True
            return self._scans.start(view.take, None, view.seek)

    def write(self, mutations: Sequence[Mutation]) -> None:
        """Apply all mutations atomically, in order."""
        with self._lock:
            self._check()
            self._unshare()
            for family, key, value in mutations:
                self._tables[family].apply(key, value)

    def delete_range(self, start: bytes, end: bytes | None) -> None:
        """Delete all start <= key < end from DATA and FILES."""
        with self._lock:
            self._check()
            self._unshare()
            for family in (DATA, FILES):
                self._tables[family].cut(start, end)

    def sync(self) -> None:
        """Nothing to wait for: nothing survives."""
        self._check()

    def close(self) -> None:
        """Forget everything and refuse every later call."""
        self._check()
        self._closed = True
        self._scans.end()
        self._tables = {}

    def _unshare(self) -> None:
        if self._scanned:
            self._tables = {family: _Table(table.keys, table.values) for family, table in self._tables.items()}
            self._scanned = False

    def _table(self, family: str) -> _Table:
        self._check()
        return self._tables[family]

    def _check(self) -> None:
        if self._closed:
            raise Unavailable("the storage is closed")
