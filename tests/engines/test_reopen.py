"""Reopen: the database is closed and opened again behind the engine, under everybody who uses it."""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvtwisted.core.engine import DATA, EXPIRY, META, Engine
from kvtwisted.core.errors import Corruption, StorageError, Unavailable, WriteStalled
from kvtwisted.engines import reopening

from .support import PERSISTENT, PLENTY, opened, put, redirect_next_log

persistent = pytest.mark.parametrize("name", PERSISTENT)
#: Set to some hundreds for a long trial.
ROUNDS = int(os.environ.get("KVTWISTED_REOPENINGS", "12"))


def test_everything_is_there_and_works_afterwards(engine: Engine) -> None:
    """What was written before is there, and every call works as before."""
    engine.write([(DATA, b"a", b"1"), (EXPIRY, b"b", b"2"), (META, b"c", b"3")])
    engine.put(b"d", b"4")
    engine.reopen()
    assert (engine.get(b"a"), engine.get(b"b", EXPIRY), engine.get(b"c", META)) == (b"1", b"2", b"3")
    engine.write([(DATA, b"a", None), (EXPIRY, b"b", b"5")])
    engine.sync()
    engine.compact(b"", b"\xff")
    engine.reopen()
    assert engine.multi_get([b"a", b"d"], PLENTY) == [None, b"4"]
    assert list(engine.scan(b"", None, EXPIRY)) == [(b"b", b"5")]
    assert engine.statistics()["estimate-num-keys"] == 1


def test_scans_under_way_end_as_unavailable(engine: Engine) -> None:
    """A scan from before does not go on, nor end as if that were all; one that had ended has ended."""
    put(engine, b"a", b"b")
    fresh, begun, over = (engine.scan(b"", None) for _ in range(3))
    next(begun)
    assert len(list(over)) == 2
    engine.reopen()
    for scan in (fresh, begun, begun):
        with pytest.raises(Unavailable, match="being reopened; try again"):
            next(scan)
    assert list(over) == []
    assert [key for key, _ in engine.scan(b"", None)] == [b"a", b"b"]


def test_closed_engine_is_not_reopened(engine: Engine) -> None:
    """After close there is no way back."""
    engine.close()
    with pytest.raises(Unavailable, match="the storage is closed"):
        engine.reopen()
    with pytest.raises(Unavailable, match="the storage is closed"):
        engine.get(b"k")


@persistent
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


