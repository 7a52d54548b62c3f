"""The store: keys, values and their expiry, over any engine.

Keys and values are bytes of UTF-8 text here; the transports encode and decode. Every method may block, may be called
from any thread, and raises `KvError`s: InvalidRequest before anything is touched, StorageError when the engine fails.
`deadline` is a time of `time.monotonic`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from . import expiry, records
from .batch_reads import BatchReader
from .cache import Entry
from .clock import Clock
from .counter import Counter
from .engine import CanPeek, Engine
from .limits import (
    MAX_KEY_BYTES,
    MAX_VALUE_BYTES,
    Limits,
    check_key,
    check_keys,
    check_pairs,
    check_prefix,
    check_scan_limit,
    check_ttl,
    check_value,
)
from .pages import Page, PageReader
from .recency import Recency
from .records import ENVELOPE, Found, Record
from .upkeep import Upkeep
from .write import Change, Write
from .writer import Writer

_LONG_AGO_MS = 1
#: Makes a Found in half the time that the class itself takes.
_found = tuple.__new__
#: Stands for an answer that cannot be given so quickly.
_UNKNOWN = Found(b"", -1)


class Store:
    """The storage operations of the contract (section 2) over an open engine."""

    def __init__(
        self,
        engine: Engine,
        writer: Writer,
        clock: Clock,
        *,
        limits: Limits,
        recency: Recency | None = None,
    ) -> None:
        """Raises Corruption when the folder was written by a newer format (see `Upkeep`).

        `recency` is told of every key that is read or written.
        """
        self._engine = engine
        self._peek = engine.peek if isinstance(engine, CanPeek) else _cannot_tell
        self._writer = writer
        self._cache = writer.cache
        self._files = writer.files
        #: Looks a key up in the hot cache; see `HotCache`.
        self.hot = self._cache.entries.get
        self._clock = clock
        self._recency = recency if recency is not None else Recency()
        #: May be replaced at any time; a request sees either the old object or the new.
        self.limits = limits
        #: Keys that Get and MGet found in the hot cache, and those that they had to ask RocksDB for.
        self._hits, self._misses = Counter(), Counter()
        self._count_hit, self._count_miss = self._hits.advance, self._misses.advance
        self._batches = BatchReader(engine, writer, self._recency, clock)
        self._pages = PageReader(engine, writer, clock)
        #: The server's own entries, and what looks after the storage.
        self.upkeep = Upkeep(engine, writer, clock)

    @property
    def cache_hits(self) -> int:
        """Keys read from the hot cache."""
        return self._hits.value + self._batches.hits

    @property
    def cache_misses(self) -> int:
        """Keys that were not in the hot cache when they were read."""
        return self._misses.value + self._batches.misses

    # Single keys.

    def set(self, key: bytes, value: bytes, ttl: int = 0, deadline: float = math.inf) -> None:
        """Store `value` at `key` for `ttl` seconds (0: for ever), whatever was there before."""
        if ttl or (value and value[0] == ENVELOPE):
            self._write(self.set_changes(key, value, ttl), deadline)
            return
        # The tests of `check_key` and `check_value`, without the calls.
        if not 0 < len(key) <= MAX_KEY_BYTES:
            check_key(key)
        if len(value) > MAX_VALUE_BYTES:
            check_value(value)
        recency = self._recency
        if not recency.young[hash(key) & recency.mask]:
            recency.touch(key)
        self._writer.put(key, value, deadline)

    def get(self, key: bytes) -> Found | None:
        """The value at `key`, or None when there is none or it has expired.

        A key in the hot cache is answered without RocksDB, a lock, or blocking.
        """
        return self.fetch(key, self.hot(key))

    def fetch(self, key: bytes, entry: Entry | None) -> Found | None:
        """What `get` gives, for who has asked `hot` already, and got `entry`."""
        if entry is not None and (found := self._remembered(entry)) is not _UNKNOWN:
            return found
        if not 0 < len(key) <= MAX_KEY_BYTES:
            check_key(key)
        self._count_miss()
        version = self._writer.version
        stored = self._engine.get(key)
        if not stored or stored[0] == ENVELOPE:
            return self._answer(key, stored, version)
        # What `_answer` does, without the call.
        recency = self._recency
        if (recency.young[hash(key) & recency.mask] or recency.touch(key)) and self._cache.max_bytes:
            self._writer.offer(version, key, stored, 0)
        return _found(Found, (stored, 0))

    def get_now(self, key: bytes) -> tuple[bool, Found | None]:
        """What `get` gives, with True, if that can be told without blocking; else False, and nothing was counted."""
        entry = self.hot(key)
        if entry is not None and (found := self._remembered(entry)) is not _UNKNOWN:
            return True, found
        if not 0 < len(key) <= MAX_KEY_BYTES:
            check_key(key)
        version = self._writer.version
        known, stored = self._peek(key)
        if not known or (stored and stored[0] == ENVELOPE and records.decode(stored).pointer is not None):
            return False, None
        found = self._answer(key, stored, version, wait=False)
        if found is _UNKNOWN:
            return False, None
        self._count_miss()
        return True, found

    def _remembered(self, entry: Entry) -> Found | None:
        """What an entry of the hot cache says, or _UNKNOWN while its key is written, or see `_unexpired`."""
        answer = entry.answer
        if answer is None:
            expiring = entry.expiring
            if expiring is None:
                return _UNKNOWN
            answer = self._unexpired(*expiring)
            if answer is _UNKNOWN:
                return _UNKNOWN
        entry.used = True
        self._count_hit()
        return answer

    def _answer(self, key: bytes, stored: bytes | None, version: int, *, wait: bool = True) -> Found | None:
        """What was stored, as an answer; cached if the key was used before. `version` was read before `stored`.

        Without `wait` it never blocks, and may be _UNKNOWN: see `_unexpired`.
        """
        if stored is None:
            return None
        value, expires_at_ms = stored, 0
        if stored and stored[0] == ENVELOPE:
            record = self._whole(key, records.decode(stored))
            value, expires_at_ms = record.value, record.expires_at_ms
        found = self._unexpired(value, expires_at_ms) if expires_at_ms else _found(Found, (value, 0))
        if found is _UNKNOWN and wait:
            self._clock.tell(expires_at_ms)
            return None
        if found is None or found is _UNKNOWN:
            return found
        recency = self._recency
        if (recency.young[hash(key) & recency.mask] or recency.touch(key)) and self._cache.max_bytes:
            self._writer.offer(version, key, value, expires_at_ms)
        return found

    def _whole(self, key: bytes, record: Record) -> Record:
        """The record as it is now, with the value that a file holds; `record` was read before any file was."""
        if record.pointer is None:
            return record
        # The file may have gone since: read the record again where it cannot.
        with self._files.reading():
            stored = self._engine.get(key)
            if stored is None:
                return Record(b"", _LONG_AGO_MS)
            record = records.decode(stored)
            return Record(self._files.value(record), record.expires_at_ms)

    def _unexpired(self, value: bytes, expires_at_ms: int) -> Found | None:
        """The answer for a key with a deadline.

        _UNKNOWN once it has passed and nobody may be told so yet; see Note [What was told stays true].
        """
        ttl = expiry.seconds_left(expires_at_ms, self._clock.now_ms())
        if ttl > 0:
            return Found(value, ttl)
        return None if self._clock.is_marked(expires_at_ms) else _UNKNOWN

    def delete(self, key: bytes, *, deadline: float = math.inf) -> None:
        """Remove `key`; a missing key is fine."""
        self._write(self.delete_changes([key]), deadline)

    def mset(self, pairs: Mapping[bytes, bytes], ttl: int = 0, *, deadline: float = math.inf) -> None:
        """Store all pairs, each for `ttl` seconds (0: for ever), or none of them."""
        self._write(self.mset_changes(pairs, ttl), deadline)

    def mget(self, keys: Sequence[bytes], *, budget: int) -> dict[bytes, bytes]:
        """The values of those keys that exist, in the order asked, from one consistent view.

        Raises ResponseTooLarge when they exceed `budget` bytes, counting ENTRY_OVERHEAD for each.
        """
        check_keys(keys, self.limits)
        return self._batches.mget(keys, budget)

    def mdelete(self, keys: Sequence[bytes], *, deadline: float = math.inf) -> None:
        """Remove all keys, or none of them; missing keys are fine."""
        self._write(self.mdelete_changes(keys), deadline)

    def scan(
        self,
        prefix: bytes,
        *,
        cursor: bytes = b"",
        limit: int = 0,
        keys_only: bool = False,
        budget: int,
        deadline: float = math.inf,
    ) -> Page:
        """Up to `limit` (0: all) pairs whose keys start with `prefix` and come after `cursor`, from one snapshot.

        With a limit or a cursor the page ends before `budget` bytes (ENTRY_OVERHEAD for each entry counted), and
        `next_cursor` says where to go on. Without either the caller expects everything, so that too much is
        ResponseTooLarge. With `keys_only` the values are left empty. A value over the budget is never cut short:
        the caller's budget must hold one entry of the largest size.
        """
        check_prefix(prefix)
        check_prefix(cursor, "cursor")
        check_scan_limit(limit)
        return self._pages.scan(
            prefix, cursor=cursor, limit=limit, keys_only=keys_only, budget=budget, deadline=deadline
        )

    # What the writes write: checked changes, for `Writer`.

    def set_changes(self, key: bytes, value: bytes, ttl: int) -> list[Change]:
        """The changes of `set`. Raises InvalidRequest; nothing is written yet."""
        if not 0 < len(key) <= MAX_KEY_BYTES:
            check_key(key)
        if len(value) > MAX_VALUE_BYTES:
            check_value(value)
        if ttl:
            check_ttl(ttl)
        recency = self._recency
        if not recency.young[hash(key) & recency.mask]:
            recency.touch(key)
        return [(key, value, self._expires_at(ttl))]

    def mset_changes(self, pairs: Mapping[bytes, bytes], ttl: int) -> list[Change]:
        """The changes of `mset`. Raises InvalidRequest; nothing is written yet."""
        check_pairs(pairs, self.limits)
        check_ttl(ttl)
        expires_at_ms = self._expires_at(ttl)
        self._recency.touch_all(pairs)
        return [(key, value, expires_at_ms) for key, value in pairs.items()]

    def delete_changes(self, keys: Sequence[bytes]) -> list[Change]:
        """The changes of `delete`. Raises InvalidRequest; nothing is written yet."""
        for key in keys:
            check_key(key)
        return [(key, None, 0) for key in keys]

    def mdelete_changes(self, keys: Sequence[bytes]) -> list[Change]:
        """The changes of `mdelete`. Raises InvalidRequest; nothing is written yet."""
        check_keys(keys, self.limits)
        return [(key, None, 0) for key in keys]

    def _write(self, changes: Sequence[Change], deadline: float) -> None:
        if changes:
            self._writer.write(changes, deadline)

    def write_all(self, writes: Sequence[Write]) -> None:
        """Apply writes, each atomic, together where possible; see `Writer.write_all`."""
        self._writer.write_all(writes)

    def needs_files(self, write: Write) -> bool:
        """See `Writer.needs_files`."""
        return self._writer.needs_files(write)

    def try_now(self, writes: Sequence[Write]) -> bool:
        """Apply writes if that needs no waiting; see `Writer.try_now`."""
        return self._writer.try_now(writes)

    def _expires_at(self, ttl: int) -> int:
        return expiry.expires_at(self._clock.now_ms(), ttl) if ttl else 0


def _cannot_tell(_: bytes) -> tuple[bool, bytes | None]:
    """For an engine that cannot peek: all reads may block."""
    return False, None
