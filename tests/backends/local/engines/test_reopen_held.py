"""Reopen while everything is kept that a call may leave behind: nothing of it holds the old database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvtwisted.backends.local.engines.engine import DATA, EXPIRY, META, Engine
from kvtwisted.backends.local.engines.reopening import Reopening
from kvtwisted.core.errors import StorageError, Unavailable
from tests.support.collector import without_collector

from .support import PERSISTENT, PLENTY, opened, put, redirect_next_log

persistent = pytest.mark.parametrize("name", PERSISTENT)
BATCH = [(DATA, b"k", b"v"), (EXPIRY, b"k", b""), (META, b"k", None)]


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """Within each test cycles are not collected."""
    with without_collector():
        yield


class Kept:
    """Keeps all errors, whole, as a cycle of frames would."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []

    def call(self, act: Callable[[], object]) -> None:
        """Call and keep what it raises."""
        try:
            act()
        except Exception as error:
            self.errors.append(error)


def broken(name: str, folder: Path) -> Engine:
    """An engine that has some keys and whose log takes nothing any more, on a disk that works again."""
    engine = opened(name, folder)
    put(engine, *(b"%04d" % number for number in range(500)))
    link = redirect_next_log(engine, folder, Path("/dev/full"))
    with pytest.raises(StorageError):
        put(engine, b"refused")
    with pytest.raises(StorageError):
        engine.sync()
    link.unlink(missing_ok=True)
    return engine


def interrupted(value: bytes) -> bool:
    """An error in the midst of a multi_get."""
    raise ValueError(value)


@persistent
def test_nothing_that_is_kept_holds_it(name: str, tmp_path: Path) -> None:
    """Errors of every call with their frames, scans and a read of many keys under way, handles: it is reopened."""
    engine = broken(name, tmp_path)
    kept = Kept()
    for _ in range(2):
        scans = [engine.scan(b"", None, family) for family in (DATA, EXPIRY, DATA, META)]
        next(scans[0])
        calls: list[Callable[[], object]] = [
            lambda: engine.write(BATCH),
            lambda: engine.write(BATCH[:1]),
            lambda: engine.write([(DATA, b"k", "no bytes")]),  # type: ignore[list-item]
            lambda: engine.write([(DATA, b"k", b"v"), (EXPIRY, b"k", "no bytes")]),  # type: ignore[list-item]
            lambda: engine.get(b"k", "no family"),
            lambda: engine.multi_get([b"0001"] * 100, 1),
            lambda: engine.multi_get([b"0001"] * 100, 1, interrupted),
            lambda: engine.scan(b"", None, "no family"),
            lambda: engine.checkpoint(str(tmp_path)),
            engine.sync,
        ]
        for call in calls:
            kept.call(call)
        assert len(kept.errors) >= len(calls) - 1
        holders = [engine._handles, getattr(engine, "_families", None)]  # type: ignore[attr-defined]
        engine.reopen()
        assert engine.get(b"0001") == b"v"
        engine.write(BATCH)
        engine.sync()
        for scan in scans:
            with pytest.raises(Unavailable):
                next(scan)
        del holders
    engine.close()
    opened(name, tmp_path).close()


@persistent
def test_reads_of_another_thread_end(name: str, tmp_path: Path) -> None:
    """A thread in the midst of many keys, or of a scan, is told to try again; the database does not wait for it."""
    engine = broken(name, tmp_path)
    inside, go_on = threading.Semaphore(0), threading.Event()
    ended: list[BaseException] = []

    def slowly(value: bytes) -> bool:
        inside.release()
        return go_on.wait(60)

    def scan() -> None:
        for _ in engine.scan(b"", None):
            slowly(b"")

    def read(act: Callable[[], object]) -> None:
        try:
            act()
        except BaseException as error:
            ended.append(error)

    acts: list[Callable[[], object]] = [
        lambda: engine.multi_get([b"%04d" % number for number in range(400)], PLENTY, slowly),
        scan,
    ]
    threads = [threading.Thread(target=read, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert inside.acquire(timeout=60)
    engine.reopen()
    assert engine.get(b"0001") == b"v"
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert [type(error) for error in ended] == [Unavailable, Unavailable]
    engine.close()


@persistent
def test_reads_go_on_while_it_is_opened(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a database that had stopped writing everything can be read meanwhile; writes are to be tried again."""
    engine = broken(name, tmp_path)
    was_open = Reopening._open
    seen: list[object] = []

    def failing(self: object) -> None:
        seen.append(engine.get(b"0001"))
        seen.append(engine.peek(b"nothing")[1])
        seen.append(len(engine.multi_get([b"0001"] * 300, PLENTY)))
        seen.append(len(list(engine.scan(b"0", b"1"))))
        seen.append(list(engine.scan(b"", None, EXPIRY)))
        for write in (lambda: engine.write(BATCH), lambda: put(engine, b"x")):
            with pytest.raises(Unavailable, match="being reopened; try again"):
                write()
        with pytest.raises(StorageError, match="whether the last writes have reached the disk is not known"):
            engine.sync()
        raise OSError(5, "Input/output error")

    expected = [b"v", None, 300, 500, []]
    told: list[None] = []
    for _ in range(2):
        monkeypatch.setattr(Reopening, "_open", failing)
        with pytest.raises(StorageError, match="Input/output error"):
            engine.reopen(lambda: told.append(None))
        assert seen == expected
        assert engine.get(b"0001") == b"v"
        assert engine.statistics().figures["estimate-num-keys"] >= 0
        seen.clear()
    scan = engine.scan(b"", None)
    monkeypatch.setattr(Reopening, "_open", was_open)
    engine.reopen(lambda: told.append(None))
    assert len(told) == 3
    with pytest.raises(Unavailable, match="being reopened"):
        next(scan)
    put(engine, b"after")
    engine.sync()
    engine.close()
    again = opened(name, tmp_path)
    assert again.get(b"after") == b"v"
    again.close()


@persistent
def test_closed_while_reads_go_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that could not open its database again stops in order."""
    engine = broken(name, tmp_path)

    def failing(self: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Reopening, "_open", failing)
        with pytest.raises(StorageError):
            engine.reopen()
    assert engine.get(b"0001") == b"v"
    scan = engine.scan(b"", None)
    engine.close()
    for call in (lambda: engine.get(b"0001"), lambda: next(scan)):
        with pytest.raises(Unavailable, match="the storage is closed"):
            call()
    again = opened(name, tmp_path)
    assert again.get(b"0001") == b"v"
    again.close()


@persistent
def test_reopening_makes_no_database(name: str, tmp_path: Path) -> None:
    """A folder that is gone, or empty, is not taken for the database: nothing is made there, and reads go on."""
    folder, aside = tmp_path / "data", tmp_path / "aside"
    folder.mkdir()
    engine = broken(name, folder)
    folder.rename(aside)
    with pytest.raises(StorageError, match="No such file"):
        engine.reopen()
    assert not folder.exists()
    folder.mkdir()
    with pytest.raises(StorageError, match="No such file"):
        engine.reopen()
    assert list(folder.iterdir()) == []
    assert engine.get(b"0001") == b"v"
    folder.rmdir()
    aside.rename(folder)
    engine.reopen()
    put(engine, b"after")
    engine.close()
