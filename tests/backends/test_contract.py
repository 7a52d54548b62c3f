"""What the port promises, over every backend: each through a door, as it will be used, and some by itself."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import pytest

from kvtwisted.commands import conditions
from kvtwisted.commands.command import ENTRY_OVERHEAD, Command
from kvtwisted.commands.conditional import ConditionalDelete, ConditionalSet, Increment, Touch
from kvtwisted.commands.conditions import Condition, etag_of
from kvtwisted.commands.deciding import Mutated
from kvtwisted.commands.deciding import Outcome as Decided
from kvtwisted.commands.delete import Delete
from kvtwisted.commands.delete_range import DeleteRange
from kvtwisted.commands.get import Found, Get
from kvtwisted.commands.mdelete import MDelete
from kvtwisted.commands.mget import MGet
from kvtwisted.commands.mset import MSet
from kvtwisted.commands.mutations import HIGHEST, AddNumber, DeleteKey, SetValue, TouchKey
from kvtwisted.commands.scan import Scan
from kvtwisted.commands.set import Set
from kvtwisted.commands.transact import Transact
from kvtwisted.core.errors import (
    DeadlineExceeded,
    InvalidKey,
    KvError,
    NotANumber,
    NumberOverflow,
    ResponseTooLarge,
    StorageError,
    TooLarge,
    Unavailable,
)
from kvtwisted.core.limits import MAX_KEY_BYTES, MAX_VALUE_BYTES, Limits
from tests.support.doors import Blocking, Doorway, Outcome
from tests.support.pages import page_of
from tests.support.storage import PLENTY

#: Says that these tests run over every backend at every change.
BACKENDS_DIFFER = True

KEY, VALUE = b"k", b"v"
ABSENT = conditions.Test.ABSENT


@pytest.fixture(params=[False, True], ids=["", "slow"])
def doorway(request: pytest.FixtureRequest) -> Doorway:
    """A door to an empty backend; the local one also with an engine that may block."""
    return Doorway(slow=request.param)


@pytest.fixture
def client(doorway: Doorway) -> Blocking:
    """Waits for each command."""
    return doorway.blocking()


@pytest.mark.parametrize(
    "value", [b"\xff", b"\xff\x01\x00", b"\x80", b"a\xff", b"\xff" * 300, b"\xff" * MAX_VALUE_BYTES]
)
@pytest.mark.parametrize("ttl", [0, 9])
def test_values_are_any_bytes(client: Blocking, value: bytes, ttl: int) -> None:
    """Also those that no text begins with; by themselves, in a batch, and among others of a turn."""
    client.set(b"a", value, ttl)
    client.mset({b"b": b"text", b"c": value}, ttl)
    assert client.get(b"a") == client.get(b"c") == Found(value, ttl)
    assert client.mget([b"a", b"b", b"c"], budget=4 * MAX_VALUE_BYTES) == {b"a": value, b"b": b"text", b"c": value}
    assert client.scan(b"", limit=1, cursor=b"b", budget=4 * MAX_VALUE_BYTES) == page_of([(b"c", value)], b"")


def every_command(deadline: float) -> list[Command]:
    """One of each kind."""
    return [
        Set(KEY, VALUE, 0, deadline),
        Get(KEY, deadline),
        Delete(KEY, deadline),
        MSet({KEY: VALUE}, 0, deadline),
        MGet([KEY], budget=PLENTY, deadline=deadline),
        MDelete([KEY], deadline),
        Scan(b"", budget=PLENTY, deadline=deadline),
        ConditionalSet(SetValue(KEY, VALUE), Condition(ABSENT), deadline),
        ConditionalDelete(DeleteKey(KEY), Condition(ABSENT), deadline),
        Touch(TouchKey(KEY, 5), None, deadline),
        Increment(AddNumber(b"number", 1), None, deadline),
        Transact([(KEY, Condition(ABSENT))], [AddNumber(b"number", 1)], deadline),
    ]


# The operations.


def test_one_key(client: Blocking) -> None:
    """Set, replaced, deleted; nothing is wrong with deleting what is not there."""
    assert client.get(KEY) is None
    client.set(KEY, VALUE)
    assert client.get(KEY) == Found(VALUE, 0)
    client.set(KEY, b"")
    assert client.get(KEY) == Found(b"", 0)
    client.delete(KEY)
    client.delete(KEY)
    assert client.get(KEY) is None


def test_many_keys(client: Blocking) -> None:
    """All of a batch; what is not there is left out, and what is asked for twice is given once, in the order asked."""
    client.mset({b"a": b"1", b"b": b"2", b"c": b"3"})
    client.mset({})
    assert list(client.mget([b"c", b"none", b"a", b"c"], budget=PLENTY).items()) == [(b"c", b"3"), (b"a", b"1")]
    client.mdelete([b"a", b"none", b"a"])
    assert client.scan(b"", budget=PLENTY) == page_of([(b"b", b"2"), (b"c", b"3")], b"")
    assert client.mget([], budget=PLENTY) == {}


def test_ttl(doorway: Doorway, client: Blocking) -> None:
    """The seconds that are left, rounded up; from the deadline on the key is there for nobody."""
    client.set(KEY, VALUE, 10)
    client.mset({b"m": VALUE}, 20)
    assert client.get(KEY) == Found(VALUE, 10)
    doorway.storage.time.advance(8_001)
    assert client.get(KEY) == Found(VALUE, 2)
    assert client.get(b"m") == Found(VALUE, 12)
    doorway.storage.time.advance(1_999)
    assert client.get(KEY) is None
    assert client.mget([KEY, b"m"], budget=PLENTY) == {b"m": VALUE}
    assert client.scan(b"", keys_only=True, budget=PLENTY) == page_of([(b"m", b"")], b"")
    client.set(b"m", b"for ever")
    doorway.storage.time.advance(1_000_000)
    assert client.get(b"m") == Found(b"for ever", 0)


def test_conditions(doorway: Doorway, client: Blocking) -> None:
    """Of what is there: nothing is written when one does not hold, and what is there is told of by its etag."""
    free, taken = Condition(ABSENT), Condition(conditions.Test.PRESENT)
    first = client.run(ConditionalSet(SetValue(KEY, VALUE, 10), free))
    assert (first.failed_check, first.only.found, first.revision > 0) == (0, False, True)
    assert client.get(KEY) == Found(VALUE, 10)
    refused = ConditionalSet(SetValue(KEY, b"other"), free)
    assert client.run(refused) == Decided(failed_check=1, etag=etag_of(VALUE))
    assert refused.condition_failed
    mine = Condition(conditions.Test.ETAG, etag_of(VALUE).encode())
    touched = client.run(Touch(TouchKey(KEY, 60), mine))
    assert touched.revision > first.revision
    assert client.get(KEY) == Found(VALUE, 60)
    assert client.run(ConditionalSet(SetValue(KEY, b"2"), Condition(conditions.Test.VALUE, VALUE))).only.found
    assert client.run(ConditionalDelete(DeleteKey(KEY), mine)).etag == etag_of(b"2")
    assert client.run(ConditionalDelete(DeleteKey(KEY), taken)).only.found
    assert client.run(ConditionalDelete(DeleteKey(KEY), taken)) == Decided(failed_check=1)
    assert client.run(Touch(TouchKey(KEY, 60))) == Decided(mutated=(Mutated(),))
    assert client.get(KEY) is None
    client.set(KEY, VALUE, 1)
    doorway.storage.time.advance(1000)
    assert client.run(ConditionalSet(SetValue(KEY, b"new"), free)).failed_check == 0
    assert client.get(KEY) == Found(b"new", 0)
    assert doorway.door.failed_conditions.value == 3


def test_numbers(doorway: Doorway, client: Blocking) -> None:
    """The sum is stored and told; a key keeps its ttl, and a new one gets one."""
    assert client.run(Increment(AddNumber(KEY, 5, 10))).only == Mutated(False, 5, True)
    doorway.storage.time.advance(1000)
    assert client.run(Increment(AddNumber(KEY, -7, 10))).only == Mutated(True, -2, False)
    assert client.get(KEY) == Found(b"-2", 9)
    client.set(KEY, b"text")
    with pytest.raises(NotANumber):
        client.run(Increment(AddNumber(KEY, 1)))
    client.set(KEY, b"%d" % HIGHEST)
    with pytest.raises(NumberOverflow):
        client.run(Increment(AddNumber(KEY, 1)))
    assert client.get(KEY) == Found(b"%d" % HIGHEST, 0)


def test_transactions(client: Blocking) -> None:
    """All or nothing, in order, of what was there before and of what it does itself."""
    client.mset({b"a": b"1", b"b": b"text"})
    checks = [(b"a", Condition(conditions.Test.VALUE, b"1")), (b"c", Condition(ABSENT))]
    mutations = [AddNumber(b"a", 1), SetValue(b"c", b"8"), AddNumber(b"c", 1), DeleteKey(b"b"), TouchKey(b"c", 60)]
    outcome = client.run(Transact(checks, mutations))
    assert [done.value for done in outcome.mutated] == [2, 0, 9, 0, 0]
    assert client.scan(b"", budget=PLENTY).items == [(b"a", b"2"), (b"c", b"9")]
    assert client.get(b"c") == Found(b"9", 60)
    assert client.run(Transact(checks, mutations)) == Decided(failed_check=1, etag=etag_of(b"2"))
    with pytest.raises(NotANumber, match=r"mutations\[1\]"):
        client.run(Transact([], [SetValue(b"d", b"text"), AddNumber(b"d", 1)]))
    assert client.scan(b"", budget=PLENTY).items == [(b"a", b"2"), (b"c", b"9")]


def test_nobody_gets_in_between(doorway: Doorway) -> None:
    """Many at once: one of them gets each free key, and no increment is lost."""
    outcomes = [doorway.submit(Increment(AddNumber(b"n", 1))) for _ in range(50)]
    races = [doorway.submit(ConditionalSet(SetValue(KEY, b"%d" % number), Condition(ABSENT))) for number in range(20)]
    doorway.run()
    assert sorted(outcome.result().only.value for outcome in outcomes) == list(range(1, 51))
    (winner,) = [number for number, outcome in enumerate(races) if not outcome.result().failed_check]
    assert doorway.storage.value(KEY) == b"%d" % winner
    revisions = [outcome.result().revision for outcome in [*outcomes, races[winner]]]
    assert len(set(revisions)) == 51
    assert min(revisions) > 0


def test_scan_pages(client: Blocking) -> None:
    """In byte order, within the prefix and after the cursor; the cursor of the last page is empty."""
    keys = [b"a", b"a\x00", b"aa", b"ab", b"b", "é".encode(), "\U0010ffff".encode()]
    client.mset(dict.fromkeys(reversed(keys), VALUE))
    seen: list[bytes] = []
    cursor = b""
    for _ in keys:
        page = client.scan(b"", cursor=cursor, limit=2, keys_only=True, budget=PLENTY)
        seen += [key for key, _ in page.items]
        cursor = page.next_cursor
        if not cursor:
            break
    assert seen == keys
    assert [key for key, _ in client.scan(b"a", budget=PLENTY).items] == keys[:4]
    assert client.scan(b"a", cursor=b"a\x00", limit=2, budget=PLENTY) == page_of([(b"aa", VALUE), (b"ab", VALUE)], b"")
    assert client.scan(b"b", cursor=b"a", limit=9, budget=PLENTY).items == [(b"b", VALUE)]
    assert client.scan(b"a", cursor=b"b", limit=9, budget=PLENTY) == page_of([], b"")


def test_ranges(client: Blocking) -> None:
    """From start to end, either way, counted, and in folders; a page has the revision of its view."""
    client.mset(dict.fromkeys((b"a", b"b/1", b"b/2", b"c", b"d/1"), b"v"))
    every = client.scan(b"", budget=PLENTY)
    client.set(b"z", b"v", 9)

    def keys(**options: Any) -> list[bytes]:
        return client.scan(b"", budget=PLENTY, **options).keys

    assert keys(start=b"b/2", end=b"d") == [b"b/2", b"c"]
    assert keys(reverse=True, limit=2) == [b"z", b"d/1"]
    assert keys(reverse=True, cursor=b"c") == [b"b/2", b"b/1", b"a"]
    assert client.scan(b"b", count_only=True, budget=PLENTY).counted == 2
    page = client.scan(b"", delimiter=b"/", limit=2, budget=PLENTY)
    assert (page.keys, list(page.prefixes), page.next_cursor) == ([b"a"], [b"b/"], b"b/")
    page = client.scan(b"", delimiter=b"/", cursor=page.next_cursor, with_expiries=True, budget=PLENTY)
    assert (page.keys, list(page.prefixes)) == ([b"c", b"z"], [b"d/"])
    assert page.expiries[0] == 0 < page.expiries[1]
    assert page.revision > every.revision > 0


def test_delete_range(client: Blocking) -> None:
    """All of a range goes, and nothing else; how many there were is told, by a dry run too."""
    client.mset(dict.fromkeys((b"a", b"b/1", b"b/2", b"b/3", b"c"), b"v"))
    before = client.scan(b"", budget=PLENTY).revision
    assert client.run(DeleteRange(b"b/", dry_run=True)) == (3, 0)
    assert client.run(DeleteRange(b"b/", b"b/2", b"b/3")) == (1, before + 1)
    assert client.scan(b"", budget=PLENTY).keys == [b"a", b"b/1", b"b/3", b"c"]
    assert client.run(DeleteRange(b"b/", b"b/2", b"b/3")) == (0, 0)
    assert client.run(DeleteRange(start=b"b")) == (3, before + 2)
    assert client.run(DeleteRange(everything=True)) == (1, before + 3)
    assert client.scan(b"", budget=PLENTY).keys == []
    assert client.get(b"a") is None


def test_budgets(client: Blocking) -> None:
    """A page ends before it is over; what cannot be cut short is refused, in the same words by every backend."""
    client.mset({b"a": b"12345", b"b": b"12345"})
    one = 1 + 5 + ENTRY_OVERHEAD
    assert client.scan(b"", limit=9, budget=2 * one - 1) == page_of([(b"a", b"12345")], b"a")
    assert client.scan(b"", cursor=b"a", budget=one) == page_of([(b"b", b"12345")], b"")
    assert client.scan(b"", limit=9, budget=1).items == [(b"a", b"12345")]
    assert len(client.scan(b"", budget=2 * one).items) == 2
    with pytest.raises(ResponseTooLarge, match=f"prefix: the answer exceeds {2 * one - 1} bytes"):
        client.scan(b"", budget=2 * one - 1)
    assert len(client.mget([b"a", b"b"], budget=2 * one)) == 2
    with pytest.raises(ResponseTooLarge, match=f"exceed {2 * one - 1} bytes"):
        client.mget([b"a", b"b"], budget=2 * one - 1)


def test_the_largest(client: Blocking) -> None:
    """What the limits let through is kept as it is."""
    key, value = b"k" * MAX_KEY_BYTES, b"v" * MAX_VALUE_BYTES
    client.set(key, value)
    assert client.get(key) == Found(value, 0)
    assert client.scan(key, budget=PLENTY).items == [(key, value)]


def test_limits_are_the_door_s(backend: str) -> None:
    """What is over them never reaches the backend."""
    doorway = Doorway(limits=Limits(max_batch_keys=2))
    client = doorway.blocking()
    for command in (Set(b"", VALUE), Get(b"k" * (MAX_KEY_BYTES + 1)), Set(KEY, b"v" * (MAX_VALUE_BYTES + 1))):
        with pytest.raises((InvalidKey, TooLarge)):
            client.run(command)
    with pytest.raises(TooLarge):
        client.mget([b"a", b"b", b"c"], budget=PLENTY)
    assert doorway.door.waiting == doorway.pool.waiting == 0


# How it answers.


def test_results_are_made_ready_where_they_are_made(doorway: Doorway) -> None:
    """`encode` makes the result, and what it weighed before is known; what it raises is the command's error."""
    doorway.blocking().mset({b"a": b"12", b"b": b"3"})

    def refuse(result: Any) -> Any:
        raise StorageError("not text")

    for command in (MGet([b"a", b"b"], budget=PLENTY), Scan(b"", budget=PLENTY)):
        command.encode = repr
        result = doorway.blocking().run(command)
        assert isinstance(result, str)
        assert command.answered == (3 if type(command) is MGet else 5)
    with pytest.raises(StorageError, match="not text"):
        doorway.blocking().run(Get(b"a", encode=refuse))


