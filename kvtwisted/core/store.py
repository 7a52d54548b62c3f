"""The store: keys, values and their expiry, over any engine.

Keys and values are bytes of UTF-8 text here; the transports encode and decode. Every method may block, may be called
from any thread, and raises `KvError`s: InvalidRequest before anything is touched, StorageError when the engine fails.
`deadline` is a time of `time.monotonic`.
"""

from __future__ import annotations

import itertools
import math
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from . import expiry, records
from .clock import Clock
from .engine import META, Engine
from .errors import Corruption, DeadlineExceeded, ResponseTooLarge
from .limits import Limits, check_key, check_keys, check_pairs, check_prefix, check_scan_limit, check_ttl, check_value
from .recency import Recency
from .records import Found, Record
from .writer import Change, Writer

#: What one entry of an answer may cost beside its key and value, in any transport's encoding.
ENTRY_OVERHEAD = 16

#: META entries.
_FORMAT_KEY, _FORMAT = b"format", b"1"
_CLOCK_KEY = b"clock"
_IDENTITY_KEY = b"identity"

_SCAN_STRIDE = 1024
_LONG_AGO_MS = 1


class Page(NamedTuple):
    """One page of a scan, in byte order. An empty `next_cursor` says that the scan has reached the end."""

    items: list[tuple[bytes, bytes]]
    next_cursor: bytes


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
        """Raises Corruption when the folder was written by a newer format.

        `recency` is told of every key that is read or written.
        """
        self._engine = engine
        self._writer = writer
        self._cache = writer.cache
        self._files = writer.files
        #: Looks a key up in the hot cache; see `HotCache`.
        self.hot = self._cache.entries.get
        self._clock = clock
        self._recency = recency
        #: May be replaced at any time; a request sees either the old object or the new.
        self.limits = limits
        #: Gets answered from the hot cache and by RocksDB. A thread may leave these behind by one until the next Get.
        self.cache_hits = 0
        self.cache_misses = 0
        self._next_hit = itertools.count(1).__next__
        self._next_miss = itertools.count(1).__next__
        self._check_format()

    def set(self, key: bytes, value: bytes, ttl: int = 0, *, deadline: float = math.inf) -> None:
        """Store `value` at `key` for `ttl` seconds (0: for ever), whatever was there before."""
        check_key(key)
        check_value(value)
        check_ttl(ttl)
        self._write([(key, value, self._expires_at(ttl))], deadline)

    def get(self, key: bytes) -> Found | None:
        """The value at `key`, or None when there is none or it has expired.

        A key in the hot cache is answered without RocksDB, a lock, or blocking.
        """
        entry = self.hot(key)
        if entry is not None:
            entry.used = True
            self.cache_hits = self._next_hit()
            return self._unexpired(entry.found.value, entry.expires_at_ms) if entry.expires_at_ms else entry.found
        check_key(key)
        self.cache_misses = self._next_miss()
        record = self._read(key)
        if record is None:
            return None
        found = self._unexpired(record.value, record.expires_at_ms)
        if found is not None and self._recency is not None:
            self._recency.touch(key)
        return found

    def _read(self, key: bytes) -> Record | None:
        if not self._cache.wanted(key):
            stored = self._engine.get(key)
            return None if stored is None else self._whole(key, records.decode(stored))
        with self._writer.watching((key,)) as watch:
            stored = self._engine.get(key)
            if stored is None:
                return None
            record = self._whole(key, records.decode(stored))
            self._writer.offer(watch, key, record.value, record.expires_at_ms)
            return record

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
            return Record(self._value(record), record.expires_at_ms)

    def _value(self, record: Record) -> bytes:
        """A record's value. Only inside `self._files.reading()`, begun before the record was read."""
        if record.pointer is None:
            return record.value
        try:
            return self._files.load(record.pointer)
        except FileNotFoundError:
            raise Corruption(f"the large value in file {record.pointer.name.hex()} is missing") from None

    def _unexpired(self, value: bytes, expires_at_ms: int) -> Found | None:
        if not expires_at_ms:
            return Found(value, 0)
        ttl = expiry.seconds_left(expires_at_ms, self._clock.now_ms())
        return Found(value, ttl) if ttl > 0 else None

    def delete(self, key: bytes, *, deadline: float = math.inf) -> None:
        """Remove `key`; a missing key is fine."""
        check_key(key)
        self._write([(key, None, 0)], deadline)

    def mset(self, pairs: Mapping[bytes, bytes], ttl: int = 0, *, deadline: float = math.inf) -> None:
        """Store all pairs, each for `ttl` seconds (0: for ever), or none of them."""
        check_pairs(pairs.items(), len(pairs), self.limits)
        check_ttl(ttl)
        if pairs:
            expires_at_ms = self._expires_at(ttl)
            self._write([(key, value, expires_at_ms) for key, value in pairs.items()], deadline)

    def mget(self, keys: Sequence[bytes], *, budget: int) -> dict[bytes, bytes]:
        """The values of those keys that exist, in the order asked, from one consistent view.

        Raises ResponseTooLarge when they exceed `budget` bytes, counting ENTRY_OVERHEAD for each.
        """
        check_keys(keys, self.limits)
        unique = list(dict.fromkeys(keys))
        now = self._clock.now_ms()
        found: dict[bytes, bytes] = {}
        size = 0

        def is_live(stored: bytes) -> bool:
            return not expiry.is_expired(records.decode(stored).expires_at_ms, now)

        with self._files.reading():
            for key, stored in zip(unique, self._engine.multi_get(unique, budget, is_live)):
                if stored is None:
                    continue
                record = records.decode(stored)
                size += _answer_bytes(key, record)
                if size > budget:
                    raise ResponseTooLarge(
                        f"keys: the values exceed {budget} bytes, the limit of one answer; ask for fewer"
                    )
                found[key] = self._value(record)
                if self._recency is not None:
                    self._recency.touch(key)
        return found

    def mdelete(self, keys: Sequence[bytes], *, deadline: float = math.inf) -> None:
        """Remove all keys, or none of them; missing keys are fine."""
        check_keys(keys, self.limits)
        if keys:
            self._write([(key, None, 0) for key in keys], deadline)

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
        now = self._clock.now_ms()
        items: list[tuple[bytes, bytes]] = []
        size = 0
        with self._files.reading():
            for key, record in self._live(prefix, cursor, now, deadline):
                size += len(key) + ENTRY_OVERHEAD if keys_only else _answer_bytes(key, record)
                if size > budget and not (limit or cursor):
                    raise ResponseTooLarge(
                        f"prefix: the answer exceeds {budget} bytes, the limit of one answer; "
                        "page with limit and cursor"
                    )
                if (limit and len(items) == limit) or (size > budget and items):
                    return Page(items, items[-1][0])
                items.append((key, b"" if keys_only else self._value(record)))
        return Page(items, b"")

    def _live(self, prefix: bytes, cursor: bytes, now: int, deadline: float) -> Iterator[tuple[bytes, Record]]:
        start = max(prefix, cursor + b"\0") if cursor else prefix
        end = prefix_end(prefix)
        if end is not None and start >= end:
            return
        for position, (key, stored) in enumerate(self._engine.scan(start, end)):
            if position % _SCAN_STRIDE == 0 and time.monotonic() > deadline:
                raise DeadlineExceeded(
                    "the scan took longer than the request's time; ask for less with limit and cursor"
                )
            record = records.decode(stored)
            if not expiry.is_expired(record.expires_at_ms, now):
                yield key, record

    def _write(self, changes: Sequence[Change], deadline: float) -> None:
        self._writer.write(changes, deadline)
        if self._recency is not None:
            for key, _, _ in changes:
                self._recency.touch(key)

    def _expires_at(self, ttl: int) -> int:
        return expiry.expires_at(self._clock.now_ms(), ttl) if ttl else 0

    def probe(self) -> None:
        """Write and read back an entry of the server's own; raises StorageError where users' writes would."""
        self._engine.write([(META, _FORMAT_KEY, _FORMAT)])
        if self._writer.durable:
            self._engine.sync()
        self.check()

    def check(self) -> None:
        """Read an entry of the server's own; raises StorageError where users' reads would."""
        if self._engine.get(_FORMAT_KEY, META) != _FORMAT:
            raise Corruption("the data folder's format mark cannot be read back")

    def identity(self) -> str:
        """The database's own name, made by chance when it is first asked for, and kept."""
        stored = self._engine.get(_IDENTITY_KEY, META)
        if stored is None:
            stored = secrets.token_hex(16).encode()
            self._engine.write([(META, _IDENTITY_KEY, stored)])
            self._engine.sync()
        return stored.decode("ascii", "replace")

    def mark_clock(self) -> None:
        """Write down the present time, so that a later run never goes back before it."""
        self._engine.write([(META, _CLOCK_KEY, str(self._clock.now_ms()).encode())])

    def _check_format(self) -> None:
        stored = self._engine.get(_FORMAT_KEY, META)
        if stored is None:
            self._engine.write([(META, _FORMAT_KEY, _FORMAT)])
        elif stored != _FORMAT:
            raise Corruption(f"the data folder has format {stored!r}; this server reads format 1")
        mark = self._engine.get(_CLOCK_KEY, META)
        if mark is not None:
            try:
                self._clock.at_least(int(mark))
            except ValueError:
                raise Corruption(f"the data folder's clock mark is {mark!r}, which is no time") from None


def _answer_bytes(key: bytes, record: Record) -> int:
    """What a pair may take in an answer."""
    return len(key) + (record.pointer.length if record.pointer else len(record.value)) + ENTRY_OVERHEAD


def prefix_end(prefix: bytes) -> bytes | None:
    """The first key after all those that start with `prefix`, or None when there is no such key."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None
