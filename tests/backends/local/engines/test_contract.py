"""What every engine must do: reads, batches, scans, families, limits."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from kvtwisted.backends.local.engines.engine import DATA, EXPIRY, FAMILIES, META, CanCompact, Engine
from kvtwisted.core.errors import ResponseTooLarge

from .support import PERSISTENT, PLENTY, opened, put

KEYS = [b"", b"\0", b"a", b"a\0", b"a\xfe", b"a\xff", b"a\xff\xff", b"b", b"ba", b"c", b"\xff", b"\xff\xff"]
MIB = 1 << 20


def test_missing_key_is_none(engine: Engine) -> None:
    """A key that was never written has no value, in any family."""
    assert [engine.get(b"k", family) for family in FAMILIES] == [None] * len(FAMILIES)


def test_last_write_wins(engine: Engine) -> None:
    """A value is read back, and a second write replaces it."""
    put(engine, b"k", value=b"old")
    put(engine, b"k", value=b"new")
    assert engine.get(b"k") == b"new"


def test_delete(engine: Engine) -> None:
    """A deleted key is gone, its neighbour is not, and deleting a missing key is no error."""
    put(engine, b"k", b"l")
    engine.write([(DATA, b"k", None)])
    engine.write([(DATA, b"k", None), (DATA, b"never", None)])
    assert (engine.get(b"k"), engine.get(b"l")) == (None, b"v")


def test_mutations_apply_in_order(engine: Engine) -> None:
    """Within one batch a later mutation of a key overrides an earlier one."""
    engine.write([(DATA, b"a", b"1"), (DATA, b"a", None), (DATA, b"b", None), (DATA, b"b", b"2"), (DATA, b"b", b"3")])
    assert (engine.get(b"a"), engine.get(b"b")) == (None, b"3")


def test_empty_batch_changes_nothing(engine: Engine) -> None:
    """A batch without mutations is accepted."""
    put(engine, b"k")
    engine.write([])
    assert list(engine.scan(b"", None)) == [(b"k", b"v")]


def test_empty_value_is_a_value(engine: Engine) -> None:
    """The empty value is told from no value by every read."""
    put(engine, b"k", value=b"")
    assert engine.get(b"k") == b""
    assert engine.multi_get([b"k", b"l"], 0) == [b"", None]
    assert list(engine.scan(b"", None)) == [(b"k", b"")]


@pytest.mark.parametrize("key", [*KEYS, bytes(range(256)) * 4])
def test_any_bytes_are_a_key(engine: Engine, key: bytes) -> None:
    """Keys are any bytes, from none to 1 KiB and more."""
    put(engine, key, value=key + b"!")
    assert engine.get(key) == key + b"!"
    assert list(engine.scan(key, key + b"\0")) == [(key, key + b"!")]


def test_large_values(engine: Engine) -> None:
    """Values of 1 MiB and more come back whole from every read."""
    value = bytes(range(256)) * 4096 + b"end"
    put(engine, b"k", b"l", value=value)
    assert engine.get(b"k") == value
    assert engine.multi_get([b"l"], PLENTY) == [value]
    assert list(engine.scan(b"k", None)) == [(b"k", value), (b"l", value)]


def test_a_write_of_one(engine: Engine) -> None:
    """It stores, replaces, and leaves other families alone."""
    engine.write([(DATA, b"k", b"1")])
    engine.write([(DATA, b"k", b"2")])
    engine.write([(DATA, b"l", b"")])
    assert list(engine.scan(b"", None)) == [(b"k", b"2"), (b"l", b"")]
    assert engine.get(b"k", META) is None


def test_peek_tells_what_memory_has(engine: Engine) -> None:
    """What was just written or deleted is known, whatever its value; another family's key is none of this one's."""
    for value in (b"", b"v", bytes(100_000)):
        engine.write([(DATA, b"k", value)])
        known, found = engine.peek(b"k")
        assert found == (value if known else None)
        assert known or not value  # RocksDB gives an empty value also when it does not know
    engine.write([(DATA, b"k", None), (META, b"other", b"1")])
    assert engine.peek(b"k") == (True, None)
    assert engine.peek(b"other")[1] is None


@pytest.mark.parametrize("name", PERSISTENT)
def test_peek_is_never_wrong(name: str, tmp_path: Path) -> None:
    """Of what is on the disk it knows what was read before; the rest it leaves to `get`, and never makes it up."""
    engine = opened(name, tmp_path)
    keys = [b"%04d" % number for number in range(2000)]
    put(engine, *keys[::2], value=b"v" * 50)
    engine.compact(b"", b"\xff")
    engine.close()
    engine = opened(name, tmp_path)
    told = {key: engine.peek(key) for key in keys}
    for position, (known, found) in enumerate(told.values()):
        assert not known or found == (None if position % 2 else b"v" * 50)
    assert not all(known for known, _ in told.values())
    for key in keys[::2]:
        assert engine.get(key) == b"v" * 50
        assert engine.peek(key) == (True, b"v" * 50)
    engine.close()


def test_families_are_separate(engine: Engine) -> None:
    """The same key has its own value in each family; one batch reaches all of them."""
    engine.write([(family, b"k", family.encode()) for family in FAMILIES])
    assert [engine.get(b"k", family) for family in FAMILIES] == [family.encode() for family in FAMILIES]
    assert [list(engine.scan(b"", None, family)) for family in (EXPIRY, META)] == [
        [(b"k", b"expiry")],
        [(b"k", b"meta")],
    ]
    engine.write([(EXPIRY, b"k", None)])
    engine.write([(META, b"k", b"2")])
    assert [engine.get(b"k", family) for family in FAMILIES] == [b"default", None, b"2", b"files"]
    assert engine.multi_get([b"k"], PLENTY) == [b"default"]


@pytest.mark.parametrize("count", [0, 1, 64, 65, 500])
def test_multi_get_answers_in_order(engine: Engine, count: int) -> None:
    """Values stand where their keys stood, None where there is none, also for keys asked twice."""
    put(engine, *(b"%d" % number for number in range(0, 600, 2)), value=b"even")
    keys = [b"%d" % (number % 400) for number in range(count)][::-1]
    assert engine.multi_get(keys, PLENTY) == [None if int(key) % 2 else b"even" for key in keys]


@pytest.mark.parametrize("count", [2, 64, 65, 300])
def test_multi_get_budget(engine: Engine, count: int) -> None:
    """Values of exactly the budget are given; with one byte less there is an error that names the budget."""
    keys = [b"%d" % number for number in range(count)]
    put(engine, *keys, value=b"ten bytes.")
    assert engine.multi_get(keys, 10 * count) == [b"ten bytes."] * count
    with pytest.raises(ResponseTooLarge, match=f"{10 * count - 1} bytes"):
        engine.multi_get(keys, 10 * count - 1)


def test_multi_get_budget_bounds_memory(engine: Engine) -> None:
    """Far too much is never read: what is held stays within the budget and 64 values."""
    size = 128 * 1024
    keys = [b"%d" % number for number in range(400)]
    for key in keys:
        put(engine, key, value=bytes(size))
    gc.collect()
    tracemalloc.start()
    with pytest.raises(ResponseTooLarge):
        engine.multi_get(keys, MIB)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MIB + 65 * size


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (b"", None),
        (b"a", b"b"),
        (b"a\xff", b"b"),
        (b"a\xff\xff", b"c"),
        (b"aa", b"bz"),
        (b"\xff", None),
        (b"\xff\xff\xff", None),
        (b"b", b"b"),
        (b"c", b"a"),
        (b"", b""),
        (b"", b"\0"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_scan_bounds(engine: Engine, family: str, start: bytes, end: bytes | None) -> None:
    """A scan gives start <= key < end in byte order; nothing when the range is empty or upside down."""
    engine.write([(family, key, b"v" + key) for key in reversed(KEYS)])
    expected = [(key, b"v" + key) for key in KEYS if key >= start and (end is None or key < end)]
    assert list(engine.scan(start, end, family)) == expected


def test_scan_of_an_empty_engine(engine: Engine) -> None:
    """There is nothing to scan before the first write, and after the last delete."""
    assert list(engine.scan(b"", None)) == []
    put(engine, b"k")
    engine.write([(DATA, b"k", None)])
    assert list(engine.scan(b"", None)) == []


@pytest.mark.parametrize("taken", [0, 2])
def test_scan_keeps_its_view(engine: Engine, taken: int) -> None:
    """What is written after the call, even before the first pair is taken, does not show."""
    keys = [b"%03d" % number for number in range(300)]
    put(engine, *keys, value=b"old")
    scan = engine.scan(b"", None)
    seen = [next(scan) for _ in range(taken)]
    engine.write([(DATA, key, None) for key in keys[::2]] + [(DATA, key, b"new") for key in keys[1::2]])
    put(engine, b"0005", b"999", value=b"new")
    if isinstance(engine, CanCompact):
        engine.compact(b"", b"\xff")
    assert seen + list(scan) == [(key, b"old") for key in keys]
    assert len(list(engine.scan(b"", None))) == 152


@pytest.mark.parametrize("family", FAMILIES)
def test_compaction_of_each_family(persistent: Any, family: str) -> None:
    """Takes what is dead in it, and nothing else, whatever else is there."""
    keys = [b"%06d" % number for number in range(5000)]
    persistent.write([(other, key, b"v") for key in keys[:10] for other in FAMILIES])
    persistent.write([(family, key, b"v" * 40) for key in keys])
    persistent.compact(b"", b"\xff", family)
    full = persistent.statistics().file_bytes
    persistent.write([(family, key, None) for key in keys[10:]])
    persistent.compact(b"", b"\xff", family)
    assert persistent.statistics().file_bytes <= full / 2
    assert all([key for key, _ in persistent.scan(b"", None, other)] == keys[:10] for other in FAMILIES)


def test_scans_are_independent(engine: Engine) -> None:
    """Two scans, taken in turns, do not disturb each other, and each has the view of its own call."""
    put(engine, b"a", b"b", b"c")
    first = engine.scan(b"", None)
    put(engine, b"b2")
    second = engine.scan(b"b", None)
    assert [next(first)[0], next(second)[0], next(first)[0], next(second)[0]] == [b"a", b"b", b"b", b"b2"]
    assert [key for key, _ in first] == [b"c"]
    assert [key for key, _ in second] == [b"c"]


def test_scan_does_not_depend_on_the_callers_bounds(engine: Engine) -> None:
    """The bounds hold although the caller's objects are freed and their memory is used again."""
    put(engine, *(b"key-%04d" % number for number in range(1000)))
    scans = [engine.scan(b"key-%04d" % (10 * at), b"key-%04d" % (10 * at + 5)) for at in range(50)]
    gc.collect()
    reused = [b"zzz-%04d" % number for number in range(10_000)]
    assert [len(list(scan)) for scan in scans] == [5] * 50
    assert len(reused) == 10_000


