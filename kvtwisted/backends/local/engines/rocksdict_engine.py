"""The engine on rocksdict (CPython 3.9 and newer).

Single reads, writes and steps of a scan keep Python's lock while RocksDB works; `multi_get` of up to 64 keys, `sync`,
`compact` and `close` release it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any

from rocksdict import Checkpoint, CompactOptions, WriteBatch

from ....core.clock import pause
from ....core.errors import WriteStalled
from ....core.options import EngineOptions
from .engine import DATA, FAMILIES, FILES, OTHER_FAMILIES, READ_AHEAD, Crossed, Keep, Mutation, everything, ignored
from .pieces import SKIPS
from .reopening import telling_unsynced
from .rocksdb_engine import RocksdbEngine
from .rocksdict_database import OpenDatabase
from .rocksdict_files import DatabaseFiles
from .rocksdict_scans import AFTER_ALL, Among, Backwards, Forwards
from .scans import Chunks, Scan, sending
from .shared import new_folder, within, within_memory
from .translate import CLOSED, check_open, translated

#: Seconds that a checkpoint waits for compaction to catch up.
_CALM_PATIENCE = 60.0
#: Seconds between two flushes of one family for the sake of its deleted keys.
_FLUSH_PAUSE = 1.0


class RocksdictEngine(RocksdbEngine[OpenDatabase]):
    """The engine Protocol over one rocksdict database."""

    name = "rocksdict"
    package = "rocksdict"
    writes_wait = False
    scans_wait = False
    copies = 0

    def __init__(self, path: str, options: EngineOptions) -> None:
        """See `RocksdbEngine`."""
        self._flush_not_before = dict.fromkeys(FAMILIES, 0.0)
        files = DatabaseFiles(path, options)
        super().__init__(path, options, files.opened, files.rehearsed)

    def get(self, key: bytes, family: str = DATA) -> bytes | None:
        """The value at `key`, or None."""
        try:
            value: bytes | None = self._data.get(key) if family == DATA else self._families[family].get(key)
            return value
        except Exception as error:
            raise translated(error, self._path) from None

    def peek(self, key: bytes) -> tuple[bool, bytes | None]:
        """The value at `key`, or None, if memory tells."""
        try:
            told: tuple[bool, bytes | None] = self._data.key_may_exist(key, True)
        except Exception as error:
            raise translated(error, self._path) from None
        return told if told[1] else within_memory(*told)

    def multi_get(self, keys: Sequence[bytes], budget: int, keep: Keep = everything) -> list[bytes | None]:
        """The DATA values at `keys`, from one view; ResponseTooLarge past `budget` bytes."""
        if len(keys) > READ_AHEAD:
            # Like a scan it ends with the database, whoever is still reading: no variable holds the generator.
            values: Any = self._scans.start(sending(self._read_one_by_one(keys)))
            with closing(values):
                return within(budget, values, keep)
        with self._failures:
            found = self._data.get(list(keys))
        return within(budget, found, keep)

    def scan(
        self, start: bytes, end: bytes | None, family: str = DATA, until: float = math.inf, crossed: Crossed = ignored,
        *, reverse: bool = False,
    ) -> Scan:  # fmt: skip
        """See `Engine.scan`."""
        among = Among(self._scans, partial(self._flush_deleted, family), until, crossed)
        with self._failures:
            pairs = (Backwards if reverse else Forwards)(self._families[family], start, end, among)
        return self._scans.start(pairs.take, None, pairs.seek)

    def _flush_deleted(self, family: str) -> None:
        """Have deleted keys written to a file, if memory has many: from there compaction takes them away."""
        now = time.monotonic()
        if now < self._flush_not_before[family]:
            return  # each of these calls may wait for RocksDB's mutex, with Python's lock in its hand
        self._flush_not_before[family] = now + _FLUSH_PAUSE
        with suppress(Exception):  # whatever hinders it, reads go on
            # RocksDB looks at those in its last level when a snapshot that is newer than them is given up.
            self._db.snapshot()
            if int(self._property(family, "rocksdb.num-deletes-active-mem-table") or 0) >= SKIPS:
                with self._slow:
                    self._families[family].flush(False)

    def write(self, mutations: Sequence[Mutation]) -> None:
        """Apply all mutations atomically, in order. Raises WriteStalled rather than wait; then nothing was written."""
        try:
            if len(mutations) == 1:
                # A fifth cheaper than a batch of one.
                ((family, key, value),) = mutations
                if value is None:
                    self._families[family].delete(key)
                else:
                    self._families[family].put(key, value)
                return
            handles = self._handles
            batch = WriteBatch(raw_mode=True)
            for family, key, value in mutations:
                if value is None:
                    batch.delete(key, handles[family])
                else:
                    batch.put(key, value, handles[family])
            self._db.write(batch)
        except Exception as error:
            raise translated(error, self._path) from None

    def delete_range(self, start: bytes, end: bytes | None) -> None:
        """Delete all start <= key < end from DATA and FILES, atomically. Raises WriteStalled rather than wait."""
        try:
            handles = self._handles
            batch = WriteBatch(raw_mode=True)
            for family in (DATA, FILES):
                batch.delete_range(start, AFTER_ALL if end is None else end, handles[family])
            self._db.write(batch)
        except Exception as error:
            raise translated(error, self._path) from None

    def sync(self) -> None:
        """Wait for an fsync of the write-ahead log."""
        with self._failures, telling_unsynced(), self._slow:
            self._db.flush_wal(True)

    def compact(self, start: bytes, end: bytes, family: str = DATA) -> None:
        """Compact the range of that family, flush the others, and wait.

        rocksdict hides failures of a compaction; RocksDB logs them in LOG.
        """
        alongside = CompactOptions()
        # Exclusive would hold back the background compactions, and so let writes run into a stall.
        alongside.set_exclusive_manual_compaction(False)
        with self._failures, self._slow:
            for other in OTHER_FAMILIES:
                self._families[other].flush()
            self._families[family].compact_range(start, end, alongside)

    def checkpoint(self, folder: str) -> None:
        """A copy of hard links in `folder`, on the data's file system, with every acknowledged write.

        The binding holds Python's lock while RocksDB makes it. So the memtables are flushed before, which releases the
        lock; what then holds it are a flush of the writes that came in between, a link for each file and some fsyncs:
        10 to 100 ms under a full load of writes. RocksDB also waits there while that flush would slow down writes, so
        that is waited for here.
        """
        with new_folder(folder):
            self._flush_calmly()
            with self._failures, self._slow:
                native = Checkpoint(self._db)
                try:
                    native.create_checkpoint(folder)
                finally:
                    # A stored traceback keeps this frame; it must not keep the database open.
                    del native

    def _flush_calmly(self) -> None:
        """Flush all families until RocksDB would not delay one more flush. Raises WriteStalled after a minute."""
        deadline = time.monotonic() + _CALM_PATIENCE
        crowded = self._options.level0_slowdown_writes_trigger
        while True:
            with self._failures, self._slow:
                for family in (*OTHER_FAMILIES, DATA):  # last the one that most is written to meanwhile
                    self._families[family].flush()
                files = max(int(self._property(family, "rocksdb.num-files-at-level0") or 0) for family in FAMILIES)
            if files + 1 < crowded or files == 0:
                return
            if time.monotonic() > deadline:
                raise WriteStalled("compaction does not catch up with the writes; no copy was made, try again")
            pause(0.05)

    def close(self) -> None:
        """Flush, release the folder's lock, and refuse every later call.

        Raises StorageError when the flush failed; the database is closed all the same, and its log replayed next time.
        """
        self._scans.end()
        with self._failures:
            check_open(self._db)
            self._refuse(CLOSED)
            failures = [failure for database in self._reopening.given_up() for failure in database.close()]
            if failures:
                raise failures.pop()

    def _refuse(self, stand_in: Any) -> None:
        super()._refuse(stand_in)
        self._data: Any = stand_in

    def _take(self, database: OpenDatabase) -> None:
        self._families, self._handles, self._data = database.families, database.handles, database.data
        # Last: whoever sees the new database, sees what belongs to it.
        self._db = database.root

    def _read_one_by_one(self, keys: Sequence[bytes]) -> Chunks:
        """The values at `keys` from a snapshot, which rocksdict reads by single keys only."""
        with self._failures:
            snapshot = self._db.snapshot()
            try:
                yield []
                for key in keys:
                    try:
                        value = snapshot[key]
                    except Exception as error:
                        if error.args != ("key not found",):
                            raise
                        value = None
                    yield [value]
            finally:
                # A stored traceback keeps this frame; it must not keep the snapshot, and with it the folder's lock.
                del snapshot

    def _property(self, family: str, name: str) -> str | None:
        value: str | None = self._families[family].property_value(name)
        return value
