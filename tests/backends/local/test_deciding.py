"""Decisions and their writes are one step: what is told of where, and what a decision does when others write."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kvtwisted.backends.local import apart
from kvtwisted.backends.local.deciding_write import NOW_BYTES, NOW_BYTES_OF_A_BATCH, DecidingWrite
from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.engines.engine import DATA
from kvtwisted.backends.local.index_entries import IndexEntries
from kvtwisted.backends.local.write import Write
from kvtwisted.commands import conditions
from kvtwisted.commands.command import WriteCommand
from kvtwisted.commands.conditional import ConditionalDelete, ConditionalSet, Increment, Touch
from kvtwisted.commands.conditions import Condition, etag_of
from kvtwisted.commands.deciding import DecidingCommand
from kvtwisted.commands.delete import Delete
from kvtwisted.commands.mset import MSet
from kvtwisted.commands.mutations import AddNumber, DeleteKey, SetValue, TouchKey
from kvtwisted.commands.set import Set
from kvtwisted.commands.sets import Sets
from kvtwisted.commands.transact import Transact
from kvtwisted.core.errors import (
    Corruption,
    DeadlineExceeded,
    LostFolder,
    NearlyFull,
    NotANumber,
    Overloaded,
    StorageError,
    TooLarge,
    WriteStalled,
)
from kvtwisted.core.options import EngineOptions

from ...support.doors import Doorway, Outcome
from ...support.engines import FaultyEngine
from ...support.storage import Storage
from .engines.support import PERSISTENT, opened, python

ABSENT, PRESENT = Condition(conditions.Test.ABSENT), Condition(conditions.Test.PRESENT)
KEY = b"k"


def is_value(value: bytes) -> Condition:
    """The key has this value."""
    return Condition(conditions.Test.VALUE, value)


def set_if(condition: Condition, value: bytes = b"v", key: bytes = KEY, ttl: int = 0) -> ConditionalSet:
    """A Set under condition."""
    return ConditionalSet(SetValue(key, value, ttl), condition)


def add(delta: int = 1, key: bytes = KEY, ttl: int = 0) -> Increment:
    """An Increment."""
    return Increment(AddNumber(key, delta, ttl))


def touch(ttl: int, condition: Condition | None = None, key: bytes = KEY) -> Touch:
    """A Touch."""
    return Touch(TouchKey(key, ttl), condition)


@pytest.fixture
def doorway() -> Doorway:
    """A door to an empty store with a hot cache."""
    return Doorway(Storage(cache_bytes=1 << 20))


def submitted(doorway: Doorway, *commands: WriteCommand) -> list[Outcome]:
    """All of these, in one turn that has begun."""
    outcomes = [doorway.submit(command) for command in commands]
    doorway.storage.engine.calls.clear()
    doorway.reactor.turn()
    return outcomes


def numbers(outcomes: list[Outcome]) -> list[int]:
    """What Increments answered."""
    return [outcome.result().only.value for outcome in outcomes]


# One turn.


def test_each_sees_those_before_it(doorway: Doorway) -> None:
    """In one batch of the engine, with plain commands between; each that wrote has a revision of its own, in order."""
    start = doorway.storage.store.revision
    outcomes = submitted(
        doorway,
        add(),  # 1
        Set(KEY, b"10"),
        add(),  # 11
        set_if(is_value(b"10")),  # not any more
        set_if(is_value(b"11"), b"20"),
        MSet({KEY: b"30", b"l": b"5"}),
        add(key=b"l"),  # 6
        Delete(KEY),
        add(5),  # 5
        ConditionalDelete(DeleteKey(b"l"), PRESENT),
        set_if(ABSENT, b"new", b"l"),
    )
    assert doorway.pool.waiting == 0
    assert len(doorway.storage.engine.called("write")) == 1
    assert doorway.storage.data() == {KEY: b"5", b"l": b"new"}
    assert [outcomes[number].result().only.value for number in (0, 2, 6, 8)] == [1, 11, 6, 5]
    failed = outcomes[3].result()
    assert (failed.failed_check, failed.etag, failed.revision) == (1, etag_of(b"11"), 0)
    revisions = [outcomes[number].result().revision - start for number in (0, 2, 4, 6, 8, 9, 10)]
    assert revisions == [1, 3, 4, 6, 8, 9, 10]
    assert doorway.storage.store.revision == start + 10


def test_sets_that_went_together_are_seen(doorway: Doorway) -> None:
    """Those that gathered before it, whoever they are of; and it is seen by none of them."""
    told: list[Any] = []
    sets = doorway.session.gather("waiter", 60, lambda waiter, tokens, error: told.append((tokens, error)))
    assert isinstance(sets, Sets)
    for number in (1, 2, 3):
        sets.keys.append(KEY)
        sets.values.append(b"%d" % number)
        sets.tokens.append(number)
    (outcome,) = submitted(doorway, add(10))
    assert outcome.result().only.value == 13
    assert told == [([1, 2, 3], None)]
    assert doorway.storage.data() == {KEY: b"13"}


def test_what_cannot_be_done_disturbs_nobody(doorway: Doorway) -> None:
    """Errors, and conditions that do not hold, beside others of the same batch."""
    doorway.storage.store.set(b"text", b"text")
    outcomes = submitted(
        doorway,
        Set(b"a", b"1"),
        add(key=b"text"),
        set_if(PRESENT, key=b"none"),
        Transact([(b"a", is_value(b"1"))], [SetValue(b"b", b"2"), AddNumber(b"text", 1)]),
        Transact([(b"a", is_value(b"1")), (b"text", ABSENT)], [SetValue(b"b", b"2")]),
        Set(b"c", b"3"),
    )
    for number, message in ((1, "key: the value is not"), (3, r"mutations\[1\].increment.key: the value is not")):
        with pytest.raises(NotANumber, match=message):
            outcomes[number].result()
    assert [outcomes[number].result().failed_check for number in (2, 4)] == [1, 2]
    assert outcomes[4].result().etag == etag_of(b"text")
    assert doorway.storage.data() == {b"a": b"1", b"c": b"3", b"text": b"text"}
    assert len(doorway.storage.engine.called("write")) == 1


def test_nothing_to_write_writes_nothing(doorway: Doorway) -> None:
    """A turn of conditions that do not hold asks nothing of the engine, and needs no revision."""
    start = doorway.storage.store.revision
    outcomes = submitted(doorway, set_if(PRESENT), touch(5), Transact([(KEY, ABSENT)], []))
    assert [outcome.result().failed_check for outcome in outcomes] == [1, 0, 0]
    assert doorway.storage.engine.called("write") == []
    assert doorway.storage.store.revision == start


def test_what_was_seen_fails_with_what_it_saw(doorway: Doorway) -> None:
    """The engine fails the batch: who was told of a change in it does not know; who was not, does."""
    doorway.storage.store.set(b"there", b"")
    doorway.storage.engine.fail("write", StorageError("broke"), times=1)
    outcomes = submitted(
        doorway, add(), set_if(ABSENT), add(key=b"there"), set_if(ABSENT, key=b"there"), add(), Set(b"x", b"")
    )
    for number in (0, 1, 4, 5):
        with pytest.raises(StorageError, match="broke"):
            outcomes[number].result()
    with pytest.raises(NotANumber):
        outcomes[2].result()
    assert outcomes[3].result().failed_check == 1
    assert doorway.storage.data() == {b"there": b""}
    assert numbers(submitted(doorway, add())) == [1]


def test_an_error_that_came_of_what_failed_fails_too(doorway: Doorway) -> None:
    """It is not a number by a Set that was never done."""
    doorway.storage.engine.fail("write", StorageError("broke"), times=1)
    outcomes = submitted(doorway, Set(KEY, b"text"), add())
    with pytest.raises(StorageError, match="broke"):
        outcomes[1].result()


def test_decided_anew_after_a_stall(doorway: Doorway) -> None:
    """What could not go in is decided again when it can: others may have written in between."""
    doorway.storage.store.set(KEY, b"1")
    doorway.storage.engine.fail("write", WriteStalled("stalled"), times=1)
    outcomes = submitted(doorway, add(), set_if(is_value(b"2"), b"5"), set_if(ABSENT))
    assert doorway.pool.waiting == 1
    doorway.storage.engine.write([(DATA, KEY, b"41")])
    doorway.storage.cache.drop(KEY)
    doorway.run()
    assert outcomes[0].result().only.value == 42
    assert [outcomes[number].result().failed_check for number in (1, 2)] == [1, 1]
    assert doorway.storage.data() == {KEY: b"42"}


def test_a_stall_longer_than_the_time(doorway: Doorway) -> None:
    """Overloaded, as with every write."""
    doorway.storage.engine.fail("write", WriteStalled("stalled"))
    hasty = add()
    hasty.deadline = time.monotonic() + 0.05
    (outcome,) = submitted(doorway, hasty)
    doorway.run()
    with pytest.raises(Overloaded, match="RocksDB has stalled writes"):
        outcome.result()


def test_durable_ones_share_an_fsync(doorway: Doorway) -> None:
    """A group waits for one; what wrote nothing needs none."""
    doorway.storage.writer.durable = True
    outcomes = submitted(doorway, add(), add(), set_if(ABSENT))
    doorway.run()
    assert numbers(outcomes[:2]) == [1, 2]
    assert outcomes[2].result().failed_check == 1
    assert len(doorway.storage.engine.called("sync")) == 1
    doorway.storage.engine.calls.clear()
    outcomes = submitted(doorway, set_if(ABSENT))
    doorway.run()
    assert outcomes[0].result().failed_check == 1
    assert doorway.storage.engine.called("sync") == []


@pytest.mark.parametrize("refused", ["nearly full", "folder"])
def test_what_refuses_writes(refused: str) -> None:
    """What stores something is refused where the disk is nearly full, and everything where the folder is lost."""
    doorway = Doorway(Storage())
    doorway.storage.store.mset({KEY: b"1", b"l": b"1"})
    writer = doorway.storage.writer

    def refuse(size: int) -> None:
        assert size > 0
        raise NearlyFull("nearly full")

    if refused == "folder":
        writer.commits.refusal = "the folder is gone"
    else:
        writer._admit = refuse
    outcomes = submitted(doorway, add(), touch(5), ConditionalDelete(DeleteKey(b"l"), PRESENT), set_if(ABSENT))
    for outcome in outcomes[:2]:
        with pytest.raises(LostFolder if refused == "folder" else NearlyFull):
            outcome.result()
    if refused == "folder":
        for outcome in outcomes[2:]:
            with pytest.raises(LostFolder, match="the folder is gone"):
                outcome.result()
    else:
        assert outcomes[2].result().revision
        assert outcomes[3].result().failed_check == 1
    assert doorway.health.reason() is None


# Where it is decided.


def test_only_what_is_small_is_told_of_at_once(doorway: Doorway) -> None:
    """Larger values, and many of them in a turn, are digested in a thread."""
    doorway.storage.store.mset({b"small": b"x" * NOW_BYTES, b"large": b"x" * (NOW_BYTES + 1)})
    outcomes = submitted(doorway, set_if(ABSENT, key=b"small"), set_if(ABSENT, key=b"large"))
    assert doorway.pool.waiting == 1
    doorway.run()
    assert [outcome.result().failed_check for outcome in outcomes] == [1, 1]
    fit = NOW_BYTES_OF_A_BATCH // NOW_BYTES
    outcomes = submitted(doorway, *[set_if(ABSENT, key=b"small") for _ in range(fit + 2)])
    assert doorway.pool.waiting == 2
    doorway.run()
    assert [outcome.result().failed_check for outcome in outcomes] == [1] * (fit + 2)


def test_what_memory_cannot_tell_is_read_in_a_thread(doorway: Doorway) -> None:
    """Its own job beside the group's; what others of the turn do is done at once."""
    doorway.storage.engine.slow = False
    doorway.storage.store.set(KEY, b"1")
    peek = doorway.storage.engine.peek
    doorway.storage.store._lookups._peek = lambda key: (False, None) if key == KEY else peek(key)
    outcomes = submitted(doorway, add(), Set(b"other", b""), add(key=b"l"))
    assert doorway.pool.waiting == 1
    assert outcomes[1].result() is None
    assert outcomes[2].result().only.value == 1
    doorway.run()
    assert outcomes[0].result().only.value == 2
    assert doorway.admission.in_flight == 0


