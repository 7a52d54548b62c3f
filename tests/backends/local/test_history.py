"""What the history has of each way in which keys are changed: every commit, once, in order, with its revision."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest

from kvtwisted.backends.local import history
from kvtwisted.backends.local.history import Happening, History, events_of
from kvtwisted.backends.local.write import Write
from kvtwisted.commands.conditional import ConditionalSet, Increment, Touch
from kvtwisted.commands.conditions import Condition
from kvtwisted.commands.conditions import Test as Asked
from kvtwisted.commands.delete import Delete
from kvtwisted.commands.mdelete import MDelete
from kvtwisted.commands.mset import MSet
from kvtwisted.commands.mutations import AddNumber, DeleteKey, SetValue, TouchKey
from kvtwisted.commands.ranges import KeyRange, first_text
from kvtwisted.commands.set import Set
from kvtwisted.commands.transact import Transact
from kvtwisted.commands.watch import EventType
from kvtwisted.core.errors import StorageError, WriteStalled
from tests.support.storage import Storage

from .large_values import BIG
from .large_values import Scene as LargeScene
from .maintenance.evictions import Scene as EvictionScene
from .test_backend import Scene

SET, DELETE, EXPIRE, EVICT = EventType.SET, EventType.DELETE, EventType.EXPIRE, EventType.EVICT


def happened(kept: History) -> list[Happening]:
    """All events that a history has."""
    _, entries = kept.window
    return [event for entry in entries if entry is not None for event in events_of(entry)]


def of(storage: Storage) -> History:
    """Its history."""
    return storage.writer.commits.history


def by_commit(events: Iterable[Happening], first: int) -> list[list[tuple[EventType, bytes]]]:
    """Type and key of the events of each commit; their revisions are in a row from `first` on."""
    commits: list[list[tuple[EventType, bytes]]] = [[]]
    for event in events:
        assert event.revision == first + len(commits) - 1
        commits[-1].append((event.type, event.key))
        if event.is_last:
            commits.append([])
    assert commits.pop() == []
    return commits


def test_each_way_to_write(storage: Storage) -> None:
    """Sets, batches, deletions, and commands that decide: what they changed, in one commit each."""
    store, before = storage.store, storage.store.revision
    commands = [
        Set(b"a", b"1"),
        Set(b"ttl", b"1", 60),
        MSet({b"b": b"2", b"c": b"3"}, 60),
        Delete(b"a"),
        MDelete([b"b", b"none"]),
        ConditionalSet(SetValue(b"d", b"4"), Condition(Asked.ABSENT)),
        ConditionalSet(SetValue(b"d", b"5"), Condition(Asked.ABSENT)),  # fails: changes nothing
        Increment(AddNumber(b"n", 5)),
        Transact([], [SetValue(b"e", b"1"), DeleteKey(b"c"), AddNumber(b"n", 1), SetValue(b"e", b"2")]),
    ]
    for command in commands:
        store.run(command)
    assert by_commit(happened(of(storage)), before + 1) == [
        [(SET, b"a")],
        [(SET, b"ttl")],
        [(SET, b"b"), (SET, b"c")],
        [(DELETE, b"a")],
        [(DELETE, b"b"), (DELETE, b"none")],
        [(SET, b"d")],
        [(SET, b"n")],
        [(SET, b"e"), (DELETE, b"c"), (SET, b"n")],
    ]
    values = {event.key: event.value for event in happened(of(storage))}
    assert (values[b"d"], values[b"n"], values[b"e"]) == (b"4", b"6", b"2")
    expiring = [event for event in happened(of(storage)) if event.expires_at_ms]
    assert [event.key for event in expiring] == [b"ttl", b"b", b"c"]
    assert {event.expires_at_ms for event in expiring} == {storage.time.wall_ms + 60_000}
    assert of(storage).last == store.revision


def test_what_is_touched_is_there_with_its_value(storage: Storage) -> None:
    """Nothing of it is stored anew; whoever watches is told of the value and the new deadline all the same."""
    storage.store.set(b"k", b"value")
    storage.store.run(Touch(TouchKey(b"k", 30)))
    last = happened(of(storage))[-1]
    assert (last.type, last.key, last.value) == (SET, b"k", b"value")
    assert last.expires_at_ms == storage.time.wall_ms + 30_000


def test_a_large_value_is_told_as_it_is(tmp_path: Path) -> None:
    """Not as the place of its file."""
    scene = LargeScene(tmp_path / "values")
    scene.store.set(b"k", BIG)
    scene.store.run(Touch(TouchKey(b"k", 30)))
    assert [event.value for event in happened(scene.writer.commits.history)] == [BIG, BIG]


def test_commands_of_one_turn() -> None:
    """However they are put together, each is a commit of its own, also an MSet between Sets, and one of nothing."""
    scene = Scene(slow=False)
    before = scene.storage.store.revision
    scene.facade.set(b"a", b"1")
    scene.facade.mset({b"b": b"2", b"c": b"3"})
    scene.facade.set(b"a", b"4")
    scene.facade.mset({})
    scene.facade.mset({b"d": b"5", b"e": b"6", b"f": b"7"})
    scene.reactor.turn()
    scene.facade.set(b"g", b"1")
    scene.facade.set(b"h", b"1", 10)
    scene.facade.delete(b"g")
    scene.reactor.turn()
    events = [event for event in happened(of(scene.storage)) if event.key]
    assert [(event.revision - before, event.key) for event in events] == [
        (1, b"a"), (2, b"b"), (2, b"c"), (3, b"a"), (5, b"d"), (5, b"e"), (5, b"f"), (6, b"g"), (7, b"h"), (8, b"g"),
    ]  # fmt: skip


def test_expiry_and_eviction() -> None:
    """The sweeper's are EXPIRE; so are those keys that an eviction finds expired; the others it takes are EVICT."""
    scene = EvictionScene()
    storage = scene.storage
    storage.store.set(b"short", b"v", 10)
    storage.store.set(b"kept", b"v")
    storage.time.advance(11_000)
    storage.sweeper.sweep(100)
    scene.put(b"dead", ttl=5)
    scene.put(b"old1", b"old2")
    storage.time.advance(6_000)
    scene.run(250)
    removed = [(event.type, event.key) for event in happened(of(storage)) if event.type is not SET]
    assert removed[0] == (EXPIRE, b"short")
    assert (EXPIRE, b"dead") in removed
    assert {type for type, key in removed if key.startswith(b"old")} <= {EVICT}
    assert any(type is EVICT for type, _ in removed)


