"""The hot cache: values by key in memory, so that reading what is hot touches no RocksDB, no lock and no thread.

Note [One place updates both]: the cache is coherent by construction. Only `Writer` changes it, inside the lock under
which it changes the engine: a written key's entry is replaced, a deleted key's dropped, before the lock is given back.
A reader that missed may offer what it read from the engine, but only through `Writer.watching`, which tells whether the
key was written meanwhile.

Entries leave by CLOCK (second chance): a queue in order of entry, whose head goes unless it was used since its last
turn. A key is let in at its second miss only, so that a scan over many keys once does not flush what is hot (the idea
of TinyLFU's doorkeeper, Einziger et al. 2017).
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from .records import Found

#: Bytes that an entry costs beside its key and value: two bytes objects, the entry, and its place in the table.
ENTRY_COST = 320
#: First misses remembered, in each of two generations.
_DOORKEEPER = 65_536


class Entry:
    """A cached record: its answer if it never expires (making one costs more than finding it), its deadline in ms
    since 1970 (0: never), and whether it was used since its last turn."""

    __slots__ = ("expires_at_ms", "found", "used")

    def __init__(self, value: bytes, expires_at_ms: int) -> None:
        self.found = Found(value, 0)
        self.expires_at_ms = expires_at_ms
        self.used = False


class HotCache:
    """At most `max_bytes` of entries. `entries.get` may be called on any thread without a lock; 0 turns it off.

    A reader that finds an entry sets its `used`.
    """

    def __init__(self, max_bytes: int) -> None:
        self.entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._max_bytes = max_bytes
        self._bytes = 0
        # Hashes: the keys themselves might take far more than the cache.
        self._missed: set[int] = set()
        self._missed_before: set[int] = set()
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes of the entries, with ENTRY_COST for each."""
        return self._bytes

    def resize(self, max_bytes: int) -> None:
        """Change the limit; what is over it leaves at once."""
        with self._lock:
            self._max_bytes = max_bytes
            if not max_bytes:
                self._missed, self._missed_before = set(), set()
            self._shrink()

    def wanted(self, key: bytes) -> bool:
        """Whether a key that was missed should be offered: at its second miss within a while."""
        if not self._max_bytes:
            return False
        missed = hash(key)
        if missed in self._missed or missed in self._missed_before:
            return True
        self._missed.add(missed)
        if len(self._missed) >= _DOORKEEPER:
            self._missed_before, self._missed = self._missed, set()
        return False

    def put(self, key: bytes, value: bytes, expires_at_ms: int) -> None:
        """Keep a value that is in the engine. For the writer, under its lock."""
        cost = len(key) + len(value) + ENTRY_COST
        with self._lock:
            self._drop(key)
            # One value must not push out all that is hot.
            if cost * 8 <= self._max_bytes:
                self.entries[key] = Entry(value, expires_at_ms)
                self._bytes += cost
                self._shrink()

    def drop(self, key: bytes) -> None:
        """Forget a key. For the writer, under its lock."""
        with self._lock:
            self._drop(key)

    def _drop(self, key: bytes) -> None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(key) + len(entry.found.value) + ENTRY_COST

    def _shrink(self) -> None:
        while self._bytes > self._max_bytes:
            key, entry = next(iter(self.entries.items()))
            if entry.used:
                entry.used = False
                self.entries.move_to_end(key)
            else:
                self._drop(key)