def test_a_hot_key_is_not_looked_up(doorway: Doorway) -> None:
    """And what was looked up twice is hot."""
    for _ in range(3):
        submitted(doorway, add())
    (outcome,) = submitted(doorway, add())
    assert outcome.result().only.value == 4
    assert doorway.storage.engine.called("peek") == []


def test_a_key_that_just_expired_is_absent(doorway: Doorway) -> None:
    """It is told of in a thread, since nobody may see it again: the mark is written first."""
    doorway.storage.store.mset({KEY: b"1", b"l": b"1"}, 10)
    for condition in (PRESENT, is_value(b"1")):
        (outcome,) = submitted(doorway, touch(10, condition))
        assert outcome.result().only.found
    doorway.storage.time.advance(10_000)
    first, second = submitted(doorway, set_if(ABSENT, b"new"), set_if(PRESENT, key=b"l"))
    assert doorway.pool.waiting == 2
    assert not doorway.storage.clock.is_marked(doorway.storage.time.wall_ms)
    doorway.run()
    assert doorway.storage.clock.is_marked(doorway.storage.time.wall_ms)
    assert (first.result().failed_check, second.result().failed_check, second.result().etag) == (0, 1, "")
    # From then on at once.
    (outcome,) = submitted(doorway, add(key=b"l"))
    assert outcome.result().only == (False, 1, True)
    doorway.storage.time.step_wall(-60_000)
    doorway.storage.restart()
    assert doorway.storage.data()[KEY] == b"new"
    assert doorway.storage.clock.now_ms() >= doorway.storage.time.wall_ms + 60_000


