"""A copy of an open database: whole, from one moment, and nothing of it when it fails."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kvtwisted.backends.local.engines.engine import DATA, EXPIRY, FAMILIES, Engine
from kvtwisted.core.errors import KvError, StorageError, StorageFull, Unavailable, WriteStalled

from .support import PERSISTENT, opened, put

#: Copies made while a thread writes.
COPIES = 5


def pairs(engine: Engine, family: str = DATA) -> dict[bytes, bytes]:
    """All that a family holds."""
    return dict(engine.scan(b"", None, family))


@contextmanager
def reopened(engine: Engine, folder: Path) -> Iterator[Engine]:
    """The copy in `folder`, opened by the kind of engine that made it."""
    copy = opened(engine.name, folder)
    try:
        yield copy
    finally:
        copy.close()


def test_copy_has_every_write_of_every_family(persistent: Engine, tmp_path: Path) -> None:
    """What was flushed long ago and what is only in the log; deletes too. Later writes reach neither the other."""
    put(persistent, b"old", b"gone")
    persistent.compact(b"", b"\xff")
    persistent.write([(family, b"new", family.encode()) for family in FAMILIES])
    persistent.write([(DATA, b"gone", None), (DATA, b"large", bytes(3_000_000))])
    folder = tmp_path / "copy"
    persistent.checkpoint(str(folder))
    put(persistent, b"later")
    with reopened(persistent, folder) as copy:
        assert pairs(copy) == {b"old": b"v", b"new": DATA.encode(), b"large": bytes(3_000_000)}
        assert [copy.get(b"new", family) for family in FAMILIES] == [family.encode() for family in FAMILIES]
        put(copy, b"elsewhere")
    assert persistent.get(b"elsewhere") is None
    assert persistent.get(b"later") == b"v"


def test_copy_outlives_the_original(persistent: Engine, tmp_path: Path) -> None:
    """The original may compact its files away, and write over everything."""
    persistent.write([(DATA, b"%05d" % number, b"first") for number in range(1000)])
    persistent.checkpoint(str(tmp_path / "copy"))
    persistent.write([(DATA, b"%05d" % number, b"second") for number in range(1000)])
    persistent.compact(b"", b"\xff")
    with reopened(persistent, tmp_path / "copy") as copy:
        assert set(pairs(copy).values()) == {b"first"}
        assert len(pairs(copy)) == 1000


def test_copies_under_load_are_consistent(persistent: Engine, tmp_path: Path) -> None:
    """Each holds exactly one of the batches, in both families, and none older than what had returned before."""
    keys = [b"%04d" % number for number in range(200)]
    done = threading.Event()
    written = [0]

    def flip() -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            try:
                persistent.write([(family, key, b"%d" % turn) for key in keys for family in (DATA, EXPIRY)])
            except WriteStalled:
                continue
            written[0] = turn

    persistent.write([(family, key, b"0") for key in keys for family in (DATA, EXPIRY)])
    writer = threading.Thread(target=flip)
    writer.start()
    least = []
    try:
        for number in range(COPIES):
            least.append(written[0])
            persistent.checkpoint(str(tmp_path / f"copy{number}"))
            before = written[0]
            while written[0] == before and writer.is_alive():
                done.wait(0.001)
    finally:
        done.set()
        writer.join()
    turns = []
    for number in range(COPIES):
        with reopened(persistent, tmp_path / f"copy{number}") as copy:
            values = [*pairs(copy).values(), *pairs(copy, EXPIRY).values()]
        assert len(values) == 2 * len(keys)
        assert len(set(values)) == 1
        turns.append(int(values[0]))
    assert all(turn >= known for turn, known in zip(turns, least)), (turns, least)
    assert len(set(turns)) == COPIES


def test_reads_and_writes_go_on(persistent: Engine, tmp_path: Path) -> None:
    """Other threads get their turns while a memtable of 32 MiB is flushed and copied."""
    for number in range(32):
        put(persistent, b"%d" % number, value=os.urandom(1 << 20))
    turns: list[bytes | None] = []
    made = threading.Event()

    def read() -> None:
        while not made.is_set():
            turns.append(persistent.get(b"1"))
            made.wait(0.001)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        before = len(turns)
        persistent.checkpoint(str(tmp_path / "copy"))
        during = len(turns) - before
    finally:
        made.set()
        reader.join()
    assert during >= 3


def test_closed_engine_refuses(persistent: Any, tmp_path: Path) -> None:
    """As every other call does, and nothing is left behind."""
    persistent.close()
    with pytest.raises(Unavailable, match="the storage is closed"):
        persistent.checkpoint(str(tmp_path / "copy"))
    assert [path.name for path in tmp_path.iterdir() if path.name != "data"] == []


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_what_is_there_is_left_alone(persistent: Engine, tmp_path: Path, kind: str) -> None:
    """Whatever stands at the copy's name is neither used nor removed."""
    target = tmp_path / "copy"
    if kind == "folder":
        target.mkdir()
        (target / "mine").write_text("x")
    elif kind == "file":
        target.write_text("x")
    else:
        target.symlink_to(tmp_path / "nowhere")
    put(persistent, b"k")
    with pytest.raises(StorageError, match="there is something already"):
        persistent.checkpoint(str(target))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "data"]
    if kind == "folder":
        assert (target / "mine").read_text() == "x"


