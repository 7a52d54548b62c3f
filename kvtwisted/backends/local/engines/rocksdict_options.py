"""`rocksdb.options` as the options of rocksdict."""

from __future__ import annotations

from rocksdict import BlockBasedOptions, Cache, ChecksumType, DBCompressionType, Options, WriteOptions

from ....core.options import EngineOptions
from .shared import OF_DATABASE, OF_FAMILIES

#: So many deleted keys among so many entries in a row have a table file compacted.
_DELETED, _DELETED_AMONG = 4096, 8192


def write_options() -> WriteOptions:
    """Options of every write."""
    options = WriteOptions()
    # A write that waits would wait with Python's lock in its hand, and stop the whole process.
    options.no_slowdown = True
    return options


def native_options(wanted: EngineOptions, cache: Cache) -> Options:
    """Options of one family; those of the family "default" are the database's too."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    for name in (*OF_DATABASE, *OF_FAMILIES):
        getattr(options, f"set_{name.replace('level0', 'level_zero')}")(getattr(wanted, name))
    options.set_compression_type(getattr(DBCompressionType, wanted.compression)())
    options.set_bottommost_compression_type(getattr(DBCompressionType, wanted.bottommost_compression)())
    # Old files are unlinked in the background, not by the reader that happens to release them.
    options.set_avoid_unnecessary_blocking_io(True)
    # A file with many deleted keys next to each other is compacted soon, however little else there is to compact.
    options.add_compact_on_deletion_collector_factory(_DELETED_AMONG, _DELETED, 0.0)
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
