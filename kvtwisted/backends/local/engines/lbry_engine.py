"""The engine on lbry-rocksdb (CPython 3.7 to 3.9, RocksDB 6.25).

All calls release Python's lock while RocksDB works, but for `compact`, which holds it until it is done. Any use of the
binding after its `close` ends the process, so the engine lets go of it first. Reads verify checksums only when told to,
and then every read is told.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import rocksdb

from ....core.disk import folder_bytes
from ....core.errors import StorageFull
from ....core.options import EngineOptions
from .engine import DATA, OTHER_FAMILIES, READ_AHEAD, Crossed, Keep, Mutation, everything, ignored
from .lbry_database import OpenDatabase, RangeIterator
from .reopening import rehearsed, telling_unsynced
from .rocksdb_engine import RocksdbEngine
from .scans import Scan
from .shared import OF_DATABASE, OF_FAMILIES, new_folder, within, within_memory
from .translate import CLOSED, check_open, translated


class LbryEngine(RocksdbEngine[OpenDatabase]):
    """The engine Protocol over one lbry-rocksdb database."""

    name = "lbry"
    package = "lbry-rocksdb"
    writes_wait = True
    scans_wait = True
    copies = 2

    def __init__(self, path: str, options: EngineOptions) -> None:
        """See `RocksdbEngine`."""
        super().__init__(path, options, self._opened, self._rehearsed)

    def get(self, key: bytes, family: str = DATA) -> bytes | None:
        """The value at `key`, or None."""
        try:
            value: bytes | None = self._db.get(self._native_key(family, key), verify_checksums=True)
            return value
        except Exception as error:
            raise translated(error, self._path) from None

    def peek(self, key: bytes) -> tuple[bool, bytes | None]:
        """The value at `key`, or None, if memory tells."""
        try:
            may_exist, value = self._db.key_may_exist(key, fetch=True)
        except Exception as error:
            raise translated(error, self._path) from None
        return within_memory(may_exist, value)

    def multi_get(self, keys: Sequence[bytes], budget: int, keep: Keep = everything) -> list[bytes | None]:
        """The DATA values at `keys`, from one view; ResponseTooLarge past `budget` bytes."""
        with closing(self._read(keys)) as values:
            return within(budget, values, keep)

    def scan(
        self, start: bytes, end: bytes | None, family: str = DATA, until: float = math.inf, crossed: Crossed = ignored,
        *, reverse: bool = False,
    ) -> Scan:  # fmt: skip
        """See `Engine.scan`.

        `until` is not looked at: the binding cannot bound how many deleted keys a seek reads over, in reverse not even
        by the start of the range. But nobody else waits for it.
        """
        with self._failures:
            handle = self._handles[family]
            options = {"iterate_upper_bound": end, "verify_checksums": True}
            iterator = self._db.iteritems(handle, reverse=reverse, **options)
        pairs = RangeIterator(iterator, start, end, plain=handle is None, reverse=reverse)
        del iterator
        return self._scans.start(pairs.take, end, pairs.seek)

    def write(self, mutations: Sequence[Mutation]) -> None:
        """Apply all mutations atomically, in order.

        While RocksDB stalls writes this waits, with Python's lock released: the binding cannot ask it not to.
        """
        try:
            batch = rocksdb.WriteBatch()
            for family, key, value in mutations:
                if value is None:
                    batch.delete(self._native_key(family, key))
                else:
                    batch.put(self._native_key(family, key), value)
            self._db.write(batch)
        except Exception as error:
            raise translated(error, self._path) from None

    def sync(self) -> None:
        """Wait for an fsync of the write-ahead log: an empty batch, written with sync, covers earlier ones."""
        with self._failures, telling_unsynced(), self._slow:
            self._db.write(rocksdb.WriteBatch(), sync=True)

    def compact(self, start: bytes, end: bytes, family: str = DATA) -> None:
        """Compact the range, and all of the server's own families, and wait; no other Python code runs meanwhile."""
        with self._failures, self._slow:
            for other in OTHER_FAMILIES:  # the binding has no flush, but a compaction begins with one
                self._db.compact_range(column_family=self._handles[other])
            if family == DATA:
                self._db.compact_range(start, end)

    def checkpoint(self, folder: str) -> None:
        """A copy in `folder` of every file, made twice: the binding has no checkpoint, but a backup and its restoring.

        Python's lock is released meanwhile. Raises StorageFull at once without room for both.
        """
        with new_folder(folder) as temporary:
            self.sync()  # in no way needed by the backup; it says when the database is closed, which the backup cannot
            with self._failures:
                room, needed = shutil.disk_usage(self._path).free, 2 * folder_bytes(self._path)
            if room < needed:
                raise StorageFull(f"a copy of {self._path!r} needs {needed} bytes for a while, but {room} are free")
            with self._failures, self._slow:
                native = rocksdb.BackupEngine(temporary)
                try:
                    self._db.lend(partial(native.create_backup, flush_before_backup=True))
                    native.restore_latest_backup(folder, folder)
                finally:
                    # A stored traceback keeps this frame; the folder must not stay open with it.
                    del native

    def close(self) -> None:
        """Sync the log, release the folder's lock, and refuse every later call. The binding cannot flush memtables.

        Raises StorageError when the sync failed; the database is closed all the same.
        """
        self._scans.end()
        with self._failures:
            check_open(self._db)
        try:
            if self._reopening.database is not None:
                self.sync()
        finally:
            self._refuse(CLOSED)
            for database in self._reopening.given_up():
                database.shut()

    def _take(self, database: OpenDatabase) -> None:
        self._handles = database.handles
        # Last: whoever sees the new database, sees its handles.
        self._db = database

    def _opened(self, *, create: bool = False, read_only: bool = False) -> OpenDatabase:
        cache = rocksdb.LRUCache(0 if read_only else self._options.block_cache_size)
        families = {family.encode(): _family_options(self._options, cache) for family in OTHER_FAMILIES}
        options = _database_options(self._options, cache, create=create)
        db = rocksdb.DB(self._path, options, column_families=families, read_only=read_only)
        # None is the family "default": its keys are given plain, those of others with their handle.
        handles = {DATA: None, **{family: db.get_column_family(family.encode()) for family in OTHER_FAMILIES}}
        return OpenDatabase(db, handles)

    def _rehearsed(self, database: OpenDatabase) -> OpenDatabase:
        return rehearsed(partial(self._opened, read_only=True))

    def _read(self, keys: Sequence[bytes]) -> Generator[bytes | None, None, None]:
        """The values at `keys`, a chunk at a time; from a snapshot when there are several chunks."""
        with self._failures:
            snapshot = self._db.snapshot() if len(keys) > READ_AHEAD else None
            try:
                for first in range(0, len(keys), READ_AHEAD):
                    chunk = keys[first : first + READ_AHEAD]
                    found = self._db.multi_get(chunk, snapshot=snapshot, verify_checksums=True)
                    for key in chunk:
                        yield found[key]
            finally:
                # A stored traceback keeps this frame. Were the snapshot still there at close, the folder would stay
                # locked, and freeing it later would end the process.
                del snapshot

    def _native_key(self, family: str, key: bytes) -> object:
        handle = self._handles[family]
        return key if handle is None else (handle, key)

    def _property(self, family: str, name: str) -> str | None:
        value: bytes | None = self._db.get_property(name.encode(), self._handles[family])
        return None if value is None else value.decode()


