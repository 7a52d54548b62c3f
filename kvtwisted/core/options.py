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
    default: Any,
    help: str,
    *,
    low: int | None = None,
    high: int | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
    guarded: str = "",
) -> Any:
    """Declare one option: its default, what it means (with its unit), its range or choices, and whether it is live.

    A live option takes effect on the running server at once; any other needs a restart. Only administrators may change
    a guarded one at run time; `guarded` says why (one of GUARDS). `low` and `high` are inclusive; each number has both.
    """
    return field(
        default=default,
        metadata={"help": help, "low": low, "high": high, "choices": choices, "live": live, "guarded": guarded},
    )


_COMPRESSIONS = ("none", "snappy", "lz4", "zstd")


@dataclass(frozen=True)
class EngineOptions:
    """The keys of `rocksdb.options`, under RocksDB's own names.

    Source: https://github.com/facebook/rocksdb/wiki/Setup-Options-and-Basic-Tuning. Each engine maps them onto its
    binding and refuses, by name, one that its binding does not have when it is set to something other than the default.
    """

    sync: bool = option(
        False, "Wait for an fsync of the write-ahead log before a write is acknowledged.", live=True, guarded=DURABILITY
    )
    write_buffer_size: int = option(
        16 * MIB,
        "Bytes of one memtable before it is flushed to a file.",
        low=64 * KIB,
        high=4 * GIB,
        guarded=SERVICE,
    )
    max_write_buffer_number: int = option(
        4, "Memtables in memory at most, the active one included.", low=2, high=64, guarded=SERVICE
    )
    block_cache_size: int = option(
        256 * MIB,
        "Bytes of the block cache that all column families share.",
        low=0,
        high=1024 * GIB,
        guarded=SERVICE,
    )
    block_size: int = option(
        16 * KIB, "Bytes of one uncompressed data block.", low=1 * KIB, high=4 * MIB, guarded=SERVICE
    )
    bloom_bits_per_key: int = option(
        10, "Bits per key of the bloom filter in every file; 0 turns it off.", low=0, high=64, guarded=SERVICE
    )
    # What takes more disk for the same data has others' keys evicted.
    compression: str = option("lz4", "Compression of all levels but the last.", choices=_COMPRESSIONS, guarded=DATA)
    bottommost_compression: str = option("zstd", "Compression of the last level.", choices=_COMPRESSIONS, guarded=DATA)
    max_background_jobs: int = option(4, "Flushes and compactions at once.", low=1, high=64, guarded=SERVICE)
    max_open_files: int = option(
        1024, "Table files kept open; -1 keeps all open.", low=-1, high=10_000_000, guarded=SERVICE
    )
    max_total_wal_size: int = option(
        256 * MIB,
        "Bytes of write-ahead log at which the oldest memtables are flushed.",
        low=1 * MIB,
        high=64 * GIB,
        guarded=SERVICE,
    )
    target_file_size_base: int = option(
        32 * MIB, "Bytes of one table file at the first level.", low=1 * MIB, high=4 * GIB, guarded=SERVICE
    )
    max_bytes_for_level_base: int = option(
        64 * MIB,
        "Bytes of the first level before it is compacted onward.",
        low=1 * MIB,
        high=256 * GIB,
        guarded=SERVICE,
    )
    level_compaction_dynamic_level_bytes: bool = option(
        True, "Size the levels from the last one upward, which keeps space overhead near 10 %.", guarded=DATA
    )
    level0_file_num_compaction_trigger: int = option(
        4, "Files at level 0 that start a compaction.", low=1, high=1000, guarded=SERVICE
    )
    level0_slowdown_writes_trigger: int = option(
        20,
        "Files at level 0 at which RocksDB delays writes.",
        low=1,
        high=10_000,
        guarded=SERVICE,
    )
    level0_stop_writes_trigger: int = option(
        36, "Files at level 0 at which RocksDB stops writes.", low=1, high=10_000, guarded=SERVICE
    )
    bytes_per_sync: int = option(
        1 * MIB, "Bytes after which table files being written are handed to the disk; 0 leaves it to the kernel.",
        low=0, high=1 * GIB, guarded=SERVICE,
    )  # fmt: skip
    max_log_file_size: int = option(
        10 * MIB,
        "Bytes of RocksDB's own information log before it starts a new one.",
        low=64 * KIB,
        high=1 * GIB,
        guarded=SERVICE,
    )
    keep_log_file_num: int = option(5, "Information logs that RocksDB keeps.", low=1, high=1000, guarded=SERVICE)