def test_without_a_mark_reads_go_on(doorway: Doorway) -> None:
    """As long as none can be written, what has expired is told of without."""
    doorway.storage.store.set(KEY, b"1", 1)
    doorway.storage.time.advance(1000)
    doorway.storage.engine.fail("write", StorageError("broke"), times=1)
    (outcome,) = submitted(doorway, set_if(PRESENT))
    doorway.run()
    assert outcome.result().failed_check == 1


# While others write.


def slow_storage(**options: Any) -> Storage:
    """A store whose keys have to be read before one can decide."""
    storage = Storage(**options)
    storage.engine.slow = True
    return storage


def test_a_write_in_between_is_seen() -> None:
    """The key is read again when it was written after it was read."""
    storage = slow_storage()
    storage.store.set(KEY, b"1")
    storage.engine.after("get", lambda: storage.store.set(KEY, b"5"))
    assert storage.store.run(add()).only.value == 6
    storage.engine.after("get", lambda: storage.store.delete(KEY))
    assert storage.store.run(set_if(is_value(b"6"))).failed_check == 1
    assert storage.data() == {}


def test_only_what_was_told_of_counts() -> None:
    """A write to a key that the decision did not come to changes nothing about it."""
    storage = slow_storage()
    storage.store.mset({b"a": b"1", b"b": b"1"})
    storage.engine.after("get", lambda: storage.store.set(b"b", b"2"))
    storage.engine.calls.clear()
    outcome = storage.store.run(Transact([(b"a", ABSENT), (b"b", ABSENT)], [SetValue(b"c", b"")]))
    assert outcome.failed_check == 1
    assert [key for key, _ in storage.engine.called("get")] == [b"a"]


