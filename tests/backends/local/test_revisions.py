"""Revisions: each commit has one that is greater than all before it, whatever happens in between."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from kvtwisted.backends.local import revisions
from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.engines.engine import META
from kvtwisted.backends.local.revisions import Revisions
from kvtwisted.backends.local.write import Write
from kvtwisted.backends.local.writer import Writer
from kvtwisted.commands.delete import Delete
from kvtwisted.commands.mdelete import MDelete
from kvtwisted.commands.mset import MSet
from kvtwisted.commands.mutations import AddNumber
from kvtwisted.commands.set import Set
from kvtwisted.core.errors import Corruption, KvError, LostFolder, StorageError, WriteStalled
from kvtwisted.core.options import EngineOptions

from ...support.doors import Doorway
from ...support.engines import FaultyEngine, memory_engine
from ...support.storage import Storage
from .engines.support import PERSISTENT, opened, python
from .maintenance.evictions import Scene


def set_back() -> int:
    """A wall clock that stands in 1970, so that the reservation has to do without it."""
    return 0


class Keeping(FaultyEngine):
    """An engine in memory that has later runs."""

    is_persistent = True  # type: ignore[assignment]


@pytest.fixture
def keeping() -> Keeping:
    """An empty one."""
    return Keeping(open_engine("memory", "", EngineOptions()))


def methods(engine: FaultyEngine) -> list[str]:
    """What was asked of it, without reading."""
    return [call.method for call in engine.calls if call.method in ("write", "sync")]


def test_each_command_has_one(storage: Storage) -> None:
    """Batches have one for all their keys, deletions too; commands that share a batch of the engine have their own."""
    store, before = storage.store, storage.store.revision
    commands = [Set(b"a", b"1"), MSet({b"b": b"2", b"c": b"3"}, ttl=10), Delete(b"a"), MDelete([b"b", b"none"])]
    writes = [store.prepare(command) for command in commands]
    assert [write.revision for write in writes] == [0] * 4
    storage.writer.write_all(writes[:3])
    assert store.revision == before + 3
    assert storage.writer.try_now(writes[3:])
    assert [write.revision for write in writes] == [before + number for number in (1, 2, 3, 4)]
    assert store.revision == before + 4


@pytest.mark.parametrize("durable", [False, True])
def test_threads_and_groups(durable: bool) -> None:
    """Each has its own, each thread's grow, and what a key holds at the end is of the greatest."""
    storage = Storage(durable=durable)
    made: list[list[Write]] = [[] for _ in range(4)]

    def write(number: int) -> None:
        for turn in range(100):
            group = [Write([(b"shared", b"%d %d %d" % (number, turn, at), 0)]) for at in range(1 + turn % 3)]
            storage.writer.write_all(group)
            made[number] += group

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for writes in made:
        assert [write.revision for write in writes] == sorted(write.revision for write in writes)
    everything = sorted((write.revision, write) for writes in made for write in writes)
    assert len({revision for revision, _ in everything}) == len(everything) == 4 * (100 + 99)
    last, write = everything[-1]
    assert last == storage.store.revision
    assert storage.value(b"shared") == write.changes[0][1]


@pytest.mark.parametrize("error", [StorageError("broke"), WriteStalled("stalled")])
def test_what_did_not_go_in_has_none(storage: Storage, error: KvError) -> None:
    """Neither a failed write nor one that is stalled or refused."""
    before = storage.store.revision
    storage.engine.fail("write", error)
    write = Write([(b"k", b"v", 0)], deadline=0)
    storage.writer.write_all([write])
    storage.engine.heal("write")
    storage.writer.commits.refusal = "gone"
    refused = Write([(b"k", b"v", 0)])
    storage.writer.write_all([refused])
    assert isinstance(refused.error, LostFolder)
    assert (write.revision, refused.revision, storage.store.revision) == (0, 0, before)


def test_a_revision_is_told_once_it_can_be_read(storage: Storage) -> None:
    """Whoever asks for the revision and reads after that sees all up to it: it grows when the write is in."""
    during: list[int] = []
    before = storage.store.revision
    storage.engine.before("write", lambda: during.append(storage.store.revision))
    storage.store.set(b"k", b"v")
    assert (during, storage.store.revision) == ([before], before + 1)


def test_expiry_and_eviction_have_one_a_batch() -> None:
    """One for all that goes together; none for what changes no key of a user."""
    scene = Scene()
    storage = scene.storage
    scene.put(b"a", b"b", ttl=1)
    scene.put(b"c", b"d", b"e")
    before = storage.store.revision
    storage.time.advance(2000)
    assert len(storage.sweeper.sweep(100).deleted) == 2
    assert storage.store.revision == before + 1
    scene.run(200, size=2)
    assert len(scene.left) == 1
    assert storage.store.revision == before + 2
    storage.store.set(b"again", b"v", ttl=1)
    storage.store.set(b"again", b"v")
    storage.time.advance(2000)
    assert len(storage.index()) == 1
    storage.store.metadata.mark_clock()
    assert storage.sweeper.sweep(100).deleted == storage.index() == []
    storage.scrub.turn()
    assert storage.store.revision == before + 4


