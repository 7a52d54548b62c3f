"""Writes: durability, patience with stalls, and deletions that give way."""

from __future__ import annotations

import math
import random
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from kvtwisted.backends.local import writer as writer_module
from kvtwisted.backends.local.engines.engine import DATA, EXPIRY
from kvtwisted.backends.local.writer import Writer
from kvtwisted.core.errors import NearlyFull, Overloaded, StorageError, WriteStalled

from ...support.clocks import ScriptedTime
from ...support.engines import FaultyEngine, memory_engine

PUT = [(b"k", b"v", 0)]


@pytest.fixture
def engine() -> FaultyEngine:
    """An empty engine."""
    return memory_engine()


def test_write_reaches_the_engine_once(engine: FaultyEngine) -> None:
    """One batch, no fsync."""
    Writer(engine).write(PUT, math.inf)
    assert [call.method for call in engine.calls] == ["write"]
    assert engine.get(b"k") == b"v"


def test_durable_write_syncs_after_the_batch(engine: FaultyEngine) -> None:
    """One fsync for each write, after it."""
    writer = Writer(engine, durable=True)
    writer.write(PUT, math.inf)
    writer.write(PUT * 3, math.inf)
    assert [call.method for call in engine.calls] == ["write", "sync", "write", "sync"]


def test_fsync_is_not_for_what_came_after_it_began(engine: FaultyEngine) -> None:
    """A write that comes in during an fsync waits for the next one."""
    writer = Writer(engine)
    writer.write([(b"k", b"v", 0)])
    engine.before("sync", lambda: writer.write([(b"l", b"v", 0)]))
    writer.commits.sync()
    writer.commits.sync()
    assert len(engine.called("sync")) == 2
    writer.commits.sync()
    assert len(engine.called("sync")) == 2


def test_a_write_is_admitted(engine: FaultyEngine) -> None:
    """It may be refused, by its bytes; nothing is written."""

    def admit(size: int) -> None:
        raise NearlyFull(f"{size} bytes are too many")

    with pytest.raises(NearlyFull, match="3 bytes are too many"):
        Writer(engine, admit=admit).write([(b"k", b"vv", 0)])
    assert engine.calls == []


def test_durability_may_be_changed(engine: FaultyEngine) -> None:
    """`durable` holds for the next write."""
    writer = Writer(engine)
    writer.durable = True
    writer.write(PUT, math.inf)
    writer.durable = False
    writer.write(PUT, math.inf)
    assert [call.method for call in engine.calls] == ["write", "sync", "write"]


def test_failed_fsync_is_raised(engine: FaultyEngine) -> None:
    """The caller is told when the fsync fails."""
    engine.fail("sync", StorageError("fsync broke"))
    with pytest.raises(StorageError, match="fsync broke"):
        Writer(engine, durable=True).write(PUT, math.inf)


def test_failed_write_is_raised_and_not_synced(engine: FaultyEngine) -> None:
    """Any failure but a stall is raised at once."""
    engine.fail("write", StorageError("disk broke"))
    with pytest.raises(StorageError, match="disk broke"):
        Writer(engine, durable=True).write(PUT, math.inf)
    assert [call.method for call in engine.calls] == ["write"]


def test_stall_is_waited_out_with_growing_pauses(engine: FaultyEngine) -> None:
    """A stalled write is tried again after 1 ms, then twice as long, up to 50 ms; it is synced once."""
    pauses: list[float] = []
    engine.fail("write", WriteStalled("stalled"), times=8)
    Writer(engine, durable=True, sleep=pauses.append).write(PUT, math.inf)
    assert pauses == [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05]
    assert engine.get(b"k") == b"v"
    assert len(engine.called("sync")) == 1


