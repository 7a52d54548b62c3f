"""The engine on rocksdict (CPython 3.9 and newer).

Single reads, writes and steps of a scan keep Python's lock while RocksDB works; `multi_get` of up to 64 keys, `sync`,
`compact` and `close` release it.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from importlib.metadata import version
from typing import Any, Callable

from rocksdict import (
    BlockBasedOptions,
    Cache,
    ChecksumType,
    CompactOptions,
    DBCompressionType,
    Options,
    Rdict,
    RdictIter,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from ..core.engine import DATA, FAMILIES, OTHER_FAMILIES, Mutation, everything
from ..core.errors import KvError
from ..core.options import EngineOptions
from .budget import READ_AHEAD, within
from .introspection import effective_options, rocksdb_version, statistics
from .scans import Pair, Scan, Scans
from .translate import CLOSED, Translating, translated


class RocksdictEngine:
    """The engine Protocol over one rocksdict database."""

    name = "rocksdict"

    def __init__(self, path: str, options: EngineOptions) -> None:
        """Open the database in folder `path`, which is made when missing. Blocks while the log is replayed.

        Raises StorageLocked when it is open elsewhere, Corruption when it is damaged, else StorageError.
        """
        self._path = path
        self._options = options
        self._failures = Translating(path)
        self._scans = Scans(path)
        self._db: Any = CLOSED
        try:
            os.makedirs(path, exist_ok=True)
            cache = Cache(options.block_cache_size)
            others = {family: _native_options(options, cache) for family in OTHER_FAMILIES}
            self._db = Rdict(path, _native_options(options, cache), others)
            self._db.set_write_options(_write_options())
            self._families: dict[str, Any] = {DATA: self._db}
            self._families.update({family: self._db.get_column_family(family) for family in others})
            # None is the family "default", and cheaper than its handle.
            self._handles: dict[str, Any] = {DATA: None}
            self._handles.update({family: self._db.get_column_family_handle(family) for family in others})
        except Exception as error:
            raise translated(error, path) from error

    @property
    def version(self) -> str:
        """The binding, and the RocksDB inside it."""
        with self._failures:
            return f"rocksdict {version('rocksdict')} (RocksDB {rocksdb_version(self._path)})"

    def get(self, key: bytes, family: str = DATA) -> bytes | None:
        """The value at `key`, or None."""
        try:
            value: bytes | None = self._families[family].get(key)
            return value
        except Exception as error:
            raise translated(error, self._path) from error

    def multi_get(
        self, keys: Sequence[bytes], budget: int, keep: Callable[[bytes], bool] = everything
    ) -> list[bytes | None]:
        """The DATA values at `keys`, from one view; ResponseTooLarge past `budget` bytes."""
        if len(keys) > READ_AHEAD:
            with closing(self._read_one_by_one(keys)) as values:
                return within(budget, values, keep)
        with self._failures:
            found = self._db.get(list(keys))
        return within(budget, found, keep)

    def scan(self, start: bytes, end: bytes | None, family: str = DATA) -> Scan:
        """Pairs with start <= key < end in byte order, from the view of this call."""
        with self._failures:
            bounds = ReadOptions()
            if end is not None:
                bounds.set_iterate_upper_bound(end)
            iterator = self._families[family].iter(bounds)
        return self._scans.start(_pairs(iterator, start).__next__, end)

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
            raise translated(error, self._path) from error

    def sync(self) -> None:
        """Wait for an fsync of the write-ahead log."""
        with self._failures:
            self._db.flush_wal(True)

    def compact(self, start: bytes, end: bytes) -> None:
        """Compact the DATA range, flush the other families, and wait.

        rocksdict hides failures of a compaction; RocksDB logs them in LOG.
        """
        alongside = CompactOptions()
        # Exclusive would hold back the background compactions, and so let writes run into a stall.
        alongside.set_exclusive_manual_compaction(False)
        with self._failures:
            for family in OTHER_FAMILIES:
                self._families[family].flush()
            self._db.compact_range(start, end, alongside)

    def statistics(self) -> dict[str, float]:
        """RocksDB's properties by short name."""
        with self._failures:
            return statistics(self._property)

    def effective_options(self) -> dict[str, object]:
        """Every `rocksdb.options` name with the value in force, from RocksDB's OPTIONS file."""
        with self._failures:
            return effective_options(self._options, self._path, self._property)

    def close(self) -> None:
        """Flush, release the folder's lock, and refuse every later call.

        Raises StorageError when the flush failed; the database is closed all the same, and its log replayed next time.
        """
        self._scans.end()
        failures = self._flush()
        # The lock goes with the last object that refers to the database; so the families go first.
        self._families = dict.fromkeys(FAMILIES, CLOSED)
        self._handles = dict.fromkeys(FAMILIES)
        db, self._db = self._db, CLOSED
        try:
            db.close()
        except Exception as error:
            failures.append(translated(error, self._path))
        if failures:
            raise failures[0]

    def _flush(self) -> list[KvError]:
        """Flush all families. Gives failures without their traceback: its frames would keep the database open."""
        failures = []
        for family in FAMILIES:
            try:
                self._families[family].flush()
            except Exception as error:
                failures.append(translated(error, self._path))
        return failures

    def _read_one_by_one(self, keys: Sequence[bytes]) -> Generator[bytes | None, None, None]:
        """The values at `keys` from a snapshot, which rocksdict reads by single keys only."""
        with self._failures:
            snapshot = self._db.snapshot()
            try:
                for key in keys:
                    try:
                        value = snapshot[key]
                    except Exception as error:
                        if error.args != ("key not found",):
                            raise
                        value = None
                    yield value
            finally:
                # A stored traceback keeps this frame; it must not keep the snapshot, and with it the folder's lock.
                del snapshot

    def _property(self, family: str, name: str) -> str | None:
        value: str | None = self._families[family].property_value(name)
        return value