def test_what_its_time_is_over_for(doorway: Doorway) -> None:
    """A read that is taken up after its deadline is not begun. A write is not, or it goes in and says so."""
    soon = time.monotonic() + 0.005
    outcomes = [doorway.submit(command) for command in every_command(soon)]
    time.sleep(0.01)
    doorway.run()
    for outcome in outcomes:
        assert outcome.done is not None
        error = outcome.done.error
        assert isinstance(error, DeadlineExceeded) or (error is None and outcome.done.writes)
    assert doorway.admission.in_flight == 0


def test_what_nobody_waits_for(doorway: Doorway) -> None:
    """Reads are left out and writes go in; both are settled."""
    commands = [Get(KEY), MGet([KEY], budget=PLENTY), Scan(b"", budget=PLENTY), Set(KEY, VALUE)]
    for command in commands:
        command.awaited = lambda: False
    outcomes = [doorway.submit(command) for command in commands]
    doorway.run()
    assert [outcome.result() for outcome in outcomes] == [None] * 4
    assert doorway.storage.data() == {KEY: VALUE}


@pytest.mark.parametrize("error", [StorageError("broken"), Unavailable("gone"), ValueError("a defect")])
def test_failures(doorway: Doorway, error: Exception) -> None:
    """What a command fails with is its error; others, and later ones, are carried out. Nothing of a batch is kept."""
    doorway.blocking().set(b"before", VALUE)
    doorway.storage.engine.slow = True
    doorway.storage.engine.fail("write", error, times=1)
    with pytest.raises(type(error)):
        doorway.blocking().mset({b"a": VALUE, b"b": VALUE})
    for method, command in [
        ("get", Get(b"before")),
        ("multi_get", MGet([b"before"], budget=PLENTY)),
        ("scan", Scan(b"", budget=PLENTY)),
    ]:
        doorway.storage.engine.fail(method, error, times=1)
        with pytest.raises(type(error)):
            doorway.blocking().run(command)
    assert doorway.blocking().scan(b"", budget=PLENTY).items == [(b"before", VALUE)]
    doorway.blocking().set(b"after", VALUE)
    assert doorway.blocking().get(b"after") == Found(VALUE, 0)
    assert doorway.admission.in_flight == 0


