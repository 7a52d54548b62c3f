"""MGet: many keys from one consistent view."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Callable, cast

from ...commands.command import ENTRY_OVERHEAD
from ...commands.get import Found
from ...commands.mget import too_large
from ...core.clock import Clock
from . import records
from .cache import Entry
from .engines.engine import READ_AHEAD, Engine
from .maintenance import expiry
from .recency import Recency
from .records import ENVELOPE
from .writer import Writer

#: Times that a large MGet is tried without a snapshot, which costs more than reading again.
_OPTIMISTIC_READS = 3
#: Keys of an MGet that is read without blocking, and bytes of their values.
KEYS_NOW, BYTES_NOW = 256, 262_144
#: What is at a key, if that can be told without blocking: see `engines.engine.CanPeek`.
Peek = Callable[[bytes], "tuple[bool, bytes | None]"]


class BatchReader:
    """MGet of checked keys. Blocks, but for `mget_now`; safe from any thread."""

    def __init__(self, engine: Engine, peek: Peek, writer: Writer, recency: Recency, clock: Clock) -> None:
        self._engine = engine
        self._peek = peek
        self._commits = writer.commits
        self._cache = writer.commits.cache
        self._hot = self._cache.entries.get
        self._files = writer.files
        self._recency = recency
        self._clock = clock
        self._lock = threading.Lock()
        #: Keys that MGet found in the hot cache, and those that it asked RocksDB for.
        self.hits = self.misses = 0

    def mget(self, keys: Sequence[bytes], budget: int) -> dict[bytes, bytes]:
        """The values of those keys that exist, in the order asked, from one consistent view.

        Raises ResponseTooLarge when they exceed `budget` bytes, counting ENTRY_OVERHEAD for each.
        """
        found = self._mget_hot(keys, budget, budget)
        if found is not None:
            return found
        unique = list(dict.fromkeys(keys))
        with self._lock:
            self.misses += len(unique)
        for _ in range(_OPTIMISTIC_READS):
            version = self._commits.version
            found = self._mget_stored(unique, budget, READ_AHEAD, version)
            if len(unique) <= READ_AHEAD or (not version & 1 and version == self._commits.version):
                return found
        return self._mget_stored(unique, budget, len(unique), version)

    def mget_now(self, keys: Sequence[bytes], budget: int) -> dict[bytes, bytes] | None:
        """What `mget` gives, if memory has it all and it is small; else None, and nothing was counted. Never blocks.

        For up to KEYS_NOW keys; more than BYTES_NOW bytes are not small.
        """
        found = self._mget_hot(keys, budget, BYTES_NOW)
        return found if found is not None else self._mget_peeked(list(dict.fromkeys(keys)), budget)

    def _mget_hot(self, keys: Sequence[bytes], budget: int, most: int) -> dict[bytes, bytes] | None:
        """The answer if all keys are in the hot cache and none of them expires; else, or over `most` bytes, None.

        No write happened between the first look and the last: that makes it one view. See
        Note [The version shows writes].
        """
        version = self._commits.version
        entries = cast("list[Entry]", list(map(self._hot, keys)))
        if not all(entries):
            return None
        answers = cast("list[Found]", [entry.answer for entry in entries])
        if version & 1 or not all(answers) or version != self._commits.version:
            return None
        found = {key: answer[0] for key, answer in zip(keys, answers)}
        size = sum(map(len, found)) + sum(map(len, found.values())) + ENTRY_OVERHEAD * len(found)
        _check_budget(size, budget)
        if size > most:
            return None
        for entry in entries:
            entry.used = True
        with self._lock:
            self.hits += len(found)
        return found

    def _mget_peeked(self, keys: Sequence[bytes], budget: int) -> dict[bytes, bytes] | None:
        """The answer from the hot cache, and for keys that it does not have by `peek`, if that tells; else None.

        It is one view as in `_mget_hot`: no write happened meanwhile.
        """
        version = self._commits.version
        now, hot, peek = self._clock.now_ms(), self._hot, self._peek
        found: dict[bytes, bytes] = {}
        entries: list[Entry] = []
        fresh: list[tuple[bytes, bytes, int]] = []
        size = 0
        for key in keys:
            entry = hot(key)
            answer = None if entry is None else entry.answer
            if entry is not None and answer is not None:
                entries.append(entry)
                value = answer[0]
            else:
                known, stored = peek(key)
                if not known:
                    return None
                if stored is None:
                    continue
                value, expires_at_ms = stored, 0
                if stored and stored[0] == ENVELOPE:
                    record = records.decode(stored)
                    value, expires_at_ms = record.value, record.expires_at_ms
                    if expiry.is_expired(expires_at_ms, now) and self._clock.is_marked(expires_at_ms):
                        continue
                    if record.pointer is not None or expiry.is_expired(expires_at_ms, now):
                        return None  # the value is in a file; or the clock's mark has to be written first
                fresh.append((key, value, expires_at_ms))
            size += len(key) + len(value) + ENTRY_OVERHEAD
            if size > BYTES_NOW:
                return None
            found[key] = value
        if version & 1 or version != self._commits.version:
            return None
        _check_budget(size, budget)
        for entry in entries:
            entry.used = True
        with self._lock:
            self.hits += len(entries)
            self.misses += len(keys) - len(entries)
        self._let_in(version, fresh)
        return found

    def _let_in(self, version: int, read: Sequence[tuple[bytes, bytes, int]]) -> None:
        """Note keys that the engine was asked for, with value and deadline; cache those that were used before."""
        recency, caching = self._recency, bool(self._cache.max_bytes)
        for key, value, expires_at_ms in read:
            if (recency.young[hash(key) & recency.mask] or recency.touch(key)) and caching:
                self._commits.offer(version, key, value, expires_at_ms)

    def _mget_stored(self, keys: Sequence[bytes], budget: int, at_once: int, version: int) -> dict[bytes, bytes]:
        """The answer from the engine, `at_once` keys from one view."""
        now, expired = self._clock.now_ms(), 0
        found: dict[bytes, bytes] = {}
        recency, caching = self._recency, bool(self._cache.max_bytes)
        size = 0

        def is_live(stored: bytes) -> bool:
            nonlocal expired
            deadline = records.decode(stored).expires_at_ms
            if not expiry.is_expired(deadline, now):
                return True
            expired = max(expired, deadline)
            return False

        with self._files.reading():
            for first in range(0, len(keys), at_once):
                chunk = keys[first : first + at_once]
                for key, stored in zip(chunk, self._engine.multi_get(chunk, budget, is_live)):
                    if stored is None:
                        continue
                    expires_at_ms = 0
                    if stored and stored[0] == ENVELOPE:
                        record = records.decode(stored)
                        expires_at_ms = record.expires_at_ms
                        if expiry.is_expired(expires_at_ms, now):
                            expired = max(expired, expires_at_ms)
                            continue
                        if record.pointer is not None:
                            _check_budget(size + len(key) + record.pointer.length + ENTRY_OVERHEAD, budget)
                        stored = self._files.value(record)
                    size += len(key) + len(stored) + ENTRY_OVERHEAD
                    found[key] = stored
                    if (recency.young[hash(key) & recency.mask] or recency.touch(key)) and caching:
                        self._commits.offer(version, key, stored, expires_at_ms)
                _check_budget(size, budget)
        self._clock.tell(expired)
        return found


def _check_budget(size: int, budget: int) -> None:
    if size > budget:
        raise too_large(budget)