def _pairs(iterator: RdictIter, start: bytes) -> Iterator[Pair]:
    """The iterator's pairs from `start`. rocksdict's own `items()` ends at a damaged block as if that were all."""
    key_here, value_here, step = iterator.key, iterator.value, iterator.next
    try:
        # The seek is the lower bound of a forward scan; with one set and no upper bound rocksdict finds nothing.
        iterator.seek(start)
        while (key := key_here()) is not None:
            yield key, value_here()
            step()
        iterator.status()
    finally:
        # A stored traceback keeps this frame; it must not keep the iterator, and with it the folder's lock.
        del iterator, key_here, value_here, step


def _write_options() -> WriteOptions:
    options = WriteOptions()
    # A write that waits would wait with Python's lock in its hand, and stop the whole process.
    options.no_slowdown = True
    return options


def _native_options(wanted: EngineOptions, cache: Cache) -> Options:
    """Options of one family; those of the family "default" are the database's too."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_write_buffer_size(wanted.write_buffer_size)
    options.set_max_write_buffer_number(wanted.max_write_buffer_number)
    options.set_compression_type(getattr(DBCompressionType, wanted.compression)())
    options.set_bottommost_compression_type(getattr(DBCompressionType, wanted.bottommost_compression)())
    options.set_max_background_jobs(wanted.max_background_jobs)
    options.set_max_open_files(wanted.max_open_files)
    options.set_max_total_wal_size(wanted.max_total_wal_size)
    options.set_target_file_size_base(wanted.target_file_size_base)
    options.set_max_bytes_for_level_base(wanted.max_bytes_for_level_base)
    options.set_level_compaction_dynamic_level_bytes(wanted.level_compaction_dynamic_level_bytes)
    options.set_level_zero_file_num_compaction_trigger(wanted.level0_file_num_compaction_trigger)
    options.set_level_zero_slowdown_writes_trigger(wanted.level0_slowdown_writes_trigger)
    options.set_level_zero_stop_writes_trigger(wanted.level0_stop_writes_trigger)
    options.set_bytes_per_sync(wanted.bytes_per_sync)
    options.set_max_log_file_size(wanted.max_log_file_size)
    options.set_keep_log_file_num(wanted.keep_log_file_num)
    # Old files are unlinked in the background, not by the reader that happens to release them.
    options.set_avoid_unnecessary_blocking_io(True)
    options.set_block_based_table_factory(_table_options(wanted, cache))
    return options


def _table_options(wanted: EngineOptions, cache: Cache) -> BlockBasedOptions:
    table = BlockBasedOptions()
    table.set_block_size(wanted.block_size)
    if wanted.bloom_bits_per_key:
        table.set_bloom_filter(wanted.bloom_bits_per_key, False)
    if wanted.block_cache_size:
        table.set_block_cache(cache)
        # Indexes and filters count against the cache, so that its size bounds what reads keep in memory.
        table.set_cache_index_and_filter_blocks(True)
        table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    else:
        table.disable_cache()
    # The newest that lbry-rocksdb's RocksDB reads, so that a folder can go back to it.
    table.set_format_version(5)
    table.set_checksum_type(ChecksumType.xxhash64())
    return table
