"""`rocksdb.options`: every name reaches RocksDB, and what is in force can be read back."""

from __future__ import annotations

import hashlib
from configparser import ConfigParser
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from kvtwisted.backends.local.engines.engine import DATA, EXPIRY, FAMILIES, META, Engine
from kvtwisted.core.options import KIB, MIB, EngineOptions

from .support import PERSISTENT, opened

#: A value other than the default for every option.
OTHER: dict[str, object] = {
    "sync": True,
    "write_buffer_size": 3 * MIB,
    "max_write_buffer_number": 3,
    "block_cache_size": 5 * MIB,
    "block_size": 8 * KIB,
    "bloom_bits_per_key": 7,
    "compression": "snappy",
    "bottommost_compression": "lz4",
    "max_background_jobs": 3,
    "max_open_files": 100,
    "max_total_wal_size": 7 * MIB,
    "target_file_size_base": 9 * MIB,
    "max_bytes_for_level_base": 11 * MIB,
    "level_compaction_dynamic_level_bytes": False,
    "level0_file_num_compaction_trigger": 5,
    "level0_slowdown_writes_trigger": 21,
    "level0_stop_writes_trigger": 37,
    "bytes_per_sync": 2 * MIB,
    "max_log_file_size": 12 * MIB,
    "keep_log_file_num": 6,
}

#: Where RocksDB writes down each option: of the database, of each family, and of each family's table files.
OF_DATABASE = (
    "max_background_jobs",
    "max_open_files",
    "max_total_wal_size",
    "bytes_per_sync",
    "max_log_file_size",
    "keep_log_file_num",
)
OF_TABLES = ("block_size",)
#: Those it does not write down: one is not RocksDB's, the others have tests of their own.
UNWRITTEN = ("sync", "block_cache_size", "bloom_bits_per_key")
OF_FAMILIES = tuple({*OTHER} - {*OF_DATABASE, *OF_TABLES, *UNWRITTEN})

TABLE = f'TableOptions/BlockBasedTable "{DATA}"'
COMPRESSIONS = {"none": "kNoCompression", "snappy": "kSnappyCompression", "lz4": "kLZ4Compression", "zstd": "kZSTD"}


def written(path: Path) -> ConfigParser:
    """The newest file in which RocksDB wrote down its options."""
    parser = ConfigParser(interpolation=None, strict=False)
    parser.read_string(max(path.glob("OPTIONS-*")).read_text())
    return parser


def as_written(value: object) -> str:
    """An option's value as RocksDB spells it."""
    return COMPRESSIONS.get(str(value), str(value).lower() if isinstance(value, bool) else str(value))


def test_other_values_cover_every_option() -> None:
    """The table above has another value for each option that exists."""
    assert {field.name for field in fields(EngineOptions)} == {*OTHER}
    assert not {*OTHER.items()} & {*asdict(EngineOptions()).items()}


@pytest.mark.parametrize("name", PERSISTENT)
@pytest.mark.parametrize("options", [{}, OTHER], ids=["defaults", "others"])
def test_effective_options_are_the_configured(name: str, options: dict[str, object], tmp_path: Path) -> None:
    """Every option takes effect as it was given, also on a folder that was made with others."""
    opened(name, tmp_path, write_buffer_size=KIB * 512, compression="none", max_open_files=500).close()
    engine = opened(name, tmp_path, **options)
    assert engine.effective_options() == {**asdict(EngineOptions()), **options}
    engine.close()


@pytest.mark.parametrize("name", PERSISTENT)
@pytest.mark.parametrize("options", [{}, OTHER], ids=["defaults", "others"])
def test_rocksdb_wrote_down_the_same(name: str, options: dict[str, object], tmp_path: Path) -> None:
    """RocksDB's own OPTIONS file has the configured values, for the database and for every family alike."""
    engine = opened(name, tmp_path, **options)
    file = written(tmp_path)
    wanted = {**asdict(EngineOptions()), **options}
    places = [("DBOptions", OF_DATABASE)]
    places += [(f'CFOptions "{family}"', OF_FAMILIES) for family in FAMILIES]
    places += [(f'TableOptions/BlockBasedTable "{family}"', OF_TABLES) for family in FAMILIES]
    for section, names in places:
        found = {option: file[section][option] for option in names}
        assert found == {option: as_written(wanted[option]) for option in names}, section
    engine.close()


