"""Scans over many deleted keys: complete, in steps, in time, and soon over few of them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from kvtwisted.backends.local.engines.engine import DATA, EXPIRY, Engine, ScanUnfinished
from kvtwisted.backends.local.engines.pieces import SKIPS
from kvtwisted.core.errors import KvError, Unavailable

from .support import opened, put

#: Many times what RocksDB reads over at once.
DELETED = 20 * SKIPS
PATIENCE = 30.0


def _delete(engine: Engine, keys: list[bytes], family: str = DATA) -> None:
    for value in (b"v", None):
        for first in range(0, len(keys), 10_000):
            engine.write([(family, key, value) for key in keys[first : first + 10_000]])


def _crossed(engine: Engine, start: bytes) -> list[bytes]:
    """Where the parts began that a scan had to look at by later views."""
    places: list[bytes] = []
    assert [key for key, _ in engine.scan(start, None, crossed=lambda low, high: places.append(low))] == [b"u"]
    return places


KEYS = [b"t/%08d" % number for number in range(DELETED)]
LIVING = [b"s", b"t/%08d" % 7, b"t/%08d-" % (DELETED // 2), b"t/%08d" % (DELETED - 1), b"u"]


@pytest.mark.parametrize("family", [DATA, EXPIRY])
def test_all_that_lives_is_found(engine: Engine, family: str) -> None:
    """Living keys before, between and behind the deleted ones, in order, in each family."""
    _delete(engine, KEYS, family)
    engine.write([(family, key, b"v") for key in LIVING])
    assert [key for key, _ in engine.scan(b"", None, family)] == LIVING
    assert [key for key, _ in engine.scan(b"t/", b"t0", family)] == LIVING[1:4]
    assert [key for key, _ in engine.scan(KEYS[8], KEYS[100], family)] == []
    assert [key for key, _ in engine.scan(b"v", None, family)] == []
    assert [key for key, _ in engine.scan(b"", None, family, reverse=True)] == LIVING[::-1]
    assert [key for key, _ in engine.scan(b"t/", b"t0", family, reverse=True)] == LIVING[3:0:-1]
    assert [key for key, _ in engine.scan(KEYS[8], KEYS[100], family, reverse=True)] == []
    assert [key for key, _ in engine.scan(b"", b"s", family, reverse=True)] == []
    assert [key for key, _ in engine.scan(b"u+", None, family, reverse=True)] == []


def test_rocksdb_is_asked_for_little_at_once(tmp_path: Path) -> None:
    """The range is read in many steps, each with a view of its own, which the caller is told: all that lies between."""
    engine = opened("rocksdict", tmp_path)
    _delete(engine, KEYS)
    put(engine, b"t/", b"u")
    parts: list[tuple[bytes, bytes | None]] = []
    scan = engine.scan(b"t/", None, crossed=lambda low, high: parts.append((low, high)))
    assert [key for key, _ in scan] == [b"t/", b"u"]
    assert parts == sorted(parts)
    assert [high for _, high in parts[:-1]] == [low for low, _ in parts[1:]]
    assert DELETED / SKIPS / 2 < len(parts) < 40 * DELETED / SKIPS
    assert parts[0][0] == b"t/\0"
    assert parts[-1][1] == b"u"
    engine.close()


def test_in_reverse_too(tmp_path: Path) -> None:
    """From the end, in steps that are told of, each before the other."""
    engine = opened("rocksdict", tmp_path)
    _delete(engine, KEYS)
    put(engine, b"t/", b"u")
    parts: list[tuple[bytes, bytes | None]] = []
    scan = engine.scan(b"t/", None, crossed=lambda low, high: parts.append((low, high)), reverse=True)
    assert [key for key, _ in scan] == [b"u", b"t/"]
    assert [low for low, _ in parts[:-1]] == [high for _, high in parts[1:]]
    assert DELETED / SKIPS / 2 < len(parts) < 40 * DELETED / SKIPS
    assert (parts[-1][0], parts[0][1]) == (b"t/\0", b"u")
    engine.close()


@pytest.mark.parametrize("reverse", [False, True])
def test_one_view_over_deleted_keys(engine: Engine, reverse: bool) -> None:
    """What lives since the scan began is not in it, behind and among deleted keys; nor are other values."""
    _delete(engine, KEYS)
    put(engine, KEYS[0], KEYS[DELETED // 2], KEYS[-1], value=b"old")
    scan = engine.scan(b"t/", b"t0", reverse=reverse)
    assert len(scan.take(1)) == 1
    put(engine, *KEYS[:: SKIPS // 2], KEYS[-1], value=b"new")
    put(engine, *(KEYS[DELETED // 4] + b"%d" % number for number in range(1000)))
    assert [key for key, value in scan if value == b"old"] == [KEYS[DELETED // 2], KEYS[0 if reverse else -1]]


@pytest.mark.parametrize("reverse", [False, True])
def test_seeking(engine: Engine, reverse: bool) -> None:
    """It goes on ahead in the same view, also behind deleted keys, and in the midst of them."""
    _delete(engine, KEYS)
    living = sorted({*KEYS[::5000], *(b"t/%08d-%04d" % (10_000, number) for number in range(2000))}, reverse=reverse)
    put(engine, *living)
    scan = engine.scan(b"", None, reverse=reverse)
    assert [key for key, _ in scan.take(1)] == living[:1]
    put(engine, *KEYS[::100], value=b"new")
    for place in (KEYS[9000], b"t/%08d-%04d" % (10_000, 1000), KEYS[12_000])[:: -1 if reverse else 1]:
        scan.seek(place)
        ahead = [key for key in living if (key < place if reverse else key >= place)]
        for most in (1, 16, 100, 256):
            pairs = scan.take(most)
            assert [key for key, _ in pairs] == ahead[: len(pairs)]
            assert {value for _, value in pairs} <= {b"v"}
            del ahead[: len(pairs)]
    scan.seek(b"" if reverse else b"u")
    assert scan.take(10) == []
    scan.seek(KEYS[0])
    assert scan.take(10) == []


@pytest.mark.parametrize("reverse", [False, True])
def test_many_newer_keys_are_told_of(tmp_path: Path, reverse: bool) -> None:
    """Who scans over deleted keys that others have written anew learns of it, and may end there."""
    engine = opened("rocksdict", tmp_path)
    _delete(engine, KEYS)
    parts: list[tuple[bytes, bytes | None]] = []
    scan = engine.scan(b"t/", b"t0", crossed=lambda low, high: parts.append((low, high)), reverse=reverse)
    put(engine, *KEYS[::10], value=b"new")
    assert list(scan) == []
    assert any(low in KEYS and high == low + b"\0" for low, high in parts)
    engine.close()


def test_few_deleted_keys_leave_the_view(engine: Engine) -> None:
    """An ordinary scan is from one view."""
    _delete(engine, KEYS[: SKIPS // 4])
    put(engine, *KEYS[SKIPS : SKIPS + 50])
    places: list[bytes] = []
    scan = engine.scan(b"t/", None, crossed=lambda low, high: places.append(low))
    put(engine, KEYS[0], KEYS[DELETED - 1])
    assert [key for key, _ in scan] == KEYS[SKIPS : SKIPS + 50]
    assert places == []


def test_time_is_looked_at(tmp_path: Path) -> None:
    """Once it is `until`, the scan says how far it came; what lives before has been given."""
    engine = opened("rocksdict", tmp_path)
    _delete(engine, KEYS)
    put(engine, b"a", b"u")
    scan = engine.scan(b"", None, until=time.monotonic() - 1)
    assert next(scan)[0] == b"a"
    with pytest.raises(ScanUnfinished) as unfinished:
        next(scan)
    assert b"a" < unfinished.value.reached < b"u"
    engine.close()


def test_time_that_is_over_at_once(tmp_path: Path) -> None:
    """Among the first keys of all nothing was seen, and among the last ones, in reverse, neither."""
    engine = opened("rocksdict", tmp_path)
    _delete(engine, KEYS)
    with pytest.raises(ScanUnfinished) as unfinished:
        next(engine.scan(b"", None, until=time.monotonic() - 1))
    assert unfinished.value.reached == b""
    with pytest.raises(ScanUnfinished) as unfinished:
        next(engine.scan(b"", None, until=time.monotonic() - 1, reverse=True))
    assert unfinished.value.reached > KEYS[-1]
    engine.close()


def test_deleted_keys_go_soon(tmp_path: Path) -> None:
    """What was in memory is flushed and compacted because somebody reads over it, while hardly anything is written."""
    engine = opened("rocksdict", tmp_path)
    _delete(engine, KEYS)
    deadline = time.monotonic() + PATIENCE
    while True:
        put(engine, b"u")
        if not _crossed(engine, b"t/"):
            break
        assert time.monotonic() < deadline
        time.sleep(0.01)
    engine.close()


def test_reopening_does_not_wait_for_the_end(tmp_path: Path) -> None:
    """A scan among deleted keys ends with the database that it reads."""
    engine = opened("rocksdict", tmp_path)
    _delete(engine, KEYS)
    among_deleted = threading.Event()
    errors: list[KvError] = []

    def until_closed(low: bytes, high: bytes | None) -> None:
        among_deleted.set()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                engine.get(b"k")
            except Unavailable:
                return
            time.sleep(0.001)

    def scan() -> None:
        try:
            list(engine.scan(b"", None, crossed=until_closed))
        except KvError as error:
            errors.append(error)

    thread = threading.Thread(target=scan)
    thread.start()
    assert among_deleted.wait(PATIENCE)
    engine.reopen()
    thread.join(PATIENCE)
    assert [type(error) for error in errors] == [Unavailable]
    assert list(engine.scan(b"", None)) == []
    engine.close()