def test_in_turn_after_some_failures() -> None:
    """However often others write, it is decided: at last while they wait."""
    storage = slow_storage()
    storage.store.set(KEY, b"0")
    in_between = 0

    def write() -> None:
        nonlocal in_between
        if storage.writer.commits.lock.locked():
            return
        in_between += 1
        storage.store.set(KEY, b"%d" % (100 * in_between))
        storage.engine.after("get", write)

    storage.engine.after("get", write)
    assert storage.store.run(add()).only.value == 100 * apart.TIMES + 1
    assert in_between == apart.TIMES


def test_in_turn_reads_only_what_was_written() -> None:
    """Under the lock: the rest is remembered."""
    storage = slow_storage()
    keys = [b"%d" % number for number in range(5)]
    storage.store.mset(dict.fromkeys(keys, b"1"))

    def write() -> None:
        if not storage.writer.commits.lock.locked():
            storage.store.set(keys[-1], b"2")
            storage.engine.after("get", write)

    storage.engine.after("get", write)
    storage.engine.calls.clear()
    outcome = storage.store.run(Transact([], [AddNumber(key, 1) for key in keys]))
    assert [done.value for done in outcome.mutated] == [2, 2, 2, 2, 3]
    read = [key for key, _ in storage.engine.called("get")]
    assert [read.count(key) for key in keys] == [1, 1, 1, 1, 1 + apart.TIMES]