@pytest.mark.parametrize("name", PERSISTENT)
def test_table_files_are_made_for_a_server(name: str, tmp_path: Path) -> None:
    """Every family has a bloom filter, and its indexes and filters count against the block cache."""
    engine = opened(name, tmp_path)
    for family in FAMILIES:
        table = written(tmp_path)[f'TableOptions/BlockBasedTable "{family}"']
        assert table["filter_policy"] != "nullptr"
        assert table["cache_index_and_filter_blocks"] == "true"
        assert table["format_version"] == "5"
        assert table["no_block_cache"] == "false"
    engine.close()


@pytest.mark.parametrize("name", PERSISTENT)
def test_bloom_bits_show_in_the_files(name: str, tmp_path: Path) -> None:
    """A filter takes its bits for every key; 0 writes none."""
    sizes = {}
    for bits in (0, 10, 30):
        engine = opened(name, tmp_path / str(bits), bloom_bits_per_key=bits)
        assert (written(tmp_path / str(bits))[TABLE]["filter_policy"] == "nullptr") == (bits == 0)
        engine.write([(DATA, b"%08d" % number, b"") for number in range(20_000)])
        engine.compact(b"", b"\xff")
        sizes[bits] = engine.statistics().figures["total-sst-files-size"]
        engine.close()
    for bits in (10, 30):
        assert sizes[bits] - sizes[0] == pytest.approx(bits * 20_000 / 8, rel=0.1)


@pytest.mark.parametrize("name", PERSISTENT)
def test_block_cache_is_shared(name: str, tmp_path: Path) -> None:
    """Reads of different families fill one cache, which stays within its size."""
    engine = opened(name, tmp_path, block_cache_size=4 * MIB, compression="none", bottommost_compression="none")
    for family in (DATA, EXPIRY):
        engine.write([(family, b"%05d" % number, bytes(1000)) for number in range(3000)])
    engine.close()
    # lbry-rocksdb flushes while it opens again; rocksdict flushed when it closed.
    engine = opened(name, tmp_path, block_cache_size=4 * MIB, compression="none", bottommost_compression="none")
    assert engine.statistics().figures["block-cache-capacity"] == 4 * MIB
    usage = []
    for family in (META, DATA, EXPIRY):
        assert len(list(engine.scan(b"", None, family))) == (0 if family == META else 3000)
        usage.append(engine.statistics().figures["block-cache-usage"])
    assert usage[0] < MIB < usage[1] <= usage[2] <= 4 * MIB
    assert usage[2] > 3.5 * MIB
    engine.close()


@pytest.mark.parametrize("name", PERSISTENT)
def test_no_block_cache(name: str, tmp_path: Path) -> None:
    """A cache of 0 bytes is none at all, and reads work without."""
    engine = opened(name, tmp_path, block_cache_size=0)
    assert written(tmp_path)[TABLE]["no_block_cache"] == "true"
    assert engine.effective_options()["block_cache_size"] == 0
    engine.write([(DATA, b"%04d" % number, bytes(100)) for number in range(1000)])
    engine.compact(b"", b"\xff")
    assert engine.get(b"0500") == bytes(100)
    engine.close()


@pytest.mark.parametrize("name", PERSISTENT)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_compression_works(name: str, compression: str, tmp_path: Path) -> None:
    """Each compression is built into the binding, is used, and gives back what was written."""
    engine = opened(name, tmp_path, compression=compression, bottommost_compression=compression)
    engine.write([(DATA, b"%04d" % number, b"the same" * 100) for number in range(1000)])
    engine.compact(b"", b"\xff")
    effective = engine.effective_options()
    assert (effective["compression"], effective["bottommost_compression"]) == (compression, compression)
    assert (engine.statistics().figures["total-sst-files-size"] < 400_000) == (compression != "none")
    assert {value for _, value in engine.scan(b"", None)} == {b"the same" * 100}
    engine.close()