def test_each_is_settled_once(doorway: Doorway) -> None:
    """Of many that come together, over few keys: in any order, each once; what was settled is seen by what follows."""
    rng = random.Random(14)
    keys = [b"%d" % number for number in range(5)]
    known: dict[bytes, bytes | None] = dict.fromkeys(keys)
    for turn in range(40):
        chosen = rng.sample(keys, 4)
        asked: list[tuple[bytes, Outcome]] = []
        for number, key in enumerate(chosen):
            kind = rng.randrange(4)
            value = b"%d.%d" % (turn, number)
            if kind == 0:
                asked.append((key, doorway.submit(Set(key, value))))
                known[key] = value
            elif kind == 1:
                asked.append((key, doorway.submit(Delete(key))))
                known[key] = None
            else:
                read = Get(key) if kind == 2 else MGet([key], budget=PLENTY)
                asked.append((key, doorway.submit(read)))
        doorway.run()
        # An Outcome refuses to be told twice.
        for key, outcome in asked:
            result = outcome.result()
            command = outcome.done
            if type(command) is Get:
                assert (result and result.value) == known[key]
            elif type(command) is MGet:
                assert result.get(key) == known[key]
    assert doorway.storage.data() == {key: value for key, value in sorted(known.items()) if value is not None}
    assert (doorway.door.waiting, doorway.admission.in_flight) == (0, 0)


