"""Writes that share a batch: those that wait for the lock, and those that come together."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kvtwisted.backends.local.cache import Entry
from kvtwisted.backends.local.engines.engine import FILES
from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.backends.local.write import Write
from kvtwisted.backends.local.writer import Writer
from kvtwisted.core.errors import NearlyFull, StorageError, WriteStalled

from ...support.engines import FaultyEngine, memory_engine
from ...support.storage import Storage

LARGE = b"x" * 1000


@pytest.fixture
def engine() -> FaultyEngine:
    """An empty engine."""
    return memory_engine()


def sizes(engine: FaultyEngine) -> list[int]:
    """Mutations of each batch."""
    return [len(mutations) for (mutations,) in engine.called("write")]


def test_those_who_wait_for_the_lock_go_in_together(engine: FaultyEngine) -> None:
    """While one write is in the engine others queue up, and are one batch: plain ones, batches, and ones with a ttl."""
    writer = Writer(engine)
    entered, release = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert release.wait(30)

    engine.before("write", hold)
    calls = [
        lambda: writer.write([(b"first", b"1", 0)]),
        lambda: writer.write([(b"a", b"1", 0)]),
        lambda: writer.write([(b"b", b"2", 0), (b"c", b"3", 0)]),
        lambda: writer.write([(b"d", b"4", 10_000)]),
    ]
    threads = [threading.Thread(target=call) for call in calls]
    threads[0].start()
    assert entered.wait(30)
    for thread in threads[1:]:
        thread.start()
    while len(writer._queue) < 3:  # nothing outside shows who waits
        assert all(thread.is_alive() for thread in threads)
        time.sleep(0)
    release.set()
    for thread in threads:
        thread.join(30)
    assert sizes(engine) == [1, 1 + 2 + 2]
    assert [key for key, _ in engine.scan(b"", None)] == [b"a", b"b", b"c", b"d", b"first"]


def test_a_failure_is_told_to_all_who_share_it(engine: FaultyEngine) -> None:
    """And a later write is not concerned."""
    writer = Writer(engine)
    engine.fail("write", StorageError("broke"), times=1)
    together = [Write([(b"a", b"1", 0)]), Write([(b"b", b"2", 0)])]
    writer.write_all(together)
    assert [str(write.error) for write in together] == ["broke", "broke"]
    writer.write_all([later := Write([(b"c", b"3", 0)])])
    assert (later.settled, later.error) == (True, None)


def test_a_failed_fsync_is_told_to_all(engine: FaultyEngine) -> None:
    """Each of a durable group."""
    engine.fail("sync", StorageError("fsync broke"))
    together = [Write([(b"a", b"1", 0)]), Write([(b"b", b"2", 0)])]
    Writer(engine, durable=True).write_all(together)
    assert [str(write.error) for write in together] == ["fsync broke", "fsync broke"]


def test_a_refused_write_keeps_nobody_else_out(engine: FaultyEngine) -> None:
    """What is not admitted is settled with the reason; deletions are never asked about."""
    asked: list[int] = []

    def admit(size: int) -> None:
        asked.append(size)
        if size > 5:
            raise NearlyFull("too full")

    writer = Writer(engine, admit=admit)
    together = [Write([(b"a", b"12345", 0)]), Write([(b"b", b"1", 0)]), Write([(b"c", None, 0)])]
    assert writer.try_now(together)
    assert [type(write.error) for write in together] == [NearlyFull, type(None), type(None)]
    assert asked == [6, 2]
    with pytest.raises(NearlyFull):
        writer.write([(b"a", b"12345", 0)])
    assert list(engine.scan(b"", None)) == [(b"b", b"1")]


@pytest.mark.parametrize("reason", ["durable", "slow", "large", "stalled", "busy"])
def test_nothing_is_done_now_that_may_wait(engine: FaultyEngine, tmp_path: Path, reason: str) -> None:
    """An fsync, an engine that waits, a file, a stall, and another thread's write."""
    files = ValueFiles(str(tmp_path))
    files.prepare()
    writer = Writer(engine, files=files, spill_threshold=len(LARGE))
    value = LARGE if reason == "large" else b"v"
    if reason == "stalled":
        engine.fail("write", WriteStalled("stalled"), times=1)
    writer.durable = reason == "durable"
    engine.slow = reason == "slow"
    write = Write([(b"k", value, 0)])
    if reason == "busy":
        engine.before("write", lambda: refused.append(writer.try_now([write])))
        refused: list[bool] = []
        writer.write([(b"other", b"v", 0)])
        assert refused == [False]
    else:
        assert not writer.try_now([write])
    assert not write.settled
    assert engine.get(b"k") is None
    writer.write_all([write])
    assert (write.settled, write.error) == (True, None)
    assert engine.get(b"k") is not None