def test_closed_scan_is_over(engine: Engine) -> None:
    """Closing a scan ends it; closing it again, or closing an exhausted one, is harmless."""
    put(engine, b"a", b"b")
    scan = engine.scan(b"", None)
    next(scan)
    scan.close()
    scan.close()
    assert list(scan) == []
    exhausted = engine.scan(b"", None)
    assert len(list(exhausted)) == 2
    exhausted.close()
    assert list(exhausted) == []


def test_sync_returns(engine: Engine) -> None:
    """Syncing keeps what was written, and leaves nothing behind in any family."""
    put(engine, b"k")
    engine.sync()
    engine.sync()
    assert [list(engine.scan(b"", None, family)) for family in FAMILIES] == [[(b"k", b"v")], [], [], []]


def test_statistics_count_records(persistent: Any) -> None:
    """The estimate counts the records, not entries of other families, and what is in memory has a size."""
    before = persistent.statistics()
    put(persistent, *(b"%04d" % number for number in range(500)), value=bytes(1000))
    persistent.write([(EXPIRY, b"%04d" % number, b"") for number in range(100)])
    after = persistent.statistics()
    assert (before.keys, after.keys) == (0, 500)
    assert after.figures["cur-size-all-mem-tables"] - before.figures["cur-size-all-mem-tables"] >= 500_000
    assert all(isinstance(value, float) for value in after.figures.values())


def test_name_and_version(engine: Engine) -> None:
    """An engine tells the name that chose it, and a version for people."""
    assert engine.name in ("rocksdict", "lbry", "memory")
    assert engine.name in engine.version