def test_order_on_a_key(doorway: Doorway) -> None:
    """Who waits for each answer sees their own writes, whoever else writes other keys meanwhile."""
    told: list[bytes | None] = []

    def write(number: int) -> None:
        if number < 30:
            command = Set(KEY, b"%d" % number) if number % 7 != 6 else Delete(KEY)
            doorway.session.submit(command, lambda _: doorway.session.submit(Get(KEY), read(number)))

    def read(number: int) -> Any:
        def done(command: Command) -> None:
            told.append(command.result and command.result.value)
            write(number + 1)

        return done

    write(0)
    others = [doorway.submit(Set(b"other%d" % number, VALUE)) for number in range(100)]
    while len(told) < 30:
        doorway.run()
    assert told == [None if number % 7 == 6 else b"%d" % number for number in range(30)]
    assert all(outcome.done for outcome in others)


def test_a_batch_is_seen_whole(doorway: Doorway) -> None:
    """Batches over the same keys, and reads of them, all at once: one view sees one batch."""
    keys = [b"%d" % number for number in range(10)]
    reads = []
    for number in range(30):
        doorway.submit(MSet(dict.fromkeys(keys, b"%d" % number)))
        reads += [doorway.submit(MGet(keys, budget=PLENTY)), doorway.submit(Scan(b"", budget=PLENTY))]
    doorway.run()
    for outcome in reads:
        result = outcome.result()
        values = list(result.values()) if isinstance(result, dict) else [value for _, value in result.items]
        assert len(values) in (0, len(keys))
        assert len(set(values)) <= 1