def test_an_expiry_in_between_is_seen() -> None:
    """What was there when it was read, and is not when it goes in, is absent."""
    storage = slow_storage()
    storage.store.set(KEY, b"1", 1)
    storage.engine.after("get", lambda: storage.time.advance(1000))
    assert storage.store.run(add()).only == (False, 1, True)
    storage.store.set(KEY, b"5", 1)
    storage.engine.after("get", lambda: storage.time.advance(1000))
    assert storage.store.run(touch(100)).only.found is False


def test_a_sweep_in_between_is_seen() -> None:
    """The sweeper's deletion counts as a write; and it does not delete what a decision has renewed."""
    storage = slow_storage()
    storage.store.set(KEY, b"1", 1)
    storage.time.advance(999)

    def sweep() -> None:
        storage.time.advance(1)
        assert storage.sweeper.sweep(10).deleted == [KEY]

    storage.engine.after("get", sweep)
    assert storage.store.run(touch(100)).only.found is False
    storage.engine.slow = False
    storage.store.set(KEY, b"1", 1)
    storage.time.advance(1000)
    storage.engine.after("get", lambda: storage.store.run(add()))
    assert storage.sweeper.sweep(10).deleted == []
    assert storage.data() == {KEY: b"1"}


def test_a_reopening_in_between_is_a_write() -> None:
    """Nobody knows then what is there: it is read again."""
    storage = slow_storage()
    storage.store.set(KEY, b"1")

    def reopen() -> None:
        storage.writer.commits.reopen()
        storage.engine.write([(DATA, KEY, b"7")])  # a write that had failed, and was in the log

    storage.engine.after("get", reopen)
    assert storage.store.run(add()).only.value == 8


def test_its_time_runs_out_while_others_write() -> None:
    """It is given up, and did nothing."""
    storage = slow_storage()
    storage.store.set(KEY, b"0")
    command = add()
    command.deadline = time.monotonic() + 60

    def write() -> None:
        storage.store.set(KEY, b"1")
        write_of.deadline = 0.0

    write_of = storage.store.prepare(command)
    storage.engine.after("get", write)
    apart.Apart(storage.writer, write_of).settle()  # type: ignore[arg-type]
    with pytest.raises(DeadlineExceeded, match="nothing was done"):
        write_of.check()
    assert storage.data() == {KEY: b"1"}


def test_a_stall_is_waited_out() -> None:
    """And what was read need not be read again."""
    storage = slow_storage()
    storage.store.set(KEY, b"1")
    storage.engine.fail("write", WriteStalled("stalled"), times=3)
    storage.engine.calls.clear()
    assert storage.store.run(add()).only.value == 2
    assert len(storage.engine.called("get")) == 1
    storage.engine.fail("write", WriteStalled("stalled"))
    hasty = add()
    hasty.deadline = time.monotonic() + 0.05
    with pytest.raises(Overloaded, match="RocksDB has stalled writes"):
        storage.store.run(hasty)