def test_stall_past_the_deadline(engine: FaultyEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that would wait past its deadline is refused; nothing was written, nothing synced."""
    # The first look allows a pause of 1 ms, the second one no longer one of 2 ms.
    monkeypatch.setattr(writer_module, "time", ScriptedTime(100.0, 100.0495))
    pauses: list[float] = []
    engine.fail("write", WriteStalled("stalled"))
    with pytest.raises(Overloaded, match="RocksDB has stalled writes until compaction catches up; try again"):
        Writer(engine, durable=True, sleep=pauses.append).write(PUT, 100.05)
    assert pauses == [0.001]
    assert len(engine.called("write")) == 2
    assert engine.get(b"k") is None
    assert engine.called("sync") == []


def test_overdue_write_is_still_tried_once(engine: FaultyEngine) -> None:
    """Only waiting ends at the deadline: without a stall there is none."""
    overdue = time.monotonic() - 1
    Writer(engine).write(PUT, overdue)
    assert engine.get(b"k") == b"v"


def _remove(writer: Writer, guard: set[bytes], *keys: bytes) -> list[bytes]:
    return writer.commits.delete_guarded(guard, dict.fromkeys(keys, ()))


def test_guarded_keys_are_deleted_with_their_mutations(engine: FaultyEngine) -> None:
    """Keys, their own mutations and the others go in one batch."""
    engine.write([(DATA, b"a", b"1"), (DATA, b"b", b"2"), (EXPIRY, b"x", b""), (EXPIRY, b"y", b"")])
    writer = Writer(engine)
    before = len(engine.called("write"))
    with writer.commits.guards.keys([b"a", b"b"]) as guard:
        deleted = writer.commits.delete_guarded(guard, {b"a": [(EXPIRY, b"x", None)]}, [(EXPIRY, b"y", None)])
    assert deleted == [b"a"]
    assert list(engine.scan(b"", None)) == [(b"b", b"2")]
    assert list(engine.scan(b"", None, EXPIRY)) == []
    assert len(engine.called("write")) == before + 1


def test_rewritten_key_is_not_deleted(engine: FaultyEngine) -> None:
    """A write between judging and deleting saves the key and its mutations; the others go."""
    engine.write([(DATA, b"a", b"1"), (DATA, b"b", b"2"), (EXPIRY, b"x", b"")])
    writer = Writer(engine)
    with writer.commits.guards.keys([b"a", b"b"]) as guard:
        writer.write([(b"a", b"new", 0)], math.inf)
        assert writer.commits.delete_guarded(guard, {b"a": [(EXPIRY, b"x", None)], b"b": ()}) == [b"b"]
    assert list(engine.scan(b"", None)) == [(b"a", b"new")]
    assert list(engine.scan(b"", None, EXPIRY)) == [(b"x", b"")]


def test_deleting_nothing_writes_nothing(engine: FaultyEngine) -> None:
    """No batch is written when every key was rewritten."""
    writer = Writer(engine)
    with writer.commits.guards.keys([b"a"]) as guard:
        writer.write([(b"a", b"new", 0)], math.inf)
        before = len(engine.called("write"))
        assert _remove(writer, guard, b"a") == []
    assert len(engine.called("write")) == before


def test_every_guard_is_told(engine: FaultyEngine) -> None:
    """Two guards at once each lose the rewritten key, and an ended one is left alone."""
    writer = Writer(engine)
    with writer.commits.guards.keys([b"a", b"b"]) as first:
        with writer.commits.guards.keys([b"a", b"c"]) as second:
            writer.write([(b"a", b"1", 0)], math.inf)
        writer.write([(b"c", b"1", 0), (b"b", b"1", 0)], math.inf)
        assert (first, second) == (set(), {b"c"})


def test_guard_ends_when_its_block_fails(engine: FaultyEngine) -> None:
    """A failure in the block ends the guard too."""
    writer = Writer(engine)
    with pytest.raises(ZeroDivisionError), writer.commits.guards.keys([b"a"]) as guard:
        1 / 0  # noqa: B018
    writer.write([(b"a", b"1", 0)], math.inf)
    assert guard == {b"a"}


def test_deletion_is_told_to_other_guards(engine: FaultyEngine) -> None:
    """Who judges a key, or reads a range, at the same time learns that it has gone; the deleter's own guard stays."""
    engine.write([(DATA, b"a", b"1"), (DATA, b"b", b"2")])
    writer = Writer(engine)
    guards = writer.commits.guards
    with guards.keys([b"a", b"b"]) as own, guards.keys([b"a", b"b"]) as other, guards.range(b"", None) as written:
        assert _remove(writer, own, b"b") == [b"b"]
        assert (own, other) == ({b"a", b"b"}, {b"a"})
        assert written.untouched(b"", None, reverse=False) == b"b"


def test_stalled_deletion_does_not_wait(engine: FaultyEngine) -> None:
    """Background deletions give way to a stall at once, and nothing is deleted."""
    engine.write([(DATA, b"k", b"v")])
    writer = Writer(engine, sleep=lambda seconds: pytest.fail("it waited"))
    engine.fail("write", WriteStalled("stalled"), times=1)
    with pytest.raises(WriteStalled), writer.commits.guards.keys([b"k"]) as guard:
        _remove(writer, guard, b"k")
    assert engine.get(b"k") == b"v"


def test_waiting_for_a_stall_does_not_hold_up_others(engine: FaultyEngine) -> None:
    """While one write waits, another one gets through."""
    writer: Writer

    def sleep(seconds: float) -> None:
        engine.heal("write")
        writer.write([(b"other", b"1", 0)], math.inf)

    writer = Writer(engine, sleep=sleep)
    engine.fail("write", WriteStalled("stalled"))
    writer.write(PUT, math.inf)
    assert list(engine.scan(b"", None)) == [(b"k", b"v"), (b"other", b"1")]


@pytest.fixture
def _many_switches() -> Iterator[None]:
    """Threads take turns every few bytecodes."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_many_switches")
def test_deleter_never_takes_a_new_value(engine: FaultyEngine) -> None:
    """Threads write while another deletes what it judged old: no value written after the judgement is lost."""
    writer = Writer(engine)
    keys = [b"%d" % n for n in range(8)]
    done = threading.Event()
    lost: list[bytes] = []

    def write(seed: int) -> None:
        # Each thread has keys of its own, so that what it wrote last is known.
        choose = random.Random(seed)
        for n in range(2000):
            key = choose.choice(keys) + b"/%d" % seed
            writer.write([(key, b"old", 0)], math.inf)
            writer.write([(key, b"new %d" % n, 0)], math.inf)
            if engine.get(key) != b"new %d" % n:
                lost.append(key)

    def delete() -> None:
        everything = [key + b"/%d" % seed for key in keys for seed in range(3)]
        while not done.is_set():
            with writer.commits.guards.keys(everything) as guard:
                old = [key for key in everything if engine.get(key) == b"old"]
                _remove(writer, guard, *old)

    deleter = threading.Thread(target=delete)
    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    for thread in (deleter, *writers):
        thread.start()
    for thread in writers:
        thread.join(60)
    done.set()
    deleter.join(60)
    assert not any(thread.is_alive() for thread in (deleter, *writers))
    assert lost == []