# The rest of the port.


def test_what_memory_has(doorway: Doorway, client: Blocking) -> None:
    """What is told at once is what a Get would be told."""
    client.set(KEY, VALUE)
    known, found = doorway.backend.get_now(KEY)
    assert (known, found) in [(True, Found(VALUE, 0)), (False, None)]
    entry = doorway.backend.hot(KEY)
    assert entry is None or entry.answer in (None, Found(VALUE, 0))


def test_waiting(doorway: Doorway) -> None:
    """Commands that nothing has taken up yet are counted, and no others."""
    assert doorway.door.waiting == 0
    for command in every_command(time.monotonic() + 60):
        doorway.submit(command)
    assert doorway.door.waiting == len(every_command(0))
    doorway.run()
    assert doorway.door.waiting == 0


def test_health(doorway: Doorway) -> None:
    """The server's own conditions, then whether the storage can be read."""
    assert doorway.door.health() is None
    doorway.health.fail("disk", "the disk is full")
    assert doorway.door.health() == "the disk is full"
    doorway.health.recover("disk")
    doorway.storage.engine.fail("get", StorageError("it cannot be read"))
    assert doorway.door.health() == "it cannot be read"
    doorway.storage.engine.heal("get")
    assert doorway.door.health() is None
    assert doorway.recorder.health_checks == 4


def test_stop(doorway: Doorway) -> None:
    """What is under way is settled, once and with an answer of some kind."""
    outcomes = [doorway.submit(command) for command in every_command(time.monotonic() + 60)]
    doorway.reactor.turn()
    doorway.backend.stop()
    doorway.run()
    for outcome in outcomes:
        assert outcome.done is not None
        assert outcome.done.error is None or isinstance(outcome.done.error, KvError)
    assert doorway.admission.in_flight == 0


def test_it_says_what_it_can(doorway: Doorway) -> None:
    """By names; the ten operations need none."""
    assert all(isinstance(name, str) for name in doorway.backend.capabilities)


def test_commands_of_one_turn_are_told_together_or_not(doorway: Doorway) -> None:
    """The door tells each command's own waiter, and those who flush after each group of them."""
    flushed: list[int] = []
    done: list[Command] = []
    doorway.door.on_settled(lambda: flushed.append(len(done)))
    commands: Sequence[Command] = every_command(time.monotonic() + 60)
    for command in commands:
        doorway.session.submit(command, done.append)
    doorway.run()
    assert sorted(map(id, done)) == sorted(map(id, commands))
    assert flushed == sorted(flushed)
    assert flushed[-1] == len(commands)
