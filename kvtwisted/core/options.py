"""How an option is declared, and the RocksDB options of `rocksdb.options`.

Options are fields of frozen dataclasses, declared with `option`, so that name, type, default, range and help stand in
one place. `kvtwisted.config` reads the declarations to check files, environment, command line and updates; the docs
test reads them too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: Why a key is guarded. DATA: it may delete data, or decides where they are. DURABILITY: it may end durability. REACH:
#: it decides who reaches the server, and what they must show. SERVICE: it may shut others out, or take memory, disk or
#: threads that they need.
DATA, DURABILITY, REACH, SERVICE = GUARDS = ("data", "durability", "reach", "service")

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


def option(
    default: Any, help: str, guarded: str = "", *, choices: tuple[str, ...] = (), live: bool = False, **bounds: int
) -> Any:
    """Declare one option: its default, what it means (with its unit), its choices, and whether it is live.

    A live option takes effect on the running server at once; any other needs a restart. Only administrators may change
    a guarded one at run time; `guarded` says why (one of GUARDS). `bounds` are those of `number`.
    """
    return field(
        default=default, metadata={"help": help, "choices": choices, "live": live, "guarded": guarded, **bounds}
    )


def number(default: int, low: int, high: int, help: str, guarded: str = "", *, live: bool = False) -> Any:
    """Declare one option that is an integer from `low` to `high`, both included. See `option`."""
    return option(default, help, guarded, low=low, high=high, live=live)


_COMPRESSIONS = ("none", "snappy", "lz4", "zstd")


@dataclass(frozen=True)
class EngineOptions:
    """The keys of `rocksdb.options`, under RocksDB's own names.

    Source: https://github.com/facebook/rocksdb/wiki/Setup-Options-and-Basic-Tuning. Each engine maps them onto its
    binding and refuses, by name, one that its binding does not have when it is set to something other than the default.
    """

    sync: bool = option(
        False, "Wait for an fsync of the write-ahead log before a write is acknowledged.", DURABILITY, live=True
    )
    write_buffer_size: int = number(
        16 * MIB, 64 * KIB, 4 * GIB, "Bytes of one memtable before it is flushed to a file.", SERVICE
    )
    max_write_buffer_number: int = number(4, 2, 64, "Memtables in memory at most, the active one included.", SERVICE)
    block_cache_size: int = number(
        256 * MIB, 0, 1024 * GIB, "Bytes of the block cache that all column families share.", SERVICE
    )
    block_size: int = number(16 * KIB, 1 * KIB, 4 * MIB, "Bytes of one uncompressed data block.", SERVICE)
    bloom_bits_per_key: int = number(
        10, 0, 64, "Bits per key of the bloom filter in every file; 0 turns it off.", SERVICE
    )
    # What takes more disk for the same data has others' keys evicted.
    compression: str = option("lz4", "Compression of all levels but the last.", DATA, choices=_COMPRESSIONS)
    bottommost_compression: str = option("zstd", "Compression of the last level.", DATA, choices=_COMPRESSIONS)
    max_background_jobs: int = number(4, 1, 64, "Flushes and compactions at once.", SERVICE)
    max_open_files: int = number(1024, -1, 10_000_000, "Table files kept open; -1 keeps all open.", SERVICE)
    max_total_wal_size: int = number(
        256 * MIB, 1 * MIB, 64 * GIB, "Bytes of write-ahead log at which the oldest memtables are flushed.", SERVICE
    )
    target_file_size_base: int = number(
        32 * MIB, 1 * MIB, 4 * GIB, "Bytes of one table file at the first level.", SERVICE
    )
    max_bytes_for_level_base: int = number(
        64 * MIB, 1 * MIB, 256 * GIB, "Bytes of the first level before it is compacted onward.", SERVICE
    )
    level_compaction_dynamic_level_bytes: bool = option(
        True, "Size the levels from the last one upward, which keeps space overhead near 10 %.", DATA
    )
    level0_file_num_compaction_trigger: int = number(4, 1, 1000, "Files at level 0 that start a compaction.", SERVICE)
    level0_slowdown_writes_trigger: int = number(
        20, 1, 10_000, "Files at level 0 at which RocksDB delays writes.", SERVICE
    )
    level0_stop_writes_trigger: int = number(36, 1, 10_000, "Files at level 0 at which RocksDB stops writes.", SERVICE)
    bytes_per_sync: int = number(
        1 * MIB, 0, 1 * GIB,
        "Bytes after which table files being written are handed to the disk; 0 leaves it to the kernel.",
        SERVICE,
    )  # fmt: skip
    max_log_file_size: int = number(
        10 * MIB, 64 * KIB, 1 * GIB, "Bytes of RocksDB's own information log before it starts a new one.", SERVICE
    )
    keep_log_file_num: int = number(5, 1, 1000, "Information logs that RocksDB keeps.", SERVICE)