@pytest.mark.parametrize("error", [StorageError("broke"), Corruption("damaged")])
def test_what_cannot_be_read(error: StorageError) -> None:
    """Is the command's error; the server's writes are not thought to fail."""
    doorway = Doorway(Storage(), slow=True)
    doorway.storage.engine.fail("get", error, times=1)
    (outcome,) = submitted(doorway, add())
    doorway.run()
    with pytest.raises(type(error)):
        outcome.result()
    assert doorway.health.reason() is None
    doorway.storage.engine.fail("write", StorageError("no write"), times=1)
    (outcome,) = submitted(doorway, add())
    doorway.run()
    with pytest.raises(StorageError, match="no write"):
        outcome.result()
    assert "writes fail" in str(doorway.health.reason())


def test_too_much_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command is told of is in memory at once, and so bounded."""
    monkeypatch.setattr(apart, "READ_BYTES", 100)
    storage = slow_storage()
    storage.store.mset({b"a": b"x" * 50, b"b": b"x" * 51})
    with pytest.raises(TooLarge, match="more than 100 bytes in all"):
        storage.store.run(Transact([(b"a", PRESENT), (b"b", PRESENT)], []))
    assert storage.store.run(Transact([(b"a", PRESENT)], [])).failed_check == 0


def test_others_take_it_along() -> None:
    """Who has the lock commits what waits for it, decisions too."""
    storage = Storage()
    commits = storage.writer.commits
    waiting = storage.store.prepare(add())
    storage.writer._queue.append(waiting)
    # Somebody else had the lock, when another write came.
    storage.writer._queue.append(behind := Write([(KEY, b"10", 0)]))
    storage.writer._queue.append(last := storage.store.prepare(add()))
    commits.lock.acquire()
    commits.lock.release()
    batch = list(storage.writer._queue)
    storage.writer._queue.clear()
    with commits.lock:
        storage.writer._commit(batch)
    assert [write.settled for write in (waiting, behind, last)] == [True] * 3
    assert storage.data() == {KEY: b"11"}


@pytest.mark.parametrize("name", [*PERSISTENT, "memory"])
def test_many_threads(name: str, tmp_path: Path) -> None:
    """Some decide in batches that they share, some apart, while keys are swept: each number is given once."""
    storage = Storage(FaultyEngine(open_engine(name, str(tmp_path / "data"), EngineOptions())), cache_bytes=1 << 20)
    start = storage.store.revision
    given: list[tuple[int, int]] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def count(is_apart: bool) -> None:
        try:
            for number in range(150):
                write = storage.store.prepare(Transact([], [AddNumber(KEY, 1), AddNumber(b"other", 1)]))
                assert isinstance(write, DecidingWrite)
                if not is_apart or number % 10 == 0:
                    storage.writer.write_all([write])
                if not write.settled:
                    apart.Apart(storage.writer, write).settle()
                write.check()
                given.append((write.outcome.mutated[0].value, write.revision))
        except BaseException as error:
            failures.append(error)

    def sweep() -> None:
        while not done.is_set():
            storage.store.set(b"short", b"v", 1)
            storage.time.advance(1000)
            storage.sweeper.sweep(10)

    threads = [threading.Thread(target=count, args=(number % 2 == 0,)) for number in range(6)]
    sweeper = threading.Thread(target=sweep)
    for thread in (*threads, sweeper):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    sweeper.join()
    assert failures == []
    assert sorted(number for number, _ in given) == list(range(1, 901))
    # The order of the numbers is that of the revisions.
    revisions = [revision for _, revision in sorted(given)]
    assert start < revisions[0]
    assert revisions == sorted(set(revisions))
    assert [storage.value(key) for key in (KEY, b"other")] == [b"900"] * 2
    storage.engine.close()


# The expiry index.


def test_touching_leaves_nothing_behind(tmp_path: Path) -> None:
    """10,000 times, with a restart in between and a table of hints that forgets everything: one entry."""
    storage = Storage(FaultyEngine(open_engine("rocksdict", str(tmp_path / "data"), EngineOptions())))
    storage.store.mset({KEY: b"v", b"other": b"v"}, 1000)
    for number in range(10_000):
        storage.time.advance(1)
        if number == 5000:
            storage.restart()
            storage.writer.commits.index_entries = IndexEntries(1)
        storage.store.run(touch(1000 + number % 7))
        if number % 1000 == 0:
            storage.store.run(touch(1000, key=b"other"))
    assert len(storage.index()) == 2
    assert storage.writer.commits.index_entries.doubts == 0
    storage.store.run(touch(0))
    assert [key for _, key in storage.index()] == [b"other"]
    storage.store.run(Transact([], [TouchKey(b"other", 5), DeleteKey(b"other")]))
    assert storage.index() == []
    storage.engine.close()


@pytest.mark.parametrize("end", [add(0), set_if(PRESENT, b"1"), ConditionalDelete(DeleteKey(KEY), PRESENT), touch(0)])
def test_whatever_ends_a_ttl_takes_its_entry(end: DecidingCommand, each_storage: Storage) -> None:
    """After a restart, when nothing is remembered of it. An Increment keeps the ttl."""
    each_storage.store.set(KEY, b"1", 10)
    each_storage.restart()
    each_storage.store.run(end)
    assert len(each_storage.index()) == isinstance(end, Increment)


def test_what_expired_and_was_not_swept(each_storage: Storage) -> None:
    """Its entry goes with what replaces it."""
    each_storage.store.set(KEY, b"1", 10)
    each_storage.restart()
    each_storage.time.advance(10_000)
    each_storage.store.run(add(ttl=60))
    assert len(each_storage.index()) == 1
    assert each_storage.sweeper.sweep(10).deleted == []


def test_entries_within_a_batch(doorway: Doorway) -> None:
    """Each takes that of the one before it."""
    submitted(doorway, Set(KEY, b"1", 10), touch(20), touch(30), add(), Set(KEY, b"2", 40), touch(50))
    assert len(doorway.storage.index()) == 1
    submitted(doorway, touch(60), touch(0))
    assert doorway.storage.index() == []


# Real processes.

COUNTER = """
import sys
from kvtwisted.backends.local.apart import Apart
from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.store import Store
from kvtwisted.backends.local.writer import Writer
from kvtwisted.commands.conditional import Increment
from kvtwisted.commands.mutations import AddNumber
from kvtwisted.core.clock import Clock
from kvtwisted.core.options import EngineOptions

