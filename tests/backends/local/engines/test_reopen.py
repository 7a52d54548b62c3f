"""Reopen: the database is closed and opened again behind the engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvtwisted.backends.local.engines import reopening
from kvtwisted.backends.local.engines.engine import DATA, EXPIRY, META
from kvtwisted.core.errors import Corruption, StorageError, Unavailable

from .support import PERSISTENT, PLENTY, opened, put, redirect_next_log

each_persistent = pytest.mark.parametrize("name", PERSISTENT)


def test_everything_is_there_and_works_afterwards(persistent: Any) -> None:
    """What was written before is there, and every call works as before."""
    persistent.write([(DATA, b"a", b"1"), (EXPIRY, b"b", b"2"), (META, b"c", b"3")])
    persistent.write([(DATA, b"d", b"4")])
    persistent.reopen()
    assert (persistent.get(b"a"), persistent.get(b"b", EXPIRY), persistent.get(b"c", META)) == (b"1", b"2", b"3")
    persistent.write([(DATA, b"a", None), (EXPIRY, b"b", b"5")])
    persistent.sync()
    persistent.compact(b"", b"\xff")
    persistent.reopen()
    assert persistent.multi_get([b"a", b"d"], PLENTY) == [None, b"4"]
    assert list(persistent.scan(b"", None, EXPIRY)) == [(b"b", b"5")]
    assert persistent.statistics().figures["estimate-num-keys"] == 1


def test_scans_under_way_end_as_unavailable(persistent: Any) -> None:
    """A scan from before does not go on, nor end as if that were all; one that had ended has ended."""
    put(persistent, b"a", b"b")
    fresh, begun, over = (persistent.scan(b"", None) for _ in range(3))
    next(begun)
    assert len(list(over)) == 2
    persistent.reopen()
    for scan in (fresh, begun, begun):
        with pytest.raises(Unavailable, match="being reopened; try again"):
            next(scan)
    assert list(over) == []
    assert [key for key, _ in persistent.scan(b"", None)] == [b"a", b"b"]


def test_closed_engine_is_not_reopened(persistent: Any) -> None:
    """After close there is no way back."""
    persistent.close()
    with pytest.raises(Unavailable, match="the storage is closed"):
        persistent.reopen()
    with pytest.raises(Unavailable, match="the storage is closed"):
        persistent.get(b"k")


@each_persistent
def test_failed_log_is_forgotten(name: str, tmp_path: Path) -> None:
    """After the log took no bytes, RocksDB refuses all writes; once reopened it takes them, and has what it had."""
    engine = opened(name, tmp_path)
    link = redirect_next_log(engine, tmp_path, Path("/dev/full"))
    with pytest.raises(StorageError):
        put(engine, b"refused")
    with pytest.raises(StorageError):
        engine.sync()
    # A log that is a device keeps nothing: here it is the disk that could be written again.
    link.unlink(missing_ok=True)
    with pytest.raises(StorageError):
        put(engine, b"refused")
    engine.reopen()
    put(engine, b"after")
    engine.sync()
    assert [key for key, _ in engine.scan(b"", None)] == [b"after", b"before"]
    engine.close()
    again = opened(name, tmp_path)
    assert [key for key, _ in again.scan(b"", None)] == [b"after", b"before"]
    again.close()


@each_persistent
def test_folder_that_cannot_be_written_stays_open(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk cannot be synced the database is not closed: reads go on."""
    engine = opened(name, tmp_path)
    put(engine, b"k")
    scan = engine.scan(b"", None)
    with monkeypatch.context() as broken:
        broken.setattr("kvtwisted.backends.local.engines.reopening.os.fsync", _broken)
        with pytest.raises(StorageError, match="Input/output error"):
            engine.reopen()
    assert engine.get(b"k") == b"v"
    assert next(scan) == (b"k", b"v")
    engine.reopen()
    assert not (tmp_path / "kvtwisted-trial").exists()
    engine.close()


def _broken(descriptor: int) -> None:
    raise OSError(5, "Input/output error")


@each_persistent
def test_files_that_cannot_be_opened_stay_open(name: str, tmp_path: Path) -> None:
    """A database that could not be opened again is not closed."""
    engine = opened(name, tmp_path)
    put(engine, b"k")
    current = (tmp_path / "CURRENT").read_bytes()
    (tmp_path / "CURRENT").write_text("nonsense")
    with pytest.raises(Corruption):
        engine.reopen()
    assert engine.get(b"k") == b"v"
    put(engine, b"l")
    (tmp_path / "CURRENT").write_bytes(current)
    engine.reopen()
    assert [key for key, _ in engine.scan(b"", None)] == [b"k", b"l"]
    engine.close()