@pytest.mark.parametrize("name", PERSISTENT)
def test_failure_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    """Not in the folder, not beside it, and the error that is kept does not keep the database open."""
    engine = opened(name, tmp_path / "data")
    put(engine, b"k")
    (tmp_path / "file").write_text("")
    kept: list[KvError] = []
    for place in ("file/copy", "nowhere/deep/copy"):
        with pytest.raises(StorageError) as failed:
            engine.checkpoint(str(tmp_path / place))
        kept.append(failed.value)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "nowhere") == ["data", "file"]
    engine.checkpoint(str(tmp_path / "copy"))
    engine.close()
    opened(name, tmp_path / "data").close()
    assert len(kept) == 2


def test_leftovers_of_a_crash_do_no_harm(persistent: Engine, tmp_path: Path) -> None:
    """What an earlier copy left in its temporary folder is replaced; a copy within the data folder is left alone."""
    put(persistent, b"k")
    for folder in (tmp_path / "copy.tmp", tmp_path / "data" / "copy"):
        folder.mkdir()
        (folder / "MANIFEST-000001").write_text("rubbish")
    persistent.checkpoint(str(tmp_path / "copy"))
    assert not (tmp_path / "copy.tmp").exists()
    with reopened(persistent, tmp_path / "copy") as copy:
        assert pairs(copy) == {b"k": b"v"}
    persistent.compact(b"", b"\xff")
    assert (tmp_path / "data" / "copy" / "MANIFEST-000001").read_text() == "rubbish"


@pytest.mark.skipif("rocksdict" not in PERSISTENT, reason="rocksdict is not installed")
def test_rocksdict_copies_by_links(tmp_path: Path) -> None:
    """The large files are the same ones, so a copy costs next to no space."""
    engine = opened("rocksdict", tmp_path / "data")
    put(engine, b"k", value=os.urandom(1 << 20))
    engine.checkpoint(str(tmp_path / "copy"))
    tables = list((tmp_path / "copy").glob("*.sst"))
    assert tables
    assert all(table.samefile(tmp_path / "data" / table.name) for table in tables)
    assert engine.copies == 0
    engine.close()


@pytest.mark.skipif("rocksdict" not in PERSISTENT, reason="rocksdict is not installed")
def test_rocksdict_gives_up_when_compaction_does_not_catch_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With Python's lock in hand RocksDB would wait for it; so the engine waits itself, and not for ever."""
    monkeypatch.setattr("kvtwisted.backends.local.engines.rocksdict_engine._CALM_PATIENCE", 0.2)
    triggers = {"level0_file_num_compaction_trigger": 900, "level0_slowdown_writes_trigger": 900}
    path = tmp_path / "data"
    engine = opened("rocksdict", path, **triggers, level0_stop_writes_trigger=900)
    for number in range(3):
        put(engine, b"k", value=b"%d" % number)
        engine.checkpoint(str(tmp_path / f"copy{number}"))
    engine.close()
    few = {"level0_file_num_compaction_trigger": 4, "level0_slowdown_writes_trigger": 4}
    engine = opened("rocksdict", path, **few, level0_stop_writes_trigger=36)
    with pytest.raises(WriteStalled, match="does not catch up"):
        engine.checkpoint(str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()
    engine.compact(b"", b"\xff")
    engine.checkpoint(str(tmp_path / "copy"))
    engine.close()


if "lbry" in PERSISTENT:

    def test_lbry_asks_for_room_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its copy is made twice; a disk without room for that is not filled up first."""
        engine = opened("lbry", tmp_path / "data")
        put(engine, b"k", value=os.urandom(1 << 20))
        usage = type("Usage", (), {"free": 1 << 20})
        monkeypatch.setattr("kvtwisted.backends.local.engines.lbry_engine.shutil.disk_usage", lambda path: usage)
        with pytest.raises(StorageFull, match="1048576 are free"):
            engine.checkpoint(str(tmp_path / "copy"))
        assert [path.name for path in tmp_path.iterdir()] == ["data"]
        engine.close()