@pytest.mark.parametrize("name", PERSISTENT)
def test_rocksdbs_corrections_are_read_back(name: str, tmp_path: Path) -> None:
    """What is in force is told, not what was asked for: RocksDB opens no fewer than 20 files."""
    engine = opened(name, tmp_path, max_open_files=1)
    assert engine.effective_options()["max_open_files"] == 20
    engine.close()


def fill(engine: Engine) -> list[bytes]:
    """Two megabytes that do not compress, in 2,000 keys."""
    keys = [b"%04d" % number for number in range(2000)]
    engine.write([(DATA, key, hashlib.shake_128(key).digest(1000)) for key in keys])
    return keys


@pytest.mark.parametrize("name", PERSISTENT)
def test_compaction_gives_space_back(name: str, tmp_path: Path) -> None:
    """Deleted keys keep their space until their range is compacted."""
    engine = opened(name, tmp_path)
    keys = fill(engine)
    engine.compact(keys[0], keys[-1])
    full = engine.statistics().figures
    engine.write([(DATA, key, None) for key in keys[:1500]])
    assert engine.statistics().figures["total-sst-files-size"] == full["total-sst-files-size"] > 2_000_000
    engine.compact(keys[0], keys[1499])
    after = engine.statistics().figures
    assert after["total-sst-files-size"] < 0.3 * full["total-sst-files-size"]
    assert after["estimate-num-keys"] == pytest.approx(500, abs=10)
    assert len(list(engine.scan(b"", None))) == 500
    engine.close()


@pytest.mark.parametrize("name", PERSISTENT)
def test_compaction_gives_the_log_back(name: str, tmp_path: Path) -> None:
    """No family keeps the write-ahead log alive after a compaction, although each had something in it."""
    engine = opened(name, tmp_path)
    engine.write([(EXPIRY, b"entry", b""), (META, b"entry", b"1")])
    keys = fill(engine)

    def log_bytes() -> int:
        return sum(path.stat().st_size for path in tmp_path.rglob("*.log"))

    assert log_bytes() > 2_000_000
    engine.compact(keys[0], keys[-1])
    assert log_bytes() < 100_000
    engine.close()


@pytest.mark.parametrize("name", PERSISTENT)
def test_statistics_are_rocksdbs(name: str, tmp_path: Path) -> None:
    """All figures that the server reports exist in this binding, and say what happens."""
    engine = opened(name, tmp_path)
    keys = fill(engine)
    before = engine.statistics().figures
    assert set(before) == FIGURES
    assert before["cur-size-all-mem-tables"] > 2_000_000
    assert before["live-sst-files-size"] == before["num-files-at-level0"] == before["background-errors"] == 0
    assert before["is-write-stopped"] == before["actual-delayed-write-rate"] == 0
    engine.write([(EXPIRY, key, bytes(500)) for key in keys])
    loaded = engine.statistics().figures
    assert loaded["cur-size-all-mem-tables"] > before["cur-size-all-mem-tables"] + 1_000_000
    engine.compact(b"", b"\xff")
    scan = engine.scan(b"", None)
    assert next(scan)[0] == keys[0]
    after = engine.statistics().figures
    assert after["cur-size-all-mem-tables"] < loaded["cur-size-all-mem-tables"] - 1_000_000
    assert after["live-sst-files-size"] > 2_000_000
    assert after["block-cache-usage"] > before["block-cache-usage"]
    engine.close()


FIGURES = {
    "estimate-num-keys",
    "cur-size-all-mem-tables",
    "num-immutable-mem-table",
    "estimate-table-readers-mem",
    "estimate-live-data-size",
    "live-sst-files-size",
    "total-sst-files-size",
    "num-files-at-level0",
    "estimate-pending-compaction-bytes",
    "num-live-versions",
    "background-errors",
    "block-cache-usage",
    "block-cache-pinned-usage",
    "block-cache-capacity",
    "num-running-flushes",
    "num-running-compactions",
    "num-snapshots",
    "is-write-stopped",
    "actual-delayed-write-rate",
}
