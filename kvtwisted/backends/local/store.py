"""The store: keys, values and their expiry, over any engine.

Keys and values are bytes of UTF-8 text here; codecs encode and decode. What comes here has been checked by its command.
But for what says that it does not block, every method may, and any thread may call it. They raise StorageError when the
engine fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import starmap
from typing import Callable

from ...commands.command import Change, Command, WriteCommand
from ...commands.deciding import DecidingCommand
from ...commands.decisions import Decisions
from ...commands.delete_range import DeleteRange, Removed
from ...commands.get import Found, Get
from ...commands.mget import MGet
from ...commands.ranges import prefix_end
from ...commands.scan import Scan
from ...commands.scan_stream import ScanStream
from ...core.clock import Clock
from ...core.counting import Counter
from ...core.errors import StorageError
from ...core.limits import MAX_KEY_BYTES, check_key
from ..backend import Measured
from . import records
from .batch_reads import KEYS_NOW, BatchReader
from .cache import Entry
from .deciding_write import DecidingWrite, GatheredWrite
from .engines.engine import CanPeek, Engine
from .lookups import Lookups
from .maintenance import expiry
from .metadata import Metadata
from .pages import PageReader
from .range_deletes import RangeDeletes
from .recency import Recency
from .records import ENVELOPE, Record
from .stream_views import StreamView
from .write import Write
from .writer import Writer

#: Where a piece of a count ends.
MEASURED_KEYS, MEASURED_BYTES = 500, 4_194_304

#: Keys that an engine which cannot be told of ranges deletes at once, unless told otherwise.
RANGE_DELETE_KEYS = 10_000

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
        recency: Recency | None = None,
        range_delete_keys: Callable[[], int] = lambda: RANGE_DELETE_KEYS,
    ) -> None:
        """Raises Corruption when the folder was written by a newer format (see `Metadata`).

        `recency` is told of every key that is read or written. `range_delete_keys`: see `RangeDeletes`.
        """
        self._engine = engine
        self._peek = engine.peek if isinstance(engine, CanPeek) else _cannot_tell
        #: Applies what `prepare` made.
        self.writer = writer
        self._commits = writer.commits
        self._cache = self._commits.cache
        self._files = writer.files
        #: Looks a key up in the hot cache; see `HotCache`.
        self.hot = self._cache.entries.get
        self._clock = clock
        self._recency = recency if recency is not None else Recency()
        #: Keys that Get and MGet found in the hot cache, and those that they had to ask RocksDB for.
        self._hits, self._misses = Counter(), Counter()
        self._count_hit, self._count_miss = self._hits.advance, self._misses.advance
        self._batches = BatchReader(engine, self._peek, writer, self._recency, clock)
        self._lookups = Lookups(engine, self._peek, writer, self._recency, clock)
        self._pages = PageReader(engine, writer, clock)
        self._range_deletes = RangeDeletes(engine, writer, self._pages.count, range_delete_keys)
        #: What gives the space of deleted ranges back.
        self.compactions = self._range_deletes.compactions
        #: The server's own entries, and what looks after the storage.
        self.metadata = Metadata(engine, writer, clock)

    @property
    def cache_hits(self) -> int:
        """Keys read from the hot cache."""
        return self._hits.value + self._batches.hits

    @property
    def cache_misses(self) -> int:
        """Keys that were not in the hot cache when they were read."""
        return self._misses.value + self._batches.misses

    @property
    def revision(self) -> int:
        """That of the last commit: a view that is taken later shows all up to it. Never blocks."""
        return self._commits.revisions.last

    # Single keys.

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
        version = self._commits.version
        stored = self._engine.get(key)
        if not stored or stored[0] == ENVELOPE:
            return self._answer(key, stored, version)
        # What `_answer` does, without the call.
        recency = self._recency
        if (recency.young[hash(key) & recency.mask] or recency.touch(key)) and self._cache.max_bytes:
            self._commits.offer(version, key, stored, 0)
        return _found(Found, (stored, 0))

    def get_now(self, key: bytes) -> tuple[bool, Found | None]:
        """What `get` gives, with True, if that can be told without blocking; else False, and nothing was counted."""
        entry = self.hot(key)
        if entry is not None and (found := self._remembered(entry)) is not _UNKNOWN:
            return True, found
        if not 0 < len(key) <= MAX_KEY_BYTES:
            check_key(key)
        version = self._commits.version
        known, stored = self._peek(key)
        if stored and stored[0] != ENVELOPE:
            # What `_answer` does, without the call.
            recency = self._recency
            if (recency.young[hash(key) & recency.mask] or recency.touch(key)) and self._cache.max_bytes:
                self._commits.offer(version, key, stored, 0)
            self._count_miss()
            return True, _found(Found, (stored, 0))
        if not known or (stored and records.decode(stored).pointer is not None):
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
            self._commits.offer(version, key, value, expires_at_ms)
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

        _UNKNOWN once it has passed and nobody may be told so yet; see Note [An expired key stays expired].
        """
        ttl = expiry.seconds_left(expires_at_ms, self._clock.now_ms())
        if ttl > 0:
            return Found(value, ttl)
        return None if self._clock.is_marked(expires_at_ms) else _UNKNOWN

    # How much is stored: see `CanMeasure`. It changes nothing, recency included.

    def size_now(self, key: bytes) -> int | None:
        """Bytes of key and value at `key`, 0 for nothing; None if that cannot be told without blocking."""
        entry = self.hot(key)
        if entry is not None:
            answer = entry.answer
            if answer is not None:
                return len(key) + len(answer.value)
        if not 0 < len(key) <= MAX_KEY_BYTES:
            return 0
        known, stored = self._peek(key)
        return records.size_of(key, stored) if known else None

    def sizes(self, keys: Sequence[bytes]) -> list[int]:
        """The same for each of `keys`. Blocks."""
        return [records.size_of(key, self._engine.get(key)) if 0 < len(key) <= MAX_KEY_BYTES else 0 for key in keys]

    def measure(self, prefix: bytes, start: bytes) -> Measured:
        """See `CanMeasure.measure`. What has expired counts until it is swept."""
        size = keys = 0
        scan = self._engine.scan(max(prefix, start), prefix_end(prefix))
        while pairs := scan.take(MEASURED_KEYS - keys):
            size += sum(starmap(records.size_of, pairs))
            keys += len(pairs)
            if keys >= MEASURED_KEYS or size >= MEASURED_BYTES:
                return Measured(size, keys, pairs[-1][0] + b"\0")
        return Measured(size, keys, None)

    # Commands that have passed the door.

    def prepare(self, command: WriteCommand) -> Write:
        """What `writer` is to be given for a command. It does not block."""
        if isinstance(command, DecidingCommand):
            return DecidingWrite(command, self._lookups)
        ttl = command.ttl
        changes = command.changes(expiry.expires_at(self._clock.now_ms(), ttl) if ttl else 0)
        self._touch(changes)
        return Write(changes, command.deadline)

    def prepare_decisions(self, decisions: Decisions) -> GatheredWrite:
        """The same for commands that decide and came together; for `Writer.try_now` alone."""
        return GatheredWrite(decisions, self._lookups)

    def prepare_together(self, commands: Sequence[WriteCommand]) -> Write:
        """One write for plain commands that share their fate, in their order. It does not block."""
        changes = commands[0].changes(0)
        for command in commands[1:]:
            changes += command.changes(0)
        self._touch(changes)
        size = sum([command.size for command in commands])
        commits = sum([command.commits for command in commands])
        parts: list[int] | None = None
        if len(changes) != commits:  # there is an MSet among them
            parts = []
            for command in commands:
                parts += [command.count] if command.commits == 1 else [1] * command.commits
        return Write(changes, commits=commits, parts=parts, plain_bytes=size)

    def _touch(self, changes: Iterable[Change]) -> None:
        recency = self._recency
        young, mask = recency.young, recency.mask
        for key, value, _ in changes:
            # A key that is marked need not be touched. Marks that another generation takes over meanwhile are no loss.
            if value is not None and not young[hash(key) & mask]:
                recency.touch(key)

    def keys_now(self, command: Command) -> int:
        """Keys, or pairs, that `read_now` may have to read; 0: it is of no use."""
        if isinstance(command, MGet):
            return command.count if command.count <= KEYS_NOW else 0
        return self._pages.pairs_now(command) if isinstance(command, Scan) else 0

    def read_now(self, command: Command) -> object | None:
        """The result that `read` gives, if it can be had without blocking; else None, and nothing was counted."""
        if isinstance(command, MGet):
            return self._batches.mget_now(command.keys, command.budget)
        return self._pages.scan_now(command) if isinstance(command, Scan) else None

    def read(self, command: Command) -> object:
        """The result of a command that reads. Blocks."""
        if isinstance(command, Get):
            return self.fetch(command.key, self.hot(command.key))
        if isinstance(command, MGet):
            return self._batches.mget(command.keys, command.budget)
        if isinstance(command, Scan):
            return self._pages.scan(command)
        raise AssertionError(f"nobody knows how to read {command.name}")

    def delete_range(self, command: DeleteRange, failed: Callable[[StorageError], object]) -> Removed:
        """See `RangeDeletes.carry_out`."""
        return self._range_deletes.carry_out(command, failed)

    def view(self, command: ScanStream) -> StreamView:
        """What a stream is read from. Blocks."""
        return StreamView(self._engine, self.writer, self._clock, command)


def _cannot_tell(_: bytes) -> tuple[bool, bytes | None]:
    """For an engine that cannot peek: all reads may block."""
    return False, None