# Over restarts.


def test_a_reservation_is_durable_before_any_is_given(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """One fsync for so many, taken by who may wait: the reactor thread is refused what would have to."""
    monkeypatch.setattr(revisions, "RESERVED", 2)
    writer = Writer(keeping)
    start = writer.commits.revisions.last
    assert methods(keeping) == []
    write = Write([(b"0", b"", 0)])
    assert not writer.try_now([write])
    writer.write_all([write])
    assert methods(keeping) == ["write", "sync", "write"]
    assert int(keeping.get(b"revision", META) or b"") == start + 3
    assert writer.try_now([Write([(b"1", b"", 0)]), Write([(b"2", b"", 0)])])
    assert not writer.try_now([Write([(b"3", b"", 0)])])
    writer.write([(b"3", b"", 0)])
    assert methods(keeping) == ["write", "sync", "write", "write", "write", "sync", "write"]
    assert writer.commits.revisions.last == start + 4


def test_decisions_that_came_together_wait_for_it_elsewhere(keeping: Keeping) -> None:
    """How many of them will change something is not known before: they may all."""
    doorway = Doorway(Storage(keeping))
    told: list[Any] = []
    deciding = doorway.session.gather_decisions("waiter", 60, lambda _, tokens, results: told.extend(results))
    assert deciding is not None
    deciding.mutations += [AddNumber(b"k", 1), AddNumber(b"k", 2)]
    deciding.conditions += [None, None]
    deciding.tokens += [1, 2]
    keeping.calls.clear()
    doorway.reactor.turn()
    assert methods(keeping) == []
    doorway.run()
    assert methods(keeping) == ["write", "sync", "write"]
    assert [outcome.only.value for outcome in told] == [1, 3]


@pytest.mark.parametrize("method", ["write", "sync"])
def test_without_a_reservation_nothing_goes_in(keeping: Keeping, method: str) -> None:
    """A write that would need one fails as the reservation does; a later one tries again."""
    keeping.fail(method, StorageError("broke"), times=1)
    writer = Writer(keeping)
    start = writer.commits.revisions.last
    with pytest.raises(StorageError, match="broke"):
        writer.write([(b"k", b"v", 0)])
    assert keeping.get(b"k") is None
    assert writer.commits.revisions.last == start
    writer.write([(b"k", b"v", 0)])
    assert writer.commits.revisions.last == start + 1


def test_deletions_reserve_too(keeping: Keeping) -> None:
    """A sweep may be the first thing that a run commits."""
    Writer(keeping).write([(b"k", b"v", 0)])
    writer = Writer(keeping)
    start = writer.commits.revisions.last
    keeping.calls.clear()
    with writer.commits.guards.keys([b"k"]) as guard:
        assert writer.commits.delete_guarded(guard, {b"k": ()}) == [b"k"]
    assert methods(keeping) == ["write", "sync", "write"]
    assert writer.commits.revisions.last == start + 1


def test_each_run_goes_on_above_the_last(keeping: Keeping) -> None:
    """Above what was reserved when the clock was set back; above the time when what is stored is older."""
    writer = Writer(keeping)
    writer.write([(b"k", b"v", 0)])
    assert Revisions(keeping, set_back).last > writer.commits.revisions.last
    later_us = writer.commits.revisions.last + 10 * revisions.RESERVED
    assert Revisions(keeping, lambda: later_us * 1000).last == later_us
    assert Revisions(memory_engine(), lambda: later_us * 1000).last == later_us


def test_a_clock_that_is_far_ahead_is_not_believed(keeping: Keeping) -> None:
    """Numbers stay such that JSON can tell them exactly."""
    assert Revisions(keeping, lambda: 9_000_000_000_000_000_000).last == 0


def test_a_reservation_that_nobody_can_read(keeping: Keeping) -> None:
    """Is damage: what was given before is not known."""
    keeping.write([(META, b"revision", b"many")])
    with pytest.raises(Corruption, match="the data folder's revision is b'many', which is no number"):
        Writer(keeping)


WRITER = """
import sys
from kvtwisted.backends.local import revisions
from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.write import Write
from kvtwisted.backends.local.writer import Writer
from kvtwisted.core.options import EngineOptions

revisions.RESERVED = 5
writer = Writer(open_engine(sys.argv[1], sys.argv[2], EngineOptions()))
while True:
    write = Write([(b"k", b"v", 0)])
    writer.write_all([write])
    print(write.revision, flush=True)
"""


@pytest.mark.parametrize("name", PERSISTENT)
def test_kill_9(name: str, tmp_path: Path) -> None:
    """A real process that is killed while it writes, and a clock set back after that."""
    with python(WRITER, name, str(tmp_path)) as child:
        assert child.stdout is not None
        given = [int(next(child.stdout)) for _ in range(23)]
        child.send_signal(signal.SIGKILL)
        given += [int(line) for line in child.stdout if line.endswith("\n")]
    assert given == list(range(given[0], given[0] + len(given)))
    engine = opened(name, tmp_path)
    try:
        assert Revisions(engine, set_back).last >= given[-1]
    finally:
        engine.close()