@persistent
def test_folder_that_cannot_be_written_stays_open(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk cannot be synced the database is not closed: reads go on."""
    engine = opened(name, tmp_path)
    put(engine, b"k")
    scan = engine.scan(b"", None)
    with monkeypatch.context() as broken:
        broken.setattr("kvtwisted.engines.reopening.os.fsync", _broken)
        with pytest.raises(StorageError, match="Input/output error"):
            engine.reopen()
    assert engine.get(b"k") == b"v"
    assert next(scan) == (b"k", b"v")
    engine.reopen()
    assert not (tmp_path / "kvtwisted-trial").exists()
    engine.close()


def _broken(descriptor: int) -> None:
    raise OSError(5, "Input/output error")


@persistent
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


@persistent
def test_opening_that_fails_is_tried_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between close and open every call is one to try again; the next reopening goes on from there."""
    engine = opened(name, tmp_path)
    put(engine, b"k")
    scan = engine.scan(b"", None)
    with monkeypatch.context() as broken:
        broken.setattr(type(engine), "_open", lambda engine: _broken(0))
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
        lambda: engine.put(b"k", b"v"),
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


@persistent
def test_engine_that_is_being_reopened_can_be_closed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server whose storage could not be opened again still stops in order."""
    engine = opened(name, tmp_path)
    put(engine, b"k")
    with monkeypatch.context() as broken:
        broken.setattr(type(engine), "_open", lambda engine: _broken(0))
        with pytest.raises(StorageError):
            engine.reopen()
    engine.close()
    with pytest.raises(Unavailable, match="the storage is closed"):
        engine.get(b"k")
    again = opened(name, tmp_path)
    assert again.get(b"k") == b"v"
    again.close()


@persistent
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


# Under everybody at once.


class Crowd:
    """Threads that use an engine in every way, and write down what was acknowledged and what they may not see."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.stop = threading.Event()
        self.acknowledged: dict[bytes, bytes] = {}
        self.surprises: list[BaseException] = []
        self.done = dict.fromkeys(("write", "put", "get", "few", "many", "scan", "sync"), 0)
        jobs = [self.write, self.write, self.put, self.get, self.few, self.many, self.scan, self.sync]
        self._threads = [threading.Thread(target=self._go, args=(number, job)) for number, job in enumerate(jobs)]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _go(self, number: int, job: Callable[[int, int, random.Random], None]) -> None:
        chance = random.Random(number)
        for turn in itertools.count():
            # The pause keeps those that are quick from taking all the time there is.
            if self.stop.wait(0.0005):
                return
            try:
                job(number, turn, chance)
                self.done[job.__name__] += 1
            except (Unavailable, WriteStalled):
                """To be tried again."""
            except BaseException as error:
                if job.__name__ != "sync" or "reached the disk" not in str(error):
                    self.surprises.append(error)
                    return

    def write(self, number: int, turn: int, chance: random.Random) -> None:
        """A batch over three families, at a new key."""
        key, value = b"%d-%06d" % (number, turn), b"%d" % chance.getrandbits(64)
        self.engine.write([(DATA, key, value), (EXPIRY, key, value), (META, b"last-%d" % number, value)])
        self.acknowledged[key] = value

    def put(self, number: int, turn: int, chance: random.Random) -> None:
        """One value, at a key of a hundred."""
        key, value = b"%d-%06d" % (number, turn % 100), b"%d" % chance.getrandbits(64)
        self.engine.put(key, value)
        self.acknowledged[key] = value

    def get(self, number: int, turn: int, chance: random.Random) -> None:
        """Some keys of two families."""
        for key, value in self._some(chance, 20):
            assert self.engine.get(key) == value
            assert self.engine.get(key, EXPIRY) == value

    def few(self, number: int, turn: int, chance: random.Random) -> None:
        """Some keys at once."""
        self._many(chance, 30)

    def many(self, number: int, turn: int, chance: random.Random) -> None:
        """Many keys from a snapshot."""
        self._many(chance, 300)

    def _many(self, chance: random.Random, count: int) -> None:
        some = self._some(chance, count)
        assert self.engine.multi_get([key for key, _ in some], PLENTY) == [value for _, value in some]

    def scan(self, number: int, turn: int, chance: random.Random) -> None:
        """Two families from end to end."""
        known = dict(self._some(chance, 100))
        for family in (DATA, EXPIRY):
            begun = self.engine.scan(b"0-", b"2-", family)
            found = dict(begun)
            assert {key: found.get(key) for key in known} == known

    def sync(self, number: int, turn: int, chance: random.Random) -> None:
        """An fsync, now and then a compaction, and the figures."""
        self.engine.sync()
        if turn % 20 == 0:
            self.engine.compact(b"", b"1")
        assert self.engine.statistics()["estimate-num-keys"] >= 0

    def _some(self, chance: random.Random, count: int) -> list[tuple[bytes, bytes]]:
        """Of what the `write` jobs have, whose keys have one value for ever."""
        known = [pair for pair in self.acknowledged.copy().items() if pair[0] < b"2-"]
        return chance.sample(known, min(count, len(known)))


@pytest.fixture
def short_switches() -> Iterator[None]:
    """Threads are switched as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@persistent
@pytest.mark.usefixtures("short_switches")
def test_reopened_under_everybody(name: str, tmp_path: Path) -> None:
    """Readers, scans, writers and syncs meet no other error than Unavailable, and no acknowledged write is lost."""
    engine = opened(name, tmp_path)
    with Crowd(engine) as crowd:
        for _ in range(ROUNDS):
            engine.reopen()
            before = dict(crowd.done)
            deadline = time.monotonic() + 30
            # Everybody must have got something done in between, so that the next reopening meets them all.
            while any(crowd.done[job] == before[job] for job in before) and not crowd.surprises:
                assert time.monotonic() < deadline, (before, crowd.done)
                time.sleep(0.001)
    assert crowd.surprises == []
    for _ in range(2):
        # A refused write has not happened.
        assert dict(engine.scan(b"", None)) == crowd.acknowledged
        assert dict(engine.scan(b"", None, EXPIRY)) == dict(engine.scan(b"0-", b"2-"))
        engine.close()
        engine = opened(name, tmp_path)
    engine.close()
