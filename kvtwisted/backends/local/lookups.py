"""What is at a key, for commands that decide by that: told at once under the commit point's lock, or read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from ...core.clock import Clock
from . import records
from .engines.engine import Engine
from .recency import Recency
from .records import ENVELOPE

if TYPE_CHECKING:
    from .batch_reads import Peek
    from .cache import Entry
    from .writer import Writer

#: What is stored at a key, expired or not: the value (None: nothing), and its deadline in ms since 1970 (0: never).
Stored = tuple[Optional[bytes], int]

NOTHING: Stored = (None, 0)


class Lookups:
    """Looks keys up. See each method for the thread."""

    def __init__(self, engine: Engine, peek: Peek, writer: Writer, recency: Recency, clock: Clock) -> None:
        """`peek` is as `CanPeek.peek`; `recency` is told of the keys."""
        self._engine = engine
        self._peek = peek
        self._cache = writer.commits.cache
        #: Looks a key up in the hot cache.
        self.hot = writer.commits.cache.entries.get
        self._files = writer.files
        self._recency = recency
        #: The time that ttls go by.
        self.clock = clock

    def now(self, key: bytes, entry: Entry | None) -> Stored | None:
        """What is stored, if that can be told without blocking; else None. Under the commit point's lock.

        `entry` is what `hot` has for the key.
        """
        if entry is not None:
            remembered = entry.answer or entry.expiring
            if remembered is not None:
                entry.used = True
                return remembered  # a Found without a ttl is what is told here
        known, stored = self._peek(key)
        if stored is None:
            return NOTHING if known else None
        value, expires_at_ms = stored, 0
        if stored and stored[0] == ENVELOPE:
            value, expires_at_ms, pointer = records.decode(stored)
            if pointer is not None:
                return None
        recency = self._recency
        if (recency.young[hash(key) & recency.mask] or recency.touch(key)) and self._cache.max_bytes:
            self._cache.put(key, value, expires_at_ms)
        return value, expires_at_ms

    def read(self, key: bytes) -> Stored:
        """What is stored. Blocks, on any thread; raises StorageError."""
        self._recency.touch(key)
        stored = self._engine.get(key)
        if stored is None or not stored or stored[0] != ENVELOPE:
            return stored, 0
        record = records.decode(stored)
        if record.pointer is not None:
            # The file may have gone since: read the record again where it cannot.
            with self._files.reading():
                stored = self._engine.get(key)
                if stored is None:
                    return NOTHING
                record = records.decode(stored)
                return self._files.value(record), record.expires_at_ms
        return record.value, record.expires_at_ms