def test_large_values_of_one_key_in_one_batch(tmp_path: Path) -> None:
    """Each write of a group replaces the file of the one before it; the last one's stays, and the index knows it."""
    files = ValueFiles(str(tmp_path))
    storage = Storage(files=files, spill_threshold=len(LARGE))
    storage.writer.write_all([Write([(b"k", LARGE, 0)]), Write([(b"k", LARGE + b"2", 0)]), Write([(b"l", LARGE, 0)])])
    assert storage.value(b"k") == LARGE + b"2"
    assert [key for key, _ in storage.engine.scan(b"", None, FILES)] == [b"k", b"l"]
    assert len(list(tmp_path.glob("??/*"))) == 2
    storage.writer.write_all([Write([(b"k", LARGE, 0)]), Write([(b"k", b"small", 0)]), Write([(b"l", None, 0)])])
    assert storage.value(b"k") == b"small"
    assert list(storage.engine.scan(b"", None, FILES)) == []
    assert list(tmp_path.glob("??/*")) == []


def test_orphans_are_told_from_files_under_way(tmp_path: Path) -> None:
    """A collection in the middle of a write, and in the middle of a replacement, takes nothing that is needed."""
    files = ValueFiles(str(tmp_path))
    storage = Storage(files=files, spill_threshold=len(LARGE))
    collected = []
    for value in (LARGE, LARGE + b"2"):
        storage.engine.before("sync", lambda: collected.append(storage.writer.commits.file_index.collect_orphans()))
        storage.store.set(b"k", value)
        assert storage.value(b"k") == value
    assert [found.files for found in collected] == [0, 0]
    (tmp_path / "ab" / ("ab" * 16)).write_bytes(b"nobody's")
    assert storage.writer.commits.file_index.collect_orphans() == (1, 8)


def test_a_value_that_was_overwritten_in_its_batch_is_never_seen(engine: FaultyEngine) -> None:
    """Of several writes of one key in a batch only the last one's value is ever hot."""
    storage = Storage(engine, cache_bytes=1 << 20)
    shown: list[bytes] = []

    class Watched(Entry):
        def __setattr__(self, name: str, value: Any) -> None:
            if name == "answer" and value is not None:
                shown.append(value.value)
            super().__setattr__(name, value)

    storage.writer.commits.offer(storage.writer.commits.version, b"k", b"0", 0)
    entry = Watched()
    entry.cost = storage.cache.entries[b"k"].cost
    storage.cache.entries[b"k"] = entry
    storage.writer.write_all([Write([(b"k", b"1", 0)]), Write([(b"k", b"2", 0)])])
    assert shown == [b"2"]
    storage.writer.write_all([Write([(b"k", b"3", 0)]), Write([(b"k", None, 0)])])
    assert shown == [b"2"]
    assert b"k" not in storage.cache.entries


def test_what_was_read_is_cached_only_if_nothing_was_written(engine: FaultyEngine) -> None:
    """Not after a write, not during one, and not while another thread has the lock; a later reader's turn comes."""
    storage = Storage(engine, cache_bytes=1 << 20)
    writer, cached = storage.writer, storage.cache.entries
    before = writer.commits.version
    writer.write([(b"other", b"1", 0)])
    writer.commits.offer(before, b"k", b"old", 0)
    assert b"k" not in cached
    during: list[int] = []
    engine.before("write", lambda: during.append(writer.commits.version))
    writer.write([(b"other", b"2", 0)])
    assert during[0] % 2 == 1
    writer.commits.offer(during[0], b"k", b"old", 0)
    assert b"k" not in cached
    engine.before("write", lambda: writer.commits.offer(writer.commits.version - 1, b"k", b"old", 0))
    writer.write([(b"other", b"3", 0)])
    assert b"k" not in cached
    writer.commits.offer(writer.commits.version, b"k", b"new", 0)
    assert b"k" in cached