engine = open_engine(sys.argv[1], sys.argv[2], EngineOptions())
writer = Writer(engine)
store = Store(engine, writer, Clock())
while True:
    write = store.prepare(Increment(AddNumber(b"counter", 1)))
    writer.write_all([write])
    if not write.settled:
        Apart(writer, write).settle()
    write.check()
    print(write.outcome.only.value, write.revision, flush=True)
"""


@pytest.mark.parametrize("name", PERSISTENT)
def test_kill_9(name: str, tmp_path: Path) -> None:
    """A counter is never lost or given twice, whenever the process is killed."""
    given: list[tuple[int, int]] = []
    for _ in range(3):
        with python(COUNTER, name, str(tmp_path)) as child:
            assert child.stdout is not None
            told = [next(child.stdout) for _ in range(50)]
            child.send_signal(signal.SIGKILL)
            told += [line for line in child.stdout if line.endswith("\n")]
        for number, revision in (map(int, line.split()) for line in told):
            # One that was done may not have been told of.
            assert not given or (number > given[-1][0] and revision > given[-1][1])
            given.append((number, revision))
        assert given[-1][0] - given[-len(told)][0] == len(told) - 1
    engine = opened(name, tmp_path)
    try:
        assert int(engine.get(b"counter") or 0) in (given[-1][0], given[-1][0] + 1)
    finally:
        engine.close()
