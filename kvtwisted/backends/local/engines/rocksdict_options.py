"""`rocksdb.options` as the options of rocksdict."""

from __future__ import annotations

from rocksdict import BlockBasedOptions, Cache, ChecksumType, DBCompressionType, Options, WriteOptions

from ....core.options import EngineOptions

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