def test_what_failed_did_not_happen(storage: Storage) -> None:
    """Nor what was refused while the engine stalled; then it goes on with the next revision."""
    before = storage.store.revision
    storage.engine.fail("write", StorageError("broke"), times=1)
    with pytest.raises(StorageError):
        storage.store.set(b"a", b"1")
    storage.engine.fail("write", WriteStalled("stalled"), times=2)
    storage.store.set(b"b", b"1")
    assert by_commit(happened(of(storage)), before + 1) == [[(SET, b"b")]]


def test_a_reopening_begins_it_anew(storage: Storage) -> None:
    """What failed may be there now. The revision that it begins with is one that nobody knew before."""
    storage.store.set(b"a", b"1")
    before = storage.store.revision
    assert storage.writer.commits.reopen()
    kept = of(storage)
    assert happened(kept) == []
    assert kept.begin == kept.last == storage.store.revision == before + 1
    assert kept.find(before) is None
    assert kept.find(before + 1) is not None
    storage.store.set(b"b", b"1")
    assert by_commit(happened(kept), before + 2) == [[(SET, b"b")]]


def test_a_reopening_after_which_nothing_can_be_written(storage: Storage) -> None:
    """It begins anew all the same."""
    storage.store.set(b"a", b"1")
    storage.engine.fail("write", StorageError("broke"))
    storage.writer.commits.revisions.reserved = 0
    assert storage.writer.commits.reopen()
    assert happened(of(storage)) == []