@pytest.mark.skipif("rocksdict" not in PERSISTENT, reason="lbry-rocksdb does not tell what the log should hold")
def test_log_that_lost_something_stays_closed_to_it(tmp_path: Path) -> None:
    """What was acknowledged is in memory still: then the database is not closed, and the error says what to do."""
    engine = opened("rocksdict", tmp_path)
    link = redirect_next_log(engine, tmp_path, Path("/dev/null"))
    put(engine, b"kept in memory")
    with pytest.raises(StorageError):
        engine.sync()
    link.unlink()
    with pytest.raises(Corruption, match="has lost the last 1 changes that were acknowledged"):
        engine.reopen()
    assert engine.get(b"kept in memory") == b"v"
    with pytest.raises(StorageError):
        engine.close()


@each_persistent
def test_opening_that_fails_is_tried_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between close and open every call is one to try again; the next reopening goes on from there."""
    engine = opened(name, tmp_path)
    put(engine, b"k")
    scan = engine.scan(b"", None)
    with monkeypatch.context() as broken:
        broken.setattr(reopening.Reopening, "_open", lambda engine: _broken(0))
        for _ in range(2):
            with pytest.raises(StorageError, match="Input/output error"):
                engine.reopen()
    calls: list[Callable[[], object]] = [
        lambda: engine.get(b"k"),
        lambda: engine.get(b"k", EXPIRY),
        lambda: engine.peek(b"k"),
        lambda: engine.multi_get([b"k"], PLENTY),
        lambda: engine.multi_get([b"k"] * 100, PLENTY),
        lambda: engine.scan(b"", None),
        lambda: next(scan),
        lambda: put(engine, b"k"),
        lambda: engine.write([(META, b"k", b"v")]),
        lambda: engine.write([(DATA, b"k", b"v"), (EXPIRY, b"k", None)]),
        lambda: engine.compact(b"", b"\xff"),
        engine.statistics,
    ]
    for call in calls:
        with pytest.raises(Unavailable, match="the storage is being reopened; try again"):
            call()
    # What a sync should cover was written before: that is not "nothing happened".
    with pytest.raises(StorageError, match="whether the last writes have reached the disk is not known"):
        engine.sync()
    engine.reopen()
    assert [(key, value) for key, value in engine.scan(b"", None)] == [(b"k", b"v")]
    assert list(engine.scan(b"", None, EXPIRY)) == []
    engine.close()


@each_persistent
def test_engine_that_is_being_reopened_can_be_closed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server whose storage could not be opened again still stops in order."""
    engine = opened(name, tmp_path)
    put(engine, b"k")
    with monkeypatch.context() as broken:
        broken.setattr(reopening.Reopening, "_open", lambda engine: _broken(0))
        with pytest.raises(StorageError):
            engine.reopen()
    engine.close()
    with pytest.raises(Unavailable, match="the storage is closed"):
        engine.get(b"k")
    again = opened(name, tmp_path)
    assert again.get(b"k") == b"v"
    again.close()


@each_persistent
def test_calls_that_do_not_end_keep_it_open(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a call stays in RocksDB nothing is closed; once it has ended, reopening works."""
    monkeypatch.setattr(reopening, "PATIENCE", 0.05)
    engine = opened(name, tmp_path)
    put(engine, b"k")
    calls = engine._slow if name == "rocksdict" else engine._db._calls  # type: ignore[attr-defined]
    with calls, pytest.raises(StorageError, match="1 calls under way do not end"):
        engine.reopen()
    assert engine.get(b"k") == b"v"
    engine.sync()
    engine.reopen()
    assert engine.get(b"k") == b"v"
    engine.close()


def test_snapshot_that_stays_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of the database in some thread's hands keeps the folder; the reopening ends when it is let go."""
    if "rocksdict" not in PERSISTENT:
        pytest.skip("lbry-rocksdb's snapshots are taken away instead")
    monkeypatch.setattr(reopening, "PATIENCE", 0.05)
    engine = opened("rocksdict", tmp_path)
    put(engine, b"k")
    kept = [engine._db.snapshot()]  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match="already open in this process"):
        engine.reopen()
    with pytest.raises(Unavailable):
        engine.get(b"k")
    kept.clear()
    engine.reopen()
    assert engine.get(b"k") == b"v"
    engine.close()