def _family_options(wanted: EngineOptions, cache: Any) -> Any:
    return rocksdb.ColumnFamilyOptions(**_family_settings(wanted, cache))


def _database_options(wanted: EngineOptions, cache: Any, *, create: bool) -> Any:
    """Options of the database, and of the family "default"."""
    return rocksdb.Options(
        create_if_missing=create,
        create_missing_column_families=True,
        **{name: getattr(wanted, name) for name in OF_DATABASE},
        **_family_settings(wanted, cache),
    )


def _family_settings(wanted: EngineOptions, cache: Any) -> dict[str, object]:
    """Made anew for each family: the binding refuses an object that is in use."""
    return {
        **{name: getattr(wanted, name) for name in OF_FAMILIES},
        "compression": _compression(wanted.compression),
        "bottommost_compression": _compression(wanted.bottommost_compression),
        "table_factory": rocksdb.BlockBasedTableFactory(
            block_size=wanted.block_size,
            filter_policy=rocksdb.BloomFilterPolicy(wanted.bloom_bits_per_key) if wanted.bloom_bits_per_key else None,
            block_cache=cache if wanted.block_cache_size else None,
            no_block_cache=not wanted.block_cache_size,
            cache_index_and_filter_blocks=bool(wanted.block_cache_size),
            format_version=5,
        ),
    }


def _compression(name: str) -> str:
    return "no_compression" if name == "none" else f"{name}_compression"