def test_nothing_is_known_after_a_start(storage: Storage) -> None:
    """The history is in memory: it begins with what is there."""
    storage.store.set(b"a", b"1")
    storage.restart()
    assert happened(of(storage)) == []
    assert of(storage).begin == storage.store.revision


def test_entries_are_in_before_their_revision_is_known(storage: Storage) -> None:
    """Whoever knows a revision finds what came after it, and is not taken for one who is ahead of us."""
    commits = storage.writer.commits
    seen: list[tuple[int, int]] = []
    commits.history.wake = lambda: seen.append((commits.history.last, commits.revisions.last))
    storage.store.set(b"a", b"1")
    ((in_history, known),) = seen
    assert in_history == known + 1 == storage.store.revision


def test_it_has_no_more_bytes_than_it_may(storage: Storage) -> None:
    """The first go first; the last one stays, whatever it has."""
    kept = of(storage)
    kept.max_bytes = 20_000
    for number in range(1000):
        storage.store.set(b"k%d" % number, b"v" * 100)
        assert kept.bytes <= 20_000
    events = happened(kept)
    assert 20 < len(events) < 40
    assert events[-1].key == b"k999"
    assert kept.begin == events[0].revision - 1
    assert kept.bytes == sum(entry.size for entry in kept.window[1] if entry is not None)
    storage.store.set(b"large", b"v" * 100_000)
    assert [event.key for event in happened(kept)] == [b"large"]
    storage.store.set(b"small", b"v")
    assert [event.key for event in happened(kept)] == [b"small"]
    assert len(kept.window[1]) <= 2 * history._DROPPED + 2


@pytest.mark.parametrize("shape", ["sets", "one", "batches", "removed"])
def test_what_it_says_it_takes_is_what_it_takes(shape: str) -> None:
    """Measured, objects included, as far as the history alone keeps them."""
    kept = History(0, 1 << 30)
    chance = random.Random(5)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(2000):
            keys = [b"key%d-%d" % (number, place) for place in range({"one": 1, "batches": 50}.get(shape, 10))]
            if shape == "removed":
                kept.add_removed(EXPIRE, keys, number + 1)
                continue
            changes = [(key, bytes(chance.randrange(40)), 0) for key in keys]
            kept.add_writes([Write(changes, commits=len(keys) if shape == "sets" else 1)], number * 50)
            del changes
        del keys
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.9 * taken < kept.bytes < 1.5 * taken


def test_an_event_of_an_entry_is_found_from_anywhere() -> None:
    """Reading on from an event gives what reading all gives from there."""
    kept = History(0)
    changes = [(b"%d" % number, None if number % 3 else b"v", number) for number in range(12)]
    writes = [Write(changes[:5], commits=5), Write(changes, commits=3, parts=[2, 7, 3]), Write(()), Write(changes[:4])]
    kept.add_writes(writes, 10)
    kept.add_removed(EVICT, [b"a", b"b", b"c"], 11)
    kept.add_range(KeyRange(b"a", None), 12)
    for entry in kept.window[1]:
        assert entry is not None
        everything = list(events_of(entry))
        for start in range(len(everything) + 1):
            assert list(events_of(entry, start)) == everything[start:]
    assert [event.revision for event in happened(kept)] == [
        *[1, 2, 3, 4, 5], *[6] * 2, *[7] * 7, *[8] * 3, *[10] * 4, *[11] * 3, 12,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("bound", "text"),
    [
        (b"", b""), (b"abc", b"abc"), ("ü".encode(), "ü".encode()), (b"a\x80", "a\x80".encode()),
        (b"a\xff", b"b"), (b"\xf4\x90", None), (b"\xed\xa0\x80", "\ue000".encode()), (b"a\xc3\xc0", "a\u0100".encode()),
        (b"a\xed\x9f\xc0", "a\ue000".encode()), ("\U0010ffff".encode() + b"\xff", None), (b"\x7f\xff", b"\xc2\x80"),
    ],
)  # fmt: skip
def test_the_first_text(bound: bytes, text: bytes | None) -> None:
    """No text lies between a bound and it, and it is none itself unless it is the bound."""
    assert first_text(bound) == text
