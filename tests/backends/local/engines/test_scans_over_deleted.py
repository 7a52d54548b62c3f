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


def test_rocksdb_is_asked_for_little_at_once(tmp_path: Path) -> None:
    """The range is read in many steps, each with a view of its own, which the caller is told."""
    engine = opened("rocksdict", tmp_path)
    _delete(engine, KEYS)
    put(engine, b"t/", b"u")
    places: list[bytes] = []
    assert [key for key, _ in engine.scan(b"t/", None, renewed=places.append)] == [b"t/", b"u"]
    assert places == sorted(places)
    assert DELETED / SKIPS / 2 < len(places) < 40 * DELETED / SKIPS
    assert places[0] > b"t/"
    engine.close()


def test_few_deleted_keys_leave_the_view(engine: Engine) -> None:
    """An ordinary scan is from one view."""
    _delete(engine, KEYS[: SKIPS // 4])
    put(engine, *KEYS[SKIPS : SKIPS + 50])
    places: list[bytes] = []
    scan = engine.scan(b"t/", None, renewed=places.append)
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


def test_deleted_keys_go_soon(tmp_path: Path) -> None:
    """What was in memory is flushed and compacted because somebody reads over it, while hardly anything is written."""
    engine = opened("rocksdict", tmp_path)
    _delete(engine, KEYS)
    deadline = time.monotonic() + PATIENCE
    while True:
        put(engine, b"u")
        places: list[bytes] = []
        assert [key for key, _ in engine.scan(b"t/", None, renewed=places.append)] == [b"u"]
        if not places:
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

    def until_closed(position: bytes) -> None:
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
            list(engine.scan(b"", None, renewed=until_closed))
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
