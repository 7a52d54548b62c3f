"""After close: every call is refused, the folder is free, and what is left in other hands does no harm."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvtwisted.backends.local.engines.engine import DATA, EXPIRY, Engine
from kvtwisted.core.errors import ResponseTooLarge, Unavailable

from .support import PERSISTENT, PLENTY, opened, put

CALLS: dict[str, Callable[[Engine], object]] = {
    "get": lambda engine: engine.get(b"k"),
    "get of another family": lambda engine: engine.get(b"k", EXPIRY),
    "multi_get of few": lambda engine: engine.multi_get([b"k"], PLENTY),
    "multi_get of many": lambda engine: engine.multi_get([b"k"] * 100, PLENTY),
    "peek": lambda engine: engine.peek(b"k"),
    "scan": lambda engine: engine.scan(b"", None),
    "scan of another family": lambda engine: engine.scan(b"", None, EXPIRY),
    "write": lambda engine: engine.write([(DATA, b"k", b"v")]),
    "write of a batch": lambda engine: engine.write([(DATA, b"k", b"v"), (EXPIRY, b"k", None)]),
    "sync": lambda engine: engine.sync(),
    "close": lambda engine: engine.close(),
}
#: What only some can.
FURTHER_CALLS: dict[str, Callable[[Any], object]] = {
    "compact": lambda engine: engine.compact(b"", b"\xff"),
    "statistics": lambda engine: engine.statistics(),
    "effective_options": lambda engine: engine.effective_options(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_closed_engine_refuses(engine: Engine, call: Callable[[Engine], object]) -> None:
    """Every call after close, a second close too, is Unavailable."""
    put(engine, b"k")
    engine.close()
    with pytest.raises(Unavailable, match="the storage is closed"):
        call(engine)


@pytest.mark.parametrize("call", FURTHER_CALLS.values(), ids=list(FURTHER_CALLS))
def test_closed_engine_refuses_what_only_some_can(persistent: Any, call: Callable[[Any], object]) -> None:
    """Likewise."""
    persistent.close()
    with pytest.raises(Unavailable, match="the storage is closed"):
        call(persistent)


def test_live_scan_becomes_unavailable(engine: Engine) -> None:
    """A scan that was not at its end does not end silently when the engine closes."""
    put(engine, b"a", b"b")
    fresh, begun = engine.scan(b"", None), engine.scan(b"", None)
    next(begun)
    engine.close()
    for scan in (fresh, begun, begun):
        with pytest.raises(Unavailable):
            next(scan)
    begun.close()
    assert list(begun) == []


def test_finished_scan_stays_finished(engine: Engine) -> None:
    """A scan that was at its end before the engine closed has ended, not failed."""
    put(engine, b"a")
    scan = engine.scan(b"", None)
    assert len(list(scan)) == 1
    engine.close()
    assert list(scan) == []


@pytest.mark.parametrize("name", PERSISTENT)
def test_live_scans_do_not_keep_the_folder(name: str, tmp_path: Path) -> None:
    """Scans begun by other threads and never finished leave the folder free, and can be dropped at any time."""
    engine = opened(name, tmp_path)
    engine.write([(family, b"%03d" % number, bytes(100)) for number in range(500) for family in (DATA, EXPIRY)])
    scans = []

    def begin() -> None:
        for family in (DATA, EXPIRY):
            scan = engine.scan(b"1", b"4", family)
            next(scan)
            scans.append(scan)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.close()
    again = opened(name, tmp_path)
    assert len(list(again.scan(b"", None))) == 500
    with pytest.raises(Unavailable):
        next(scans[0])
    scans.clear()
    assert len(list(again.scan(b"", None, EXPIRY))) == 500
    again.close()


@pytest.mark.parametrize("name", PERSISTENT)
@pytest.mark.parametrize("count", [10, 200])
def test_kept_error_does_not_keep_the_folder(name: str, count: int, tmp_path: Path) -> None:
    """An error whose traceback somebody stores holds no snapshot of the database."""
    engine = opened(name, tmp_path)
    keys = [b"%d" % number for number in range(count)]
    put(engine, *keys)
    with pytest.raises(ResponseTooLarge) as kept:
        engine.multi_get(keys, 5)
    assert engine.statistics().figures["num-snapshots"] == 0
    engine.close()
    again = opened(name, tmp_path)
    assert again.get(b"0") == b"v"
    again.close()
    assert kept.value.code == "response_too_large"


@pytest.mark.parametrize("name", PERSISTENT)
def test_many_lives_of_one_folder(name: str, tmp_path: Path) -> None:
    """A folder can be opened and closed again and again in one process, and keeps everything."""
    for life in range(5):
        engine = opened(name, tmp_path)
        put(engine, b"%d" % life)
        assert [int(key) for key, _ in engine.scan(b"", None)] == list(range(life + 1))
        engine.close()
